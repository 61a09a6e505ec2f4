"""Pictures and their masks: photographs to 8-bit RGB PNG, masks to PNG with labels, and nothing silently wrong.

What could be read in more than one way is refused with the reason: 16-bit channels (which window?), alpha that is not
opaque, several frames, orientations that the mask cannot confirm, masks that are neither black and white nor 0 and 1.
nnU-Net reads one PNG with three channels per case; JPEG it does not read, since lossy compression spoils labels.
"""

import io
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIX = r"\.(png|jpe?g|bmp|tiff?)"  # of their files, as a pattern
LOSSY_EDGES = 0.05  # share of pixels that JPEG may have moved off black and white; real masks have up to 0.015
_ORIENTATION = 274  # EXIF tag
_BITS = 258  # TIFF tag: bits per channel


def open_picture(content: Content) -> Image.Image:
    """Read a picture completely.

    Raises:
        UserError: It is no picture of ``FORMATS``, is truncated or damaged, or holds several frames.
    """
    try:
        with Image.open(io.BytesIO(content.data), formats=FORMATS) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise UserError(f"{content} holds {picture.n_frames} frames; a single picture is expected")
            orientation = picture.getexif().get(_ORIENTATION, 1)
            if picture.format == "TIFF" and orientation != 1:  # Pillow would turn it while it loads
                raise UserError(f"{content} asks to be turned when shown (orientation {orientation}); turn it first")
            picture.load()
            return picture
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error) as error:
        reason = "no PNG, JPEG, BMP or TIFF" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserError(f"{content} is not a complete picture ({reason}); download it again") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{content} is larger than any picture of the dataset ({error})") from error


def _refuse_deep(picture: Image.Image, content: Content) -> None:
    """Pillow reduces 16-bit RGB to 8 bits without a word, so the file's own header is asked."""
    bits = [8]
    if picture.format == "PNG":
        bits = [content.data[24]]
    elif picture.format == "TIFF":
        bits = picture.tag_v2.get(_BITS, (1,))
    if max(bits) > 8 or picture.mode.startswith(("I", "F")):
        raise UserError(
            f"{content} has more than 8 bits per channel; which window to reduce it by is not known, so it is refused"
        )


def _without_alpha(picture: Image.Image, content: Content) -> Image.Image:
    if picture.mode in ("RGBA", "LA"):
        if picture.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{content} is partly transparent; what lies behind is not known, so it is refused")
        return picture.convert(picture.mode[:-1])
    if "transparency" in picture.info:
        raise UserError(f"{content} has a transparent colour; what lies behind is not known, so it is refused")
    return picture


def as_rgb(picture: Image.Image, content: Content) -> tuple[Image.Image, Counter[str]]:
    """The picture as 8-bit RGB, and a count if it was grey.

    Raises:
        UserError: It cannot be had without guessing.
    """
    _refuse_deep(picture, content)
    picture = _without_alpha(picture, content)
    if picture.mode == "RGB":
        return picture, Counter()
    if picture.mode == "L":
        return picture.convert("RGB"), Counter({"grey pictures, written with three equal channels": 1})
    if picture.mode == "P":
        return picture.convert("RGB"), Counter()
    raise UserError(f"{content} is a picture of mode {picture.mode}; RGB or grey is expected")


def _upright(picture: Image.Image, mask_size: tuple[int, int], content: Content) -> tuple[Image.Image, Counter[str]]:
    """Follow the EXIF orientation if the mask was drawn on the turned picture, by their sizes."""
    orientation = picture.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return picture, Counter()
    turned = picture.size[::-1]
    if orientation in (5, 6, 7, 8) and picture.size != turned and mask_size in (picture.size, turned):
        if mask_size == picture.size:
            return picture, Counter({"pictures whose EXIF orientation was ignored, as the mask's size asks": 1})
        return ImageOps.exif_transpose(picture), Counter({"pictures turned by their EXIF orientation": 1})
    raise UserError(
        f"{content} asks to be turned when shown (EXIF orientation {orientation}), and the mask's size "
        f"{mask_size} does not tell whether it was drawn before or after; turn the picture or drop the tag"
    )


def _grey(picture: Image.Image, content: Content) -> np.ndarray:
    """A mask as one 8-bit channel: grey values, or 255 wherever a picture of black and one colour is not black."""
    _refuse_deep(picture, content)
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        raise UserError(f"{content} is a mask that asks to be turned when shown (EXIF); turn it first")
    if picture.mode == "1":
        return np.asarray(picture, np.uint8) * 255
    picture = _without_alpha(picture, content)
    if picture.mode == "P":
        picture = picture.convert("RGB")
    if picture.mode == "L":
        return np.asarray(picture)
    if picture.mode != "RGB":
        raise UserError(f"{content} is a mask of mode {picture.mode}; black and white is expected")
    red, green, blue = (np.asarray(channel) for channel in picture.split())
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    colours = picture.getcolors(2) or []
    if picture.format != "JPEG" and len(colours) == 2 and (0, 0, 0) in [colour for _, colour in colours]:
        return ((red | green | blue) > 0) * np.uint8(255)
    raise UserError(f"{content} is a mask in colours; black and white, or black and one colour, is expected")


