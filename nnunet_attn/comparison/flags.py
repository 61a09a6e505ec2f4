"""What a reader must know before believing a comparison."""

from collections.abc import Mapping, Sequence

import pandas as pd

from nnunet_attn.catalog import STOCK_TRAINERS
from nnunet_attn.comparison.facts import Facts
from nnunet_attn.comparison.paired import voxel_counts
from nnunet_attn.comparison.results import DEFAULT_PLANS, NOT_RECORDED, Model
from nnunet_attn.comparison.statistics import ALPHA, smallest_p
from nnunet_attn.trainer_names import parse_trainer_name

FULL_SCHEDULE = 1000 * 250
BUDGET = 1.5  # times the baseline's epoch time or memory


def unlearned_classes(table: pd.DataFrame, rows: Sequence[str], classes: Sequence[str]) -> dict[str, list[str]]:
    """By row, the classes that it misses altogether in more than half of the cases that have them."""

    def share_missed(row: str, name: str) -> float:
        counts = voxel_counts(table, row, name)
        return (counts[counts.n_ref > 0].n_pred == 0).mean()

    missed = {row: [name for name in classes if share_missed(row, name) > 0.5] for row in rows}
    return {row: names for row, names in missed.items() if names}


def learning_flags(unlearned: Mapping[str, Sequence[str]]) -> list[str]:
    """On rows that have not learned what they are compared by."""
    return [
        f"Hardly learned: in more than half of the cases that have it, {row} misses {', '.join(names)} altogether. "
        "A difference to such a row says little."
        for row, names in unlearned.items()
    ]


def data_flags(
    models: Sequence[Model], folds: Sequence[str], used: Sequence[str], patients: int, how: str
) -> list[str]:
    """On the amount of data: one dataset, folds, patients."""
    flags = ["Single dataset: nothing general can be said of the methods. At least three, better six are needed."]
    if len(used) == 1:
        flags.append("Single fold: validation cases of one fold only, which is not a cross-validation.")
    elif used and len(used) < len(folds):
        flags.append(f"{len(used)} of {len(folds)} folds are complete in every row and used: {', '.join(used)}.")
    for model in models:
        missing = [f"fold {fold.name}: {fold.problem}" for fold in model.folds.values() if fold.problem]
        if missing:
            flags.append(f"{model.name} is incomplete. " + "; ".join(missing) + ".")
    flags.append(f"{patients} patients ({how}).")
    if smallest_p(patients) >= ALPHA:
        flags.append(f"Too few patients: with {patients} no test can reach p < {ALPHA}.")
    flags.append("One training per row and fold: nnU-Net is not deterministic, and how much a repetition differs was "
                 "not measured.")  # fmt: skip
    return flags


def training_flags(models: Sequence[Model], facts: Mapping[str, Facts]) -> list[str]:
    """On unequal plans, schedules, recipes, budgets and hardware, each row against the first."""
    first = facts[models[0].name]
    baseline = models[0].name
    flags = []
    short = [m.name for m in models if (s := facts[m.name].schedule) and s[0] * s[1] < FULL_SCHEDULE]
    if short:
        flags.append(
            f"Short schedule ({', '.join(short)}): fewer than nnU-Net's 1000 epochs of 250 iterations; not comparable "
            "with published numbers, and the order of the rows may change with longer training."
        )
    for model in models:
        f = facts[model.name]
        if f.schedule is None:
            flags.append(f"{model.name}: schedule not recorded, debug.json is missing from its folds.")
        if f.varying:
            flags.append(f"{model.name}: its folds differ in {', '.join(f.varying)}.")
        if model is models[0]:
            continue
        if f.schedule and first.schedule and f.schedule != first.schedule:
            flags.append(
                f"Unequal schedule: {model.name} {f.schedule[0]} x {f.schedule[1]} iterations, "
                f"{baseline} {first.schedule[0]} x {first.schedule[1]}."
            )
        unequal = [
            f"{key} {f.plans[key]} (baseline {first.plans[key]})"
            for key in first.plans
            if f.plans[key] != first.plans[key]
        ]
        if unequal:
            flags.append(f"Unequal plans: {model.name} has {'; '.join(unequal)}.")
        changed = [t for t in first.recipe if NOT_RECORDED not in (f.recipe[t], first.recipe[t])
                   and f.recipe[t] != first.recipe[t]]  # fmt: skip
        if changed:
            flags.append(_recipe_flag(model, models, changed))
        for title, ours, theirs in (
            ("epoch time", f.epoch_seconds, first.epoch_seconds),
            ("GPU memory", f.peak_allocated, first.peak_allocated),
        ):
            if ours and theirs and ours > BUDGET * theirs:
                flags.append(
                    f"Not budget-matched: {model.name} has {ours / theirs:.1f} times the {title} of {baseline}."
                )
        for title in ("GPU", "torch"):
            a, b = f.environment[title], first.environment[title]
            if NOT_RECORDED not in (a, b) and a != b:
                flags.append(f"Different {title}: {model.name} {a}, {baseline} {b}; their times do not compare.")
        if f.pretrained not in (first.pretrained, NOT_RECORDED, "from scratch"):
            flags.append(f"{model.name} starts from pretrained encoder weights ({f.pretrained}).")
    if all(model.plans_name == DEFAULT_PLANS for model in models):
        flags.append(
            "Only nnU-Net's default plans are among the baselines; a residual encoder preset of like memory and time "
            "(nnUNetResEncUNetMPlans and larger) is the stronger one."
        )
    return flags


def _recipe_flag(model: Model, models: Sequence[Model], changed: Sequence[str]) -> str:
    """On a row whose recipe is not the baseline's: what the difference may come from, and how to tell."""
    parsed = parse_trainer_name(model.trainer)
    differs = f"{model.name} differs from {models[0].name} in {', '.join(changed)}"
    if parsed is not None and parsed.base in STOCK_TRAINERS:
        return f"Other recipe, same network: {differs}; what they differ by is the recipe's doing."
    twins = [m.name for m in models if (p := parse_trainer_name(m.trainer)) and p.base in STOCK_TRAINERS]
    if parsed is not None:
        twins += [
            m.name
            for m in models
            if (p := parse_trainer_name(m.trainer)) and (p.base, p.recipe) == (parsed.base, "SGD")
        ]
    told = f"Row {twins[0]} tells" if twins else "nnUNetTrainerStockAdamW or the trainer's _SGD twin would tell"
    return f"Recipe and network change together: {differs}. {told} the two apart."
