"""Gather the models of a comparison, and their scores on the same cases."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_attn.comparison.results import DEFAULT_PLANS, Model, read_model
from nnunet_attn.comparison.stored import stored_scores
from nnunet_attn.comparison.test_set import check_test_folders
from nnunet_attn.errors import UserError
from nnunet_attn.scoring.cases import Job, Rules, score_cases
from nnunet_attn.scoring.evaluate import find_jobs, jobs_of_input_size
from nnunet_attn.scoring.folders import find_references, find_splits, folds_in, nnunet_folder
from nnunet_attn.scoring.metrics import SURFACE, relative_volume_difference
from nnunet_attn.trainer_names import without_run

ModelScores = dict[tuple[str, str], dict[str, dict[str, float]]]
TEST_SET = "test set"
FOLDS = 5  # nnU-Net's number of folds, used if there is no splits_final.json


@dataclass
class Gathered:
    """Scores of all trained models.

    Attributes:
        evaluated: Description of the cases that were scored.
        scores: By model: (fold, case) -> class -> metric -> value.
        predictions: Prediction files by model and case.
        references: Reference files by case.
        unit: Unit of distances; empty without surface metrics.
        surface_problem: Why there are no surface metrics; None if there are.
        unverified: For a test set, what could not be verified about the origin of the predictions.
    """

    evaluated: str
    scores: dict[str, ModelScores]
    predictions: dict[str, dict[str, Path]]
    references: dict[str, Path]
    unit: str = ""
    surface_problem: str | None = None
    unverified: list[str] = field(default_factory=list)


def find_models(
    dataset: str, configuration: str, trainers: Sequence[str], folds: Sequence[str] | None, *, test: bool
) -> list[Model]:
    """Read the results folders of ``TRAINER[:PLANS[:CONFIGURATION]]`` rows.

    Args:
        folds: Folds to read; by default those of splits_final.json (five without it), for a test set all that exist.

    Raises:
        UserError: fewer than two different rows, or a model is not there.
    """
    if len(trainers) < 2 or len(set(trainers)) != len(trainers):
        raise UserError(f"--trainers needs two or more different rows, the baseline first; got {', '.join(trainers)}")
    results = nnunet_folder("nnUNet_results", dataset)
    if results is None:
        raise UserError(f"there is no {dataset} in nnUNet_results ({os.environ.get('nnUNet_results', 'not set')})")
    splits = find_splits(dataset)
    models = []
    for row in trainers:
        trainer, plans, own = (*row.split(":"), "", "")[:3]
        folder = results / f"{trainer}__{plans or DEFAULT_PLANS}__{own or configuration}"
        default = folds_in(folder) if test else [str(i) for i in range(len(splits or range(FOLDS)))]
        model = read_model(folder, list(folds or default), splits)
        models.append(replace(model, named=bool(own) and own != configuration))
    for model in models:
        same = [r for r, m in zip(trainers, models, strict=True) if m.folder == model.folder]
        if len(same) > 1:
            raise UserError(f"--trainers needs two or more different rows; {' and '.join(same)} are one training")
    return models


def unlisted_runs(models: Sequence[Model]) -> list[str]:
    """Trained repeats (``_run<K>``) of the models in the results folder that are not among the models."""
    listed = {model.folder.name for model in models}
    found = set()
    for folder in {model.folder for model in models}:
        trainer, plans, configuration = folder.name.split("__")
        stem = without_run(trainer)
        beside = [folder.with_name(f"{stem}__{plans}__{configuration}")]
        beside += folder.parent.glob(f"{stem}_run*__{plans}__{configuration}")
        found |= {p.name for p in beside if p.is_dir() and without_run(p.name.split("__")[0]) == stem}
    return sorted(name.split("__")[0] for name in found - listed)


def validation_scores(model: Model, folds: Sequence[str]) -> ModelScores:
    """Dice, IoU and voxel counts of nnU-Net's own final validation, and the relative volume difference."""
    kept = ("Dice", "IoU", "n_pred", "n_ref")
    return {
        (fold, case): {
            name: {m: values[m] for m in kept} | {"RVD": relative_volume_difference(values["n_pred"], values["n_ref"])}
            for name, values in classes.items()
        }
        for fold in folds
        for case, classes in model.folds[fold].cases.items()
    }


