"""A study's numbers over datasets: comparisons side by side, and networks against their twins without attention."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from nnunet_attn.comparison.compare import Comparison
from nnunet_attn.comparison.flags import unlearned_classes
from nnunet_attn.comparison.paired import overall
from nnunet_attn.comparison.scores import CASE_MEAN
from nnunet_attn.comparison.statistics import ALPHA, holm, is_significant, smallest_p

RANKED = "Dice"


@dataclass
class Side:
    """One dataset of a study.

    Attributes:
        name: Name of the dataset, with the configuration.
        rows: The study's name of each row of the comparison, the baseline first.
        results: Per row and metric: mean, low, high, run_sd, repeats (``summarise`` of the overall mean).
        differences: Per row and metric, to the baseline, on the mean per case (``compare_with_baseline``).
        twins: Networks against their twins without attention, Holm-corrected over all pairs of the dataset.
        cost: Seconds per epoch and hours of a training, by row.
        flags: Caveats of the comparison.
        unlearned: Rows that have learned poorly.
        test: Whether these are the scores of a dataset's test set, which stand beside those of its validation.
    """

    name: str
    rows: list[str]
    results: pd.DataFrame
    differences: pd.DataFrame
    twins: pd.DataFrame
    cost: pd.DataFrame
    flags: list[str]
    unit: str
    groups: str
    groups_known: bool
    unlearned: list[str]
    test: bool = False


def make_side(comparison: Comparison, names: Mapping[str, str]) -> Side:
    """The part of one comparison that the report over datasets shows.

    Args:
        comparison: The comparison of one dataset.
        names: Maps the comparison's row names to the study's.
    """
    c = comparison
    summary = c.summary[c.summary["class"] == overall(c.scores)].copy()
    differences = c.differences[c.differences["class"] == CASE_MEAN].copy()
    for table in (summary, differences):
        table["row"] = [names[row] for row in table.row]
    facts, unlearned = [c.facts[row] for row in c.names], unlearned_classes(c.scores)
    cost = pd.DataFrame({
        "row": [names[row] for row in c.names],
        "epoch_seconds": [f.epoch_seconds for f in facts],
        "hours": [f.hours / f.trainings if f.hours and f.trainings else None for f in facts],
    })  # fmt: skip
    return Side(
        name=c.dataset,
        rows=[names[row] for row in c.names],
        results=summary,
        differences=differences,
        twins=compare_twins(c, names, unlearned),
        cost=cost,
        flags=c.flags,
        unit=c.gathered.unit,
        groups=c.groups.counted(),
        groups_known=c.groups.known,
        unlearned=[names[row] for row in unlearned],
    )


def compare_twins(comparison: Comparison, names: Mapping[str, str], unlearned: Collection[str]) -> pd.DataFrame:
    """The comparison's twins, with p-values corrected over all of them, and which of them are ``unlearned``."""
    found = comparison.twins
    lines = []
    for twin, p in zip(found, holm([twin.difference.p for twin in found]), strict=True):
        d = twin.difference
        folds = comparison.disagreements.get((twin.row, twin.twin))
        significant = comparison.groups.known and is_significant(d, p, folds)
        lines.append({
            "network": names[twin.row], "without": names[twin.twin], "mean": d.mean, "low": d.low, "high": d.high,
            "p_holm": p, "significant": significant, "folds_disagree": folds is not None, "groups": d.groups,
            "possible": comparison.groups.known and smallest_p(d.groups, len(found)) < ALPHA,
            "unlearned": ", ".join(names[row] for row in (twin.row, twin.twin) if row in unlearned),
        })  # fmt: skip
    columns = (
        "network", "without", "mean", "low", "high", "p_holm", "significant", "folds_disagree", "groups", "possible",
        "unlearned",
    )  # fmt: skip
    return pd.DataFrame(lines, columns=list(columns))


def mean_ranks(sides: Sequence[Side], rows: Sequence[str]) -> pd.DataFrame:
    """Mean, best and worst rank of each row by mean Dice (1 is best; ties share), over datasets that have all rows.

    By the validation alone: a dataset with a test set does not count twice.
    """
    ranks = []
    for side in (side for side in sides if not side.test):
        dice = side.results[side.results.metric == RANKED].set_index("row")["mean"]
        if all(row in dice.index for row in rows) and dice.loc[list(rows)].notna().all():
            ranks.append(stats.rankdata(-np.round(dice.loc[list(rows)].to_numpy(), 12)))
    array = np.array(ranks).reshape(len(ranks), len(rows))
    empty = len(ranks) == 0
    return pd.DataFrame({
        "row": list(rows),
        "datasets": len(ranks),
        "mean": np.full(len(rows), np.nan) if empty else array.mean(0),
        "best": np.full(len(rows), np.nan) if empty else array.min(0),
        "worst": np.full(len(rows), np.nan) if empty else array.max(0),
    })  # fmt: skip
