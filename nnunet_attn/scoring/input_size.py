"""Scoring of datasets that were converted with ``--input-size``: at the original size, or at the network's.

Volumes of such a dataset carry a spacing that is none (``224 / size``), so millimetres come from the conversion's
manifest. Predicted pictures have the network's size; they are enlarged to the original masks that the conversion kept.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_attn.errors import UserError
from nnunet_attn.scoring.volumes import Volume


def nearest(array: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The last two axes brought to ``size``, each pixel that whose area holds the new one's centre."""
    for axis, new in zip((-2, -1), size, strict=True):
        old = array.shape[axis]
        array = np.take(array, ((np.arange(new) + 0.5) * old / new).astype(int), axis=axis)
    return array


def at_input_size(volume: Volume, size: int) -> Volume:
    """Every slice at the network's size; distances are then in its pixels."""
    array = nearest(volume.array, (size, size))
    return Volume(array, (1.0,) * array.ndim, (), "px")


def at_original_size(prediction: Volume, reference: Volume, spacing: Sequence[float] | None) -> tuple[Volume, Volume]:
    """Pictures: the prediction enlarged to the reference. Volumes: the true spacing in place of the file's."""
    if spacing is None:
        return replace(prediction, array=nearest(prediction.array, reference.array.shape)), reference
    true = tuple(float(edge) for edge in reversed(spacing))  # x, y, z in the manifest
    return replace(prediction, spacing=true), replace(reference, spacing=true)


def true_spacings(raw: Path | None) -> dict[str, list[float]]:
    """Spacing of each volume along x, y, z, from the conversion's manifest; empty for pictures.

    Raises:
        UserError: the manifest cannot be read.
    """
    path = raw / "manifest.json" if raw is not None else Path("manifest.json")
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} of the conversion holds the true spacings and cannot be read ({error}); give the "
            "references inside the converted dataset (a trained model: set nnUNet_raw), or --at-input-size to score in "
            "the network's pixels"
        ) from error
    return {name: case["spacing"] for name, case in cases.items() if "spacing" in case}


def original_references(references: Path, raw: Path | None) -> Path:
    """Folder of the pictures' masks at their own size.

    Raises:
        UserError: there is none.
    """
    beside = references.with_name(f"{references.name}_original")
    folders = [beside, *([raw / "labelsTr_original"] if raw is not None else [])]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise UserError(
        f"{beside}, the masks at their original size, is missing; set nnUNet_raw, or give --at-input-size to score at "
        "the network's size"
    )
