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
from nnunet_attn.study.markers import Done, before_text, read_done
from nnunet_attn.study.matrix import Matrix, Model, make_matrix
from nnunet_attn.study.outputs import read_json
from nnunet_attn.study.study_file import GROUP_FILES, read_study
from nnunet_attn.workers import in_parallel

if TYPE_CHECKING:
    from nnunet_attn.comparison.compare import Comparison
    from nnunet_attn.comparison.over_datasets import Side

STUDY_FILE = "study.yaml"  # name of the study file in an archive
CHANGED_FILE = "changed.json"  # trainings of an archive whose inputs have changed since


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
    groups = [path / f"groups{suffix}" for suffix in GROUP_FILES if (path / f"groups{suffix}").is_file()]
    report = study.report | ({"groups": str(groups[0])} if groups else {})
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
        folds: Folds to use, as far as they are complete in every row.
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
            groups=options.get("groups"),
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
        side.name, side.test = f"{side.name}, test set", True
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

    Compared are the folds that are complete in the baseline and in every row with complete folds, each row taken by its
    most complete repeat. A repeat without all of these folds is left out.
    """
    models: dict[tuple[int, int], Model] = {}
    for job in matrix.trainings:
        if job.dataset == index and job.model is not None:
            models[job.model.row, job.model.repeat] = job.model
    complete = {key: set(complete_folds(matrix, model)) for key, model in models.items()}
    if wanted is not None:
        complete = {key: folds & set(wanted) for key, folds in complete.items()}
    name, texts, notes = matrix.names[index], [row.text for row in matrix.study.rows], []
    first = {row: max((complete[key] for key in models if key[0] == row), key=len) for row in range(len(texts))}
    if not first[0]:
        return [], [], [f"{name}: the baseline {texts[0]} has no complete fold."]
    common = set.intersection(*(folds for folds in first.values() if folds & first[0])) or first[0]
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
        which = f"fold {missing[0]} is" if len(missing) == 1 else f"folds {', '.join(missing)} are"
        notes.append(f"{name}: {which} not complete in every row.")
    return chosen, sorted(common, key=int), notes


def changed_since(matrix: Matrix, done: Done) -> dict[str, list[str]]:
    """By training, the inputs that changed since; an archive holds what was so when it was made."""
    stored = read_json(matrix.layout.folder / CHANGED_FILE)
    return stored if isinstance(stored, dict) else done.flags


def _model_of(job: str) -> str:
    """The model's folder in a training's id."""
    return job.partition("/")[2].rpartition("/")[0] if job.startswith("train/") else ""


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
    from nnunet_attn.report.over_datasets import counted_datasets, write_over_datasets

    study = matrix.study
    sides = [side for side, _ in results]
    pages = {side.name: f"{task.folder.name}/report.html" for side, task in zip(sides, tasks, strict=True)}
    curves = [(side.name, path) for side, path in results if path is not None]
    rows = [row.text for row in study.rows if any(row.text in side.rows for side in sides)]
    title = f"{study.name}: {len(rows)} trainers on {counted_datasets(sides)}"
    return write_over_datasets(title, sides, rows, pages, notes, folder, curves)


def make_tasks(matrix: Matrix, folder: Path, folds: list[str] | None) -> tuple[list[Task], list[str]]:
    """The comparisons to make, and notes on what is missing."""
    tasks: list[Task] = []
    notes: list[str] = []
    done = read_done(matrix)
    flags = changed_since(matrix, done)
    for index, (name, choice) in enumerate(zip(matrix.names, matrix.study.datasets, strict=True)):
        chosen, _, missing = choose(matrix, index, folds)
        notes += missing
        rows = [row.text for row, models in zip(matrix.study.rows, chosen, strict=False) if models]
        if len(rows) < 2:
            continue
        models = [model for of_row in chosen for model in of_row]
        shown = {model.folder for model in models}
        notes += [f"{before_text(job, what)}: {job}" for job, what in flags.items() if _model_of(job) in shown]
        task = Task(
            environment=matrix.layout.environment(),
            dataset=name,
            configuration=choice.configuration,
            rows=tuple(rows),
            trainings=tuple(f"{m.trainer}:{m.plans}:{m.configuration}" for m in models),
            folds=tuple(folds or map(str, matrix.folds[index])),
            test=None,
            folder=folder / f"{name}__{choice.configuration}",
            options=matrix.study.report,
        )
        tasks.append(task)
        if not choice.test:
            continue
        predictions = {m: matrix.layout.folder / "predict" / m.folder for m in models}
        if (
            all(f"predict/{model.folder}" in done.markers for model in models)
            and (matrix.layout.raw / name / "labelsTs").is_dir()
        ):
            test = {f"{m.trainer}:{m.plans}:{m.configuration}": path for m, path in predictions.items()}
            tasks.append(dataclasses.replace(task, test=test, folder=folder / f"{name}__{choice.configuration}__test"))
        else:
            notes.append(f"{name}: predictions of the test set are missing, or older than their models.")
    return tasks, notes
