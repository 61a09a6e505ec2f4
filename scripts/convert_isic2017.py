"""Convert isic2017 to nnU-Net's raw format; the same as ``nnunet-attn convert isic2017``."""

import sys

from nnunet_attn.dataset_conversion.command import main

if __name__ == "__main__":
    sys.exit(main("isic2017"))
