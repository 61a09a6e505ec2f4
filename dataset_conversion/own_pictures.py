"""Any 2D dataset: pictures and masks that pair by name.

Masks are black and white, or hold a value for each label (``--labels``), or a colour (``--colours``). Pictures are
written as RGB, or with one grey channel if all of them are grey; 16-bit grey pictures keep their values.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageColor

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.catalog import OWN_PICTURES
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.masks import EMPTY, check_binary, read_mask
from nnunet_attn.dataset_conversion.own_names import case_names, matches, pair_by_name, parse_labels, value_lookup
from nnunet_attn.dataset_conversion.pairing import is_picture
from nnunet_attn.dataset_conversion.pictures import (
    ReadMask,
    as_rgb,
    encode_png,
    encode_with_label,
    open_picture,
    orientation,
)
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.errors import UserError

CHANNELS = {"rgb": ("R", "G", "B"), "grey": ("grey",)}
_LOOKED_AT = 16  # number of pictures that are read to decide whether all are grey


def discover(files: list[File], *, patterns: Sequence[str], test: int, channels: str, read: ReadMask) -> Found:
    """Pair images with masks (the first two paths), then test images with their masks.

    Args:
        files: The source.
        patterns: One pattern for each path that was given; an empty one selects all files.
        test: How many of the paths are for testing: 0, 1 (images alone) or 2.
        channels: ``rgb``, ``grey`` or ``auto``.
        read: Reads a mask.
    """
    chosen = choose(files, patterns, is_picture)
    cases: list[Case] = []
    missing: dict[str, Sequence[File]] = {}
    for part, first in (("train", 0), ("test", 2)):
        images = chosen[first] if first < len(patterns) else []
        if part == "test" and not test:
            break
        if not images:
            raise UserError(f"there are no PNG, JPEG, BMP or TIFF pictures in what was given as {part} images")
        if first + 1 < len(patterns):
            masks = chosen[first + 1]
            if not masks:
                raise UserError(f"there are no PNG, JPEG, BMP or TIFF pictures in what was given as {part} masks")
            pairs: dict[File, File | None] = {**pair_by_name(images, masks, missing, "mask")}
        else:
            pairs = dict.fromkeys(images)
        names = case_names(list(pairs))
        for name, (image, mask) in zip(names, pairs.items(), strict=True):
            cases.append(Case(name, (image,), (mask,) if mask else (), name, part))
    if channels == "auto":
        step = max(1, len(cases) // _LOOKED_AT)
        grey = all(_is_grey(case.image[0]) for case in cases[::step])
        channels = "grey" if grey else "rgb"
    return Found(
        "pictures and masks that pair by name",
        cases,
        channels=CHANNELS[channels],
        encode=partial(encode, read=read, channels=channels),
        missing=missing,
        unneeded={"not chosen by the patterns": left_over(files, patterns, chosen)},
    )


def choose(files: Sequence[File], patterns: Sequence[str], wanted: Callable[[File], bool]) -> list[list[File]]:
    """Files of each path that match its pattern; of several patterns for the same folder, the last match counts.

    Raises:
        UserError: The same folder was given twice without patterns that tell the files apart.
    """
    chosen: list[list[File]] = [[] for _ in patterns]
    for file in files:
        if wanted(file) and matches(file, patterns[file.origin]):
            chosen[file.origin].append(file)
    for later in range(len(patterns) - 1, 0, -1):
        taken = {file.shown for file in chosen[later]}
        for earlier in range(later):
            both = [file for file in chosen[earlier] if file.shown in taken]
            if both and not patterns[later]:
                raise UserError(
                    f"{both[0]} would be image and mask at once: use separate folders, or a pattern for the masks "
                    "such as "
                    "'FOLDER/*_mask.png'"
                )
            chosen[earlier] = [file for file in chosen[earlier] if file.shown not in taken]
    return chosen


def left_over(files: Sequence[File], patterns: Sequence[str], chosen: Sequence[Sequence[File]]) -> list[File]:
    """Files of paths with a pattern that match no pattern."""
    taken = {file.shown for group in chosen for file in group}
    patterned = {file.container for file in files if patterns[file.origin]}
    rest = [file for file in files if file.container in patterned and file.shown not in taken]
    return list(dict.fromkeys(rest))  # a folder that was given twice lists its files twice


def _is_grey(file: File) -> bool:
    picture = open_picture(Content(str(file), file.read()))
    if picture.mode in ("RGB", "RGBA", "P"):
        red, green, blue = picture.convert("RGB").split()
        return red.tobytes() == green.tobytes() == blue.tobytes()
    return True


def as_grey(picture: Image.Image, content: Content) -> tuple[Image.Image, Counter[str]]:
    """One channel, of 8 or 16 bits.

    Raises:
        UserError: The picture has colours, or values that a PNG cannot hold.
    """
    if picture.mode.startswith("I;16"):
        return picture, Counter()
    if picture.mode in ("RGB", "P"):
        picture, _ = as_rgb(picture, content)
        red, green, blue = picture.split()
        if not red.tobytes() == green.tobytes() == blue.tobytes():
            raise UserError(f"{content} has colours, while other pictures are grey; give --channels rgb")
        return red, Counter()
    if picture.mode in ("LA", "RGBA"):
        return as_grey(as_rgb(picture, content)[0], content)
    if picture.mode != "L":
        raise UserError(f"{content} is a picture of mode {picture.mode}; expected grey values of 8 or 16 bits")
    return picture, Counter()


def _values(content: Content) -> np.ndarray:
    picture = open_picture(content)
    if picture.info["lossy"]:
        raise UserError(f"{content} is a JPEG, whose compression changes label values; expected a lossless file")
    if orientation(picture) != 1:
        raise UserError(f"{content} is a mask with an EXIF orientation tag; rotate its pixels and drop the tag first")
    if picture.mode in ("RGBA", "LA"):
        picture = picture.convert(picture.mode[:-1])
    if picture.mode == "1":
        return np.asarray(picture, np.uint8)
    array = np.asarray(picture)  # for a palette picture, the indices
    if array.ndim == 3:
        if (array != array[..., :1]).any():
            raise UserError(f"{content} is a coloured mask; give --colours name=red,green,blue")
        array = array[..., 0]
    if array.dtype.kind not in "ui":
        raise UserError(f"{content} holds {array.dtype} values; expected whole numbers")
    return array


def read_values(content: Content, *, lookup: Mapping[int, int]) -> tuple[np.ndarray, Counter[str], dict]:
    """A mask that holds a value for each label.

    Raises:
        UserError: A value is not in ``lookup``.
    """
    array = _values(content)
    table = np.full(1 << 16, 255, np.uint8)
    for value, new in lookup.items():
        table[value] = new
    unknown = sorted({int(v) for v in np.unique(array)} - lookup.keys())
    if unknown:
        raise UserError(f"{content} holds the values {unknown[:10]}, and --labels names {sorted(lookup)}")
    label = table[array]
    return label, +Counter({EMPTY: int(not label.any())}), {}


def read_colours(
    content: Content, *, lookup: Mapping[tuple[int, int, int], int]
) -> tuple[np.ndarray, Counter[str], dict]:
    """A mask that holds a colour for each label.

    Raises:
        UserError: A colour is not in ``lookup``.
    """
    picture = open_picture(content)
    if picture.info["lossy"]:
        raise UserError(f"{content} is a JPEG, whose compression changes label colours; expected a lossless file")
    if orientation(picture) != 1 or picture.mode.startswith(("I", "F")):
        raise UserError(f"{content} is not a mask of 8-bit colours, or has an orientation tag")
    array = np.asarray(picture.convert("RGB")).astype(np.uint32)
    codes = array[..., 0] << 16 | array[..., 1] << 8 | array[..., 2]
    label, unknown = np.zeros(codes.shape, np.uint8), np.ones(codes.shape, bool)
    for (red, green, blue), new in lookup.items():
        here = codes == (red << 16 | green << 8 | blue)
        label[here] = new
        unknown &= ~here
    if unknown.any():
        y, x = np.argwhere(unknown)[0]
        raise UserError(
            f"{content} holds the colour {','.join(map(str, array[y, x]))} (at x {x}, y {y}; {unknown.mean():.2%} "
            "of the pixels have such colours), which --colours does not name"
        )
    return label, +Counter({EMPTY: int(not label.any())}), {}


def _colour(text: Sequence[str], name: str) -> tuple[int, int, int]:
    joined = ",".join(text)
    try:
        if re.fullmatch(r"\d{1,3}(,\d{1,3}){2}", joined) and max(map(int, text)) < 256:
            red, green, blue = map(int, text)
            return red, green, blue
        return ImageColor.getrgb(joined)[:3]
    except ValueError as error:
        raise UserError(
            f"--colours: {joined!r} of {name} is not a colour; write red,green,blue from 0 to 255"
        ) from error


def encode(images: tuple[Content, ...], labels: tuple[Content, ...], *, read: ReadMask, channels: str) -> Encoded:
    """Picture and mask of a case; for a test case without a mask, the picture only."""
    convert = partial(_as_channels, channels=channels)
    if labels:
        label, notes, facts = read(labels[0])
        return encode_with_label(images[0], label, labels[0], notes, facts, convert)
    picture = open_picture(images[0])
    if orientation(picture) != 1:
        raise UserError(
            f"{images[0]} has an EXIF orientation tag, and no mask shows whether to apply it; rotate its pixels and "
            "drop the tag first"
        )
    picture, notes = convert(picture, images[0])
    shape = picture.size[::-1]
    return Encoded((encode_png(picture),), None, shape, {}, notes)


def _as_channels(picture: Image.Image, content: Content, *, channels: str) -> tuple[Image.Image, Counter[str]]:
    if channels == "grey":
        return as_grey(picture, content)
    return as_rgb(picture, content)


def make_converter(
    *,
    patterns: Sequence[str] = ("", ""),
    test: int = 0,
    labels: Sequence[str] = (),
    colours: Sequence[str] = (),
    channels: str = "auto",
) -> Converter:
    """The converter for pictures and masks of the user's own.

    Args:
        patterns: One for each path: images, masks, test images, test masks.
        test: How many of the paths are for testing.
        labels: ``name=value`` for masks that hold a value for each label.
        colours: ``name=red,green,blue`` for masks that hold a colour for each label.
        channels: ``rgb``, ``grey``, or ``auto``: grey if all pictures are grey.

    Raises:
        UserError: The arguments do not fit together.
    """
    if labels and colours:
        raise UserError("give either --labels or --colours: a mask holds values or colours")
    named = parse_labels(colours or labels)
    names = tuple(name for name in named if name != "background") or ("foreground",)
    read = read_mask
    if labels:
        read = partial(read_values, lookup=value_lookup(named))
    elif colours:
        order = ["background", *names]
        lookup = {_colour(named.get(name, ("0", "0", "0")), name): i for i, name in enumerate(order)}
        if len(lookup) < len(order):
            raise UserError("--colours: two labels have the same colour")
        read = partial(read_colours, lookup=lookup)
    return Converter(
        key="pictures",
        channels=CHANNELS["rgb"],
        labels=names,
        file_ending=".png",
        discover=partial(discover, patterns=tuple(patterns), test=test, channels=channels, read=read),
        encode=partial(encode, read=read, channels=channels),
        check=None if named else check_binary,
        options={
            "patterns": list(patterns),
            "test": test,
            "labels": list(labels),
            "colours": list(colours),
            "channels": channels,
        },
        about=OWN_PICTURES,
    )
