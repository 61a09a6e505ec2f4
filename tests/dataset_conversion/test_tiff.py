"""TIFF pictures are read as their tags say, not as a library happens to read them."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_attn.dataset_conversion.masks import read_mask
from nnunet_attn.dataset_conversion.pictures import as_rgb, open_picture
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.errors import UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
MASK = np.zeros((20, 30), bool)
MASK[4:9, 8:20] = True


def tiff(array: np.ndarray, **options: object) -> Content:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return Content("the file", buffer.getvalue())


PLANES = np.moveaxis(RGB, -1, 0)
KINDS = {
    "RGB": lambda: tiff(RGB, photometric="rgb"),
    "three samples tagged as grey": lambda: tiff(RGB, photometric="minisblack", planarconfig="contig"),
    "planes": lambda: tiff(PLANES, photometric="rgb", planarconfig="separate"),
    "planes tagged as grey": lambda: tiff(PLANES, photometric="minisblack", planarconfig="separate"),
    "big-endian": lambda: tiff(RGB, photometric="rgb", byteorder=">"),
    "BigTIFF": lambda: tiff(RGB, photometric="rgb", bigtiff=True),
    "LZW with predictor": lambda: tiff(RGB, photometric="rgb", compression="lzw", predictor=True),
    "deflate": lambda: tiff(RGB, photometric="rgb", compression="zlib"),
    "PackBits": lambda: tiff(RGB, photometric="rgb", compression="packbits"),
    "tiles": lambda: tiff(RGB, photometric="rgb", tile=(16, 16)),
    "opaque alpha": lambda: tiff(
        np.dstack([RGB, np.full((20, 30), 255, np.uint8)]), photometric="rgb", extrasamples=["unassalpha"]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_colours(kind):
    content = KINDS[kind]()
    picture, counts = as_rgb(open_picture(content), content)
    np.testing.assert_array_equal(np.asarray(picture), RGB)
    assert not counts


def test_a_small_copy_for_preview_is_not_a_second_picture():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(RGB, photometric="rgb")
        writer.write(np.ascontiguousarray(RGB[::2, ::2]), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(np.asarray(open_picture(Content("the file", buffer.getvalue()))), RGB)


PALETTE = np.zeros((3, 256), np.uint16)
PALETTE[:, 1] = 65535
MASKS = {
    "grey": lambda: tiff(MASK * np.uint8(255)),
    "white is zero": lambda: tiff(~MASK * np.uint8(255), photometric="miniswhite"),
    "one bit": lambda: tiff(MASK, photometric="minisblack"),
    "one bit, white is zero": lambda: tiff(~MASK, photometric="miniswhite"),
    "palette": lambda: tiff(MASK.astype(np.uint8), photometric="palette", colormap=PALETTE),
    "0 and 1": lambda: tiff(MASK.astype(np.uint8)),
    "alpha": lambda: tiff(
        np.dstack([MASK * np.uint8(255), RGB[..., 0]]), photometric="minisblack", extrasamples=["unassalpha"]
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks(kind):
    np.testing.assert_array_equal(read_mask(MASKS[kind]())[0], MASK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tiff(RGB[..., 0].astype(np.int16)), "samples of 16 bits"),
        (lambda: tiff(np.dstack([RGB, RGB])[..., :5], photometric="rgb"), "holds 5 samples per pixel"),
        (lambda: tiff(np.dstack([RGB, RGB[..., :1]]), photometric="separated"), "samples per pixel of kind SEPARATED"),
        (lambda: tiff(np.stack([RGB, RGB]), photometric="rgb"), "holds 2 frames"),
    ],
)
def test_what_is_neither_grey_nor_colours_is_refused(make, message):
    content = make()
    with pytest.raises(UserError, match=f"^the file .*{message}"):
        as_rgb(open_picture(content), content)


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"tile": (16, 16)}, {"compression": "packbits"}])
def test_every_truncation_is_refused(options, capfd):
    """tifffile fills with zeros what is not there."""
    whole = tiff(RGB, photometric="rgb", **options).data
    expected = np.asarray(open_picture(Content("the file", whole)))
    said = set()
    for length in range(8, len(whole), 37):
        try:
            picture = open_picture(Content("the file", whole[:length]))
        except UserError as error:
            said.add("not a complete picture" in str(error))
        else:
            np.testing.assert_array_equal(np.asarray(picture), expected)
    assert said == {True}
    assert capfd.readouterr() == ("", "")


def test_a_bomb_is_refused():
    data = bytearray(tiff(RGB, photometric="rgb").data)
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    for name in ("ImageWidth", "ImageLength"):
        tag = page.tags[name]
        data[tag.valueoffset : tag.valueoffset + 4] = (60000).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"larger than any picture|not a complete picture"):
        open_picture(Content("the file", bytes(data)))


def test_pillow_and_tifffile_agree_where_both_can():
    for mode in ("L", "RGB", "1"):
        buffer = io.BytesIO()
        Image.fromarray(RGB).convert(mode).save(buffer, "TIFF", compression="tiff_lzw")
        ours = open_picture(Content("the file", buffer.getvalue()))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(Image.open(buffer)))
