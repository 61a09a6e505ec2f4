"""The grammar of trainer names. Standard library only, so that look-ups are fast.

    nnUNetTrainer<Network>[_<ablation>][_SGD|_paper][_lr<M>e<N>][_<N>epochs[_<M>iterations]][_run<K>]

The last three suffixes compose on every trainer that nnU-Net finds, its own and other packages' included. A trainer's
name is the name of its results folder, hence a public id. ``nnunet_attn.trainers`` makes the class.
"""

import re
from dataclasses import dataclass
from typing import Any

from nnunet_attn.catalog import SGD, STOCK
from nnunet_attn.lookup import find_entry, find_family, find_plugin, find_written, own_trainers
from nnunet_attn.plugins import SUFFIX, plugins

ORDER = "<name>[_SGD|_paper][_lr<M>e<N>][_<N>epochs[_<M>iterations]][_run<K>]"


@dataclass(frozen=True)
class TrainerName:
    """A trainer's name taken apart: recipe, schedule and the like compose on ``base``, an ablation on ``network``.

    Attributes:
        base: Name of the trainer without recipe, rate, schedule and run: ours, nnU-Net's own, or another package's.
        family: Name of the family; None if ``base`` is neither known to ``nnunet_attn.lookup`` nor ``nnUNetTrainer``.
        recipe: "SGD", "paper", ...
        initial_lr: Initial learning rate, ``_lr1e3`` is 1e-3.
        epochs, iterations: Schedule, and training iterations per epoch.
        run: Number of the repeat, from 2; the name without ``_run<K>`` is run 1.
    """

    base: str
    family: str | None
    recipe: str | None = None
    initial_lr: float | None = None
    epochs: int | None = None
    iterations: int | None = None
    run: int | None = None

    @property
    def network(self) -> str:
        """``base`` without the ablation's suffix: the trainer that is written down as a class."""
        entry = find_entry(self.base)
        return entry.trainer if entry else self.base

    @property
    def ablation(self) -> str | None:
        """The ablation's suffix, as in the catalogue."""
        return self.base[len(self.network) + 1 :] or None


_SUFFIXES = re.compile(
    r"(?:_lr(?P<lr>[1-9]\d*e[1-9]\d*))?"
    r"(?:_(?P<epochs>[1-9]\d*)epochs?(?:_(?P<iterations>[1-9]\d*)iterations)?)?"
    r"(?:_run(?P<run>[2-9]|[1-9]\d+))?$"
)


def parse_trainer_name(name: str) -> TrainerName | None:
    """Take a trainer's name apart; None if it is neither ours nor another trainer's with one of our suffixes."""
    found = _SUFFIXES.search(name)
    assert found is not None  # every part is optional, so the end of the name matches
    stem = name[: found.start()]
    suffixes: tuple[Any, ...] = (
        float(found["lr"].replace("e", "e-")) if found["lr"] else None,
        *(int(found[key]) if found[key] else None for key in ("epochs", "iterations", "run")),
    )
    if family := find_written(stem):
        return TrainerName(stem, family, None, *suffixes)
    base, _, recipe = stem.rpartition("_")
    family = find_written(base)
    if family and recipe in ("SGD", *find_family(family).paper_recipes):
        return TrainerName(base, family, recipe, *suffixes)
    if stem == name or not stem or SUFFIX.fullmatch(stem.rpartition("_")[2]):
        return None
    return TrainerName(stem, "stock" if stem == STOCK else None, None, *suffixes)


