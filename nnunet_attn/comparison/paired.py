"""Statistics of a comparison: means, and paired differences on the same cases, with intervals and tests.

The tested quantity is the difference in Dice per case (the mean over a case's classes) to the first row, the
baseline; Holm's correction over the other rows keeps the chance of any false claim at 5 %. Where folds disagree more
than their groups explain, a claim must hold in each fold or over folds, too. All other tests (single classes, other
metrics) are exploratory: they share a Holm correction of their own, and support no claim. If it is not known which
cases belong to one patient or video, no claim is made at all.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from nnunet_attn.comparison.scores import CASE_MEAN, MEAN, Scores
from nnunet_attn.comparison.statistics import (
    ALPHA,
    Difference,
    FoldDisagreement,
    find_disagreements,
    holm,
    is_significant,
    paired_difference,
    smallest_p,
)
from nnunet_attn.scoring.groups import Groups
from nnunet_attn.scoring.intervals import group_sums, mean_interval, mean_without_nan
from nnunet_attn.scoring.metrics import DISTANCES, RANGES

Disagreements = Mapping[tuple[str, str], FoldDisagreement]  # by a row, and the row that is subtracted
TESTED = ("Dice", "IoU", "HD95", "ASSD", "NSD")  # RVD is signed: neither larger nor smaller is better


def summary_titles(scores: Scores) -> dict[str, str]:
    """Classes and overall mean of a summary, with titles; if there is a single class, only the mean, under its name."""
    if len(scores.classes) == 1:
        return {CASE_MEAN: scores.classes[0]}
    return {name: name for name in scores.classes} | {MEAN: "mean of classes", CASE_MEAN: "mean per case"}


def overall(scores: Scores) -> str:
    """The overall score of a row: nnU-Net's mean of classes, or that of the single class."""
    return MEAN if len(scores.classes) > 1 else CASE_MEAN


def summarise(scores: Scores) -> pd.DataFrame:
    """Mean with its interval over groups, per row, class and metric; also sd and median over cases, where defined.

    ``run_sd`` is the standard deviation of the mean between repeats.
    """
    result = []
    for row in scores.rows:
        for name in summary_titles(scores):
            for metric in scores.scored:
                values = scores.by_class(row, metric) if name == MEAN else scores.of(row, name, metric)[:, :, None]
                by_case = mean_without_nan(mean_without_nan(values, 0), 1)
                valid = ~np.isnan(by_case)
                mean = mean_interval(values, scores.index, RANGES[metric])
                one = by_case[valid] if name != MEAN else np.array([])
                result.append({
                    "row": row, "class": name, "metric": metric, "cases": int(valid.sum()),
                    "groups": len(np.unique(scores.index[valid])), "repeats": len(values), "mean": mean.mean,
                    "sd": float(np.std(one, ddof=1)) if len(one) > 1 else np.nan,
                    "median": float(np.median(one)) if len(one) else np.nan,
                    "low": mean.low, "high": mean.high, "run_sd": mean.run_sd,
                })  # fmt: skip
    return pd.DataFrame(result)


def difference_of(scores: Scores, row: str, other: str, name: str, metric: str) -> Difference | None:
    """One row minus another; None if no case has a value in both."""
    return paired_difference(
        scores.of(row, name, metric),
        scores.of(other, name, metric),
        scores.index,
        lower_is_better=metric in DISTANCES,
        limit=RANGES[metric][1] - RANGES[metric][0],
    )


def disagreeing_folds(scores: Scores, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], FoldDisagreement]:
    """The pairs whose difference in Dice per case is not the same in all folds.

    Args:
        scores: Of the validation of several folds; those of a test set have none.
        pairs: A row, and the row that is subtracted.
    """
    samples: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    names = np.array([fold for fold, _ in scores.keys])
    for row, other in dict.fromkeys(pairs):
        difference = scores.over_repeats(row, CASE_MEAN, "Dice") - scores.over_repeats(other, CASE_MEAN, "Dice")
        samples[row, other] = {}
        for fold in dict.fromkeys(names.tolist()):
            sums, counts = group_sums(difference[names == fold], scores.index[names == fold])
            samples[row, other][fold] = sums[counts > 0] / counts[counts > 0]
    return find_disagreements(samples)


def compare_with_baseline(scores: Scores, disagreements: Disagreements | None = None) -> pd.DataFrame:
    """Paired differences of every row to the first; the column ``primary`` marks the tested quantity.

    ``p_holm`` is corrected over the rows for the primary question, and over all other tests for the rest;
    ``smallest_p`` is the smallest that it could have been with so many groups, whatever the data. ``folds_disagree``
    marks primary differences that are not the same in all folds, see ``disagreeing_folds``.
    """
    disagreements = disagreements or {}
    result: list[tuple[dict[str, Any], Difference]] = []
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
            line["smallest_p"] = smallest_p(found.groups, len(family))
            folds = disagreements.get((line["row"], scores.rows[0])) if primary else None
            line["folds_disagree"] = folds is not None
            line["significant"] = primary and scores.groups.known and is_significant(found, p, folds)
    return pd.DataFrame([line | asdict(found) for line, found in result])


