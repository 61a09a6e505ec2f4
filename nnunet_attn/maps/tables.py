"""Tables of maps: means inside each class, at its border, and in the background."""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy import ndimage

from nnunet_attn.maps.volume import CaseMaps

COLUMNS = ("case", "layer", "map", "region", "voxels", "mean")


def regions_of(labels: np.ndarray, names: Mapping[int, str], covered: np.ndarray) -> dict[str, np.ndarray]:
    """Masks by region: background, and for each class its inside and its border (one voxel wide within slices)."""
    structure = np.zeros((3, 3, 3), bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)
    regions = {"background": (labels == 0) & covered}
    for value, name in names.items():
        mask = labels == value
        inside = ndimage.binary_erosion(mask, structure)
        regions |= {f"{name} inside": inside & covered, f"{name} border": mask & ~inside & covered}
    return {name: mask for name, mask in regions.items() if mask.any()}


def numbers_of(case: str, found: CaseMaps) -> Iterator[tuple]:
    """Table rows without regions: lambda, and mean weights of channels in the marked tile."""
    for layer, maps in found.marked.items():
        for name, value in maps.numbers.items():
            yield case, layer, name, "", "", round(value, 6)
        for name, values in maps.channel.items():
            yield case, layer, f"{name} (mean of channels, marked tile)", "", "", round(float(values.mean()), 6)


def means_of(case: str, key: tuple[str, str], values: np.ndarray, regions: Mapping[str, np.ndarray]) -> Iterator[tuple]:
    """Table rows of one map on the image's grid."""
    for region, mask in regions.items():
        yield case, *key, region, int(mask.sum()), round(float(values[mask].mean()), 6)
