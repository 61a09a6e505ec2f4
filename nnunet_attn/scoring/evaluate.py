"""Score a folder of predictions or a trained model's validation folds: a table of all values, and its summary."""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_file, write_json
from nnunet_attn.scoring.cases import Job, Rules, Scores, listed, score_cases
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.scoring.folders import (
    files_by_case,
    find_dataset_json,
    find_references,
    find_splits,
    find_trained_model,
    nnunet_folder,
)
from nnunet_attn.scoring.groups import INDEPENDENT, Groups, find_groups
from nnunet_attn.scoring.input_size import original_references, true_spacings
from nnunet_attn.scoring.intervals import Mean, group_index, mean_interval
from nnunet_attn.scoring.metrics import DISTANCES, METRICS, RANGES
from nnunet_attn.scoring.volumes import PICTURE, file_ending

COLUMNS = ("dataset", "trainer", "fold", "case", "class", "metric", "value")
PACKAGES = ("nnunet-attn", "numpy", "scipy", "SimpleITK")
DEFINITIONS = {
    "HD95": "95th percentile of the pooled border distances of both directions (as medpy), in the unit of the spacing",
    "HD95_voxel": "HD95 with spacing 1",
    "ASSD": "mean of the pooled border distances of both directions (as medpy since 0.5), in the unit of the spacing",
    "RVD": "(predicted - reference volume) / reference volume, signed; no value if the reference lacks the class",
    "ml_pred, ml_ref": "volumes in millilitres, if the files state a spacing",
    "NSD": "share of both borders' voxels within the tolerance of the other border, unweighted",
    "nnunet": "class absent from both masks: left out; from one: Dice, IoU, NSD are 0, HD95, ASSD the image's diagonal",
    "transunet": "no spacing; class predicted but absent from the reference: Dice and IoU 1, HD95 0; "
    "missed, or absent from both: 0 and 0",
}


@dataclass(frozen=True)
class Evaluation:
    """The long table (``COLUMNS``), and its summary as written to the JSON file."""

    table: pd.DataFrame
    summary: dict


def _paired(
    fold: str, predictions: dict[str, Path], references: dict[str, Path], expected: set[str], *, only_predicted: bool
) -> list[Job]:
    """The jobs of one folder; ``expected`` are the cases that it must hold."""
    extra = sorted(set(predictions) - expected)
    missing = sorted(expected - set(predictions))
    where = f"fold {fold}: " if fold else ""
    if extra:
        raise UserError(f"{where}{len(extra)} predictions belong to no expected case: {listed(extra)}")
    if missing and not only_predicted:
        raise UserError(
            f"{where}{len(missing)} of {len(expected)} cases have no prediction: {listed(missing)} "
            "(--only-predicted scores the others)"
        )
    unknown = sorted(set(predictions) - set(references))
    if unknown:
        raise UserError(f"{where}{len(unknown)} predictions have no reference: {listed(unknown)}")
    return [Job(case, fold, predictions[case], references[case]) for case in sorted(predictions)]


def find_jobs(
    predictions: Path,
    references: Path | None,
    ending: str | None,
    *,
    folds: Sequence[str] | None = None,
    only_predicted: bool = False,
) -> list[Job]:
    """Pair predictions with references.

    In a plain folder, every reference must have a prediction. In a trained model, each fold's validation must hold the
    cases that nnU-Net's splits_final.json lists; without that file, the cases found are scored.

    Raises:
        UserError: cases are missing, extra, or in several folds; the message names them.
    """
    model = find_trained_model(predictions)
    if model is None:
        if references is None:
            raise UserError(f"{predictions} is not a folder of a trained model, so give the folder of references, too")
        reference_files = files_by_case(references, ending)
        predicted = files_by_case(predictions, ending)
        return _paired("", predicted, reference_files, set(reference_files), only_predicted=only_predicted)

    reference_files = files_by_case(references or find_references(model.dataset), ending)
    splits = find_splits(model.dataset) or []
    jobs: list[Job] = []
    for fold in folds or model.folds:
        if not model.validation(fold).is_dir():
            raise UserError(
                f"{model.folder.name} has no fold_{fold}/validation; train and validate it, or give --folds"
            )
        predicted = files_by_case(model.validation(fold), ending)
        known = fold.isdigit() and int(fold) < len(splits)
        expected = set(splits[int(fold)]["val"]) if known else set(predicted)
        jobs += _paired(fold, predicted, reference_files, expected, only_predicted=only_predicted)
    cases = [job.case for job in jobs]
    twice = sorted(case for case, count in Counter(cases).items() if count > 1)
    if twice:
        raise UserError(f"{len(twice)} cases are in the validation of several folds: {listed(twice)}; give --folds")
    return jobs


