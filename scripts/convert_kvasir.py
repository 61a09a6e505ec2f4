"""Convert kvasir to nnU-Net's raw format; the same as ``nnunet-attn convert kvasir``."""

import sys

from nnunet_attn.dataset_conversion.command import main

if __name__ == "__main__":
    sys.exit(main("kvasir"))
