"""CVC-ColonDB: 380 colonoscopy frames (300 in the first release) from 15 sequences, with polyp masks.

The original is one folder: the frames ``N``, their masks ``pN``, and what is not needed: contours ``cpN`` (``cN`` in
the first release) and non-informative regions ``sN``. Its readme says which frames belong to which sequence. Neighbours
in a sequence are nearly identical, so folds and the 8-1-1 split never divide one.

Repackaged copies (``images/`` with ``masks/``) may be renumbered, and nothing in them tells: their sequences are
unknown, and grouped folds need ``--groups``.

PraNet tests on all 380 frames after training on other datasets; its circulating list of test names lacks 77 to 97, the
test set does not. ``--split pranet`` therefore makes a dataset of 380 test cases that has nothing to train on.

Reference: Bernal, Sánchez, Vilariño, Towards automatic polyp detection with a polyp appearance model, Pattern
Recognition 45(9), 2012; Tajbakhsh, Gurudu, Liang, Automated polyp detection in colonoscopy videos using shape and
context information, IEEE TMI 35(2), 2016 (380 frames).
"""

import bisect
import re
import sys

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_lists, split_by_tenths
from nnunet_attn.dataset_conversion.pairing import find_pairs, index, pair
from nnunet_attn.dataset_conversion.pictures import encode_pair_with_lossy_mask
from nnunet_attn.dataset_conversion.sources import File
from nnunet_attn.errors import UserError

# last frame of each sequence, and its number, from the readme of the release
LAST_FRAMES = (38, 60, 76, 97, 148, 155, 203, 208, 263, 273, 300, 320, 340, 360, 380)
SEQUENCES = (1, 2, 3, 5, 6, 7, 9, 10, 11, 14, 15, 4, 8, 12, 13)
FRAMES = LAST_FRAMES[-1]
_ORIGINAL = r"(?P<kind>[psc]?|cp)(?P<id>\d+)\.(bmp|tiff?)"


def discover(files: list[File]) -> Found:
    matches = {file: match for file in files if (match := re.fullmatch(_ORIGINAL, file.basename, re.IGNORECASE))}
    kinds = {kind: [f for f, m in matches.items() if m["kind"].lower() == kind] for kind in ("", "p")}
    original = bool(kinds["p"])
    if original:
        layout = "original: frames N and masks pN in one folder"
        images, masks = (index(kinds[kind], _ORIGINAL, f"{kind}57.tiff") for kind in kinds)
        pairs = pair(images, masks, "mask")
    else:
        layout, pairs = find_pairs(files, [("images", "masks")], r"\d+", "57.png", prefer=(r"CVC-ColonDB(/|$)",))
    cases = []
    for key, (image, mask) in sorted(pairs.items(), key=lambda item: int(item[0])):
        frame = int(key)
        if not 1 <= frame <= FRAMES:
            raise UserError(f"{image} is no frame of CVC-ColonDB, which counts from 1 to {FRAMES}")
        group = f"sequence{SEQUENCES[bisect.bisect_left(LAST_FRAMES, frame)]:02d}" if original else key
        cases.append(Case(f"colondb_{frame:03d}", (image,), (mask,), group))
    if original:
        return Found(layout, cases, kind="sequence")
    why = "this is a repackaged copy, whose frames may be renumbered: nothing tells which are of the same sequence"
    return Found(layout, cases, ungrouped=why)


CONVERTER = Converter(
    key="colondb",
    channels=("R", "G", "B"),
    labels=("polyp",),
    file_ending=".png",
    discover=discover,
    encode=encode_pair_with_lossy_mask,
    splits={
        "8-1-1": split_by_tenths,
        "pranet": split_by_lists(
            lambda case: case.name, train=(), test=[f"colondb_{n:03d}" for n in range(1, FRAMES + 1)]
        ),
    },
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("colondb"))