def describe_trainer(name: str) -> str:
    """One line on what a trainer's name means: network, ablation, recipe, rate, schedule."""
    parsed = parse_trainer_name(name)
    if parsed is None:
        return "stock nnU-Net" if name == STOCK else "not of this package"
    if parsed.family is None:
        parts = [f"{parsed.base}, not of this package"]
    elif parsed.base == STOCK:
        parts = ["stock nnU-Net"]
    else:
        family = find_family(parsed.family)
        own = "nnU-Net's own network" + ("" if parsed.recipe else " under our recipe (AdamW)")
        parts = [own if parsed.family == "stock" else family.title]
        parts += [f"of {family.source}"] if find_plugin(parsed.base) and not find_entry(parsed.base) else []
        parts += [f"_{parsed.ablation}: {family.describe(parsed.ablation)}"] if parsed.ablation else []
        recipes = {"SGD": SGD} | family.paper_recipes
        parts += [f"_{parsed.recipe}: {recipes[parsed.recipe]}"] if parsed.recipe else []
    parts += [f"initial rate {parsed.initial_lr:g}"] if parsed.initial_lr else []
    if parsed.epochs:
        parts.append(f"{parsed.epochs} epochs" + (f" of {parsed.iterations} iterations" if parsed.iterations else ""))
    return "; ".join(parts)


def without_run(name: str) -> str:
    """The name without its ``_run<K>``: what repeats of one training share."""
    return re.sub(r"_run([2-9]|[1-9]\d+)$", "", name)


def twin_names(trainer: str) -> list[str]:
    """Names of the trainers whose network is this one's without the paper's own attention: what it is to be beaten by.

    With the same recipe, learning rate and schedule, and without ``_run<K>``. Empty for ablations and for trainers that
    are not ours. ``_noAttention`` comes first, then ablations that are the same network, and, where that network is the
    one of the plans, ``nnUNetTrainerStockAdamW``. Stock under SGD is never a twin: it has another recipe.
    """
    parsed = parse_trainer_name(trainer)
    entry = find_entry(parsed.base) if parsed else None
    if parsed is None or entry is None or parsed.base != entry.trainer:
        return []
    suffixes = without_run(trainer).removeprefix(parsed.base)
    same = entry.about.same.get("noAttention")
    names = [f"{parsed.base}_{ablation}{suffixes}" for ablation in ("noAttention", same) if ablation in entry.ablations]
    if same and 3 in entry.dimensions and parsed.recipe is None:
        names.append(f"{STOCK}StockAdamW{suffixes}")
    return names


def same_recipe_pairs(trainer: str) -> list[tuple[str, str]]:
    """Pairs of a trainer's network and the plans' network under one recipe, with its rate and schedule.

    Under our recipe the trainer itself with ``StockAdamW``; under stock nnU-Net's, ``_SGD`` with the stock trainer.
    Empty for a paper's recipe, stock networks and trainers that are not ours.
    """
    parsed = parse_trainer_name(trainer)
    if parsed is None or find_entry(parsed.base) is None or parsed.recipe not in (None, "SGD"):
        return []
    suffixes = without_run(trainer).removeprefix(parsed.base).removeprefix("_SGD")
    own = (without_run(trainer), f"{STOCK}StockAdamW{suffixes}")
    under_sgd = (f"{parsed.base}_SGD{suffixes}", f"{STOCK}{suffixes}")
    return [own, under_sgd] if parsed.recipe is None else [under_sgd]


def _without_suffixes(name: str) -> str:
    """The name without everything at its end that looks like one of our suffixes, in any order."""
    while (parts := name.rpartition("_"))[0] and SUFFIX.fullmatch(parts[2]):
        name = parts[0]
    return name


def hint(name: str) -> str | None:
    """One line on a name that is close to one of ours or has unreadable suffixes; None for all other names."""
    if parse_trainer_name(name) is not None:
        return None
    if reason := unreadable_suffixes(name):
        return reason
    import difflib

    stem = _without_suffixes(name)
    known = [*(written for written, _ in own_trainers()), *plugins()]
    near = difflib.get_close_matches(stem, known, 1, 0.85)
    return f"There is no trainer {name}; did you mean {near[0]}{name[len(stem) :]}?" if near else None


def unreadable_suffixes(name: str) -> str | None:
    """One line on a trainer of ours or stock ``nnUNetTrainer`` with suffixes in the wrong order or form, else None."""
    if parse_trainer_name(name):
        return None
    stem = _without_suffixes(name)
    if stem == name or not (stem == STOCK or find_written(stem)):
        return None
    return (
        f"{name} cannot be read: suffixes come in the order {ORDER}, K from 2, _SGD and _paper only on our trainers "
        f"that have them; for example {stem}_lr1e3_20epochs_run2"
    )
