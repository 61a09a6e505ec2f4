"""Masks: which pixels of a picture are foreground, or which label they have.

Black and white masks come with grey borders from resizing and from JPEG: they are thresholded above 127, and the
manifest records the share of grey pixels. Refused as not black and white are a mask with more than a quarter of grey
pixels, and a dataset in which most masks have more than 2 % of pixels near the threshold. Alpha is ignored; RGB with
equal channels counts as grey; palettes are looked up.

Refused is also a lossless mask that seems to hold labels, since a threshold would merge them: few values, one of them
grey over an area, not only along borders as after resizing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

from nnunet_attn.dataset_conversion.pictures import encode_pair, open_picture, orientation, refuse_deep
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.errors import UserError

MOST_GREY = 0.25  # share of pixels that are neither black nor white, in one mask
NEAR = (96, 160)  # grey values near the threshold
MOST_NEAR = 0.02  # share of pixels near the threshold, in most masks of a dataset
BLACK_IN_JPEG = 16  # highest value that compression may turn black into
MOST_LABELS = 8  # different values of a mask of labels; borders and compression leave more, or no areas
# grey values that may be labels; CVC-ClinicDB's black and white masks hold blots of 9 to 20
LABEL_VALUES = {*range(1, 4), *range(32, 224)}
EMPTY, FULL = "masks without foreground", "masks of foreground alone"

Facts = dict[str, float | str]


def _grey(picture: Image.Image, content: Content) -> np.ndarray:
    """A mask as one 8-bit channel: its grey values, or, if it is black and one colour, 255 where it is not black."""
    refuse_deep(picture, content)
    if orientation(picture) != 1:
        raise UserError(f"{content} is a mask with an EXIF orientation tag; rotate its pixels and drop the tag first")
    if picture.mode == "1":
        return np.asarray(picture, np.uint8) * 255
    if picture.mode in ("RGBA", "LA"):
        alpha = picture.getchannel("A").getextrema()
        picture = picture.convert(picture.mode[:-1])
        if alpha[0] != alpha[1] and not any(high for _, high in np.atleast_2d(picture.getextrema())):
            raise UserError(
                f"{content} is black everywhere; the mask seems to be in its alpha channel: save it as black and white"
            )
    if picture.mode == "P":
        picture = picture.convert("RGB")
    if picture.mode == "L":
        return np.asarray(picture)
    if picture.mode != "RGB":
        raise UserError(f"{content} is a mask of mode {picture.mode}; expected black and white")
    red, green, blue = (np.asarray(channel) for channel in picture.split())
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    colours = picture.getcolors(2) or []
    if not picture.info.get("lossy") and len(colours) == 2 and (0, 0, 0) in [colour for _, colour in colours]:
        return ((red | green | blue) > 0) * np.uint8(255)
    raise UserError(f"{content} is a coloured mask; expected black and white, or black and one colour")


def _counted(label: np.ndarray) -> Counter[str]:
    return Counter({EMPTY: int(not label.any()), FULL: int(label.all())})


def _grey_areas(grey: np.ndarray, values: Sequence[int]) -> list[int]:
    """The values of labels in a lossless mask: grey values that fill a square of 3 x 3 pixels, if values are few."""
    if not 2 < len(values) <= MOST_LABELS:
        return []
    square = np.ones((3, 3))
    return [v for v in values if v in LABEL_VALUES and ndimage.binary_erosion(grey == v, square).any()]


def read_mask(content: Content) -> tuple[np.ndarray, Counter[str], Facts]:
    """A black and white mask as labels 0 and 1, with counted remarks for the user and facts for the manifest.

    Args:
        content: The file: grey, palette, RGB or 1-bit, with 0 and 255, or 0 and 1.

    Raises:
        UserError: The mask holds other values, too many grey ones, or labels.
    """
    picture = open_picture(content)
    lossy = picture.info["lossy"]
    grey = _grey(picture, content)
    histogram = np.array(Image.fromarray(grey).histogram())  # bincount would make a 64-bit copy
    values = [int(value) for value in np.flatnonzero(histogram)]
    found = f"the values {values}" if len(values) <= 5 else f"{len(values)} different values"
    if not lossy and values[-1] == 1:
        return grey, +_counted(grey), {"values": "0 and 1"}
    if 0 < values[-1] <= 127 and not (lossy and values[-1] <= BLACK_IN_JPEG):
        raise UserError(
            f"{content} is not a black and white mask: no pixel is above 127, and not all are 0 ({found}); for masks "
            "of labels see 'nnunet-attn convert pictures --labels'"
        )
    if not lossy and _grey_areas(grey, values):
        raise UserError(
            f"{content} is not a black and white mask: it has areas of grey, as masks of labels have (the values "
            f"{values}); name them, see 'nnunet-attn convert pictures --labels'"
        )
    label, between = (grey > 127).astype(np.uint8), int(histogram[1:255].sum())
    if between > MOST_GREY * grey.size:
        raise UserError(
            f"{content} is not a black and white mask: {between / grey.size:.1%} of its pixels are neither 0 nor 255 "
            f"({found}); at most {MOST_GREY:.0%} is accepted"
        )
    facts: Facts = {"values": "0 and 255"} if values[-1] else {}
    if between:
        near = int(histogram[NEAR[0] : NEAR[1] + 1].sum())
        facts |= {"grey": round(between / grey.size, 6), "near_threshold": round(near / grey.size, 6)}
    return label, +_counted(label), facts


def check_binary(facts: Mapping[File, Mapping[str, float | str]]) -> list[str]:
    """Check that the masks of a dataset (facts by file) are black and white; returns notes.

    Raises:
        UserError: Most have many pixels near the threshold, or some hold 0 and 1 where others hold 0 and 255.
    """
    near = [file for file, fact in facts.items() if float(fact.get("near_threshold", 0)) > MOST_NEAR]
    if len(near) > len(facts) / 2:
        raise UserError(
            f"{near[0]} and {len(near) - 1} more of {len(facts)} masks hold more than {MOST_NEAR:.0%} of pixels "
            f"between {NEAR[0]} and {NEAR[1]}: these are not black and white masks"
        )
    kinds = [[file for file, fact in facts.items() if fact.get("values") == kind] for kind in ("0 and 1", "0 and 255")]
    if all(kinds):
        raise UserError(f"{kinds[0][0]} holds 0 and 1, {kinds[1][0]} holds 0 and 255; all masks should be of one kind")
    grey = {file: float(fact["grey"]) for file, fact in facts.items() if "grey" in fact}
    if not grey:
        return []
    worst = max(grey, key=grey.__getitem__)
    most = f"{max(grey[worst], 0.0001):.2%}, in {worst.name}"
    return [f"{len(grey)} of {len(facts)} masks hold grey pixels and were thresholded above 127; at most {most}"]


def read_instances(content: Content) -> tuple[np.ndarray, Counter[str], Facts]:
    """A mask of numbered instances as labels 0 and 1: every instance is foreground.

    Raises:
        UserError: The mask is a JPEG, whose values are not reliable, or is not a picture of instance numbers.
    """
    picture = open_picture(content)
    if picture.info["lossy"]:
        raise UserError(f"{content} holds instance numbers, which JPEG compression changes; expected a lossless file")
    if orientation(picture) != 1 or picture.mode[:1] not in ("1", "L", "P", "I", "R"):
        raise UserError(f"{content} is a picture of mode {picture.mode}; expected a mask of instance numbers")
    if picture.mode in ("RGBA", "LA"):
        picture = picture.convert(picture.mode[:-1])
    if picture.mode == "RGB" and picture.getcolors(256) is None:
        raise UserError(
            f"{content} holds more than 256 colours, as a photograph does; expected a mask of instance numbers"
        )
    array = np.asarray(picture)
    label = np.asarray(array.any(axis=-1) if array.ndim == 3 else array != 0, dtype=np.uint8)
    return label, +_counted(label), {}


encode_binary = partial(encode_pair, read=read_mask)