def read_mask(content: Content, *, edges: float = 0.0) -> tuple[np.ndarray, Counter[str]]:
    """A black and white mask as labels 0 and 1, with counts of what is worth telling.

    Args:
        content: The file: grey, palette, RGB or 1-bit, with 0 and 255, or 0 and 1. In JPEG, grey values between are
            what compression made of edges: up to ``LOSSY_EDGES`` of the pixels are thresholded above 127 and counted.
        edges: The share of pixels between black and white that is accepted in lossless files too, where a dataset's
            repackagings have been resized.

    Raises:
        UserError: The mask holds other values.
    """
    picture = open_picture(content)
    grey, lossy = _grey(picture, content), picture.format == "JPEG"
    histogram = Image.fromarray(grey).histogram()
    values = [value for value, count in enumerate(histogram) if count]
    if not lossy and values[-1] <= 1:
        label, between = grey, 0
    else:
        label, between = (grey > 127).astype(np.uint8), sum(histogram[1:255])
    allowed = max(edges, LOSSY_EDGES) if lossy else edges
    if between > allowed * grey.size:
        found = f"the values {values}" if len(values) <= 5 else f"{len(values)} different values"
        raise UserError(
            f"{content} is not a black and white mask: {between / grey.size:.1%} of its pixels are neither 0 nor 255 "
            f"({found}); at most {allowed:.0%} is accepted here"
        )
    counts = Counter({"mask pixels between black and white, thresholded above 127": between})
    if not label.any():
        counts["masks without foreground"] += 1
    return label, +counts


def read_instances(content: Content) -> tuple[np.ndarray, Counter[str]]:
    """A mask whose values number instances as labels 0 and 1: foreground is what is not 0.

    Raises:
        UserError: The mask is a JPEG, whose values are not reliable, or no picture of numbers.
    """
    picture = open_picture(content)
    if picture.format == "JPEG":
        raise UserError(f"{content} numbers instances, and JPEG changes the numbers; a lossless file is expected")
    if picture.getexif().get(_ORIENTATION, 1) != 1 or picture.mode[:1] not in ("1", "L", "P", "I", "R"):
        raise UserError(f"{content} is a picture of mode {picture.mode}; numbers of instances are expected")
    array = np.asarray(_without_alpha(picture, content))
    label = (array.any(axis=-1) if array.ndim == 3 else array != 0).astype(np.uint8)
    return label, Counter() if label.any() else Counter({"masks without foreground": 1})


def encode_png(picture: Image.Image) -> bytes:
    """PNG with fast settings: run-length strategy at level 1 takes a fifth of level 6's time for 5 % more bytes."""
    buffer = io.BytesIO()
    picture.info.clear()  # no orientation or colour profile: pixels are what they are
    picture.save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()


def encode_pair(
    images: tuple[Content, ...],
    labels: tuple[Content, ...],
    *,
    read: Callable[[Content], tuple[np.ndarray, Counter[str]]] = read_mask,
) -> tuple[bytes, bytes, Counter[str]]:
    """Picture and mask of a case as PNG.

    Args:
        images: The picture.
        labels: Its mask.
        read: Reads the mask as labels.

    Raises:
        UserError: One cannot be read, or their sizes differ.
    """
    label, counts = read(labels[0])
    return encode_with_label(images[0], label, counts, labels[0])


# for masks that were compressed with loss once, whatever the format that they come in
encode_pair_with_lossy_mask = partial(encode_pair, read=partial(read_mask, edges=LOSSY_EDGES))


def encode_with_label(
    image: Content, label: np.ndarray, counts: Counter[str], source: Content
) -> tuple[bytes, bytes, Counter[str]]:
    """``encode_pair`` for a label that has been read from ``source`` already."""
    mask_size = label.shape[::-1]
    picture, turned = _upright(open_picture(image), mask_size, image)
    if picture.size != mask_size:
        raise UserError(
            f"{source} is {mask_size[0]}x{mask_size[1]}, its image {image} is {picture.size[0]}x{picture.size[1]}"
        )
    picture, grey = as_rgb(picture, image)
    return encode_png(picture), encode_png(Image.fromarray(label)), counts + turned + grey
