"""Name, project and tags of a run on Weights & Biases, for nnU-Net's own logger.

nnU-Net's logger is off unless ``nnUNet_wandb_enabled=1``; ``nnUNet_wandb_mode=offline`` keeps it on this machine. It
sets
the project by ``nnUNet_wandb_project`` and leaves name, tags and group to W&B, which reads them from variables.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nnunet_attn.trainer_names import parse_trainer_name


def run_variables(trainer: str, plans: dict, configuration: str, fold: int | str) -> dict[str, str]:
    """What nnU-Net's logger and W&B read: project, name, group of the folds, tags."""
    dataset, plans_name = plans["dataset_name"], plans["plans_name"]
    model = f"{trainer}__{plans_name}__{configuration}"
    parsed = parse_trainer_name(trainer)
    tags = [dataset, configuration, plans_name, f"fold_{fold}"]
    if parsed is not None:
        tags += [tag for tag in (parsed.network, parsed.ablation, parsed.recipe) if tag]
    return {
        "nnUNet_wandb_project": dataset,
        "WANDB_NAME": f"{model}__fold_{fold}",
        "WANDB_RUN_GROUP": model,
        "WANDB_TAGS": ",".join(tags),
    }


@contextmanager
def named_run(trainer: str, plans: dict, configuration: str, fold: int | str) -> Iterator[None]:
    """While a trainer is made, give its run a name; what the user set stays, and nothing is left behind."""
    if os.environ.get("nnUNet_wandb_enabled", "0") not in ("1", "True", "true"):
        yield
        return
    wanted = run_variables(trainer, plans, configuration, fold)
    added = {key: value for key, value in wanted.items() if not os.environ.get(key)}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
