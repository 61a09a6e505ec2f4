"""Predict with an exported nnU-Net model: this file, model.json and the fold_*.onnx beside it are all that is needed.

  pip install -r requirements.txt
  python predict.py -i IMAGES -o PREDICTIONS

IMAGES is a folder, or files, named as in training: CASE_0000.nii.gz, CASE_0001.nii.gz, ... one file for each channel (a
colour picture holds its three). A prediction gets the name CASE.nii.gz and the geometry of the image. A case that
cannot be predicted is named with its reason; the others are predicted, and the exit code is 1.

Every step computes what nnU-Net computes, with the same rounding: normalisation, resampling, sliding window with
Gaussian weights, mirroring, mean over folds, resampling of the logits, labels. No torch, no nnU-Net.

All of it is one file, although a long one, so that an export can be read, copied and checked without this package.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

ANISOTROPY_THRESHOLD = 3  # nnU-Net resamples an axis separately if its spacing is more than this many times the finest


class CaseError(Exception):
    """A case that cannot be predicted; the message is one line with the reason."""


# ---- files ----------------------------------------------------------------------------------------------------------


def read_picture(path: Path) -> tuple[np.ndarray, list[float], dict]:
    """A picture as (channels, 1, height, width), with the spacing that nnU-Net gives to pictures."""
    if path.suffix.lower() == ".tif":
        import tifffile

        pixels = tifffile.imread(path)
    else:
        from PIL import Image

        with Image.open(path) as image:
            palette = image.palette if image.mode == "P" else None
            pixels = np.asarray(image.convert(palette.mode) if palette else image)
    if pixels.ndim == 2:
        return pixels[None, None], [999, 1, 1], {}
    if pixels.ndim == 3 and pixels.shape[-1] in (3, 4):
        return pixels.transpose(2, 0, 1)[:, None], [999, 1, 1], {}
    raise CaseError(f"{path}: expected a grey, RGB or RGBA picture, got an array of shape {pixels.shape}")


def write_picture(labels: np.ndarray, path: Path, geometry: dict) -> None:
    if path.suffix.lower() == ".tif":
        import tifffile

        tifffile.imwrite(path, labels[0])
    else:
        from PIL import Image

        Image.fromarray(labels[0]).save(path)


def read_volume(path: Path, orientation: str | None = None) -> tuple[np.ndarray, list[float], dict]:
    """A volume as (1, z, y, x), spacing in that order, and the geometry for ``write_volume``; 2D images get z = 1."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    geometry = {}
    if orientation:
        geometry["orientation"] = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
        image = sitk.DICOMOrient(image, orientation)
    array = sitk.GetArrayFromImage(image)
    if array.ndim not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise CaseError(f"{path}: expected an image of two or three axes with one value per voxel, got {array.shape}")
    spacing = [abs(s) for s in image.GetSpacing()[::-1]]
    if array.ndim == 2:
        array, spacing = array[None], [max(spacing) * 999, *spacing]
    geometry |= {"spacing": image.GetSpacing(), "origin": image.GetOrigin(), "direction": image.GetDirection()}
    return array[None], spacing, geometry


def write_volume(labels: np.ndarray, path: Path, geometry: dict) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(labels if len(geometry["spacing"]) == 3 else labels[0])
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    if "orientation" in geometry:
        image = sitk.DICOMOrient(image, geometry["orientation"])
    sitk.WriteImage(image, str(path), True)


def read_nifti(path: Path) -> tuple[np.ndarray, list[float], dict]:
    """The same as ``read_volume``, with nibabel, which nnU-Net uses for files ending in .nii."""
    import nibabel

    image: Any = nibabel.load(path)
    if image.ndim != 3:
        raise CaseError(f"{path}: expected a volume of three axes, got the shape {image.shape}")
    spacing = [float(z) for z in image.header.get_zooms()[::-1]]
    return image.get_fdata().transpose(2, 1, 0)[None], spacing, {"affine": image.affine}


