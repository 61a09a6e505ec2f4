"""Read TIFF pictures as their tags demand.

The originals of CVC-ClinicDB hold three samples per pixel under PhotometricInterpretation 1 (grey): Pillow cannot open
them, and SimpleITK returns one component. tifffile reads the samples; this module decides which of them are
colours, from the number of samples, PhotometricInterpretation and ExtraSamples.
"""

import io
import logging
import struct
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.errors import UserError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE}
_COLOUR = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR}
LOSSY = {tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.APERIO_JP2000_YCBC,
         tifffile.COMPRESSION.APERIO_JP2000_RGB, tifffile.COMPRESSION.JPEG2000}  # fmt: skip
MOST_PIXELS = 1 << 28  # a picture of 16,384 x 16,384

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # errors are reported by our own messages


def open_tiff(content: Content) -> tuple[Image.Image, bool]:
    """The picture, and whether its compression is lossy; samples of more than 8 bits keep their values.

    The picture's mode is L, LA, RGB or RGBA; 1 for one bit; I;16 or F for deeper grey, which callers must handle.

    Raises:
        UserError: The file is truncated or damaged, holds several pictures, or unsupported samples.
    """
    logger = logging.getLogger("tifffile")
    before, logger.propagate = logger.propagate, False
    try:
        with tifffile.TiffFile(io.BytesIO(content.data)) as file:
            pages: list[Any] = [page for page in file.pages if not _is_reduced(page)]
            if not pages:
                raise UserError(f"{content} is not a complete picture (it holds no frame); download it again")
            if len(pages) > 1:
                raise UserError(f"{content} holds {len(pages)} frames; expected a single picture")
            _refuse_cut(pages[0], content)
            array, page = pages[0].asarray(), pages[0]
            return _as_picture(array, page, content), page.compression in LOSSY
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{content} claims to be larger than any picture; it is damaged") from error
    except (tifffile.TiffFileError, ValueError, TypeError, KeyError, IndexError, struct.error, EOFError, OSError,
            RuntimeError, NotImplementedError, AttributeError, ZeroDivisionError) as error:  # fmt: skip
        raise UserError(
            f"{content} is not a complete picture ({' '.join(str(error).split()) or type(error).__name__}); "
            "download it again"
        ) from error
    finally:
        logger.propagate = before


def _is_reduced(page: tifffile.TiffPage | tifffile.TiffFrame) -> bool:
    """Whether the page is a thumbnail of another page."""
    return bool(getattr(page, "subfiletype", 0) & 1)


def _refuse_cut(page: tifffile.TiffPage, content: Content) -> None:
    """Check that the file is complete, since tifffile fills missing data with zeros."""
    if page.imagewidth * page.imagelength > MOST_PIXELS:
        raise UserError(f"{content} is {page.imagewidth}x{page.imagelength}, larger than any picture of the dataset")
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(content.data) or 0 in page.databytecounts:
        raise UserError(f"{content} is not a complete picture (data beyond its end); download it again")


def _as_picture(array: np.ndarray, page: tifffile.TiffPage, content: Content) -> Image.Image:
    orientation = int(page.tags["Orientation"].value) if "Orientation" in page.tags else 1
    if orientation != 1:
        raise UserError(f"{content} has the orientation tag {orientation}; rotate its pixels and drop the tag first")
    samples, photometric = page.samplesperpixel, page.photometric
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples > 1:
        array = np.moveaxis(array.reshape(samples, *array.shape[-2:]), 0, -1)
    if photometric == tifffile.PHOTOMETRIC.PALETTE and samples == 1 and page.bitspersample <= 8:
        return Image.fromarray((np.asarray(page.colormap) >> 8).astype(np.uint8).T[array])
    if photometric not in _GREY | _COLOUR or samples > 4:
        raise UserError(
            f"{content} holds {samples} samples per pixel of kind {getattr(photometric, 'name', photometric)}; "
            "expected grey "
            "or RGB"
        )
    if array.dtype == bool or page.bitspersample == 1:
        return Image.fromarray(array.astype(bool) ^ (photometric == tifffile.PHOTOMETRIC.MINISWHITE))
    if array.dtype.kind == "f" and samples == 1:
        return Image.fromarray(array.astype(np.float32))
    if page.bitspersample not in (8, 16, 32) or array.dtype.kind != "u":
        raise UserError(f"{content} has samples of {page.bitspersample} bits ({array.dtype}); expected 8")
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        array = np.iinfo(array.dtype).max - array
    if array.dtype != np.uint8:
        if samples > 1:
            raise UserError(
                f"{content} has more than 8 bits per channel; which window to reduce it by is not known, so it is "
                "refused"
            )
        return Image.fromarray(array.astype(np.uint16) if array.max() < 1 << 16 else array.astype(np.int32))
    if samples == 2:
        return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(array[..., i])) for i in range(2)])
    return Image.fromarray(np.ascontiguousarray(array))
