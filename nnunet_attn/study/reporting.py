"""``study report``: a comparison for each dataset, and a report over all datasets."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from nnunet_attn.comparison.results import Fold, read_model
from nnunet_attn.errors import UserError
from nnunet_attn.study.layout import VARIABLES, Layout, find_layout
from nnunet_attn.study.matrix import Matrix, Model, make_matrix
from nnunet_attn.study.outputs import SCORES
from nnunet_attn.study.study_file import read_study
from nnunet_attn.workers import in_parallel

if TYPE_CHECKING:
    from nnunet_attn.comparison.compare import Comparison
    from nnunet_attn.comparison.over_datasets import Side

STUDY_FILE = "study.yaml"  # name of the study file in an archive
GROUPS_FILE = "groups.csv"


def open_study(path: Path, folder: Path | None) -> Matrix:
    """Read a study from its file, or from an archive of it.

    Raises:
        UserError: the file is invalid, or the folder is not an archive.
    """
    if not path.is_dir():
        study = read_study(path)
        return make_matrix(study, find_layout(study, folder))
    if not (path / STUDY_FILE).is_file():
        raise UserError(f"{path} holds no {STUDY_FILE}; give a study file, or a folder written by study archive")
    study = read_study(path / STUDY_FILE)
    datasets = tuple(dataclasses.replace(choice, splits=None, convert=None) for choice in study.datasets)
    groups = path / GROUPS_FILE
    report = study.report | ({"groups": groups} if groups.is_file() else {})
    layout = Layout(path.resolve(), *(path.resolve() / name for name in VARIABLES))
    return make_matrix(dataclasses.replace(study, datasets=datasets, report=report), layout)


@dataclass(frozen=True)
class Task:
    """One dataset to compare.

    Attributes:
        environment: nnU-Net's environment variables.
        dataset, configuration: What to compare.
        rows: The study's names of the rows, in the order of ``trainings``.
        trainings: ``TRAINER:PLANS:CONFIGURATION`` of all rows and repeats.
        folds: Folds to use.
        test: Folder of predictions of the test set by training.
        folder: Folder to write to.
        options: Options of the report.
    """

    environment: dict[str, str]
    dataset: str
    configuration: str
    rows: tuple[str, ...]
    trainings: tuple[str, ...]
    folds: tuple[str, ...]
    test: dict[str, Path] | None
    folder: Path
    options: dict[str, Any]


def comparison_of(task: Task) -> "Comparison":
    """The comparison itself, of which nothing is written."""
    from nnunet_attn.comparison.compare import compare

    options = task.options
    with mock.patch.dict(os.environ, task.environment):
        return compare(
            task.dataset,
            task.configuration,
            task.trainings,
            folds=None if task.test else task.folds,
            test=task.test,
            groups=str(options["groups"]) if options.get("groups") else options.get("patients"),
            tolerance=float(options.get("nsd_tolerance", 1.0)),
            voxels=bool(options.get("voxels", False)),
            surface=bool(options.get("surface", True)),
            measure=False,
            processes=1,
        )


def compare_dataset(task: Task) -> tuple["Side", Path | None]:
    """Write the report of one dataset; returns its part of the report over datasets, and its learning curves."""
    from nnunet_attn.comparison.over_datasets import make_side
    from nnunet_attn.report.report import write_report

    comparison = comparison_of(task)
    task.folder.mkdir(parents=True)
    with mock.patch.dict(os.environ, task.environment):
        write_report(comparison, task.folder, published=bool(task.options.get("published", False)))
    side = make_side(comparison, dict(zip(comparison.names, task.rows, strict=True)))
    if task.test:
        side.name += ", test set"
    curves = task.folder / "figures" / "learning_curves.svg"
    return side, curves if curves.is_file() else None


def complete_folds(matrix: Matrix, model: Model) -> dict[str, Fold]:
    """The folds of a training that are trained and validated, by name."""
    folder = matrix.layout.results / model.folder
    index = matrix.names.index(model.dataset)
    if not (folder / "plans.json").is_file():
        return {}
    read = read_model(folder, [str(fold) for fold in matrix.folds[index]], matrix.splits[index])
    return {fold.name: fold for fold in read.complete}


def beside(matrix: Matrix, name: str) -> Matrix | None:
    """The study with the first row whose text holds ``name`` as the baseline, and the rows that have all its folds.

    None where that row has no complete fold.
    """
    folds: dict[int, set[str]] = {i: set() for i in range(len(matrix.study.rows))}
    for job in matrix.trainings:
        if job.model is not None:
            folds[job.model.row] |= set(complete_folds(matrix, job.model))
    first = next((i for i, row in enumerate(matrix.study.rows) if name in row.text and folds[i]), None)
    if first is None:
        return None
    order = [first, *(i for i in folds if i != first and folds[i] >= folds[first])]
    rows = tuple(matrix.study.rows[i] for i in order)
    return make_matrix(dataclasses.replace(matrix.study, rows=rows), matrix.layout)


def choose(matrix: Matrix, index: int, wanted: list[str] | None) -> tuple[list[list[Model]], list[str], list[str]]:
    """The comparable part of a dataset: trainings by row, folds, and notes on what is left out.

    Compared are the folds that are complete in the baseline and in every row with complete folds. A repeat without all
    of them is left out.
    """
    models: dict[tuple[int, int], Model] = {}
    for job in matrix.trainings:
        if job.dataset == index and job.model is not None:
            models[job.model.row, job.model.repeat] = job.model
    complete = {key: set(complete_folds(matrix, model)) for key, model in models.items()}
    if wanted is not None:
        complete = {key: folds & set(wanted) for key, folds in complete.items()}
    name, texts, notes = matrix.names[index], [row.text for row in matrix.study.rows], []
    if not complete[0, 1]:
        return [], [], [f"{name}: the baseline {texts[0]} has no complete fold."]
    first = {row: complete[row, 1] for row in range(len(texts))}
    common = set.intersection(*(folds for folds in first.values() if folds & complete[0, 1]))
    if not common:
        common = complete[0, 1]
    chosen = []
    for row, text in enumerate(texts):
        repeats = [key for key in models if key[0] == row]
        having = [models[key] for key in repeats if common <= complete[key]]
        if not first[row]:
            notes.append(f"{name}: {text} has no complete fold.")
        elif not having:
            notes.append(f"{name}: {text} lacks folds that the other rows have and is left out.")
        elif len(having) < len(repeats):
            notes.append(f"{name}: {text} has {len(having)} of {len(repeats)} repeats.")
        chosen.append(having)
    missing = [str(fold) for fold in matrix.folds[index] if str(fold) not in common]
    if missing and wanted is None:
        notes.append(f"{name}: fold {', '.join(missing)} is not complete in every row.")
    return chosen, sorted(common, key=int), notes


def write_study_report(matrix: Matrix, folder: Path, *, folds: list[str] | None, processes: int) -> list[str]:
    """Write the reports of a study into ``folder``; returns the verdicts.

    Raises:
        UserError: no dataset has two rows to compare.
    """
    tasks, notes = make_tasks(matrix, folder, folds)
    if not tasks:
        raise UserError("nothing to report yet: no dataset has a complete fold of the baseline and of another row. "
                        + " ".join(notes))  # fmt: skip
    results = list(in_parallel(compare_dataset, tasks, processes, "datasets"))
    from nnunet_attn.report.over_datasets import counted, write_over_datasets

    study = matrix.study
    sides = [side for side, _ in results]
    pages = {side.name: f"{task.folder.name}/report.html" for side, task in zip(sides, tasks, strict=True)}
    curves = [(side.name, path) for side, path in results if path is not None]
    rows = [row.text for row in study.rows if any(row.text in side.rows for side in sides)]
    title = f"{study.name}: {len(rows)} trainers on {counted(len(matrix.names), 'dataset')}"
    return write_over_datasets(title, sides, rows, pages, notes, folder, curves)


def make_tasks(matrix: Matrix, folder: Path, folds: list[str] | None) -> tuple[list[Task], list[str]]:
    """The comparisons to make, and notes on what is missing."""
    tasks: list[Task] = []
    notes: list[str] = []
    for index, (name, choice) in enumerate(zip(matrix.names, matrix.study.datasets, strict=True)):
        chosen, used, missing = choose(matrix, index, folds)
        notes += missing
        rows = [row.text for row, models in zip(matrix.study.rows, chosen, strict=False) if models]
        if len(rows) < 2:
            continue
        models = [model for of_row in chosen for model in of_row]
        task = Task(
            environment=matrix.layout.environment(),
            dataset=name,
            configuration=choice.configuration,
            rows=tuple(rows),
            trainings=tuple(f"{m.trainer}:{m.plans}:{m.configuration}" for m in models),
            folds=tuple(used),
            test=None,
            folder=folder / f"{name}__{choice.configuration}",
            options=matrix.study.report,
        )
        tasks.append(task)
        if not choice.test:
            continue
        predictions = {m: matrix.layout.folder / "predict" / m.folder for m in models}
        if (
            all((path / SCORES).is_file() for path in predictions.values())
            and (matrix.layout.raw / name / "labelsTs").is_dir()
        ):
            test = {f"{m.trainer}:{m.plans}:{m.configuration}": path for m, path in predictions.items()}
            tasks.append(dataclasses.replace(task, test=test, folder=folder / f"{name}__{choice.configuration}__test"))
        else:
            notes.append(f"{name}: some predictions of the test set are missing.")
    return tasks, notes