def jobs_of_input_size(jobs: Sequence[Job], size: int, raw: Path | None, *, at_input_size: bool) -> list[Job]:
    """The jobs of a dataset that was converted with ``--input-size``, at that size or at the original one.

    Args:
        jobs: As for any dataset.
        size: The input size.
        raw: The dataset's folder in nnUNet_raw, with the manifest and the original masks.
        at_input_size: Which of both.

    Raises:
        UserError: what the conversion kept of the original is missing.
    """
    if at_input_size:
        return [replace(job, at_size=size) for job in jobs]
    if file_ending(jobs[0].reference) in PICTURE:
        folders = {f: original_references(f, raw) for f in {job.reference.parent for job in jobs}}
        return [
            replace(job, original=True, reference=folders[job.reference.parent] / job.reference.name) for job in jobs
        ]
    spacings = true_spacings(raw)
    if unknown := [job.case for job in jobs if job.case not in spacings]:
        raise UserError(f"the conversion's manifest has no spacing of {listed(unknown)}")
    return [replace(job, original=True, spacing=tuple(spacings[job.case])) for job in jobs]


def long_table(scores: Sequence[Scores], *, dataset: str = "", trainer: str = "") -> pd.DataFrame:
    """One row per case, class and metric."""
    rows = (
        (dataset, trainer, s.job.fold, s.job.case, name, metric, value)
        for s in scores
        for name, values in s.values.items()
        for metric, value in values.items()
    )
    return pd.DataFrame(rows, columns=COLUMNS)


def summarise(scores: Sequence[Scores], groups: Groups | None = None) -> dict:
    """Means as nnU-Net computes them: of each class over the cases where it is scored, then over classes.

    A class that no case has is left out of the mean over classes (nnU-Net's would be NaN). ``intervals`` are 95 %
    intervals of the means, over groups; null for fewer than two groups.
    """
    groups = groups or find_groups([s.job.case for s in scores])
    index = group_index([groups.of[s.job.case] for s in scores])
    columns = {
        metric: np.array([[values[metric] for values in s.values.values()] for s in scores]) for metric in METRICS
    }
    classes = {}
    for name in scores[0].values:
        values = [s.values[name] for s in scores]
        classes[name] = (
            {metric: _mean([v[metric] for v in values if not math.isnan(v[metric])]) for metric in METRICS}
            | {
                "cases": sum(v["n_pred"] > 0 or v["n_ref"] > 0 for v in values),
                "missed": sum(v["n_pred"] == 0 and v["n_ref"] > 0 for v in values),
                "invented": sum(v["n_pred"] > 0 and v["n_ref"] == 0 for v in values),
                "absent": sum(v["n_pred"] == 0 and v["n_ref"] == 0 for v in values),
            }
            | {key: _mean([v[key] for v in values]) for key in ("ml_pred", "ml_ref") if key in values[0]}
        )
    means = ([m for c in classes.values() if (m := c[metric]) is not None] for metric in METRICS)
    intervals: dict[str, dict] = {name: {} for name in (*classes, "foreground_mean")}
    for metric, column in columns.items():
        for i, name in enumerate(classes):
            intervals[name][metric] = _ends(mean_interval(column[:, i], index, RANGES[metric]))
        intervals["foreground_mean"][metric] = _ends(mean_interval(column, index, RANGES[metric]))
    return {
        "mean": classes,
        "foreground_mean": dict(zip(METRICS, map(_mean, means), strict=True)),
        "intervals": intervals,
        "groups": groups.summary(),
    }


