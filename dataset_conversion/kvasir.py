"""Kvasir-SEG: 1000 gastroscopy and colonoscopy pictures of polyps, each of another size, with JPEG masks.

JPEG compression turns about one pixel in a hundred of a mask grey; masks are thresholded above 127, and grey pixels are
counted.
Which pictures show the same polyp is not published, so no split can keep them together.

Two test lists circulate: ``colonsegnet``, the 120 of the authors' 880/120 division (in their files the 120 are called
validation), and ``pranet``, 100 other pictures.

Reference: Jha et al., Kvasir-SEG: a segmented polyp dataset, MultiMedia Modeling, 2020, arXiv:1911.07069.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_lists, split_by_tenths
from nnunet_attn.dataset_conversion.masks import check_binary, encode_binary
from nnunet_attn.dataset_conversion.pairing import find_pairs, other_datasets
from nnunet_attn.dataset_conversion.sources import File

TESTS = {
    name: (Path(__file__).parent / "splits" / f"kvasir_{name}_test.txt").read_text(encoding="utf-8").split()
    for name in ("colonsegnet", "pranet")
}


def discover(files: list[File]) -> Found:
    others = other_datasets(files, {"kvasir", "kvasirseg"})
    own = [file for file in files if file not in others]
    missing: dict[str, Sequence[File]] = {}
    layout, pairs, again = find_pairs(
        own, missing, r"c[0-9a-z]{24}", "cju0qkwl35piu0993l0dewei2.jpg", prefer=(r"Kvasir",)
    )
    pairs = {key.lower(): files for key, files in pairs.items()}
    cases = [Case(key, (image,), (mask,), key) for key, (image, mask) in sorted(pairs.items())]
    unneeded = {"the same pictures again": again, "other datasets": others}
    return Found(layout, cases, missing=missing, unneeded=unneeded)


CONVERTER = Converter(
    key="kvasir",
    channels=("R", "G", "B"),
    labels=("polyp",),
    file_ending=".png",
    discover=discover,
    encode=encode_binary,
    check=check_binary,
    splits={
        "8-1-1": split_by_tenths,
        **{name: split_by_lists(lambda case: case.name, test=tests) for name, tests in TESTS.items()},
    },
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("kvasir"))
