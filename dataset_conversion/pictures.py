"""Pictures: photographs to 8-bit RGB PNG, and nothing silently wrong.

What could be read in more than one way is refused with the reason: 16-bit channels (which window?), alpha that is not
opaque, several frames, orientations that the mask cannot confirm. nnU-Net reads one PNG with three channels per case;
JPEG it does not read, since lossy compression spoils labels.
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
SUFFIX = r"\.(png|jpe?g|bmp|tiff?)"  # of their files, as a pattern
SMALLEST = 8  # pixels along an edge; what is smaller is no picture of anything
_ORIENTATION = 274  # EXIF tag

ReadMask = Callable[[Content], tuple[np.ndarray, Counter[str], dict[str, float | str]]]


def open_picture(content: Content) -> Image.Image:
    """Read a picture completely; ``info["lossy"]`` says whether it was compressed with loss.

    Raises:
        UserError: It is no PNG, JPEG, BMP or TIFF, is truncated or damaged, has several frames, or is tiny or huge.
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
    """None of Pillow's about large pictures and damaged metadata: what is wrong is refused in our own line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_with_pillow(content: Content) -> Image.Image:
    try:
        with _without_warnings(), Image.open(io.BytesIO(content.data), formats=FORMATS) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise UserError(f"{content} holds {picture.n_frames} frames; a single picture is expected")
            picture.load()
            if picture.format == "PNG" and content.data[24] > 8:  # Pillow reduces 16-bit RGB to 8 bits without a word
                picture.info["bits"] = content.data[24]
            return picture
    except UserError:
        raise
    except UnidentifiedImageError as error:
        if not content.data:
            raise UserError(f"{content} is not a complete picture (it is empty); download it again") from error
        what = "is not a complete picture (no PNG, JPEG, BMP or TIFF)"
        raise UserError(
            f"{content} {what}; download it again, or convert it to PNG if it is of another kind"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError) as error:
        raise UserError(f"{content} is not a complete picture ({error}); download it again") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{content} is larger than any picture of the dataset ({error})") from error


def refuse_deep(picture: Image.Image, content: Content) -> None:
    """Raise UserError for more than 8 bits per channel."""
    if picture.info.get("bits", 8) > 8 or picture.mode.startswith(("I", "F")):
        raise UserError(
            f"{content} has more than 8 bits per channel; which window to reduce it by is not known, so it is refused"
        )


def orientation(picture: Image.Image) -> int:
    """EXIF's; 1 is upright."""
    with _without_warnings():
        return picture.getexif().get(_ORIENTATION, 1)


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
    refuse_deep(picture, content)
    picture = _without_alpha(picture, content)
    if picture.mode == "RGB":
        return picture, Counter()
    if picture.mode == "L":
        return picture.convert("RGB"), Counter({"grey pictures, written with three equal channels": 1})
    if picture.mode == "P":
        return picture.convert("RGB"), Counter()
    raise UserError(f"{content} is a picture of mode {picture.mode}; RGB or grey is expected")


def upright(picture: Image.Image, mask_size: tuple[int, int], content: Content) -> tuple[Image.Image, Counter[str]]:
    """Follow the EXIF orientation if the mask was drawn on the turned picture, by their sizes.

    Raises:
        UserError: The sizes do not tell.
    """
    turn = orientation(picture)
    if turn == 1:
        return picture, Counter()
    turned = picture.size[::-1]
    if turn in (5, 6, 7, 8) and picture.size != turned and mask_size in (picture.size, turned):
        if mask_size == picture.size:
            return picture, Counter({"pictures whose EXIF orientation was ignored, as the mask's size asks": 1})
        return ImageOps.exif_transpose(picture), Counter({"pictures turned by their EXIF orientation": 1})
    raise UserError(
        f"{content} asks to be turned when shown (EXIF orientation {turn}), and the mask's size "
        f"{mask_size} does not tell whether it was drawn before or after; turn the picture or drop the tag"
    )


def encode_png(picture: Image.Image) -> bytes:
    """PNG with fast settings: run-length strategy at level 1 takes a fifth of level 6's time for 5 % more bytes."""
    buffer = io.BytesIO()
    picture.info.clear()  # no orientation or colour profile: pixels are what they are
    picture.save(buffer, "PNG", compress_level=1, compress_type=3)
    return buffer.getvalue()


def encode_pair(images: tuple[Content, ...], labels: tuple[Content, ...], *, read: ReadMask) -> Encoded:
    """Picture and mask of a case as PNG.

    Args:
        images: The picture.
        labels: Its mask.
        read: Reads the mask as labels, with counts of what is worth telling and facts for the manifest.

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
    """``encode_pair`` for a label that has been read from ``source`` already."""
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
