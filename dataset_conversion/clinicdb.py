"""CVC-ClinicDB: 612 colonoscopy frames from 29 sequences, with polyp masks.

Frames are numbered through the sequences, and neighbours in a sequence are nearly identical: a split by frames, such as
PraNet's 62 test frames, tests on sequences that were trained on. Folds and the 8-1-1 split here never divide a
sequence. The readme also says that the 29 sequences come from 25 studies, and not which: a study may still be divided.

The sequences are those of the readme that comes with the original (``Original/`` with ``Ground Truth/``), and of
PraNet's 62 test frames, which kept their numbers. Any other copy (``images/`` with ``masks/``) may be renumbered, and
its files do not show whether it is. Grouped folds then need ``--groups``, or ``--original-numbers`` if you know that
the numbers are the original ones.

Reference: Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, Computerized Medical Imaging and
Graphics 43, 2015.
"""

import bisect
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_lists, split_by_tenths
from nnunet_attn.dataset_conversion.masks import check_binary, encode_binary
from nnunet_attn.dataset_conversion.pairing import RENUMBERED, find_pairs, other_datasets
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

# last frame of each sequence
SEQUENCES = (
    25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317, 342, 363, 383, 408, 428, 447, 466, 478, 503,
    528, 546, 571, 591, 612,
)  # fmt: skip
PRANET_TEST = (
    14, 21, 25, 31, 42, 50, 52, 61, 65, 66, 73, 80, 89, 100, 106, 119, 134, 148, 154, 163, 166, 171, 179, 181, 185,
    191, 205, 240, 251, 266, 279, 287, 300, 307, 349, 353, 374, 381, 388, 397, 400, 404, 425, 429, 431, 442, 453,
    459, 464, 474, 481, 483, 492, 526, 529, 545, 555, 559, 561, 569, 571, 575,
)  # fmt: skip
OWN = {"cvcclinicdb", "clinicdb"}


def discover(files: list[File], *, published: bool) -> Found:
    others = other_datasets(files, OWN)
    missing: dict[str, Sequence[File]] = {}
    layout, pairs, again = find_pairs(
        [file for file in files if file not in others],
        missing,
        r"\d+",
        "57.tif",
        prefer=(r"(^|/)TIFF?(/|$)", r"(^|/)PNG(/|$)", r"CVC-ClinicDB(/|$)"),
    )
    cases, original = [], True
    for key, (image, mask) in sorted(pairs.items(), key=lambda item: int(item[0])):
        frame = int(key)
        if not 1 <= frame <= SEQUENCES[-1]:
            raise UserError(f"{image} is not a frame of CVC-ClinicDB, which counts from 1 to {SEQUENCES[-1]}")
        original &= plain(image.folders[-1]) == "original" and plain(mask.folders[-1]) == "groundtruth"
        sequence = bisect.bisect_left(SEQUENCES, frame) + 1
        cases.append(Case(f"clinicdb_{frame:03d}", (image,), (mask,), f"sequence{sequence:02d}"))
    known = original or published or {int(key) for key in pairs} == set(PRANET_TEST)
    if not known:
        cases = [replace(case, group=case.name) for case in cases]
    return Found(
        layout,
        cases,
        kind="sequence" if known else None,
        ungrouped="" if known else RENUMBERED.format("1 to 612"),
        refused={} if known else {"pranet": f"it names frames by number, and {RENUMBERED.format('1 to 612')}"},
        missing=missing,
        unneeded={"the same frames again": again, "other datasets": others},
    )


def make_converter(*, original_numbers: bool = False) -> Converter:
    """The converter; ``original_numbers`` says that a repackaged copy has the original's numbers."""
    return Converter(
        key="clinicdb",
        channels=("R", "G", "B"),
        labels=("polyp",),
        file_ending=".png",
        discover=partial(discover, published=original_numbers),
        encode=encode_binary,
        check=check_binary,
        splits={
            "8-1-1": split_by_tenths,
            "pranet": split_by_lists(lambda case: case.name, test=[f"clinicdb_{n:03d}" for n in PRANET_TEST]),
        },
        options={"original_numbers": original_numbers},
    )


CONVERTER = make_converter()
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("clinicdb"))
