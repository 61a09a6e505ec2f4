"""Read label maps and images, with the geometry needed to compare and draw them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_attn.errors import UserError

MEDICAL = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")
TIFF = (".tif", ".tiff")
PICTURE = (".png", ".bmp")
ENDINGS = MEDICAL + TIFF + PICTURE


@dataclass(frozen=True)
class Volume:
    """An array with its voxel size.

    Attributes:
        array: Labels (integers), or an image with channels first.
        spacing: Size of a voxel along each spatial axis, in the order of the array's axes.
        position: Origin and direction as one flat tuple; empty for formats without them.
        unit: "mm", or "px" if the file states no voxel size.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    position: tuple[float, ...]
    unit: str

    def differs_from(self, other: "Volume") -> str | None:
        """A description of how the grids of two label maps differ; None if they are equal."""
        if self.array.shape != other.array.shape:
            return f"shape {self.array.shape} against {other.array.shape}"
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            return f"spacing {_short(self.spacing)} against {_short(other.spacing)}"
        if len(self.position) != len(other.position):
            return "only one of both files has an origin"
        axes = len(self.spacing)
        tolerance = [0.05 * min(self.spacing)] * axes + [1e-3] * (len(self.position) - axes)
        if np.any(np.abs(np.subtract(self.position, other.position)) > tolerance[: len(self.position)]):
            return f"origin and direction {_short(self.position)} against {_short(other.position)}"
        return None


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{n:g}" for n in numbers) + ")"


def file_ending(path: Path) -> str | None:
    """The ending of a readable file, for example ".nii.gz"."""
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def _read(path: Path, *, upright: bool) -> Volume:
    """The file's array as stored: spatial axes, then channels if there are any."""
    ending = file_ending(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        if ending in MEDICAL:
            image = sitk.ReadImage(str(path))
            if upright and image.GetDimension() == 3:
                image = sitk.DICOMOrient(image, "LPS")
            array = sitk.GetArrayFromImage(image)
            return Volume(array, image.GetSpacing()[::-1], image.GetOrigin() + image.GetDirection(), "mm")
        if ending in TIFF:
            array = tifffile.imread(path)
            sizes = path.with_suffix(".json")  # file with the spacing that nnU-Net keeps beside a 3D TIFF
            if array.ndim == 3 and sizes.is_file():
                return Volume(array, tuple(json.loads(sizes.read_text())["spacing"]), (), "mm")
            colour = array.ndim == 3 and array.shape[-1] in (3, 4)
            return Volume(array, (1.0,) * (2 if colour else array.ndim), (), "px")
        with Image.open(path) as picture:
            return Volume(np.asarray(picture), (1.0, 1.0), (), "px")
    except (OSError, RuntimeError, ValueError, KeyError, SyntaxError, tifffile.TiffFileError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(f"{path} cannot be read: {reason}") from error


def read_labels(path: Path, *, upright: bool = False) -> Volume:
    """Read a label map, always as integers.

    Args:
        upright: Reorient a volume to LPS axes, the radiological view, for drawing.

    Raises:
        UserError: the file cannot be read, has several channels, or holds fractions or negative numbers.
    """
    volume = _read(path, upright=upright)
    array = volume.array
    if array.ndim != len(volume.spacing):
        raise UserError(f"{path} is not a label map: it has several channels (shape {array.shape})")
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.array_equal(whole, array):
            raise UserError(f"{path} is not a label map: it holds fractions")
        array = whole.astype(np.int32)
    if array.size and array.min() < 0:
        raise UserError(f"{path} is not a label map: it holds negative numbers")
    return Volume(array.view(np.uint8) if array.dtype == bool else array, volume.spacing, volume.position, volume.unit)


def values_of(labels: np.ndarray) -> set[int]:
    """The values that occur in a label map."""
    seen: set[int] = set()
    for plane in labels if labels.ndim > 2 else (labels,):  # plane by plane, since counting needs eight bytes per voxel
        seen.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    return seen


def read_image(paths: Sequence[Path], *, upright: bool = False) -> Volume:
    """Read an image from its channel files (or one colour picture), channels first."""
    volumes = [_read(path, upright=upright) for path in paths]
    channels = []
    for volume in volumes:
        if volume.array.ndim > len(volume.spacing):  # a colour picture; alpha is dropped
            channels += [volume.array[..., i] for i in range(min(volume.array.shape[-1], 3))]
        else:
            channels.append(volume.array)
    if len({channel.shape for channel in channels}) > 1:
        shapes = ", ".join(f"{path.name} {volume.array.shape}" for path, volume in zip(paths, volumes, strict=True))
        raise UserError(f"the channels of one image differ in shape: {shapes}")
    return Volume(np.stack(channels), volumes[0].spacing, volumes[0].position, volumes[0].unit)
