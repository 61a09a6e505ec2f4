"""Numbers of a comparison: scores of the same cases, paired, with intervals and tests.

The question that is tested is the difference in Dice per case (the mean over a case's classes) to the first row, the
baseline; Holm's correction over the other rows keeps the chance of any false claim at 5 %. All else (single classes,
other metrics) is exploratory: it has its own Holm correction, over everything exploratory, and no claim is made from
it. Where it is not known which cases belong to one patient or video, nothing is claimed at all.
"""

from collections.abc import Collection
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from nnunet_attn.comparison.scores import CASE_MEAN, MEAN, Scores
from nnunet_attn.comparison.statistics import ALPHA, Difference, holm, is_significant, paired_difference, smallest_p
from nnunet_attn.scoring.groups import INDEPENDENT, Groups
from nnunet_attn.scoring.intervals import mean_interval, mean_without_nan
from nnunet_attn.scoring.metrics import DISTANCES

TESTED = ("Dice", "IoU", "HD95", "ASSD", "NSD")  # RVD is signed: neither more nor less of it is better


def summary_titles(scores: Scores) -> dict[str, str]:
    """What a summary shows, with titles; of a single class only the mean, under the class's name."""
    if len(scores.classes) == 1:
        return {CASE_MEAN: scores.classes[0]}
    return {name: name for name in scores.classes} | {MEAN: "mean of classes", CASE_MEAN: "mean per case"}


def overall(scores: Scores) -> str:
    """The one number of a row: nnU-Net's mean of classes, or the single class."""
    return MEAN if len(scores.classes) > 1 else CASE_MEAN


def summarise(scores: Scores) -> pd.DataFrame:
    """Mean and its interval over groups, per row, class and metric; sd and median over cases where they exist.

    ``run_sd`` is the standard deviation of the mean between repeats.
    """
    result = []
    for row in scores.rows:
        for name in summary_titles(scores):
            for metric in scores.scored:
                values = scores.by_class(row, metric) if name == MEAN else scores.of(row, name, metric)[:, :, None]
                by_case = mean_without_nan(mean_without_nan(values, 0), 1)
                valid = ~np.isnan(by_case)
                mean, one = mean_interval(values, scores.index), by_case[valid] if name != MEAN else np.array([])
                result.append({
                    "row": row, "class": name, "metric": metric, "cases": int(valid.sum()),
                    "groups": len(np.unique(scores.index[valid])), "repeats": len(values), "mean": mean.mean,
                    "sd": float(np.std(one, ddof=1)) if len(one) > 1 else np.nan,
                    "median": float(np.median(one)) if len(one) else np.nan,
                    "low": mean.low, "high": mean.high, "run_sd": mean.run_sd,
                })  # fmt: skip
    return pd.DataFrame(result)


def difference_of(scores: Scores, row: str, other: str, name: str, metric: str) -> Difference | None:
    """One row minus another; None where they share no value."""
    return paired_difference(
        scores.of(row, name, metric),
        scores.of(other, name, metric),
        scores.index,
        lower_is_better=metric in DISTANCES,
    )


def compare_with_baseline(scores: Scores) -> pd.DataFrame:
    """Paired differences of every row to the first; column ``primary`` marks the tested question.

    ``p_holm`` is corrected over the rows for the primary question, and over all other tests for the rest.
    """
    result = []
    for name in scores.quantities:
        for metric in (metric for metric in TESTED if metric in scores.metrics):
            for row in scores.rows[1:]:
                found = difference_of(scores, row, scores.rows[0], name, metric)
                if found is not None:
                    primary = name == CASE_MEAN and metric == "Dice"
                    result.append(({"row": row, "class": name, "metric": metric, "primary": primary}, found))
    for primary in (True, False):
        family = [(line, found) for line, found in result if line["primary"] is primary]
        for (line, found), p in zip(family, holm([found.p for _, found in family]), strict=True):
            line["p_holm"] = p
            line["significant"] = primary and scores.groups.known and is_significant(found, p)
    return pd.DataFrame([line | asdict(found) for line, found in result])


@dataclass(frozen=True)
class Verdict:
    """What may be said of one row against the baseline."""

    row: str
    significant: bool
    text: str


def verdicts(
    differences: pd.DataFrame, baseline: str, groups: Groups, *, unlearned: Collection[str] = ()
) -> list[Verdict]:
    """What may be said of each row: "no significant difference" unless the primary test says otherwise.

    Args:
        differences: See ``compare_with_baseline``.
        baseline: The first row.
        groups: Where they are not known no verdict claims anything or uses the word "significant".
        unlearned: Rows that have hardly learned; a verdict that touches one says so.
    """
    result, tested = [], differences[differences.primary]
    for d in tested.itertuples():
        numbers = (
            f"difference {d.mean:+.4f}, 95 % interval {d.low:+.4f} to {d.high:+.4f}, n = {groups.counted(d.groups)}, "
            f"p {'< 0.001' if d.p_holm < 0.001 else f'= {d.p_holm:.3f}'} after Holm's correction"
        )
        if not groups.known:
            text = (
                f"Mean Dice per case of {d.row} and {baseline}, {INDEPENDENT}: {numbers}. No claim: which cases belong "
                "to one patient or video is not known (--groups tells)."
            )
        elif d.significant:
            word = "higher" if d.mean > 0 else "lower"
            text = f"{d.row} has a significantly {word} mean Dice per case than {baseline} ({numbers})."
        else:
            text = f"No significant difference in mean Dice per case between {d.row} and {baseline} ({numbers})."
            if smallest_p(d.groups, len(tested)) >= ALPHA:
                text += f" With {groups.counted(d.groups)} the test could not have found one."
        if weak := [row for row in (d.row, baseline) if row in unlearned]:
            text += f" But {' and '.join(weak)} hardly learned, so this says little about the networks."
        result.append(Verdict(d.row, bool(d.significant), text))
    return result


def worst_cases(scores: Scores, row: str, count: int) -> pd.DataFrame:
    """The cases with a row's lowest Dice per case, with the baseline's and the difference."""
    dice, baseline = (scores.over_repeats(name, CASE_MEAN, "Dice") for name in (row, scores.rows[0]))
    order = np.argsort(dice, kind="stable")[: min(count, int((~np.isnan(dice)).sum()))]
    return pd.DataFrame({
        "case": [scores.keys[i][1] for i in order], "dice": dice[order], "baseline": baseline[order],
        "difference": dice[order] - baseline[order],
    })  # fmt: skip