def write_nifti(labels: np.ndarray, path: Path, geometry: dict) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine=geometry["affine"]), path)


READERS = {
    "NaturalImage2DIO": (read_picture, write_picture),
    "SimpleITKIO": (read_volume, write_volume),
    "SimpleITKIOWithReorient": (lambda path: read_volume(path, "RAS"), write_volume),
    "NibabelIO": (read_nifti, write_nifti),
}


def read_case(files: Sequence[Path], model: dict) -> tuple[np.ndarray, list[float], dict]:
    """All channels of a case: (channels, z, y, x) in float32, spacing, and the geometry to write with."""
    read, _ = READERS[model["reader"]]
    images = []
    for path in files:
        try:
            images.append(read(path))
        except (OSError, RuntimeError, ValueError, SyntaxError, EOFError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CaseError(f"{path} cannot be read: {lines[-1].strip()}") from error
    arrays, spacings, geometries = zip(*images, strict=True)
    if len({array.shape[1:] for array in arrays}) > 1:
        raise CaseError(f"the channels have different shapes: {', '.join(str(array.shape[1:]) for array in arrays)}")
    if not all(np.allclose(spacings[0], spacing) for spacing in spacings):
        raise CaseError(f"the channels have different spacings: {', '.join(map(str, spacings))}")
    data = np.vstack(arrays, dtype=np.float32, casting="unsafe")
    if len(data) != len(model["channels"]):
        wanted = f"{len(model['channels'])} channel(s) ({', '.join(model['channels'])})"
        raise CaseError(f"the model takes {wanted}, but {', '.join(path.name for path in files)} hold {len(data)}")
    return data, spacings[0], geometries[0]


# ---- preprocessing --------------------------------------------------------------------------------------------------


def nonzero_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around all True voxels; the whole array if there is none."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, mask.shape[axis]))
    return tuple(box)


def normalize(image: np.ndarray, scheme: str, numbers: dict, mask: np.ndarray | None) -> None:
    """Normalise one channel in place; ``mask`` restricts z-scores to it."""
    if scheme == "ZScoreNormalization" and mask is not None:
        values = image[mask]
        image[mask] = (values - values.mean()) / max(values.std(), 1e-8)
    elif scheme == "ZScoreNormalization":
        mean, deviation = image.mean(), image.std()
        image -= mean
        image /= max(deviation, 1e-8)
    elif scheme == "CTNormalization":
        np.clip(image, numbers["percentile_00_5"], numbers["percentile_99_5"], out=image)
        image -= numbers["mean"]
        image /= max(numbers["std"], 1e-8)
    elif scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= np.clip(image.max(), a_min=1e-8, a_max=None)
    elif scheme == "RGBTo01Normalization":
        if image.min() < 0 or image.max() > 255:
            raise CaseError(f"values of a picture lie in 0 to 255, these in {image.min():g} to {image.max():g}")
        image /= 255.0
    elif scheme != "NoNormalization":
        raise CaseError(f"model.json names the normalisation {scheme}, which is unknown here")


def separate_axis(spacings: Sequence[Sequence[float]], force: bool | None) -> int | None:
    """The axis to resample separately, because one of the spacings (old, then new) is coarse along it; or None."""
    for spacing in spacings[:1] if force else spacings:
        if force or (force is None and max(spacing) / min(spacing) > ANISOTROPY_THRESHOLD):
            coarse = np.flatnonzero(max(spacing) / np.array(spacing) == 1)
            return int(coarse[0]) if len(coarse) == 1 else None
    return None


def resize(image: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Spline interpolation to a shape, clipped to the input's range, as ``skimage.transform.resize``, mode "edge"."""
    factors = [1 / (old / new) for old, new in zip(image.shape, shape, strict=True)]
    resized = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(resized, image.min(), image.max(), out=resized)


def resample(image: np.ndarray, shape: Sequence[int], axis: int | None, order: int) -> np.ndarray:
    """Resample one channel in float64 to a new shape; along ``axis``, if there is one, take the nearest slice."""
    image = image.astype(float)
    if axis is None:
        return resize(image, shape, order)
    plane = [n for i, n in enumerate(shape) if i != axis]
    slices = np.stack([resize(part, plane, order) for part in np.moveaxis(image, axis, 0)], axis=axis)
    old, new = image.shape[axis], shape[axis]
    if old == new:
        return slices
    positions = old / new * (np.arange(new) + 0.5) - 0.5
    nearest = ndimage.map_coordinates(np.arange(old), positions[None], order=0, mode="nearest")
    return slices.take(nearest, axis=axis)


def preprocess(data: np.ndarray, spacing: Sequence[float], model: dict) -> tuple[np.ndarray, dict]:
    """Transpose, crop to non-zero, normalise, resample; also returns what ``segment`` needs to undo this."""
    data = data.transpose(0, *(axis + 1 for axis in model["transpose_forward"]))
    spacing = [spacing[axis] for axis in model["transpose_forward"]]
    mask = data[0] != 0
    for channel in data[1:]:
        mask |= channel != 0
    box = nonzero_box(mask)
    whole, data = data.shape[1:], data[:, *box]
    masked = any(step["use_mask"] for step in model["normalization"])
    inside = ndimage.binary_fill_holes(mask)[box] if masked else None
    for channel, step in zip(data, model["normalization"], strict=True):
        normalize(channel, step["scheme"], step["intensities"], inside if step["use_mask"] else None)

    target = [spacing[0]] * (3 - len(model["spacing"])) + model["spacing"]
    cropped = data.shape[1:]
    shape = [round(old / new * n) for old, new, n in zip(spacing, target, cropped, strict=True)]
    if tuple(shape) != cropped:
        how = model["resampling"]["image"]
        axis = separate_axis([spacing, target], how["force_separate_z"])
        data = np.stack([resample(c, shape, axis, how["order"]).astype(np.float32) for c in data])
    return data, {"whole": whole, "box": box, "cropped": cropped, "spacings": [target, spacing]}


# ---- sliding window -------------------------------------------------------------------------------------------------


def gaussian_weights(patch: Sequence[int], model: dict) -> np.ndarray:
    """Gaussian weights of a tile in float16, 10 at its centre; zeros are replaced by the smallest positive weight."""
    weights = np.zeros(patch)
    weights[tuple(n // 2 for n in patch)] = 1
    sigma = [n * model["gaussian"]["sigma_scale"] for n in patch]
    weights = ndimage.gaussian_filter(weights, sigma, 0, mode="constant", cval=0)
    weights /= weights.max() / model["gaussian"]["maximum"]
    weights = weights.astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def tile_starts(size: int, tile: int, step: float) -> list[int]:
    """Start of each tile along one axis, evenly spaced, at most ``step`` tile sizes apart."""
    count = int(np.ceil((size - tile) / (tile * step))) + 1
    distance = (size - tile) / (count - 1) if count > 1 else 0
    return [int(np.round(distance * i)) for i in range(count)]


def tiles(shape: Sequence[int], patch: Sequence[int], step: float) -> list[tuple]:
    """The index of each tile; for a 2D model, each slice along the first axis is tiled."""
    planes = list(range(shape[0])) if len(patch) == 2 else []
    starts = [tile_starts(size, tile, step) for size, tile in zip(shape[-len(patch) :], patch, strict=True)]
    corners = itertools.product(*starts)
    boxes = [tuple(slice(a, a + n) for a, n in zip(corner, patch, strict=True)) for corner in corners]
    return [(plane, *box) for plane in planes for box in boxes] if planes else boxes


def run_tiles(session: Any, batch: np.ndarray, mirror_axes: Sequence[int]) -> np.ndarray:
    """Logits of a batch of tiles in float32, averaged over all mirrored versions."""
    logits = session.run(None, {"image": batch})[0]
    combinations = [
        tuple(axis + 2 for axis in axes)
        for count in range(1, len(mirror_axes) + 1)
        for axes in itertools.combinations(mirror_axes, count)
    ]
    for axes in combinations:
        mirrored = session.run(None, {"image": np.ascontiguousarray(np.flip(batch, axes))})[0]
        logits = logits + np.flip(mirrored, axes)
    return logits / np.float32(len(combinations) + 1) if combinations else logits


def predict_logits(
    data: np.ndarray,
    sessions: Sequence[Any],
    model: dict,
    options: argparse.Namespace,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Mean logits of the folds, (outputs, z, y, x), in float16 as nnU-Net sums them."""
    patch = model["patch_size"]
    missing = [max(0, n - size) for n, size in zip(patch, data.shape[-len(patch) :], strict=True)]
    pad = [(0, 0)] * (data.ndim - len(patch)) + [(m // 2, m - m // 2) for m in missing]
    inner = tuple(slice(before, before + size) for (before, _), size in zip(pad, data.shape, strict=True))
    data = np.pad(data, pad) if any(missing) else data
    boxes = tiles(data.shape[1:], patch, options.step_size)
    weights = gaussian_weights(patch, model)
    mirror_axes = () if options.disable_tta else tuple(model["mirror_axes"])

    total = np.zeros(0)
    for fold, session in enumerate(sessions):
        logits = np.zeros((model["outputs"], *data.shape[1:]), np.float16)
        covered = np.zeros(data.shape[1:], np.float16)
        for start in range(0, len(boxes), options.tile_batch):
            chunk = boxes[start : start + options.tile_batch]
            batch = run_tiles(session, np.stack([data[:, *box] for box in chunk]), mirror_axes)
            for box, prediction in zip(chunk, batch, strict=True):
                logits[:, *box] += prediction * weights
                covered[box] += weights
            progress(fold * len(boxes) + start + len(chunk), len(sessions) * len(boxes))
        logits /= covered
        if np.isinf(logits).any():
            raise CaseError("the sum of logits exceeds the range of float16, where nnU-Net stops, too")
        total = total + logits if fold else logits
    return (total if len(sessions) == 1 else total / np.float16(len(sessions)))[:, *inner[1:]]


# ---- labels ---------------------------------------------------------------------------------------------------------


def segment(logits: np.ndarray, back: dict, model: dict) -> np.ndarray:
    """Labels on the image's grid from logits, one output at a time, so that memory does not grow with the classes."""
    how, shape = model["resampling"]["logits"], back["cropped"]
    axis = separate_axis(back["spacings"], how["force_separate_z"])
    labels = np.zeros(shape, np.uint16 if model["highest_label"] >= 255 else np.uint8)
    best = logits[0]
    for index, output in enumerate(logits):
        if output.shape != shape:
            output = resample(output, shape, axis, how["order"]).astype(np.float16)
        if model["regions_class_order"]:  # regions overlap: each overwrites the labels of those before
            probability = 1 / (1 + np.exp(-output.astype(np.float32)))
            labels[probability > 0.5] = model["regions_class_order"][index]
        elif index == 0:
            best = output.copy()
        else:
            larger = output > best
            labels[larger], best[larger] = index, output[larger]
    whole = np.zeros(back["whole"], labels.dtype)
    whole[back["box"]] = labels
    return whole.transpose(model["transpose_backward"])


# ---- command --------------------------------------------------------------------------------------------------------


def find_cases(inputs: Sequence[Path], ending: str) -> dict[str, list[Path]]:
    """The files of each case, in the order of channels.

    Raises:
        SystemExit: there is nothing to predict, or a file's name is not CASE_0000.ending.
    """
    folder = inputs[0] if len(inputs) == 1 and inputs[0].is_dir() else None
    listed = (f for f in folder.iterdir() if f.name.endswith(ending) and f.name[0] != ".") if folder else inputs
    cases: dict[str, list[Path]] = {}
    for file in sorted(listed):
        case, _, channel = file.name.removesuffix(ending).rpartition("_")
        if not file.name.endswith(ending) or not case or len(channel) != 4 or not channel.isdecimal():
            raise SystemExit(f"predict.py: error: {file}: the name must be CASE_0000{ending}, the number its channel")
        cases.setdefault(case, []).append(file)
    if not cases:
        raise SystemExit(f"predict.py: error: no files that end in {ending} in {', '.join(map(str, inputs))}")
    return cases


def make_sessions(folder: Path, model: dict, folds: Sequence[str] | None, threads: int) -> list:
    """One session of onnxruntime for each requested fold."""
    import onnxruntime

    known = {str(fold["fold"]): fold["file"] for fold in model["folds"]}
    unknown = [fold for fold in folds or () if fold not in known]
    if unknown:
        raise SystemExit(f"predict.py: error: no fold {', '.join(unknown)} in this export, only {', '.join(known)}")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    files = [folder / known[fold] for fold in folds or known]
    return [onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"]) for file in files]


def predict_case(
    files: Sequence[Path],
    target: Path,
    sessions: Sequence[Any],
    model: dict,
    options: argparse.Namespace,
    progress: Callable[[int, int], None],
) -> None:
    """Predict one case and write ``target``, which appears once it is complete."""
    data, spacing, geometry = read_case(files, model)
    data, back = preprocess(data, spacing, model)
    labels = segment(predict_logits(data, sessions, model, options, progress), back, model)
    labels = labels.astype(np.uint8 if labels.max() < 255 else np.uint16, copy=False)
    partial = target.with_name(f".partial.{target.name}")
    try:
        READERS[model["reader"]][1](labels, partial, geometry)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def bar(title: str, shown: bool) -> Callable[[int, int], None]:
    """A function that draws a progress bar of the tiles done."""

    def draw(done: int, count: int) -> None:
        if shown:
            filled = 30 * done // count
            print(f"\r{title} |{'#' * filled}{'.' * (30 - filled)}| {done}/{count} tiles ", end="", file=sys.stderr)

    return draw


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", dest="inputs", type=Path, nargs="+", required=True, help="folder of images, or files")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="folder to write to")
    parser.add_argument("-f", dest="folds", nargs="+", help="folds to average (default: all of this export)")
    parser.add_argument(
        "-step_size", type=float, default=0.5, help="distance between tiles, in tile sizes (default: %(default)s)"
    )
    parser.add_argument("--disable_tta", action="store_true", help="without mirroring: faster, less accurate")
    parser.add_argument("--continue_prediction", action="store_true", help="skip cases whose prediction exists")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="number of threads (default: all cores, %(default)s)"
    )
    parser.add_argument("--tile-batch", type=int, default=1, help="tiles in a batch (default: %(default)s)")
    parser.add_argument("--disable_progress_bar", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if not 0 < options.step_size <= 1 or options.threads < 1 or options.tile_batch < 1:
        parser.error("-step_size lies in (0, 1], --threads and --tile-batch are at least 1")
    absent = [str(path) for path in options.inputs if not path.exists()]
    if absent:
        parser.error(f"no such file or folder: {', '.join(absent)}")
    folder = Path(__file__).resolve().parent
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    cases = find_cases(options.inputs, model["file_ending"])
    sessions = make_sessions(folder, model, options.folds, options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    failed = 0
    for number, (case, files) in enumerate(cases.items(), start=1):
        target = options.output / f"{case}{model['file_ending']}"
        if options.continue_prediction and target.exists():
            continue
        title = f"[{number}/{len(cases)}] {case}"
        try:
            predict_case(files, target, sessions, model, options, bar(title, not options.disable_progress_bar))
        except (CaseError, MemoryError, OSError, RuntimeError) as error:
            failed += 1
            reason = " ".join(str(error).split()) or "not enough memory"
            print(f"{'' if options.disable_progress_bar else chr(10)}{case}: {reason}", file=sys.stderr)
        else:
            print(f"{'' if options.disable_progress_bar else chr(13)}{title} -> {target}", file=sys.stderr)
    if failed:
        print(f"predict.py: error: {failed} of {len(cases)} cases were not predicted", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