def can_show(d: Mapping[str, Any]) -> bool:
    """Whether a line of ``compare_with_baseline`` could have been significant at all; otherwise its p is no result."""
    return d["smallest_p"] < ALPHA


@dataclass(frozen=True)
class Verdict:
    """The conclusion about one row against the baseline.

    Attributes:
        said: In two or three words, for a table.
        effect: Mean difference with interval, and the groups that improved.
        claim: What the test lets us say of it.
        p: As a table shows it: no number where none could have been a result.
        weak: Of the two rows those that learned poorly.
    """

    row: str
    baseline: str
    significant: bool
    said: str
    effect: str
    claim: str
    p: str
    weak: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One or two sentences, the effect before the test."""
        before = f"{' and '.join(self.weak)} learned poorly, so this says little: " if self.weak else ""
        return f"{before}{self.row} against {self.baseline}: mean Dice per case {self.effect}. {self.claim}"

    def to_json(self) -> dict[str, object]:
        """As JSON content."""
        return {"row": self.row, "significant": self.significant, "said": self.said, "text": self.text}


def p_text(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def effect_text(d: Difference, groups: Groups) -> str:
    """Mean difference with interval, and how many groups improved."""
    interval = "no interval" if math.isnan(d.low) else f"95 % interval {d.low:+.4f} to {d.high:+.4f}"
    return f"{d.mean:+.4f} ({interval}), better in {d.wins} of {groups.counted(d.groups)}"


def verdicts(
    differences: pd.DataFrame,
    baseline: str,
    groups: Groups,
    *,
    unlearned: Collection[str] = (),
    disagreements: Disagreements | None = None,
) -> list[Verdict]:
    """The conclusion about each row: "no significant difference" unless the primary test says otherwise.

    Args:
        differences: See ``compare_with_baseline``.
        baseline: The first row.
        groups: If they are unknown, no verdict makes a claim or uses the word "significant".
        unlearned: Rows that have learned poorly; verdicts about them begin with it.
        disagreements: Those that ``differences`` were made with.
    """
    result = []
    for d in differences[differences.primary].itertuples():
        folds = (disagreements or {}).get((d.row, baseline))
        p = f"p {'' if d.p_holm < 0.001 else '= '}{p_text(d.p_holm)} after Holm's correction"
        if not groups.known:
            said, shown = "no claim", "–"
            claim = "No claim: which cases belong to one patient or video is not known (state it with --groups)."
        elif not can_show(d._asdict()):
            said, shown = "cannot be shown", f"≥ {d.smallest_p:.2g}" if d.smallest_p < 1 else "–"
            claim = (
                f"With {groups.counted(d.groups)} these data cannot show significance (smallest possible p = "
                f"{d.smallest_p:.2g})."
            )
        elif d.significant:
            said, shown = ("higher" if d.mean > 0 else "lower"), p_text(d.p_holm)
            claim = f"Significantly {said}, {p}."
            if folds is not None:
                claim += f" The folds disagree on how large the difference is ({folds.text()})."
        elif folds is not None and is_significant(d, d.p_holm):
            said, shown = "not shown: folds disagree", p_text(d.p_holm)
            claim = f"No claim: {p}, but the folds disagree ({folds.text()}); neither each nor all of them show it."
        elif d.p_holm < ALPHA and d.side * d.mean < 0:
            said, shown = "not shown: test against mean", p_text(d.p_holm)
            claim = f"No claim: {p}, but the test leans the other way than the mean."
        else:
            said, shown = "no difference shown", p_text(d.p_holm)
            claim = f"No significant difference, {p}."
            claim += f" The folds disagree ({folds.text()})." if folds is not None else ""
        weak = tuple(row for row in (d.row, baseline) if row in unlearned)
        said = f"learned poorly ({said})" if weak else said
        result.append(Verdict(d.row, baseline, bool(d.significant), said, effect_text(d, groups), claim, shown, weak))
    return result


def typical_cases(scores: Scores, row: str) -> pd.DataFrame:
    """A row's worst, median and best case by Dice per case, with the baseline's Dice and the difference.

    Fewer where there are fewer cases; of an even number the lower median.
    """
    dice, baseline = (scores.over_repeats(name, CASE_MEAN, "Dice") for name in (row, scores.rows[0]))
    order = np.argsort(dice, kind="stable")[: int((~np.isnan(dice)).sum())]
    places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1} if len(order) else {}
    chosen = {int(order[place]): which for which, place in reversed(places.items())}
    chosen = dict(sorted(chosen.items(), key=lambda item: dice[item[0]]))
    index = list(chosen)
    return pd.DataFrame({
        "which": list(chosen.values()), "case": [scores.keys[i][1] for i in index], "dice": dice[index],
        "baseline": baseline[index], "difference": dice[index] - baseline[index],
    })  # fmt: skip
