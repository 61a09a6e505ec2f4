"""ISIC 2017, part 1: 2750 dermoscopic pictures of 0.4 to over 20 megapixels, with lesion masks.

The challenge's three parts come as an archive of pictures and one of masks each; all six can be given as they are. The
600 pictures of the test part always become test cases. ``--split official`` keeps the 150 validation pictures as the
only fold's validation; otherwise the folds are drawn from these and the 2000 training pictures together.

Reference: Codella et al., Skin lesion analysis toward melanoma detection: a challenge at the 2017 ISBI, 2018,
arXiv:1710.05006.
"""

import re
import sys
from collections.abc import Sequence

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_parts
from nnunet_attn.dataset_conversion.masks import check_binary, encode_binary
from nnunet_attn.dataset_conversion.pairing import index, is_picture, pair
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

PARTS = {"train": ("training", "train"), "val": ("validation", "valid", "val"), "test": ("testv2", "test")}
_ID = r"(?P<id>ISIC_\d{7})"
_MASK = r"[\s_-]*(segmentation|mask|groundtruth|gt)"
_FOLDER = r"(isic)?(2017)?(challenge)?(isic2017)?(?P<part>training|train|validation|valid|val|testv2|test)"
_REST = r"(data|image|img|input|set|part\d\w*|groundtruth|gt|mask|label)*\d?"


def discover(files: list[File]) -> Found:
    groups: dict[str, tuple[list[File], list[File]]] = {part: ([], []) for part in (*PARTS, "unknown")}
    superpixels: list[File] = []
    cases: list[Case] = []
    missing: dict[str, Sequence[File]] = {}
    for file in files:
        if not is_picture(file):
            continue
        if re.search(r"superpixel", file.stem, re.IGNORECASE):
            superpixels.append(file)
        else:
            groups[_part(file) or "unknown"][_is_mask(file)].append(file)
    unknown = groups.pop("unknown")
    for part, (images, masks) in [*groups.items(), ("train", unknown)]:
        pairs = pair(
            index(images, _ID + r"\.(jpe?g|png)", "ISIC_0000000.jpg"),
            index(masks, _ID + rf"({_MASK})?\.(png|bmp|tiff?|jpe?g)", "ISIC_0000000_segmentation.png"),
            missing,
        )
        cases += [
            Case(key.upper(), (image,), (mask,), key.upper(), part) for key, (image, mask) in sorted(pairs.items())
        ]
    if not cases and not missing:
        raise UserError(
            "SOURCE holds none of the folders ISIC-2017_{Training,Validation,Test_v2}_Data with "
            "ISIC-2017_{Training,Validation,Test_v2}_Part1_GroundTruth; give them, or the archives that hold them"
        )
    notes = []
    if any(unknown):
        notes.append(
            f"no folder name says which part {len(unknown[0])} pictures belong to; they were taken for training"
        )
    return Found(
        "ISIC-2017 folders of pictures and masks",
        cases,
        notes,
        missing=missing,
        unneeded={"superpixels": superpixels},
    )


def _part(file: File) -> str | None:
    """The part (train, val, test) by the nearest folder that names one."""
    for folder in reversed(file.folders):
        match = re.fullmatch(_FOLDER + _REST, plain(folder))
        if match:
            return next(part for part, names in PARTS.items() if match["part"] in names)
    return None


def _is_mask(file: File) -> bool:
    if re.search(_MASK + "$", file.stem, re.IGNORECASE):
        return True
    return re.search(r"(groundtruth|mask|annotation|label|gt)$", plain(file.folders[-1])) is not None


CONVERTER = Converter(
    key="isic2017",
    channels=("R", "G", "B"),
    labels=("lesion",),
    file_ending=".png",
    discover=discover,
    encode=encode_binary,
    check=check_binary,
    splits={"official": split_by_parts(train=(2000,), val=(150,), test=(600,))},
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("isic2017"))
