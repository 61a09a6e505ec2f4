"""Maps of a whole case: nnU-Net's preprocessing and sliding window, with the attention of each tile recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from nnunet_attn.blocks.recording import Maps
from nnunet_attn.errors import UserError
from nnunet_attn.export import predict
from nnunet_attn.maps.record import record_attention


@dataclass
class CaseMaps:
    """The maps and the prediction of one case.

    Attributes:
        image: (channels, z, y, x) in the order of the plans' axes, as preprocessed.
        labels: The prediction (without mirroring) on the image's own grid, (z, y, x).
        decision: The prediction on the preprocessed grid.
        point: The marked voxel, on the preprocessed grid.
        plane: Name (x, y or z) of the image's axis that slices are drawn across, and the index on it of that of the
            marked voxel.
        uncertainty: 1 - (largest - second largest probability), on the preprocessed grid.
        pixel: Maps of the whole case on the preprocessed grid, float16, by layer and name.
        marked: Maps of the tile around the marked voxel, by layer.
        tile: Index of that tile in the preprocessed image, and the voxel's index in it.
        geometry: Geometry for writing a map on the image's grid.
        back: What ``preprocess`` returned for resampling back to the image's grid.
        covered: Mask of the voxels that tiles covered, on the preprocessed grid.
        tile_image: The image channels in that tile.
        padded: Size of the tile with the network's own padding, which the blocks' grids cover.
    """

    image: np.ndarray
    labels: np.ndarray
    decision: np.ndarray
    point: tuple[int, ...]
    plane: tuple[str, int]
    uncertainty: np.ndarray
    pixel: dict[tuple[str, str], np.ndarray]
    marked: dict[str, Maps]
    tile: tuple[tuple, tuple[int, ...]]
    geometry: dict
    back: dict
    covered: np.ndarray
    tile_image: np.ndarray
    padded: tuple[int, ...]


def layers_of(maps: dict[str, list[Maps]]) -> Iterator[tuple[str, Maps]]:
    """The maps of each call under its own name: NAME, or NAME#2 for the second call of a shared block."""
    for name, calls in maps.items():
        for number, call in enumerate(calls, start=1):
            yield (name if number == 1 else f"{name}#{number}"), call


