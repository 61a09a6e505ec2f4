"""Every kind of picture and mask is read right or refused with the reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_attn.dataset_conversion.pictures import (
    encode_pair,
    encode_png,
    open_picture,
    read_instances,
    read_mask,
)
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
MASK = np.zeros((16, 24), bool)
MASK[4:9, 8:20] = True


def content(image: Image.Image | np.ndarray, format: str = "PNG", **options) -> Content:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format, **options)
    return Content("the file", buffer.getvalue())


def deep_png(array: np.ndarray) -> Content:
    """A PNG with three 16-bit channels, which Pillow can read but not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return Content("the file", b"\x89PNG\r\n\x1a\n" + data)


def deep_tiff(array: np.ndarray, **options) -> Content:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return Content("the file", buffer.getvalue())


def convert(image: Content, mask: Content | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
    image, label, counts = encode_pair((image,), (mask or content(MASK * np.uint8(255)),))
    image = Image.open(io.BytesIO(image))
    assert image.mode == "RGB"
    return np.array(image), np.array(Image.open(io.BytesIO(label))), dict(counts)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_rgb_is_kept(format):
    image, label, counts = convert(content(RGB, format))
    np.testing.assert_array_equal(image, RGB)
    np.testing.assert_array_equal(label, MASK)
    assert counts == {}


def test_jpeg_is_decoded_once():
    jpeg = content(RGB, "JPEG", quality=80)
    np.testing.assert_array_equal(convert(jpeg)[0], np.array(Image.open(io.BytesIO(jpeg.data))))


def test_grey_becomes_three_channels_and_is_told():
    image, _, counts = convert(content(RGB[..., 0]))
    np.testing.assert_array_equal(image, np.stack([RGB[..., 0]] * 3, -1))
    assert counts == {"grey pictures, written with three equal channels": 1}


def test_palette_is_looked_up():
    picture = Image.fromarray(RGB).quantize(8)
    np.testing.assert_array_equal(convert(content(picture))[0], np.array(picture.convert("RGB")))


def test_opaque_alpha_is_dropped():
    alpha = np.full((16, 24, 1), 255, np.uint8)
    np.testing.assert_array_equal(convert(content(np.concatenate([RGB, alpha], -1)))[0], RGB)
    image, *_ = convert(content(np.concatenate([RGB[..., :1], alpha], -1)))
    np.testing.assert_array_equal(image, np.stack([RGB[..., 0]] * 3, -1))


REFUSED = {
    "transparent": (lambda: content(np.dstack([RGB, RGB[..., 0]])), "partly transparent"),
    "transparent colour": (lambda: content(RGB, transparency=(1, 2, 3)), "transparent colour"),
    "16-bit grey": (lambda: content(RGB[..., 0].astype(np.uint16) * 7), "more than 8 bits"),
    "16-bit RGB png": (lambda: deep_png(RGB.astype(np.uint16) * 257), "more than 8 bits"),
    "16-bit RGB tiff": (lambda: deep_tiff(RGB.astype(np.uint16) * 257, photometric="rgb"), "more than 8 bits"),
    "16-bit grey tiff": (lambda: deep_tiff(RGB[..., 0].astype(np.uint16)), "more than 8 bits"),
    "float tiff": (lambda: deep_tiff(RGB[..., 0].astype(np.float32)), "more than 8 bits"),
    "two frames": (lambda: deep_tiff(np.stack([RGB] * 2), photometric="rgb"), "2 frames"),
    "CMYK": (lambda: content(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "mode CMYK"),
    "black and white": (lambda: content(Image.fromarray(MASK)), "mode 1"),
    "GIF": (lambda: content(Image.fromarray(RGB).quantize(8), "GIF"), "no PNG, JPEG, BMP or TIFF"),
    "turned TIFF": (lambda: content(RGB, "TIFF", tiffinfo={274: 6}), "asks to be turned"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_ambiguous_is_refused(kind):
    make, message = REFUSED[kind]
    with pytest.raises(UserError, match=f"^the file .*{message}"):
        convert(make())


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_orientation_is_followed_as_the_mask_asks(orientation):
    turned = {5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).transpose(1, 0, 2), 8: np.rot90(RGB)}
    picture = content(RGB, exif=exif(orientation))
    image, label, counts = convert(picture)  # the mask was drawn on the pixels as stored
    np.testing.assert_array_equal(image, RGB)
    assert counts == {"pictures whose EXIF orientation was ignored, as the mask's size asks": 1}
    image, label, counts = convert(picture, content(MASK.T * np.uint8(255)))
    np.testing.assert_array_equal(image, turned[orientation])
    np.testing.assert_array_equal(label, MASK.T)
    assert counts == {"pictures turned by their EXIF orientation": 1}


def test_exif_orientation_that_the_mask_cannot_confirm_is_refused():
    for orientation in (2, 3, 4):
        with pytest.raises(UserError, match=f"EXIF orientation {orientation}"):
            convert(content(RGB, exif=exif(orientation)))
    with pytest.raises(UserError, match="EXIF orientation 6"):
        convert(content(RGB[:, :16], exif=exif(6)), content(MASK[:, :16] * np.uint8(255)))
    with pytest.raises(UserError, match="mask that asks to be turned"):
        convert(content(RGB), content(MASK * np.uint8(255), exif=exif(3)))


def test_written_png_carries_no_orientation_or_profile():
    picture = open_picture(content(RGB, "JPEG", exif=exif(6), icc_profile=b"profile" * 20, dpi=(72, 72)))
    assert Image.open(io.BytesIO(encode_png(picture))).info == {}


PALETTE = Image.fromarray(MASK.astype(np.uint8))
PALETTE.putpalette([0, 0, 0, 128, 0, 0])
INVERTED = Image.fromarray((~MASK).astype(np.uint8))
INVERTED.putpalette([255, 255, 255, 0, 0, 0])

MASKS = {
    "grey": lambda: content(MASK * np.uint8(255)),
    "0 and 1": lambda: content(MASK.astype(np.uint8)),
    "1 bit": lambda: content(Image.fromarray(MASK)),
    "1-bit BMP": lambda: content(Image.fromarray(MASK), "BMP"),
    "RGB": lambda: content(np.stack([MASK * np.uint8(255)] * 3, -1)),
    "RGBA": lambda: content(np.stack([*[MASK * np.uint8(255)] * 3, np.full(MASK.shape, 255, np.uint8)], -1)),
    "red": lambda: content(np.stack([MASK * np.uint8(200), MASK * 0, MASK * 0], -1).astype(np.uint8)),
    "palette of black and red": lambda: content(PALETTE),
    "palette with white first": lambda: content(INVERTED),
    "TIFF": lambda: content(MASK * np.uint8(255), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_all_kinds_are_read_alike(kind):
    label, counts = read_mask(MASKS[kind]())
    np.testing.assert_array_equal(label, MASK)
    assert label.dtype == np.uint8
    assert counts == {}


def test_jpeg_masks_are_thresholded_and_counted():
    mask = np.zeros((200, 300), bool)
    mask[37:150, 51:201] = True
    jpeg = content(mask * np.uint8(255), "JPEG", quality=90)
    values = np.array(Image.open(io.BytesIO(jpeg.data)))
    between = int(((values != 0) & (values != 255)).sum())
    label, counts = read_mask(jpeg)
    np.testing.assert_array_equal(label, mask)
    assert between
    assert counts == {"mask pixels between black and white, thresholded above 127": between}


def test_a_jpeg_that_is_no_mask_is_refused():
    with pytest.raises(UserError, match="not a black and white mask"):
        read_mask(content(RGB[..., 0], "JPEG"))
    with pytest.raises(UserError, match="mask in colours"):
        read_mask(content(RGB, "JPEG"))
    with pytest.raises(UserError, match="not a black and white mask"):  # 0 and 1 in a JPEG: nothing to rely on
        read_mask(content(np.ones((16, 24), np.uint8), "JPEG"))


def test_resized_masks_are_accepted_where_the_dataset_has_them():
    grey = MASK * np.uint8(255)
    grey[4, 8:12] = 90, 127, 128, 200
    with pytest.raises(UserError, match=r"1\.0% of its pixels .* \(6 different values\); at most 0%"):
        read_mask(content(grey))
    label, counts = read_mask(content(grey), edges=0.05)
    np.testing.assert_array_equal(label, grey > 127)
    assert counts == {"mask pixels between black and white, thresholded above 127": 4}


@pytest.mark.parametrize("values", [(0, 7), (7, 255), (0, 2), (0, 1, 2)])
def test_masks_with_other_values_are_refused(values):
    grey = np.array(values, np.uint8)[np.arange(16 * 24) % len(values)].reshape(16, 24)
    with pytest.raises(UserError, match=r"values \["):
        read_mask(content(grey), edges=0.05)


def test_masks_without_foreground_are_counted():
    for read in (read_mask, read_instances):
        label, counts = read(content(np.zeros((16, 24), np.uint8)))
        assert not label.any()
        assert counts == {"masks without foreground": 1}
    assert read_mask(content(np.full((16, 24), 255, np.uint8)))[0].all()


def test_masks_of_colours_or_depth_are_refused():
    two = np.where(MASK[..., None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))
    for make, message in (
        (lambda: content(RGB), "mask in colours"),
        (lambda: content(two), "mask in colours"),
        (lambda: content(MASK.astype(np.uint16) * 65535), "more than 8 bits"),
        (lambda: deep_png(np.stack([MASK] * 3, -1).astype(np.uint16) * 65535), "more than 8 bits"),
    ):
        with pytest.raises(UserError, match=message):
            read_mask(make())


def test_instances_become_foreground():
    instances = MASK * RNG.integers(1, 256, MASK.shape, dtype=np.uint8)
    for kind in (
        content(instances, "BMP"),
        content(PALETTE),
        content(Image.fromarray(MASK)),
        content(instances.astype(np.uint16) * 200),
        content(np.stack([instances] * 3, -1)),
        content(np.stack([instances, instances * 0, instances * 0], -1)),
    ):
        label, counts = read_instances(kind)
        np.testing.assert_array_equal(label, MASK)
        assert counts == {}
    with pytest.raises(UserError, match="JPEG changes the numbers"):
        read_instances(content(instances, "JPEG"))


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="larger than any picture"):
        open_picture(content(RGB))
