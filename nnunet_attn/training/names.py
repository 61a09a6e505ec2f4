"""Makes the trainer classes that are named by suffixes instead of being written down: ablations, recipes, schedules."""

import dataclasses
from types import ModuleType
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_attn.catalog import Entry
from nnunet_attn.files import named_file
from nnunet_attn.plugins import warn
from nnunet_attn.trainer_names import TrainerName
from nnunet_attn.training.base import NetworkTrainer
from nnunet_attn.training.host_weights import HOST_VARIABLE, refuse_host_weights
from nnunet_attn.training.pretrained import PRETRAINED_VARIABLE, cannot_take_weights
from nnunet_attn.training.recipe import save_interval
from nnunet_attn.training.record import FROM_SCRATCH, UNKNOWN, Recorded
from nnunet_attn.training.threads import limit_threads

Mixin: Any = object  # to mypy: with whatever the class's other base has


class Scheduled(Mixin):
    """Mixin of the schedule suffix ``_<N>epochs[_<M>iterations]``, on ours and on stock nnU-Net's trainers alike.

    Raises:
        ValueError: the trainer has a warm-up of fixed length that is not shorter.
    """

    epochs: int
    iterations: int | None = None
    fixed_schedule = True

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
        warmup = getattr(self, "warmup_duration_whole_net", 0)  # of nnU-Net's Primus and warm-up trainers
        if self.epochs <= warmup:
            raise ValueError(
                f"{type(self).__name__}: the learning rate of this trainer rises for its first {warmup} epochs, so a "
                f"training of {self.epochs} would end within the warm-up; choose a longer schedule"
            )


class Foreign(Recorded):
    """Mixin of every suffix on a trainer that is not ours: what our trainers always do.

    Honours ``NNUNET_ATTN_THREADS``, writes the run record, saves often enough for a short schedule, and sets the
    initial learning rate of ``_lr<M>e<N>``.

    Raises:
        ValueError: at the start of the training, if the trainer's own code sets the learning rate, so that ``_lr``
            would change nothing, or if the environment names weights, which the trainer does not load.
    """

    asked_lr: float | None = None

    def initialize(self) -> None:
        limit_threads()
        self.save_every = save_interval(self.num_epochs)
        if self.asked_lr is not None:
            self.initial_lr = self.asked_lr
        super().initialize()

    def load_weights(self) -> str | dict:
        """Nothing is loaded; another package's trainer may have done so itself, in ``initialize``."""
        if named_file(PRETRAINED_VARIABLE):
            raise ValueError(cannot_take_weights(type(self).__name__))
        if named_file(HOST_VARIABLE):
            raise ValueError(refuse_host_weights(type(self).__name__))
        known = all(cls.__module__.startswith(("nnunetv2.", "nnunet_attn.", "builtins")) for cls in type(self).__mro__)
        return FROM_SCRATCH if known else UNKNOWN

    def configure_optimizers(self, *arguments: Any, **keywords: Any) -> Any:
        """As the trainer below, whatever it takes: nnU-Net's warm-up trainers have a stage."""
        optimizer, scheduler = super().configure_optimizers(*arguments, **keywords)
        rates = {group.get("initial_lr", group["lr"]) for group in optimizer.param_groups}
        if self.asked_lr is not None and rates != {self.asked_lr}:
            raise ValueError(
                f"{type(self).__name__}: the trainer below sets its own initial learning rate ({max(rates):g}), so _lr "
                "has no effect on it; use another trainer"
            )
        return optimizer, scheduler


def find_foreign(parsed: TrainerName) -> tuple[type | None, TrainerName]:
    """The class (nnU-Net's or another package's) that the suffixes are added to, and the suffixes that remain.

    A schedule may be part of a class's name, as in nnU-Net's ``nnUNetTrainerBenchmark_5epochs``.
    """
    candidates = [parsed]
    if parsed.run and parsed.epochs and not parsed.iterations and not parsed.initial_lr:
        unit = "epoch" if parsed.epochs == 1 else "epochs"
        candidates.append(dataclasses.replace(parsed, base=f"{parsed.base}_{parsed.epochs}{unit}", epochs=None))
    for candidate in candidates:
        try:
            found = recursive_find_trainer_class_by_name(candidate.base)
        except RuntimeError:  # nnU-Net's word for "no such trainer"
            continue
        if issubclass(found, nnUNetTrainer):
            return found, candidate
    return None, parsed


def compose_ablation(name: str, entry: Entry, module: ModuleType) -> type:
    """The ablation's class; ``module``, the file of the network's trainer, is its module and must return it by name.

    Its network arguments are the entry of the trainer's table ``ablations``; a second name of an ablation
    (``Family.same``) is a subclass of that ablation.

    Raises:
        AttributeError: the catalogue has the ablation, but the trainer's table lacks it.
    """
    family, ablation = entry.about, name.removeprefix(f"{entry.trainer}_")
    attributes: dict[str, object] = {"__module__": module.__name__, "__qualname__": name}
    if ablation in family.same:
        base = getattr(module, f"{entry.trainer}_{family.same[ablation]}")
        attributes["__doc__"] = f"Second name of {base.__name__}."
    else:
        base = getattr(module, entry.trainer)
        if ablation not in base.ablations:
            raise AttributeError(f"{base.__name__}.ablations has no {ablation!r}, which the catalogue lists")
        attributes["network_kwargs"] = base.ablations[ablation]
        attributes["__doc__"] = f"Ablation of {base.__name__}: {family.ablations[ablation]}."
    return type(name, (base,), attributes)


def compose(base: type, parsed: TrainerName, name: str, module: str) -> type:
    """The subclass of ``base`` that ``name`` describes; ``module`` is its module and must return it by this name.

    Raises:
        AttributeError: the name has a recipe, but ``base`` takes none.
    """
    bases: tuple[type, ...] = (base,)
    attributes: dict[str, object] = {
        "__module__": module,
        "__qualname__": name,
        "__doc__": f"{base.__name__} with the suffixes of {name}.",
    }
    if issubclass(base, NetworkTrainer):
        recipe = base.recipes()[parsed.recipe] if parsed.recipe else {}
        recipe = recipe | ({"initial_lr": parsed.initial_lr} if parsed.initial_lr else {})
        attributes |= {"recipe": recipe} if recipe else {}
    elif parsed.recipe:
        reason = f"{name}: {base.__name__} is no NetworkTrainer of nnunet-attn, so _{parsed.recipe} does not work on it"
        warn(reason)
        raise AttributeError(reason)
    else:
        bases = (Foreign, *bases)
        attributes["asked_lr"] = parsed.initial_lr
    if parsed.epochs is not None:
        bases = (Scheduled, *bases)
        attributes |= {"epochs": parsed.epochs, "iterations": parsed.iterations}
    return type(name, bases, attributes)
