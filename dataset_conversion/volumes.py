"""Read and check NIfTI volumes: completeness, label values, and geometry as nnU-Net will read it.

ITK, and so SimpleITK, returns a truncated or damaged .nii.gz as if it were whole, and reports no error when the disk is
full (seen with SimpleITK 2.5.7: a short read or write only prints a line on the terminal). Therefore gzip's checksum
and nibabel's length check guard reading, plain Python writes files, and SimpleITK reads the geometry only.
"""

import gzip
import io
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from nnunet_attn.dataset_conversion.cases import Encoded
from nnunet_attn.dataset_conversion.masks import EMPTY
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.errors import UserError

GZIP = b"\x1f\x8b"
LARGEST = 4 << 30  # bytes of a volume
COMPRESSION = 3  # gzip level of files that we compress: close to level 6 in size at a third of the time
TOLERANCE = 0.1  # allowed distance between corners of image and label, in units of the smallest voxel edge


_BAD_HEADER = (nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError, ValueError, KeyError, OverflowError)
_BAD_ARRAYS = (OSError, ValueError, EOFError, AttributeError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)


def _quiet() -> None:
    """Silence the libraries' warnings, for which we raise errors of our own."""
    nib.imageglobals.logger.disabled = True
    sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class Volume:
    """A NIfTI file in memory: ``data`` as it was stored, ``array`` in the file's own (x, y, z) order."""

    data: bytes
    header: nib.Nifti1Header
    array: np.ndarray


def read_nifti(content: Content) -> Volume:
    """Read a 3D NIfTI file, compressed or not.

    Raises:
        UserError: The file is truncated, damaged, not 3D NIfTI, or holds values that are not finite numbers.
    """
    _quiet()
    if not content.data:
        raise UserError(f"{content} is not a complete NIfTI file (it is empty); download it again")
    data = _decompressed(content) if content.data.startswith(GZIP) else content.data
    try:
        image = nib.Nifti1Image.from_bytes(data)
        kind = image.get_data_dtype().kind
        if kind not in "iuf":
            raise UserError(
                f"{content} holds {image.get_data_dtype()} voxels; expected integers or floating point numbers"
            )
        array = np.asanyarray(image.dataobj)
    except UserError:
        raise
    except Exception as error:  # nibabel raises many kinds on damaged headers
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{content} is not a complete NIfTI file ({text}); download it again") from error
    if array.ndim < 3 or any(n != 1 for n in array.shape[3:]):
        raise UserError(f"{content} has shape {array.shape}; expected a 3D volume")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"{content} holds NaN or infinite values; they would spoil training and are refused")
    return Volume(data, image.header, array.reshape(array.shape[:3]))