def _add_surface_metrics(scores: ModelScores, jobs: Sequence[Job], model: Model, rules: Rules, processes: int) -> str:
    """Add surface metrics, computed from the validation's files; returns the unit of distances.

    Raises:
        UserError: the files do not give the Dice in summary.json, so one of them was changed since.
    """
    unit = ""
    for result in score_cases(jobs, rules, processes=processes, title=model.name):
        entry, unit = scores[result.job.fold, result.job.case], result.unit
        for name, values in result.values.items():
            stored, now = entry[name]["Dice"], values["Dice"]
            if math.isnan(stored) != math.isnan(now) or abs(stored - now) > 1e-5:
                raise UserError(
                    f"{model.name}, fold {result.job.fold}, {result.job.case}, class {name}: validation/summary.json "
                    f"says Dice {stored:.5f}, the files give {now:.5f}; predictions or references were changed after "
                    "the validation. Validate again with nnUNetv2_train ... --val"
                )
            entry[name] |= {metric: values[metric] for metric in (*SURFACE, "ml_pred", "ml_ref") if metric in values}
    return unit


def _add_stored(scores: ModelScores, model: Model, folds: Sequence[str], rules: Rules) -> str | None:
    """Add surface metrics that ``nnunet-attn evaluate`` stored; returns their unit, None if a fold has none."""
    found = {}
    for fold in folds:
        stored = stored_scores(model.folder / f"fold_{fold}", model.folds[fold].cases, rules)
        if stored is None:
            return None
        found[fold], unit = stored
    for (fold, case), classes in scores.items():
        for name, values in classes.items():
            stored_values = found[fold][case][name]
            values |= {m: stored_values[m] for m in (*SURFACE, "ml_pred", "ml_ref") if m in stored_values}
    return unit


def from_validation(
    models: Sequence[Model],
    folds: Sequence[str],
    references: Path | None,
    rules: Rules,
    *,
    surface: bool,
    processes: int,
) -> Gathered:
    """The final validation of the given folds; Dice and IoU as nnU-Net stored them, surface metrics from the files."""
    ending = models[0].dataset["file_ending"]
    result = Gathered(
        evaluated=f"validation of fold{'s' * (len(folds) > 1)} {' '.join(folds)}",
        scores={model.name: validation_scores(model, folds) for model in models},
        predictions={},
        references={},
    )
    cases = list(result.scores[models[0].name])
    for model in models:
        result.predictions[model.name] = {case: model.validation(fold) / f"{case}{ending}" for fold, case in cases}
    try:
        folder = references or find_references(models[0].folder.parent.name)
    except UserError:
        folder = Path("references")  # missing in an archive; reported below unless all scores are stored
    result.references = {case: folder / f"{case}{ending}" for _, case in cases}
    if not surface:
        result.surface_problem = "left out (--no-surface)"
        return result
    left = []
    for model in models:
        unit = _add_stored(result.scores[model.name], model, folds, rules) if references is None else None
        result.unit = unit or result.unit
        left += [] if unit else [model]
    files = (path for model in left for path in result.predictions[model.name].values())
    gone = [path for path in (*files, *(result.references.values() if left else ())) if not path.is_file()]
    if gone:
        result.surface_problem = f"{len(gone)} files are missing, the first is {gone[0]}"
        return result
    for model in left:
        files_of = result.predictions[model.name]
        jobs = [Job(case, fold, files_of[case], result.references[case]) for fold, case in cases]
        jobs = _with_true_spacing(jobs, model)
        result.unit = _add_surface_metrics(result.scores[model.name], jobs, model, rules, processes)
    return result


def _with_true_spacing(jobs: list[Job], model: Model) -> list[Job]:
    """Volumes that were converted with ``--input-size`` get their true spacing; pictures are compared at that size."""
    size = model.dataset.get("input_size")
    if not size or model.dataset["file_ending"] == ".png":
        return jobs
    return jobs_of_input_size(jobs, size, nnunet_folder("nnUNet_raw", model.folder.parent.name), at_input_size=False)


def from_test_set(
    models: Sequence[Model], test: Mapping[str, Path], references: Path, rules: Rules, *, processes: int
) -> Gathered:
    """Score one folder of test set predictions per model; all metrics are computed from the files.

    Raises:
        UserError: a row has no folder, a folder no row, or the files beside the predictions contradict the row.
    """
    folders, unverified = check_test_folders(models, test)
    result = Gathered(TEST_SET, {}, {}, {}, unverified=unverified)
    for model in models:
        folder = folders[model.name]
        jobs = _with_true_spacing(find_jobs(folder, references, model.dataset["file_ending"]), model)
        scores = score_cases(jobs, rules, processes=processes, title=model.name)
        result.scores[model.name] = {("test", s.job.case): s.values for s in scores}
        result.predictions[model.name] = {job.case: job.prediction for job in jobs}
        result.references = {job.case: job.reference for job in jobs}
        result.unit = scores[0].unit
    return result
