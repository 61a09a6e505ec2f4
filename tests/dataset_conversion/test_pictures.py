"""Every kind of picture and mask is read right or refused with the reason."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_attn.dataset_conversion import masks
from nnunet_attn.dataset_conversion.masks import check_binary, encode_binary, read_instances
from nnunet_attn.dataset_conversion.pictures import encode_png, open_picture
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (16, 24, 3), dtype=np.uint8)
MASK = np.zeros((16, 24), bool)
MASK[4:9, 8:20] = True


def read_mask(file: Content) -> tuple[np.ndarray, dict]:
    """Label, and counts with the share of grey pixels."""
    label, counts, facts = masks.read_mask(file)
    return label, {**counts, **{key: fact for key, fact in facts.items() if key == "grey"}}


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
    encoded = encode_binary((image,), (mask or content(MASK * np.uint8(255)),))
    image = Image.open(io.BytesIO(encoded.images[0]))
    assert image.mode == "RGB"
    label = np.array(Image.open(io.BytesIO(encoded.label)))
    assert encoded.shape == label.shape
    assert encoded.pixels == {int(v): int((label == v).sum()) for v in np.unique(label)}
    return np.array(image), label, dict(encoded.notes)


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
    "GIF": (lambda: content(Image.fromarray(RGB).quantize(8), "GIF"), "not a complete PNG, JPEG, BMP or TIFF"),
    "turned TIFF": (lambda: content(RGB, "TIFF", tiffinfo={274: 6}), "orientation tag"),
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
    assert counts == {"pictures whose EXIF orientation was ignored, to match the mask's size": 1}
    image, label, counts = convert(picture, content(MASK.T * np.uint8(255)))
    np.testing.assert_array_equal(image, turned[orientation])
    np.testing.assert_array_equal(label, MASK.T)
    assert counts == {"pictures rotated by their EXIF orientation": 1}


def test_exif_orientation_that_the_mask_cannot_confirm_is_refused():
    for orientation in (2, 3, 4):
        with pytest.raises(UserError, match=f"EXIF orientation {orientation}"):
            convert(content(RGB, exif=exif(orientation)))
    with pytest.raises(UserError, match="EXIF orientation 6"):
        convert(content(RGB[:, :16], exif=exif(6)), content(MASK[:, :16] * np.uint8(255)))
    with pytest.raises(UserError, match="mask with an EXIF orientation tag"):
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
    "RGBA with holes": lambda: content(np.stack([*[MASK * np.uint8(255)] * 3, MASK * np.uint8(90)], -1)),
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
    assert counts == {"grey": round(between / values.size, 6)}


def test_a_jpeg_that_is_no_mask_is_refused():
    with pytest.raises(UserError, match="not a black and white mask"):
        read_mask(content(RGB[..., 0], "JPEG"))
    with pytest.raises(UserError, match="coloured mask"):
        read_mask(content(RGB, "JPEG"))
    with pytest.raises(UserError, match="not a black and white mask"):  # 0 and 1 in a JPEG: nothing to rely on
        read_mask(content(np.ones((16, 24), np.uint8), "JPEG"))


def test_grey_borders_are_thresholded_up_to_a_quarter_of_a_mask():
    grey = MASK * np.uint8(255)
    grey[4, 8:12] = 90, 127, 128, 200
    label, counts = read_mask(content(grey))
    np.testing.assert_array_equal(label, grey > 127)
    assert counts == {"grey": round(4 / grey.size, 6)}
    grey[:3] = np.arange(24) % 2 * 10 + 50
    read_mask(content(grey))
    grey[12:14] = 50
    with pytest.raises(UserError, match=r"32\.3% of its pixels .* \(8 different values\); at most 25%"):
        read_mask(content(grey))


@pytest.mark.parametrize("values", [(128,), (127,), (85, 170), (1,), (40, 80, 120, 160, 200)])
def test_masks_of_labels_are_not_thresholded(values):
    grey = np.zeros((64, 64), np.uint8)
    grey[30:60, 30:60] = 255
    for i, value in enumerate(values):
        grey[4:10, 10 * i : 10 * i + 6] = value
    expected = re.escape(f"areas of grey, as masks of labels have (the values {sorted({0, *values, 255})})")
    with pytest.raises(UserError, match=f"{expected}.*--labels"):
        read_mask(content(grey))


def test_masks_of_few_greys_along_borders_or_as_dark_blots_are_thresholded():
    large = np.zeros((65, 65), np.uint8)
    large[17:40, 21:52] = 255
    halved = Image.fromarray(large[:64, :64]).reduce(2)  # means of four pixels
    assert len(halved.getcolors()) == 4
    np.testing.assert_array_equal(read_mask(content(halved))[0], np.array(halved) > 127)
    large[50:55, 10:20] = 11  # as in CVC-ClinicDB
    np.testing.assert_array_equal(read_mask(content(large))[0], large == 255)


def facts(*shares: float, values: str = "0 and 255") -> dict:
    files = [File(f"{values}{i}.png", f"{values}{i}.png", None) for i in range(len(shares))]
    return {
        file: {"values": values, "grey": share, "near_threshold": share}
        for file, share in zip(files, shares, strict=True)
    }


def test_most_masks_of_a_dataset_must_be_black_and_white():
    assert check_binary(facts(0.03, 0.03, 0.01, 0.01)) == [
        "4 of 4 masks hold grey pixels and were thresholded above 127; at most 3.00%, in 0 and 2550.png"
    ]
    with pytest.raises(UserError, match=r"0\.png and 2 more of 4 masks hold more than 2% of pixels between 96 and 160"):
        check_binary(facts(0.03, 0.03, 0.03, 0.01))
    with pytest.raises(UserError, match=r"0 and 10.png holds 0 and 1, 0 and 2550.png holds 0 and 255"):
        check_binary(facts(0.01) | facts(0.0, values="0 and 1"))


@pytest.mark.parametrize("values", [(0, 7), (7, 255), (0, 2), (0, 1, 2)])
def test_masks_with_other_values_are_refused(values):
    grey = np.array(values, np.uint8)[np.arange(16 * 24) % len(values)].reshape(16, 24)
    with pytest.raises(UserError, match=r"values \["):
        read_mask(content(grey))


def test_masks_without_foreground_are_counted():
    for read in (read_mask, read_instances):
        label, counts, *_ = read(content(np.zeros((16, 24), np.uint8)))
        assert not label.any()
        assert counts == {"masks without foreground": 1}
    assert read_mask(content(np.full((16, 24), 255, np.uint8)))[0].all()


def test_masks_of_colours_or_depth_are_refused():
    two = np.where(MASK[..., None], np.uint8([255, 0, 0]), np.uint8([0, 0, 255]))
    for make, message in (
        (lambda: content(RGB), "coloured mask"),
        (lambda: content(two), "coloured mask"),
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
        label, counts, _ = read_instances(kind)
        np.testing.assert_array_equal(label, MASK)
        assert counts == {}
    with pytest.raises(UserError, match="JPEG compression changes"):
        read_instances(content(instances, "JPEG"))


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="larger than any picture"):
        open_picture(content(RGB))


@pytest.mark.filterwarnings("error")
def test_no_warnings_of_the_library(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 384 pixels are warned of, 601 would be refused
    picture = open_picture(content(RGB, exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff"))
    assert picture.size == (24, 16)
    encode_binary((content(RGB),), (content(MASK * np.uint8(255)),))
