"""Caveats: what a reader must know before trusting a comparison."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_attn.catalog import STOCK, STOCK_TRAINERS
from nnunet_attn.comparison.facts import Facts
from nnunet_attn.comparison.paired import Disagreements, p_text
from nnunet_attn.comparison.results import NOT_RECORDED
from nnunet_attn.comparison.rows import Row
from nnunet_attn.comparison.scores import Scores
from nnunet_attn.comparison.statistics import ALPHA, FEWEST, smallest_p
from nnunet_attn.scoring.groups import INDEPENDENT, Groups
from nnunet_attn.trainer_names import parse_trainer_name

FULL_SCHEDULE = 1000 * 250
BUDGET = 1.5  # flag a row with more than this many times the baseline's epoch time or memory


def unlearned_classes(scores: Scores) -> dict[str, list[str]]:
    """By row, the classes that it misses completely in more than half of the cases that have them."""

    def share_missed(row: str, name: str) -> float:
        predicted, present = scores.of(row, name, "n_pred"), scores.of(row, name, "n_ref") > 0
        return float(np.mean(predicted[present] == 0)) if present.any() else 0.0

    missed = {row: [name for name in scores.classes if share_missed(row, name) > 0.5] for row in scores.rows}
    return {row: names for row, names in missed.items() if names}


def learning_flags(unlearned: Mapping[str, Sequence[str]]) -> list[str]:
    """Caveats about rows that have learned poorly."""
    return [
        f"Poorly learned: in more than half of the cases that have it, {row} completely misses {', '.join(names)} "
        "(a difference to such a row says little)."
        for row, names in unlearned.items()
    ]


def data_flags(rows: Sequence[Row], folds: Sequence[str], used: Sequence[str], groups: Groups) -> list[str]:
    """On the amount of data: one dataset, folds, groups.

    Args:
        rows: The rows.
        folds: Folds that were asked for.
        used: Folds that are compared; empty for a test set.
        groups: Of the cases.
    """
    flags = [
        (
            "Single dataset: nothing general can be said about the methods. At least three datasets, better six, "
            "are needed."
        )
    ]
    if len(used) == 1:
        flags.append("Single fold: only one fold is validated, which is not a cross-validation.")
    elif used and len(used) < len(folds):
        flags.append(
            f"{len(used)} of {len(folds)} folds are complete in every row and are used, for scores and cost: "
            f"{', '.join(used)}."
        )
    for model in (run for row in rows for run in row.runs):
        missing = [f"fold {fold.name}: {fold.problem}" for fold in model.folds.values() if fold.problem]
        if missing:
            flags.append(f"{model.name} is incomplete. " + "; ".join(missing) + ".")
    number, compared = len(set(groups.of.values())), len(rows) - 1
    if groups.known:
        flags.append(f"{groups.counted()} ({groups.how}).")
    else:
        flags.append(
            f"Groups are not known ({groups.how}), so {len(groups.of)} {INDEPENDENT}: if several come from one patient "
            "or video, the intervals are too narrow and the p-values too small. No difference is claimed; say which "
            "cases belong together with --groups (a CSV file or a pattern)."
        )
    if smallest_p(number, compared) >= ALPHA:
        with_rows = f" and {compared} rows against the baseline" if compared > 1 else ""
        flags.append(
            f"Too few {groups.plural}: with {number}{with_rows} no test can reach p < {ALPHA} after Holm's correction "
            f"(the smallest is {smallest_p(number, compared):.2g})."
        )
    return flags


def ensemble_flags(rows: Sequence[Row]) -> list[str]:
    """On the folds that the predictions of a test set may come from."""
    trained = {run.name: [fold.name for fold in run.complete] for row in rows for run in row.runs}
    if len({tuple(folds) for folds in trained.values()}) == 1:
        return []
    folds_of = "; ".join(f"{name}: {', '.join(folds) or 'none'}" for name, folds in trained.items())
    flag = f"Unequal folds are trained ({folds_of}). Predictions by ensembles of these do not compare fairly."
    return [flag]


def fold_flags(disagreements: Disagreements, scores: Scores) -> list[str]:
    """On differences that are not the same in all folds, which no interval over groups counts, and on small folds."""
    groups = scores.groups
    numbers: dict[str, set[str]] = {}
    for fold, case in scores.keys:
        numbers.setdefault(fold, set()).add(groups.of[case])
    small = [fold for fold, names in numbers.items() if len(names) < FEWEST] if len(numbers) > 1 else []
    found = [
        f"{row} minus {other} {folds.text()} (p {p_text(folds.p)})" for (row, other), folds in disagreements.items()
    ]
    flags = []
    if small:
        flags.append(
            f"Fold{'s' * (len(small) > 1)} {', '.join(small)}: fewer than {FEWEST} {groups.plural}, so it was not "
            "tested whether differences are the same there as in other folds."
        )
    if found:
        flags.append(
            f"Folds disagree more than {groups.plural} explain: {'; '.join(found)}. The trainings differ, by chance or "
            "by their data, and the intervals of these differences are too narrow for what other trainings would give; "
            "repeats would tell (Alexander and Govern's test, p after Holm's correction). Such a difference is claimed "
            "only if each fold shows it, or the mean over folds does."
        )
    return flags


def repeat_flags(rows: Sequence[Row], unlisted: Sequence[str]) -> list[str]:
    """On repeats; ``unlisted`` are trained repeats in nnU-Net's results folder that were not named."""
    flags = []
    single = [row.name for row in rows if len(row.runs) == 1]
    if single:
        of = "" if len(single) == len(rows) else f" of {', '.join(single)}"
        flags.append(
            f"One training per fold{of}: nnU-Net is not deterministic, and the spread between repeats was not measured "
            "(trainers with _run2, _run3, ... are repeats)."
        )
    if unlisted:
        flags.append(f"Trained repeats that were not named in --trainers: {', '.join(unlisted)}.")
    return flags


