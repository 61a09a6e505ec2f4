"""Read scores that ``nnunet-attn evaluate`` stored beside a fold's validation, so that they are computed only once."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

from nnunet_attn.scoring.cases import VOXEL, Rules

STORED = "nnunet_attn_metrics.csv"
CaseScores = dict[str, dict[str, dict[str, float]]]  # case -> class -> metric -> value


def read_stored(path: Path) -> CaseScores:
    """The long table of ``evaluate`` as nested dictionaries."""
    scores: CaseScores = {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        columns = next(lines, [])
        case, name, metric, value = (columns.index(column) for column in ("case", "class", "metric", "value"))
        for line in lines:
            scores.setdefault(line[case], {}).setdefault(line[name], {})[line[metric]] = float(line[value] or "nan")
    return scores


def same_dice(stored: CaseScores, cases: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bool:
    """Whether both score the same predictions: they have the same Dice for the same cases and classes."""
    if stored.keys() != cases.keys():
        return False
    for case, classes in cases.items():
        if stored[case].keys() != classes.keys():
            return False
        for name, values in classes.items():
            a, b = values["Dice"], stored[case][name].get("Dice", math.nan)
            if math.isnan(a) != math.isnan(b) or abs(a - b) > 1e-5:
                return False
    return True


def stored_scores(fold: Path, cases: Mapping[str, Mapping], rules: Rules) -> tuple[CaseScores, str] | None:
    """A fold's stored scores and unit of distances; None unless they are of this validation, by ``rules``."""
    try:
        about = json.loads((fold / STORED).with_suffix(".json").read_text(encoding="utf-8"))
        scores = read_stored(fold / STORED)
    except (OSError, ValueError):
        return None
    if about.get("protocol") != rules.protocol or about.get("nsd_tolerance") != rules.tolerance:
        return None
    if (about.get("unit") == VOXEL) != rules.voxels:
        return None
    return (scores, str(about.get("unit", ""))) if same_dice(scores, cases) else None
