"""ISIC 2017, part 1: 2750 dermoscopic pictures of 0.4 to over 20 megapixels, with lesion masks.

The challenge's three parts come as an archive of pictures and one of masks each; they can be given together as they
are. The 600 pictures of the test part always become test cases. ``--split official`` keeps the 150 validation pictures
as the only fold's validation; otherwise they join the 2000 training pictures in five folds.

Reference: Codella et al., Skin lesion analysis toward melanoma detection: a challenge at the 2017 ISBI, 2018,
arXiv:1710.05006.
"""

import re
import sys
from pathlib import PurePosixPath

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_parts
from nnunet_attn.dataset_conversion.pairing import index, pair
from nnunet_attn.dataset_conversion.pictures import SUFFIX, encode_pair
from nnunet_attn.dataset_conversion.sources import File
from nnunet_attn.errors import UserError

PARTS = {"train": "Training", "val": "Validation", "test": "Test_v2"}


def discover(files: list[File]) -> Found:
    pictures = [file for file in files if re.search(SUFFIX + "$", file.basename, re.IGNORECASE)]
    cases = []
    for part, name in PARTS.items():
        images, masks = (
            [f for f in pictures if PurePosixPath(f.parent).name == f"ISIC-2017_{name}_{kind}"]
            for kind in ("Data", "Part1_GroundTruth")
        )
        pairs = pair(
            index(images, r"(?P<id>ISIC_\d{7})\.jpe?g", "ISIC_0000000.jpg", skip=r"ISIC_\d{7}_superpixels\.png"),
            index(masks, r"(?P<id>ISIC_\d{7})_segmentation\.png", "ISIC_0000000_segmentation.png"),
        )
        cases += [Case(key, (image,), (mask,), key, part) for key, (image, mask) in sorted(pairs.items())]
    if not cases:
        raise UserError(
            "SOURCE holds none of the folders ISIC-2017_{Training,Validation,Test_v2}_Data with "
            "ISIC-2017_{Training,Validation,Test_v2}_Part1_GroundTruth; give them, or the archives that hold them"
        )
    return Found("original: ISIC-2017 folders of pictures and masks", cases)


CONVERTER = Converter(
    key="isic2017",
    channels=("R", "G", "B"),
    labels=("lesion",),
    file_ending=".png",
    discover=discover,
    encode=encode_pair,
    splits={"official": split_by_parts(train=(2000,), val=(150,), test=(600,))},
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("isic2017"))
