"""Datasets at the fixed input size of a paper, in a form that stock nnU-Net keeps.

Papers resize every slice or picture to, say, 224 x 224. nnU-Net resamples by spacing, so a volume's in-plane spacing is
written as ``224 / size`` for each axis: with a target spacing of 1 (``nnunet-attn plan --input-size 224``), nnU-Net's
own resampling makes each slice 224 x 224, and predictions come back on the image's own grid. The voxels stay as they
are, but for CT, which is clipped to the papers' window. Pictures have no spacing and are resized here.

True spacings and sizes go into the manifest, and the masks of pictures at their own size into ``labelsTr_original``
and ``labelsTs_original``.
"""

import gzip
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from nnunet_attn.dataset_conversion.cases import Encoded
from nnunet_attn.dataset_conversion.pictures import encode_png
from nnunet_attn.dataset_conversion.volumes import compressed
from nnunet_attn.errors import UserError

SMALLEST = 32  # edge of a picture, and input size, below which networks have nothing to look at
CT_WINDOW = (-125, 275)  # HU, TransUNet's and its successors' for abdominal CT
UNEVEN = 1.5  # ratio of the spacings of the first two axes above which one of them runs across the slices
BY_RANGE, BY_255 = "rescale_to_0_1", "rgb_to_0_1"  # nnU-Net's names that choose a normalisation


def check_input_size(size: int, sources: Sequence[Path]) -> None:
    """Refuse what cannot be a network's input, and sources that are no downloads.

    Raises:
        UserError: The size is no multiple of 32, as the networks' strides ask, or a source is a converted dataset.
    """
    if size < SMALLEST or size % 32:
        raise UserError(f"--input-size must be a multiple of 32, for example 224, 256 or 352; got {size}")
    for source in sources:
        if (source / "dataset.json").is_file():
            raise UserError(f"{source} is converted already; --input-size belongs to a conversion: give the download")


def channel_names(file_ending: str, channels: Sequence[str]) -> tuple[str, ...]:
    """Names of channels that make nnU-Net normalise as the papers do: volumes by their range, pictures by 255.

    Grey pictures, which may have 16 bits, go by their range, too.
    """
    by_range = file_ending == ".nii.gz" or tuple(channels) == ("grey",)
    return (BY_RANGE if by_range else BY_255,) * len(channels)


def at_input_size(encoded: Encoded, name: str, *, size: int, channels: Sequence[str]) -> Encoded:
    """A case as ``plan --input-size`` wants it; its true size, and of volumes the spacing, are in ``recorded``.

    Args:
        encoded: The case as it would be written otherwise.
        name: The image file, for messages.
        size: Edge of the network's input in pixels.
        channels: Names of the channels; volumes of ``CT`` are clipped to ``CT_WINDOW``.

    Raises:
        UserError: A picture is smaller than 32 pixels, or a volume's slices do not lie along the third axis.
    """
    return _volumes(encoded, size, channels, name) if len(encoded.shape) == 3 else _pictures(encoded, size, name)


def _pictures(encoded: Encoded, size: int, name: str) -> Encoded:
    height, width = encoded.shape
    if min(width, height) < SMALLEST:
        raise UserError(f"{name} is {width}x{height} pixels; --input-size needs at least {SMALLEST} along each edge")
    images = [_resized(data, size, Image.Resampling.BILINEAR) for data in encoded.images]
    label, pixels = None, {}
    if encoded.label is not None:
        label = _resized(encoded.label, size, Image.Resampling.NEAREST)
        pixels = {value: count for value, count in enumerate(label.histogram()) if count}
    return replace(
        encoded,
        images=tuple(map(encode_png, images)),
        label=None if label is None else encode_png(label),
        shape=(size, size),
        pixels=pixels,
        original_label=encoded.label,
        recorded={"original_size": [width, height]},
    )


def _resized(png: bytes, size: int, how: Image.Resampling) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    if picture.mode in ("L", "RGB"):
        return picture.resize((size, size), how)
    wide = picture.convert("F").resize((size, size), how)  # 16 bits
    return Image.fromarray(np.rint(np.asarray(wide)).clip(0, 65535).astype(np.uint16))


def _volumes(encoded: Encoded, size: int, channels: Sequence[str], name: str) -> Encoded:
    images, spacing = [], [0.0]
    for data, channel in zip(encoded.images, channels, strict=True):
        raw = gzip.decompress(data)
        raw, spacing = _with_spacing(_clipped(raw) if channel.upper() == "CT" else raw, size)
        images.append(compressed(raw))
        axis = int(np.argmax(spacing[:2]))
        if spacing[axis] > UNEVEN * spacing[1 - axis]:
            raise UserError(
                f"{name} has spacings of {' x '.join(f'{s:g}' for s in spacing)}: its slices seem to lie along axis "
                f"{axis}, and --input-size takes those along axis 2; reorder the axes of image and label first"
            )
    label = None
    if encoded.label is not None:
        label = compressed(_with_spacing(gzip.decompress(encoded.label), size)[0])
    recorded = {"original_size": list(encoded.shape), "spacing": spacing}
    return replace(encoded, images=tuple(images), label=label, recorded=recorded)


def _clipped(raw: bytes) -> bytes:
    image = nib.Nifti1Image.from_bytes(raw)
    values = np.clip(np.asanyarray(image.dataobj), *CT_WINDOW)
    values = values.astype(np.int16 if values.dtype.kind in "iu" else np.float32)
    header = image.header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    return nib.Nifti1Image(values, None, header).to_bytes()


def _with_spacing(raw: bytes, size: int) -> tuple[bytes, list[float]]:
    """The file with ``size / voxels`` as in-plane spacing, and the true spacing; origin and directions stay.

    The spacing between slices stays, unless it is smaller: nnU-Net's 2D configuration cuts across the axis with the
    largest spacing.
    """
    header = nib.Nifti1Header(raw[:348])
    true = [float(edge) for edge in header.get_zooms()[:3]]
    new = [size / n for n in header.get_data_shape()[:2]]
    new.append(max(true[2], *new))
    directions, code = header.get_sform(coded=True)
    lengths = np.linalg.norm(np.zeros((3, 3)) if directions is None else directions[:3, :3], axis=0)
    header["pixdim"][1:4] = new
    if code and math.prod(lengths) > 0:
        directions[:3, :3] *= np.array(new) / lengths
        header.set_sform(directions, int(code))
    header["descrip"] = f"in-plane spacing is {size} / voxels, see manifest.json".encode()
    return header.binaryblock + raw[348:], true