def _decompressed(content: Content) -> bytes:
    """The decompressed bytes of a .nii.gz, at most as many as its header declares; gzip's checksum is verified."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content.data)) as file:
            start = file.read(352)
            try:
                header = nib.Nifti1Header(start[:348], check=False)
                size = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
                size += int(header["vox_offset"])
            except _BAD_HEADER:
                size = 0  # not a NIfTI file; nibabel raises later
            if size > LARGEST:
                raise UserError(f"{content} claims to be {size / 1e9:.0f} GB, more than any volume; it is damaged")
            data = start + file.read(size + (1 << 20))
            if file.read(1):
                raise UserError(f"{content} holds more than its header says; it is damaged or not a NIfTI file")
            return data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{content} is truncated or damaged ({error}); download it again") from error


def _counted(labels: np.ndarray) -> np.ndarray:
    """Number of voxels of each value from 0 to 255."""
    counts = np.zeros(256, np.int64)
    for part in labels.T:  # slice by slice, since bincount makes 64-bit copies
        counts += np.bincount(part.ravel(), minlength=256)
    return counts


def encoded(images: Sequence[bytes], label: bytes, labels: np.ndarray, facts: dict | None = None) -> Encoded:
    """The files of a case, with the number of voxels of each label."""
    counts = _counted(labels)
    pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    empty = Counter({EMPTY: 1}) if set(pixels) <= {0} else Counter()
    return Encoded(tuple(images), label, labels.shape, pixels, empty, facts or {})


def check_labels(array: np.ndarray, expected: int | Sequence[int], content: Content) -> np.ndarray:
    """Return label values as uint8.

    Args:
        array: Values as read.
        expected: The largest label, if all from 0 are allowed; or a list of the allowed ones.
        content: The file, for messages.

    Raises:
        UserError: A value is not a whole number or not among the expected ones.
    """
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        wrong = array[labels != array].flat[0]
        raise UserError(f"{content} holds the label value {wrong}; expected whole numbers from 0 to 255")
    allowed = range(expected + 1) if isinstance(expected, int) else expected
    unknown = sorted(set(np.flatnonzero(_counted(labels)).tolist()) - set(allowed))
    if unknown:
        raise UserError(
            f"{content} holds the label values {unknown}; expected {sorted(allowed)}; is this the right file?"
        )
    return labels


def encode_nifti(
    image: Content, label: Content, *, expected: int | Sequence[int], lookup: Sequence[int] | None = None
) -> Encoded:
    """Image and label of a case as .nii.gz, with header and voxels unchanged.

    Args:
        image: The image file.
        label: The label file.
        expected: The label values that may occur, or the largest of them.
        lookup: New value of each label value; None keeps them.

    Raises:
        UserError: A file is unreadable, sizes differ or a label value is unknown.
    """
    picture, mask = read_nifti(image), read_nifti(label)
    if picture.array.shape != mask.array.shape:
        raise UserError(f"{label} has shape {mask.array.shape}, its image {image} has {picture.array.shape}")
    labels = check_labels(mask.array, expected, label)
    if lookup is not None:
        labels = np.asarray(lookup, np.uint8)[labels]
    if lookup is None and mask.array.dtype.kind in "iu":
        new_label = compressed(label.data)
    else:
        new_label = label_file(mask.header, labels)
    return encoded([compressed(image.data)], new_label, labels)


def label_file(header: nib.Nifti1Header, labels: np.ndarray) -> bytes:
    """A .nii.gz of labels with the header of another file, and so its geometry."""
    header = header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    return compressed(nib.Nifti1Image(labels, None, header).to_bytes())


def read_arrays(content: Content) -> tuple[np.ndarray, np.ndarray]:
    """``image`` and ``label`` of an .npz or HDF5 file of preprocessed slices or volumes.

    Raises:
        UserError: The file is damaged, an array is missing, they differ in shape, or the image is not finite.
    """
    try:
        if content.data.startswith(b"PK"):
            with np.load(io.BytesIO(content.data), allow_pickle=False) as arrays:
                size = sum(member.file_size for member in arrays.zip.infolist())
                if size > LARGEST:
                    raise UserError(f"{content} claims to be {size / 1e9:.0f} GB, more than any volume; it is damaged")
                image, label = arrays["image"], arrays["label"]
        else:
            with _h5py().File(io.BytesIO(content.data), "r") as file:
                size = max(file[name].nbytes for name in ("image", "label"))
                if size > LARGEST:
                    raise UserError(f"{content} claims to be {size / 1e9:.0f} GB, more than any volume; it is damaged")
                image, label = file["image"][()], file["label"][()]
    except KeyError as error:
        raise UserError(f"{content} should hold the arrays 'image' and 'label' ({error})") from error
    except _BAD_ARRAYS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{content} is truncated or damaged ({text}); download it again") from error
    if image.shape[: label.ndim] != label.shape or image.dtype.kind not in "iuf" or label.dtype.kind not in "iuf":
        raise UserError(
            f"{content} holds an image of {image.dtype} {image.shape} and a label of {label.dtype} {label.shape}; "
            "expected numbers of the same shape"
        )
    if not np.isfinite(image).all():
        raise UserError(f"{content} holds NaN or infinite values; they would spoil training and are refused")
    return image, label


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError('reading .h5 files needs h5py: pip install "nnunet-attn[hdf5]"') from error
    return h5py


def check_spacing(spacing: Sequence[float] | None) -> None:
    """Raise UserError unless ``spacing`` is None or three positive numbers."""
    if spacing is not None and (len(spacing) != 3 or not all(0 < edge < float("inf") for edge in spacing)):
        raise UserError(f"--spacing takes three positive numbers, got {list(spacing)}")


def encode_arrays(
    contents: tuple[Content, ...],
    *,
    spacing: Sequence[float],
    expected: int | Sequence[int],
    lookup: Sequence[int] | None = None,
) -> Encoded:
    """Image and label as .nii.gz from one volume with axes (z, y, x), or from its slices (y, x) in order.

    Args:
        contents: The volume, or its slices.
        spacing: Voxel edges along x, y, z in mm.
        expected: The label values that may occur, or the largest of them.
        lookup: New value of each label value; None keeps them.

    Raises:
        UserError: A file is unreadable, shapes differ or a label value is unknown.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for content in contents:
        image, label = read_arrays(content)
        if image.ndim == label.ndim + 1 and image.shape[-1] == 3 and (image == image[..., :1]).all():
            image = image[..., 0]  # a grey slice stored with three equal channels
        if image.ndim != (3 if len(contents) == 1 else 2) or image.shape != (images or [image])[0].shape:
            raise UserError(f"{content} has shape {image.shape}, unlike the case's first file, or is not a slice")
        images.append(image.astype(np.float32))
        labels.append(check_labels(label, expected, content))
    image, label = (arrays[0] if len(contents) == 1 else np.stack(arrays) for arrays in (images, labels))
    if lookup is not None:
        label = np.asarray(lookup, np.uint8)[label]
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])  # in ITK's coordinates, the identity direction
    files = [compressed(nib.Nifti1Image(array.T, affine).to_bytes()) for array in (image, label)]
    return encoded(files[:1], files[1], label.T)


def compressed(data: bytes) -> bytes:
    """The data gzip-compressed, unless it already is; the same input gives the same bytes."""
    return data if data.startswith(GZIP) else gzip.compress(data, COMPRESSION, mtime=0)


def _corners(path: Path) -> tuple[np.ndarray, float]:
    _quiet()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size, spacing = np.array(reader.GetSize()), np.array(reader.GetSpacing())
    direction = np.array(reader.GetDirection()).reshape(len(size), -1)
    index = np.stack(np.meshgrid(*[(0, n - 1) for n in size], indexing="ij"), -1).reshape(-1, len(size))
    return np.array(reader.GetOrigin()) + (index * spacing) @ direction.T, float(spacing.min())


def check_geometry(image: Path, label: Path, names: tuple[str, str]) -> None:
    """Check that image and label have the same geometry, as nnU-Net's reader reads it.

    Raises:
        UserError: The reader refuses a file, or a corner of the label is not where the image's is.
    """
    corners = []
    for path, name in zip((image, label), names, strict=True):
        try:
            corners.append(_corners(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{name} cannot be read by nnU-Net's reader, SimpleITK ({reason})") from error
    (of_image, edge), (of_label, _) = corners
    distance = np.linalg.norm(of_image - of_label, axis=1).max()
    if distance > TOLERANCE * edge:
        raise UserError(
            f"{names[1]} lies elsewhere in space than its image {names[0]} (spacing, origin or direction differ: "
            f"corners are up to {distance:.4g} mm apart)"
        )
