"""CVC-ColonDB: 380 colonoscopy frames (300 in the first release) from 15 sequences, with polyp masks.

The original is one folder with the frames ``N`` and their masks ``pN``. It also holds contours ``cpN`` (``cN`` in the
first release) and non-informative regions ``sN``, which are not needed. Its readme says which frames belong to which
sequence. Neighbours in a sequence are nearly identical, so folds and the 8-1-1 split never divide one.

Repackaged copies (``images/`` with ``masks/``) may be renumbered, and their files do not show whether they are.
Their sequences are unknown, so grouped folds need ``--groups``, or ``--original-numbers`` if you know that the numbers
are the original ones.

PraNet tests on all 380 frames after training on other datasets. (The published list of its test names lacks 77 to 97;
its test set has them.) ``--split pranet`` therefore makes a dataset of 380 test cases that has nothing to train on.

Reference: Bernal, Sánchez, Vilariño, Towards automatic polyp detection with a polyp appearance model, Pattern
Recognition 45(9), 2012; Tajbakhsh, Gurudu, Liang, Automated polyp detection in colonoscopy videos using shape and
context information, IEEE TMI 35(2), 2016 (380 frames).
"""

import bisect
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_lists, split_by_tenths
from nnunet_attn.dataset_conversion.masks import check_binary, encode_binary
from nnunet_attn.dataset_conversion.pairing import RENUMBERED, find_pairs, index, other_datasets, pair
from nnunet_attn.dataset_conversion.sources import File
from nnunet_attn.errors import UserError

# last frame of each sequence, and its number, from the readme of the release
LAST_FRAMES = (38, 60, 76, 97, 148, 155, 203, 208, 263, 273, 300, 320, 340, 360, 380)
SEQUENCES = (1, 2, 3, 5, 6, 7, 9, 10, 11, 14, 15, 4, 8, 12, 13)
FRAMES = LAST_FRAMES[-1]
OWN = {"cvccolondb", "colondb"}
_ORIGINAL = r"(?P<kind>[psc]?|cp)(?P<id>\d+)\.(bmp|tiff?|png)"


def discover(files: list[File], *, published: bool) -> Found:
    matches = {file: match for file in files if (match := re.fullmatch(_ORIGINAL, file.basename, re.IGNORECASE))}
    kinds = {kind: [f for f, m in matches.items() if m["kind"].lower() == kind] for kind in ("", "p", "c", "cp", "s")}
    original = bool(kinds["p"])
    missing: dict[str, Sequence[File]] = {}
    unneeded: dict[str, Sequence[File]] = {}
    if original:
        layout = "original: frames N and masks pN in one folder"
        images, masks = (index(kinds[kind], _ORIGINAL, f"{kind}57.tiff") for kind in ("", "p"))
        pairs = pair(images, masks, missing)
        contours = [*kinds["c"], *kinds["cp"], *kinds["s"]]
        unneeded["contours and non-informative regions"] = _of(contours, images | masks)
    else:
        unneeded["other datasets"] = other_datasets(files, OWN)
        own = [file for file in files if file not in unneeded["other datasets"]]
        layout, pairs, unneeded["the same frames again"] = find_pairs(
            own, missing, r"\d+", "57.png", prefer=(r"CVC-ColonDB(/|$)",)
        )
    cases = []
    for key, (image, mask) in sorted(pairs.items(), key=lambda item: int(item[0])):
        frame = int(key)
        if not 1 <= frame <= FRAMES:
            raise UserError(f"{image} is not a frame of CVC-ColonDB, which counts from 1 to {FRAMES}")
        sequence = f"sequence{SEQUENCES[bisect.bisect_left(LAST_FRAMES, frame)]:02d}"
        name = f"colondb_{frame:03d}"
        cases.append(Case(name, (image,), (mask,), sequence if original or published else name))
    known = original or published
    ungrouped = "" if known else RENUMBERED.format("1 to 380")
    kind = "sequence" if known else None
    return Found(layout, cases, kind=kind, ungrouped=ungrouped, missing=missing, unneeded=unneeded)


def _of(files: list[File], frames: Mapping[str, File]) -> list[File]:
    """The files that belong to a frame. Others are not part of the dataset; ``Converter`` refuses them later."""
    matches = ((f, re.fullmatch(_ORIGINAL, f.basename, re.IGNORECASE)) for f in files)
    return [f for f, match in matches if match and str(int(match["id"])) in frames]


def make_converter(*, original_numbers: bool = False) -> Converter:
    """The converter; ``original_numbers`` says that a repackaged copy has the original's numbers."""
    return Converter(
        key="colondb",
        channels=("R", "G", "B"),
        labels=("polyp",),
        file_ending=".png",
        discover=partial(discover, published=original_numbers),
        encode=encode_binary,
        check=check_binary,
        splits={
            "8-1-1": split_by_tenths,
            "pranet": split_by_lists(
                lambda case: case.name, train=(), test=[f"colondb_{n:03d}" for n in range(1, FRAMES + 1)]
            ),
        },
        options={"original_numbers": original_numbers},
    )


CONVERTER = make_converter()
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("colondb"))
