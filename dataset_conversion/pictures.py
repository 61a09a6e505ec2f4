"""Convert photographs to 8-bit RGB PNG; whatever is ambiguous is refused.

Refused with the reason, since they could be read in more than one way: channels of 16 bits (how to map them to 8?),
transparency, several frames, orientation tags that the mask cannot confirm. nnU-Net reads one PNG with three channels
per case; it does not read JPEG, whose lossy compression spoils labels.
"""

import io
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nnunet_attn.dataset_conversion.cases import Encoded
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.dataset_conversion.tiff import MAGIC, open_tiff
from nnunet_attn.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP")  # and TIFF
SUFFIX = r"\.(png|jpe?g|bmp|tiff?)"  # pattern of their file name suffixes
SMALLEST = 8  # pixels along an edge; a smaller file is not a genuine picture
_ORIENTATION = 274  # EXIF tag

ReadMask = Callable[[Content], tuple[np.ndarray, Counter[str], dict[str, float | str]]]


def open_picture(content: Content) -> Image.Image:
    """Read a whole picture; ``info["lossy"]`` is True if its compression is lossy.

    Raises:
        UserError: It is not a PNG, JPEG, BMP or TIFF, is truncated or damaged, has several frames, or is tiny or huge.
    """
    if content.data.startswith(MAGIC):
        picture, lossy = open_tiff(content)
    else:
        picture = _open_with_pillow(content)
        lossy = picture.format == "JPEG"
    picture.info["lossy"] = lossy
    if min(picture.size) < SMALLEST:
        raise UserError(f"{content} is {picture.size[0]}x{picture.size[1]} pixels, too small for a picture")
    return picture


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about large pictures and damaged metadata, for which we raise errors of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_with_pillow(content: Content) -> Image.Image:
    try:
        with _without_warnings(), Image.open(io.BytesIO(content.data), formats=FORMATS) as picture:
            if (frames := getattr(picture, "n_frames", 1)) > 1:
                raise UserError(f"{content} holds {frames} frames; expected a single picture")
            picture.load()
            if picture.format == "PNG" and content.data[24] > 8:  # Pillow reduces 16-bit RGB to 8 bits silently
                picture.info["bits"] = content.data[24]
            return picture
    except UserError:
        raise
    except UnidentifiedImageError as error:
        if not content.data:
            raise UserError(f"{content} is not a complete picture (it is empty); download it again") from error
        what = "is not a complete PNG, JPEG, BMP or TIFF"
        raise UserError(
            f"{content} {what}; download it again, or convert it to PNG if it has another format"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError) as error:
        raise UserError(f"{content} is not a complete picture ({error}); download it again") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{content} is larger than any picture of the dataset ({error})") from error


def refuse_deep(picture: Image.Image, content: Content) -> None:
    """Raise UserError for more than 8 bits per channel."""
    if picture.info.get("bits", 8) > 8 or picture.mode.startswith(("I", "F")):
        raise UserError(
            f"{content} has more than 8 bits per channel; how to map them to 8 is not known, so it is refused"
        )


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1 is upright."""
    with _without_warnings():
        return picture.getexif().get(_ORIENTATION, 1)


def _without_alpha(picture: Image.Image, content: Content) -> Image.Image:
    if picture.mode in ("RGBA", "LA"):
        if picture.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{content} is partly transparent; the background is not known, so it is refused")
        return picture.convert(picture.mode[:-1])
    if "transparency" in picture.info:
        raise UserError(f"{content} has a transparent colour; the background is not known, so it is refused")
    return picture


def as_rgb(picture: Image.Image, content: Content) -> tuple[Image.Image, Counter[str]]:
    """The picture as 8-bit RGB, and a counted remark if it was grey.

    Raises:
        UserError: The conversion would need a guess.
    """
    refuse_deep(picture, content)
    picture = _without_alpha(picture, content)
    if picture.mode == "RGB":
        return picture, Counter()
    if picture.mode == "L":
        return picture.convert("RGB"), Counter({"grey pictures, written with three equal channels": 1})
    if picture.mode == "P":
        return picture.convert("RGB"), Counter()
    raise UserError(f"{content} is a picture of mode {picture.mode}; expected RGB or grey")


def upright(picture: Image.Image, mask_size: tuple[int, int], content: Content) -> tuple[Image.Image, Counter[str]]:
    """Apply the EXIF orientation if the mask has the size of the rotated picture.

    Raises:
        UserError: The sizes do not decide it.
    """
    turn = orientation(picture)
    if turn == 1:
        return picture, Counter()
    turned = picture.size[::-1]
    if turn in (5, 6, 7, 8) and picture.size != turned and mask_size in (picture.size, turned):
        if mask_size == picture.size:
            return picture, Counter({"pictures whose EXIF orientation was ignored, to match the mask's size": 1})
        return ImageOps.exif_transpose(picture), Counter({"pictures rotated by their EXIF orientation": 1})
    raise UserError(
        f"{content} has the EXIF orientation {turn}, and the mask's size "
        f"{mask_size} does not show whether to apply it; rotate the picture's pixels or drop the tag"
    )


def encode_png(picture: Image.Image) -> bytes:
    """PNG bytes, compressed fast: run-length encoding at level 1 takes a fifth of level 6's time for 5 % more bytes."""
    buffer = io.BytesIO()
    picture.info.clear()  # drop orientation and colour profile: pixels are stored as they are
    picture.save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()


def encode_pair(images: tuple[Content, ...], labels: tuple[Content, ...], *, read: ReadMask) -> Encoded:
    """Picture and mask of a case as PNG.

    Args:
        images: The picture.
        labels: Its mask.
        read: Reads the mask as labels, with counted remarks for the user and facts for the manifest.

    Raises:
        UserError: One cannot be read, or their sizes differ.
    """
    label, notes, facts = read(labels[0])
    return encode_with_label(images[0], label, labels[0], notes, facts)


def encode_with_label(
    image: Content,
    label: np.ndarray,
    source: Content,
    notes: Counter[str],
    facts: dict[str, float | str] | None = None,
    as_channels: Callable[[Image.Image, Content], tuple[Image.Image, Counter[str]]] = as_rgb,
) -> Encoded:
    """``encode_pair`` for a label that was already read from ``source``."""
    mask_size = label.shape[::-1]
    picture, turned = upright(open_picture(image), mask_size, image)
    if picture.size != mask_size:
        raise UserError(
            f"{source} is {mask_size[0]}x{mask_size[1]}, its image {image} is {picture.size[0]}x{picture.size[1]}"
        )
    picture, grey = as_channels(picture, image)
    written = Image.fromarray(label)
    return Encoded(
        (encode_png(picture),),
        encode_png(written),
        label.shape,
        {value: count for value, count in enumerate(written.histogram()) if count},
        notes + turned + grey,
        facts or {},
    )
