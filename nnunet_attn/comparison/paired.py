"""Numbers of a comparison: scores of the same cases, paired, with intervals and tests.

The question that is tested is the difference in mean Dice over the classes to the first row, the baseline; Holm's
correction over the other rows keeps the chance of any false claim at 5 %. All else (single classes, other metrics) is
exploratory: it has its own Holm correction, over everything exploratory, and no claim is made from it.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_attn.comparison.statistics import (
    ALPHA,
    RESAMPLES,
    bootstrap_interval,
    holm,
    is_significant,
    paired_difference,
    smallest_p,
)
from nnunet_attn.errors import UserError
from nnunet_attn.scoring.cases import listed
from nnunet_attn.scoring.metrics import METRICS

TESTED = ("Dice", "IoU", "HD95", "NSD")
LOWER_IS_BETTER = ("HD95", "HD95_voxel")
MEAN = "mean"  # the mean over classes, in the column "class"
COLUMNS = ("row", "fold", "case", "patient", "class", "metric", "value")
# Names as our converters write them: several frames or slices of one patient.
FRAME = re.compile(r"(.+?)[_-](?:frame|slice|time)[_-]?\d+$")


def patients_of(cases: Sequence[str], rule: str | None) -> tuple[dict[str, str], str]:
    """The patient of each case, and how that was decided.

    Args:
        cases: Names of the cases.
        rule: A JSON file case -> patient; or a regular expression whose first group (or whole match) in the case's
            name is the patient; None takes names like ``patient007_frame01`` apart, and else each case for a patient.

    Raises:
        UserError: the rule does not cover all cases.
    """
    if rule is None:
        found = {case: FRAME.fullmatch(case) for case in cases}
        if all(found.values()):
            return {c: m[1] for c, m in found.items()}, "patients by name, up to _frame, _slice or _time"
        return {case: case for case in cases}, "each case counted as a patient of its own"
    if rule.endswith(".json"):
        try:
            known = json.loads(Path(rule).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"--patients {rule} cannot be read: {error}") from error
        patients, how = {case: str(known.get(case, "")) for case in cases}, f"patients from {Path(rule).name}"
    else:
        try:
            matches = {case: re.search(rule, case) for case in cases}
        except re.error as error:
            raise UserError(f"--patients {rule} is no regular expression: {error}") from error
        patients = {case: (m[1] if m.re.groups else m[0]) if m else "" for case, m in matches.items()}
        how = f"patients by the pattern {rule}"
    missing = sorted(case for case, patient in patients.items() if not patient)
    if missing:
        raise UserError(f"--patients {rule} gives no patient for {listed(missing)}")
    return patients, how


def shown_classes(classes: Sequence[str]) -> dict[str, str]:
    """What is reported, with its title: each class and their mean; of a single class only the mean, under its name."""
    return {name: name for name in classes} | {MEAN: "mean of classes"} if len(classes) > 1 else {MEAN: classes[0]}


def long_table(
    scores: Mapping[str, Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]]], patients: Mapping[str, str]
) -> pd.DataFrame:
    """All values in long form, with each case's mean over classes (classes without a value left out).

    Args:
        scores: Row -> (fold, case) -> class -> metric -> value.
        patients: Patient of each case.
    """
    rows = []
    for row, cases in scores.items():
        for (fold, case), classes in cases.items():
            for name, values in classes.items():
                rows += [(row, fold, case, patients[case], name, m, v) for m, v in values.items()]
            for metric in METRICS:
                values = [v[metric] for v in classes.values() if metric in v and not math.isnan(v[metric])]
                if any(metric in v for v in classes.values()):
                    mean = sum(values) / len(values) if values else math.nan
                    rows.append((row, fold, case, patients[case], MEAN, metric, mean))
    return pd.DataFrame(rows, columns=COLUMNS)


def voxel_counts(table: pd.DataFrame, row: str, name: str) -> pd.DataFrame:
    """Voxels of a class in a row's predictions and in the references, ``n_pred`` and ``n_ref`` by case."""
    t = table[(table.row == row) & (table["class"] == name) & table.metric.isin(["n_pred", "n_ref"])]
    return t.pivot(index="case", columns="metric", values="value")


