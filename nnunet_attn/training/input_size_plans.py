"""Plans for a dataset that was converted with ``--input-size``: the whole slice or picture is the patch."""

import json
import shutil
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.training.changed_plans import change_plans

CONFIGURATION = "2d"


def plan_input_size(raw: Path, folder: Path, size: int, batch_size: int, name: str | None = None) -> dict:
    """Write and return the plans: nnU-Net's own 2D plans with spacing 1 x 1, this patch and this batch.

    The folds of the conversion are copied to where nnU-Net looks for them, if there are none yet: ``_paper`` trainers
    count slices of the training cases, and nnU-Net's own folds would divide patients.

    Args:
        raw: The dataset's folder in nnUNet_raw.
        folder: Its folder in nnUNet_preprocessed, with fingerprint and plans ``nnUNetPlans``.
        size: Edge of the input.
        batch_size: Batch size.
        name: Name of the plans; ``Input<SIZE>Batch<N>`` by default.

    Raises:
        UserError: the dataset was converted without, or with another, input size; plans or folds are missing.
    """
    converted = json.loads((raw / "dataset.json").read_text(encoding="utf-8")).get("input_size")
    if converted != size:
        how = f"with --input-size {converted}" if converted else "without --input-size"
        raise UserError(
            f"{raw.name} was converted {how}; for plans of {size} convert it again: nnunet-attn convert NAME SOURCE ID "
            f"--input-size {size}"
        )
    folds = folder / "splits_final.json"
    if not folds.is_file():
        if not (raw / folds.name).is_file():
            raise UserError(
                f"{folds} is missing, and {raw} has none either: convert with folds, or write one, so that nnU-Net "
                "does not draw its own, which divide patients"
            )
        shutil.copyfile(raw / folds.name, folds)
    return change_plans(
        folder,
        "nnUNetPlans",
        name or f"Input{size}Batch{batch_size}",
        CONFIGURATION,
        spacing=(1, 1),
        patch_size=(size, size),
        batch_size=batch_size,
        input_size=size,
    )