def padded_size(network: nn.Module, size: Sequence[int]) -> tuple[int, ...]:
    """Size of a tile inside the network: ours for any image size pad it behind to multiples of ``multiple``."""
    multiple = getattr(network, "multiple", 1)
    return tuple(-(-n // multiple) * multiple for n in size)


def to_tile(values: torch.Tensor, size: Sequence[int], padded: Sequence[int]) -> np.ndarray:
    """Resample a map linearly from a block's grid to the tile's, without the network's padding. (1, *grid) -> size."""
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    whole = F.interpolate(values.float()[None], size=tuple(padded), mode=mode, align_corners=False)[0, 0]
    return whole[tuple(slice(n) for n in size)].numpy()


def probabilities(logits: np.ndarray, regions: bool) -> np.ndarray:
    """Probabilities from float32 logits (outputs, ...): softmax over outputs, or a sigmoid of each for regions."""
    if regions:
        return 1 / (1 + np.exp(-logits))
    shifted = np.exp(logits - logits.max(0))
    return shifted / shifted.sum(0)


def uncertainty_of(logits: np.ndarray, regions: bool) -> np.ndarray:
    """Uncertainty: 1 where the decision is a tie, 0 where it is clear."""
    values = probabilities(logits.astype(np.float32), regions)
    if regions or len(values) == 1:
        return 1 - 2 * np.abs(values - 0.5).min(0)
    second, first = np.sort(values, axis=0)[-2:]
    return 1 - (first - second)


def to_preprocessed(voxel: Sequence[int], back: dict, shape: Sequence[int], model: dict) -> tuple[int, ...]:
    """The voxel of the preprocessed image that contains a voxel (z, y, x) of the image.

    Raises:
        UserError: it lies outside the image, or in the zero-valued margin that preprocessing crops.
    """
    found = []
    for axis, source in enumerate(model["transpose_forward"]):
        inside = voxel[source] - back["box"][axis].start
        if not 0 <= inside < back["cropped"][axis]:
            raise UserError(f"voxel {tuple(voxel[::-1])} (x, y, z) lies outside the image's non-zero part")
        found.append(min(int((inside + 0.5) * shape[axis] / back["cropped"][axis]), shape[axis] - 1))
    return tuple(found)


def plane_of_image(point: Sequence[int], back: dict, shape: Sequence[int], model: dict) -> tuple[str, int]:
    """The image's axis that is the first of the preprocessed image, and the index on it of a preprocessed voxel."""
    index = back["box"][0].start + int((point[0] + 0.5) * back["cropped"][0] / shape[0])
    return "zyx"[model["transpose_forward"][0]], index


def from_preprocessed(values: np.ndarray, back: dict, model: dict) -> np.ndarray:
    """Resample a map linearly from the preprocessed grid to the image's; 0 outside the cropped box."""
    axis = predict.separate_axis(back["spacings"], model["resampling"]["logits"]["force_separate_z"])
    if values.shape != tuple(back["cropped"]):
        values = predict.resample(values, back["cropped"], axis, 1)
    whole = np.zeros(back["whole"], np.float32)
    whole[back["box"]] = values
    return whole.transpose(model["transpose_backward"])


def tile_around(point: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> tuple[tuple, tuple[int, ...]]:
    """Index of a tile centred on ``point``, shifted into the image (2D: in its slice), and the point in the tile."""
    planes = tuple(point[: len(point) - len(patch)])
    starts = [
        min(max(p - n // 2, 0), size - n)
        for p, n, size in zip(point[-len(patch) :], patch, shape[-len(patch) :], strict=True)
    ]
    box = (*planes, *(slice(s, s + n) for s, n in zip(starts, patch, strict=True)))
    return box, tuple(p - s for p, s in zip(point[-len(patch) :], starts, strict=True))


def run_tile(network: nn.Module, tile: np.ndarray, point: Sequence[float] | None) -> tuple[np.ndarray, dict]:
    """The logits and maps of one tile."""
    with torch.inference_mode(), record_attention(network, point) as maps:
        logits = network(torch.from_numpy(np.ascontiguousarray(tile))[None])[0].numpy()
    return logits, maps


def map_case(
    network: nn.Module,
    files: Sequence[Path],
    model: dict[str, Any],
    *,
    point: Sequence[int] | None = None,
    slice_index: int | None = None,
    progress: bool = True,
) -> CaseMaps:
    """Predict a case with attention recorded; no mirroring, so that a map belongs to a single forward pass.

    Args:
        network: The network, in evaluation mode, on the CPU.
        files: The channels' files.
        model: The description by ``export.description.describe``.
        point: The marked voxel of the image, (x, y, z); None: the voxel whose prediction is least certain.
        slice_index: Predict only tiles that intersect this slice of the image (along z); None: all tiles.
        progress: Whether to draw a progress bar.

    Raises:
        UserError: no attention in the network, or a point outside the image.
    """
    try:
        image, spacing, geometry = predict.read_case(files, model)
        data, back = predict.preprocess(image, spacing, model)
    except predict.CaseError as error:
        raise UserError(str(error)) from error
    patch, regions = model["patch_size"], model["regions_class_order"] is not None
    shape = data.shape[1:]
    missing = [max(0, n - size) for n, size in zip(patch, shape[-len(patch) :], strict=True)]
    before = [0] * (3 - len(patch)) + [m // 2 for m in missing]
    pad = [(0, 0)] + [(0, 0)] * (3 - len(patch)) + [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(data, pad)
    inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))

    boxes = predict.tiles(padded.shape[1:], patch, model["step_size"])
    wanted = None
    if slice_index is not None:
        middle = [(box.start + box.stop) // 2 for box in back["box"]]
        voxel = [middle[model["transpose_forward"].index(axis)] for axis in range(3)]
        voxel[0] = slice_index
        axis = model["transpose_forward"].index(0)
        wanted = (axis, to_preprocessed(voxel, back, shape, model)[axis] + before[axis])
        boxes = [box for box in boxes if meets(box, wanted)]
    inside_network = padded_size(network, patch)
    weights = predict.gaussian_weights(patch, model).astype(np.float32)
    logits = np.zeros((model["outputs"], *padded.shape[1:]), np.float32)
    covered = np.zeros(padded.shape[1:], np.float32)
    pixel: dict[tuple[str, str], np.ndarray] = {}
    for box in tqdm(boxes, desc="tiles", disable=not progress, leave=False):
        prediction, maps = run_tile(network, padded[:, *box], None)
        logits[:, *box] += prediction * weights
        covered[box] += weights
        share = weights / covered[box]  # a running mean keeps float16 precise where weights are tiny
        for layer, call in layers_of(maps):
            for name, values in call.pixel.items():
                total = pixel.setdefault((layer, name), np.zeros(padded.shape[1:], np.float16))
                total[box] += (to_tile(values, patch, inside_network) - total[box]) * share
    seen = covered > 0
    covered[~seen] = 1
    logits /= covered
    logits, pixel = logits[:, *inner], {key: total[inner] for key, total in pixel.items()}
    uncertainty = np.where(seen[inner], uncertainty_of(logits, regions), 0)

    if point is not None:
        marked = to_preprocessed(point[::-1], back, shape, model)
    else:
        open_places = uncertainty
        if wanted is not None:
            axis, index = wanted
            open_places = np.zeros_like(uncertainty)
            part = tuple(slice(None) if i != axis else index - before[axis] for i in range(3))
            open_places[part] = uncertainty[part]
        marked = tuple(int(i) for i in np.unravel_index(open_places.argmax(), shape))
    box, inside = tile_around([m + b for m, b in zip(marked, before, strict=True)], padded.shape[1:], patch)
    _, maps = run_tile(network, padded[:, *box], [(i + 0.5) / n for i, n in zip(inside, inside_network, strict=True)])
    if not maps:
        raise UserError(
            f"{type(network).__name__} has no attention to show; nnunet-attn list shows networks that have it"
        )
    return CaseMaps(
        image=data,
        labels=predict.segment(logits.astype(np.float16), back, model),
        decision=predict.segment(
            logits.astype(np.float16), unresampled(shape), model | {"transpose_backward": [0, 1, 2]}
        ),
        point=marked,
        plane=plane_of_image(marked, back, shape, model),
        uncertainty=uncertainty,
        pixel=pixel,
        marked=dict(layers_of(maps)),
        tile=(box, inside),
        geometry=geometry,
        back=back,
        covered=seen[inner],
        tile_image=padded[:, *box],
        padded=inside_network,
    )


def unresampled(shape: Sequence[int]) -> dict:
    """The ``back`` argument with which ``predict.segment`` stays on the preprocessed grid."""
    box = tuple(slice(0, n) for n in shape)
    return {"whole": tuple(shape), "cropped": tuple(shape), "box": box, "spacings": [[1, 1, 1], [1, 1, 1]]}


def meets(box: tuple, wanted: tuple[int, int]) -> bool:
    """Whether a tile intersects the slice ``wanted`` = (axis, index) of the padded image."""
    axis, index = wanted
    part = box[axis]
    return part.start <= index < part.stop if isinstance(part, slice) else part == index