def _ends(mean: Mean) -> list[float] | None:
    return None if math.isnan(mean.low) else [mean.low, mean.high]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def evaluate(
    predictions: Path,
    references: Path | None = None,
    *,
    dataset_json: Path | None = None,
    labels: Sequence[int] | None = None,
    folds: Sequence[str] | None = None,
    groups: str | None = None,
    protocol: str = "nnunet",
    tolerance: float = 1.0,
    voxels: bool = False,
    only_predicted: bool = False,
    at_input_size: bool = False,
    processes: int = 1,
    progress: bool = True,
) -> Evaluation:
    """Score predictions against references.

    Args:
        predictions: A folder of label maps; or a trained model's folder (``TRAINER__PLANS__CONFIGURATION``), or one
            fold of it, whose validation is scored.
        references: Folder of reference label maps; for a trained model, nnU-Net's own by default.
        dataset_json: Defines classes, regions and ignore label; by default searched beside both folders.
        labels: Label values to score, if there is no dataset.json.
        folds: Folds of a trained model; by default all that exist.
        groups: Rule that tells which cases belong together, see ``groups.find_groups``.
        protocol: "nnunet" or "transunet", see ``metrics.score``.
        tolerance: Tolerance of NSD, in mm (in pixels for files without spacing).
        voxels: Distances in voxels, whatever spacing the files state.
        only_predicted: Score the predicted cases even if others lack a prediction.
        at_input_size: Of a dataset converted with ``--input-size``: score slices and pictures at that size. Otherwise
            pictures are scored at their original size, and volumes with their true spacing.

    Raises:
        UserError: something is missing or does not fit; the message says what.
    """
    if labels:
        classes, ending = Classes({str(v): (v,) for v in labels}, None, {str(v): v for v in labels}), None
        size = None
    else:
        found = dataset_json or find_dataset_json(predictions, *([references] if references else []))
        if found is None:
            raise UserError(
                "no dataset.json beside predictions or references; give --dataset-json, or --labels 1 2 ..."
            )
        classes = Classes.from_file(found)
        content = json.loads(found.read_text(encoding="utf-8"))
        ending, size = content.get("file_ending"), content.get("input_size")
    jobs = find_jobs(predictions, references, ending, folds=folds, only_predicted=only_predicted)
    model = find_trained_model(predictions)
    if at_input_size and size is None:
        raise UserError("--at-input-size is for datasets that were converted with --input-size; this one was not")
    if size is not None:
        raw = nnunet_folder("nnUNet_raw", model.dataset) if model else jobs[0].reference.parent.parent
        jobs = jobs_of_input_size(jobs, size, raw, at_input_size=at_input_size)
    beside = [folder.parent for folder in {job.reference.parent for job in jobs}]
    found_groups = find_groups(
        [job.case for job in jobs], groups, dataset=model.dataset if model else None, folders=beside
    )
    scores = score_cases(jobs, Rules(classes, protocol, tolerance, voxels), processes=processes, progress=progress)

    names = {"dataset": model.dataset, "trainer": model.folder.name} if model else {"dataset": "", "trainer": ""}
    summary = {
        "format": 1,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "packages": {name: version(name) for name in PACKAGES},
        **names,
        "predictions": str(predictions),
        "references": str(jobs[0].reference.parent),
        "folds": sorted({job.fold for job in jobs if job.fold}),
        "cases": len(jobs),
        "protocol": protocol,
        "size": None if size is None else f"input ({size})" if at_input_size else "original",
        "nsd_tolerance": tolerance,
        "unit": "/".join(sorted({s.unit for s in scores})),
        "definitions": DEFINITIONS,
        **summarise(scores, found_groups),
    }
    return Evaluation(long_table(scores, **names), summary)


def write(evaluation: Evaluation, path: Path) -> tuple[Path, Path]:
    """Write the long table to ``path`` (CSV) and the summary beside it (JSON)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_file(path) as temporary:
        evaluation.table.to_csv(temporary, index=False)
    write_json(path.with_suffix(".json"), evaluation.summary)
    return path, path.with_suffix(".json")


def text_table(summary: dict) -> str:
    """The summary as text for the terminal."""
    unit = summary["unit"]
    shown = [m for m in METRICS if summary["foreground_mean"][m] is not None]
    titles = {"HD95": f"HD95 {unit}", "ASSD": f"ASSD {unit}", "HD95_voxel": "HD95 voxel"}
    lines = [["class", *(titles.get(m, m) for m in shown), "cases", "missed", "invented"]]
    for name, values in summary["mean"].items():
        lines.append([name, *(_number(m, values[m]) for m in shown)])
        lines[-1] += [str(values[count]) for count in ("cases", "missed", "invented")]
    lines.append(["mean of classes", *(_number(m, summary["foreground_mean"][m]) for m in shown), "", "", ""])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def text_intervals(summary: dict) -> str:
    """One line with the interval of the mean of classes, and how cases were grouped."""
    groups, intervals = summary["groups"], summary["intervals"]["foreground_mean"]
    if not any(intervals.values()):
        return "no intervals: fewer than two groups of cases"
    parts = (f"{m} {' to '.join(_number(m, v) for v in ends)}" for m, ends in intervals.items() if ends)
    over = f"{groups['count']} groups ({groups['kind']})" if groups["known"] else INDEPENDENT
    return f"95 % interval of the mean of classes: {', '.join(parts)}; over {over}, {groups['how']}"


def _number(metric: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if metric in DISTANCES else f"{value:.4f}"
