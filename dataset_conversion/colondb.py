"""CVC-ColonDB: 380 colonoscopy frames (300 in the first release) from 15 sequences, with polyp masks.

Which frame belongs to which sequence is not published with the files. Frames are numbered through the sequences, so
folds and the 8-1-1 split keep blocks of twenty neighbouring numbers together (our choice; twenty is the mean length of
a sequence in the first release). Sequences still cross the blocks' ends: scores on these folds remain optimistic.

PraNet tests on all 380 frames after training on other datasets; its circulating list of test names lacks 77 to 97, the
test set does not. ``--split pranet`` therefore makes a dataset of 380 test cases that has nothing to train on.

Reference: Bernal, Sánchez, Vilariño, Towards automatic polyp detection with a polyp appearance model, Pattern
Recognition 45(9), 2012; Tajbakhsh, Gurudu, Liang, Automated polyp detection in colonoscopy videos using shape and
context information, IEEE TMI 35(2), 2016 (380 frames).
"""

import re
import sys

from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.common import Case, Converter, Found, split_by_lists, split_by_tenths
from nnunet_attn.dataset_conversion.pairing import find_pairs, index, pair
from nnunet_attn.dataset_conversion.pictures import encode_pair_with_lossy_mask
from nnunet_attn.dataset_conversion.sources import File

FRAMES, BLOCK = 380, 20
_FIRST_RELEASE = r"(?P<kind>[psc]?)(?P<id>\d+)\.bmp"  # picture N, polyp pN, non-informative region sN, contour cN


def discover(files: list[File]) -> Found:
    bitmaps = [file for file in files if re.fullmatch(_FIRST_RELEASE, file.basename)]
    if any(file.basename.startswith("p") for file in bitmaps):
        layout = "first release: N.bmp with pN.bmp in one folder"
        images = index([f for f in bitmaps if f.basename[0].isdigit()], _FIRST_RELEASE, "57.bmp")
        masks = index([f for f in bitmaps if f.basename[0] == "p"], _FIRST_RELEASE, "p57.bmp")
        pairs = pair(images, masks, "mask pN.bmp")
    else:
        layout, pairs = find_pairs(files, [("images", "masks")], r"\d+", "57.png", prefer=(r"CVC-ColonDB(/|$)",))
    return Found(
        layout,
        [
            Case(f"colondb_{int(key):03d}", (image,), (mask,), f"block{(int(key) - 1) // BLOCK:02d}")
            for key, (image, mask) in sorted(pairs.items(), key=lambda item: int(item[0]))
        ],
    )


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