def training_flags(rows: Sequence[Row], facts: Mapping[str, Facts]) -> list[str]:
    """Caveats about unequal plans, schedules, recipes, budgets and hardware, each row against the first."""
    first = facts[rows[0].name]
    baseline = rows[0].name
    flags: list[str] = []
    changes: dict[tuple[str, bool], list[str]] = {}  # rows by what they change of the recipe, and whether nothing else
    short = [row.name for row in rows if (s := facts[row.name].schedule) and s[0] * s[1] < FULL_SCHEDULE]
    if short:
        flags.append(
            f"Short schedule ({', '.join(short)}): fewer than nnU-Net's 1000 epochs of 250 iterations; not comparable "
            "with published numbers, and the order of the rows may change with longer training."
        )
    for row in rows:
        f = facts[row.name]
        if f.schedule is None:
            flags.append(f"{row.name}: schedule not recorded, debug.json is missing from its folds.")
        if f.varying:
            its = "folds" if len(row.runs) == 1 else "trainings"
            flags.append(f"{row.name}: its {its} differ in {', '.join(f.varying)}.")
        if row is rows[0]:
            continue
        if f.schedule and first.schedule and f.schedule != first.schedule:
            flags.append(
                f"Unequal schedule: {row.name} {f.schedule[0]} x {f.schedule[1]} iterations, "
                f"{baseline} {first.schedule[0]} x {first.schedule[1]}."
            )
        unequal = [
            f"{key} {f.plans[key]} (baseline {first.plans[key]})"
            for key in first.plans
            if f.plans[key] != first.plans[key]
        ]
        if unequal:
            flags.append(f"Unequal plans: {row.name} has {'; '.join(unequal)}.")
        changed = [t for t in first.recipe if NOT_RECORDED not in (f.recipe[t], first.recipe[t])
                   and f.recipe[t] != first.recipe[t]]  # fmt: skip
        if changed:
            changes.setdefault((", ".join(changed), _is_stock(row)), []).append(row.name)
        for title, ours, theirs in (
            ("epoch time", f.epoch_seconds, first.epoch_seconds),
            ("GPU memory", f.peak_allocated, first.peak_allocated),
        ):
            if ours and theirs and ours > BUDGET * theirs:
                flags.append(f"Not budget-matched: {row.name} has {ours / theirs:.1f} times the {title} of {baseline}.")
        for title in ("GPU", "torch"):
            a, b = f.environment[title], first.environment[title]
            if NOT_RECORDED not in (a, b) and a != b:
                flags.append(f"Different {title}: {row.name} {a}, {baseline} {b}; their times cannot be compared.")
        if f.pretrained not in (first.pretrained, NOT_RECORDED, "from scratch"):
            flags.append(f"{row.name} starts from pretrained weights ({f.pretrained}).")
    others = [row.name for row in rows[1:] if facts[row.name].pretrained not in (first.pretrained, NOT_RECORDED)]
    if first.pretrained not in (NOT_RECORDED, "from scratch") and others:
        flags.append(
            f"The baseline {baseline} starts from pretrained weights ({first.pretrained}), unlike {', '.join(others)}."
        )
    flags += [_recipe_flag(names, changed, rows, only=only) for (changed, only), names in changes.items()]
    if not any(_is_residual_stock(row, facts[row.name]) for row in rows):
        flags.append(
            "No baseline is nnU-Net's own network with a residual encoder preset (nnUNetResEncUNetMPlans and larger); "
            "one of similar memory and time is the stronger baseline."
        )
    return flags


def _is_residual_stock(row: Row, facts: Facts) -> bool:
    """Whether the network is nnU-Net's own with a residual encoder, under any recipe."""
    parsed = parse_trainer_name(row.trainer)
    own = (parsed.base if parsed else row.trainer) in (STOCK, *STOCK_TRAINERS)
    return own and ("ResEnc" in row.model.plans_name or "ResidualEnc" in str(facts.plans["network in the plans"]))


def _is_stock(row: Row) -> bool:
    """Whether the row's network is that of the plans."""
    parsed = parse_trainer_name(row.trainer)
    return parsed is not None and parsed.base in STOCK_TRAINERS


def _recipe_flag(names: Sequence[str], changed: str, rows: Sequence[Row], *, only: bool) -> str:
    """A caveat about rows with another recipe than the baseline: what causes the difference, and how to find out."""
    differs = f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'} from {rows[0].name} in {changed}"
    if only:
        return f"Other recipe, same network: {differs}; the difference is due to the recipe, or to chance."
    parsed = {row.name: parse_trainer_name(row.trainer) for row in rows}
    same_recipe = {(p.base, "SGD") for name in names if (p := parsed[name])}
    twins = [row.name for row in rows if _is_stock(row)]
    twins += [name for name, p in parsed.items() if p and (p.base, p.recipe) in same_recipe]
    told = f"Row {twins[0]} separates" if twins else "nnUNetTrainerStockAdamW or the trainer's _SGD twin would separate"
    return f"Recipe and network change together: {differs}. {told} the two."
