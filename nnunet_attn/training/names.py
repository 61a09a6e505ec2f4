"""Makes the trainer classes that are named by suffixes instead of being written down."""

import torch

from nnunet_attn.catalog import TrainerName


class Scheduled:
    """Mixin of the schedule suffix ``_<N>epochs[_<M>iterations]``, on ours and on stock nnU-Net's trainer alike."""

    epochs: int
    iterations: int | None = None

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs
        if self.iterations is not None:
            self.num_iterations_per_epoch = self.iterations
            self.num_val_iterations_per_epoch = max(1, self.iterations // 5)


def compose(base: type, parsed: TrainerName, name: str, module: str) -> type:
    """The subclass of ``base`` that ``name`` asks for, said to live in ``module`` (which must hand it out again)."""
    bases, attributes = (base,), {"__module__": module, "__qualname__": name}
    attributes["__doc__"] = f"{base.__name__} with the suffixes of {name}."
    if parsed.recipe is not None:
        attributes["recipe"] = base.recipes()[parsed.recipe]
    if parsed.epochs is not None:
        bases = (Scheduled, base)
        attributes |= {"epochs": parsed.epochs, "iterations": parsed.iterations}
    return type(name, bases, attributes)