def summarise(table: pd.DataFrame, *, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Mean, sd, median over cases and the mean's interval over patients, per row, class and metric."""
    result = []
    wanted = table[table.metric.isin(METRICS)]
    for (row, name, metric), group in wanted.groupby(["row", "class", "metric"], sort=False):
        values = group[group.value.notna()]
        low, high = bootstrap_interval(values.value.to_numpy(), values.patient.to_numpy(), resamples=resamples) \
            if len(values) else (math.nan, math.nan)  # fmt: skip
        result.append({
            "row": row, "class": name, "metric": metric,
            "cases": len(values), "patients": values.patient.nunique(), "mean": values.value.mean(),
            "sd": values.value.std(ddof=1), "median": values.value.median(), "low": low, "high": high,
        })  # fmt: skip
    return pd.DataFrame(result)


def compare_with_baseline(table: pd.DataFrame, *, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Paired differences of every row to the first; column ``primary`` marks the tested question.

    ``p_holm`` is corrected over the rows for the primary question, and over all other tests for the rest.
    """
    rows = list(dict.fromkeys(table.row))
    result = []
    for (name, metric), group in table[table.metric.isin(TESTED)].groupby(["class", "metric"], sort=False):
        wide = group.pivot(index=["case", "patient"], columns="row", values="value")
        patients = wide.index.get_level_values("patient").to_numpy()
        for row in rows[1:]:
            if row not in wide or rows[0] not in wide:
                continue
            difference = paired_difference(
                wide[row].to_numpy(), wide[rows[0]].to_numpy(), patients,
                lower_is_better=metric in LOWER_IS_BETTER, resamples=resamples,
            )  # fmt: skip
            if difference is not None:
                only_one = int((wide[row].isna() != wide[rows[0]].isna()).sum())
                primary = name == MEAN and metric == "Dice"
                result.append({"row": row, "class": name, "metric": metric, "primary": primary}
                              | {"difference": difference, "only_in_one": only_one})  # fmt: skip
    for primary in (True, False):
        family = [r for r in result if r["primary"] is primary]
        for r, p in zip(family, holm([r["difference"].p for r in family]), strict=True):
            r["p_holm"] = p
            r["significant"] = primary and is_significant(r["difference"], p)
    return pd.DataFrame([{k: v for k, v in r.items() if k != "difference"} | vars(r["difference"]) for r in result])


@dataclass(frozen=True)
class Verdict:
    """What may be said of one row against the baseline."""

    row: str
    significant: bool
    text: str


def verdicts(differences: pd.DataFrame, baseline: str, unlearned: Collection[str] = ()) -> list[Verdict]:
    """What may be said of each row: "no significant difference" unless the primary test says otherwise.

    Args:
        differences: See ``compare_with_baseline``.
        baseline: The first row.
        unlearned: Rows that have hardly learned; a verdict that touches one says so.
    """
    result = []
    for d in differences[differences.primary].itertuples():
        numbers = (
            f"difference {d.mean:+.4f}, 95 % interval {d.low:+.4f} to {d.high:+.4f}, n = {d.patients} patients, "
            f"p {'< 0.001' if d.p_holm < 0.001 else f'= {d.p_holm:.3f}'} after Holm's correction"
        )
        if d.significant:
            word = "higher" if d.mean > 0 else "lower"
            text = f"{d.row} has a significantly {word} mean Dice than {baseline} ({numbers})."
        else:
            text = f"No significant difference in mean Dice between {d.row} and {baseline} ({numbers})."
            if smallest_p(d.patients) >= ALPHA:
                text += f" With {d.patients} patients the test could not have found one."
        if weak := [row for row in (d.row, baseline) if row in unlearned]:
            text += f" But {' and '.join(weak)} hardly learned, so this says little about the networks."
        result.append(Verdict(d.row, bool(d.significant), text))
    return result


def worst_cases(table: pd.DataFrame, row: str, count: int) -> pd.DataFrame:
    """The cases with a row's lowest mean Dice, with the baseline's Dice and the difference."""
    rows = list(dict.fromkeys(table.row))
    dice = table[(table.metric == "Dice") & (table["class"] == MEAN)].pivot(index="case", columns="row", values="value")
    worst = dice.dropna(subset=[row]).nsmallest(count, row)
    return pd.DataFrame({
        "case": worst.index, "dice": worst[row].to_numpy(), "baseline": worst[rows[0]].to_numpy(),
        "difference": np.subtract(worst[row], worst[rows[0]]).to_numpy(),
    })  # fmt: skip
