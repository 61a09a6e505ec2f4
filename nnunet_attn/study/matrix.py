"""The jobs of a study (convert, plan, preprocess, train, predict) and their dependencies."""

import json
from dataclasses import dataclass, field

from nnunet_attn.errors import UserError
from nnunet_attn.study.layout import Layout, dataset_name, read_splits
from nnunet_attn.study.schema import DEFAULT_PLANS, PLANNERS, DatasetChoice, Row, Study

NNUNET_FOLDS = 5  # number of folds that nnU-Net makes if there is no split file
NETWORK_PLANS = {"DualCAPlans": "DualCA", "XAttnResPlans": "XAttnRes"}  # made by nnunet-attn plan --network


@dataclass(frozen=True)
class Model:
    """One training, repeated on each fold of a dataset."""

    dataset: str
    row: int
    repeat: int
    trainer: str
    plans: str
    configuration: str

    @property
    def folder(self) -> str:
        """Its folder in nnUNet_results."""
        return f"{self.dataset}/{self.trainer}__{self.plans}__{self.configuration}"


@dataclass(frozen=True)
class Job:
    """One job of a study.

    Attributes:
        id: Kind and result of the job, for example ``train/Dataset027_ACDC/TRAINER__PLANS__2d/fold_0``.
        dataset: Index of the dataset in the study.
        needs: Ids of the jobs that must be done before.
        order: Jobs with smaller numbers run first.
        model, fold: For a training; a prediction has the model, and uses the ensemble of its ``folds``.
        plans, configuration: For a preprocessing.
    """

    id: str
    dataset: int
    needs: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    model: Model | None = None
    fold: int | None = None
    folds: tuple[int, ...] = ()
    plans: str | None = None
    configuration: str | None = None
    threads: int = 1
    gpus: int = 0

    @property
    def kind(self) -> str:
        return self.id.partition("/")[0]


@dataclass
class Matrix:
    """A study with all its jobs.

    Attributes:
        names: Folder name of each dataset.
        folds: The folds to train of each dataset.
        splits: Split file content of each dataset; None if there is none yet.
        plans: All plans that a dataset needs, by index of the dataset.
    """

    study: Study
    layout: Layout
    names: list[str] = field(default_factory=list)
    folds: list[tuple[int, ...]] = field(default_factory=list)
    splits: list[list[dict] | None] = field(default_factory=list)
    plans: list[list[str]] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)

    @property
    def trainings(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.kind == "train"]

    def text(self) -> str:
        """The graph of jobs as text, one line for each job."""
        return "\n".join(job.id + "".join(f"\n  after {need}" for need in job.needs) for job in self.jobs.values())


def make_matrix(study: Study, layout: Layout) -> Matrix:
    """Derive the jobs of a study from its file and the existing datasets.

    Raises:
        UserError: a dataset, fold or plans cannot be made, or two rows are the same training.
    """
    matrix = Matrix(study, layout)
    for i, choice in enumerate(study.datasets):
        name = dataset_name(study, layout, choice)
        splits = read_splits(study, layout, choice, name)
        folds = _folds(study, choice, splits)
        matrix.names.append(name)
        matrix.splits.append(splits)
        matrix.folds.append(folds)
        _add_dataset(matrix, i, choice, name, folds)
    return matrix


def _folds(study: Study, choice: DatasetChoice, splits: list[dict] | None) -> tuple[int, ...]:
    place = (*choice.place, "folds")
    if splits is None:
        count = NNUNET_FOLDS
        if choice.convert is not None:
            if choice.convert.split is not None and choice.folds is None:
                raise study.document.error(place, "how many folds this split has is known only after the conversion; "
                                           "give folds, for example [0]")  # fmt: skip
            count = choice.convert.num_folds or count
            if choice.convert.split is not None and choice.folds is not None:
                return choice.folds
    else:
        count = len(splits)
    beyond = [fold for fold in choice.folds or () if fold >= count]
    if beyond:
        raise study.document.error(place, f"dataset {choice.dataset} has folds 0 to {count - 1}, not {beyond[0]}")
    return choice.folds or tuple(range(count))


def _add_dataset(matrix: Matrix, index: int, choice: DatasetChoice, name: str, folds: tuple[int, ...]) -> None:
    study, jobs = matrix.study, matrix.jobs
    before: tuple[str, ...] = ()
    if choice.convert is not None:
        jobs[f"convert/{name}"] = Job(f"convert/{name}", index)
        before = (f"convert/{name}",)
    plan = Job(f"plan/{name}", index, before)
    jobs[plan.id] = plan
    matrix.plans.append([])
    gpus = study.device != "cpu"
    trained: dict[tuple[str, str, str], Row] = {}
    trainings: list[Job] = []
    predictions: list[Job] = []
    for r, row in enumerate(study.rows):
        plans, configuration = row.plans or choice.plans, row.configuration or choice.configuration
        same = trained.setdefault((row.trainer, plans, configuration), row)
        if same is not row:
            raise study.document.error(
                row.place, f"{row.text} and {same.text} are the same on dataset {choice.dataset}"
            )
        _check_plans(matrix, choice, name, row, plans)
        if plans not in matrix.plans[index]:
            matrix.plans[index].append(plans)
        prepared = f"preprocess/{name}/{plans}__{configuration}"
        jobs.setdefault(prepared, Job(prepared, index, (plan.id,), plans=plans, configuration=configuration))
        for k in range(1, row.repeats + 1):
            trainer = row.trainer if k == 1 else f"{row.trainer}_run{k}"
            model = Model(name, r, k, trainer, plans, configuration)
            ids = []
            for fold in folds:
                ids.append(f"train/{model.folder}/fold_{fold}")
                order = (row.group, k, fold, index, r)
                job = Job(ids[-1], index, (prepared,), order, model, fold, threads=study.threads, gpus=row.gpus * gpus)
                trainings.append(job)
            if choice.test:
                order = (row.group, k, max(folds), index, r)
                predict = f"predict/{model.folder}"
                job = Job(predict, index, tuple(ids), order, model, folds=folds, threads=study.threads, gpus=int(gpus))
                predictions.append(job)
    jobs |= {job.id: job for job in trainings + predictions}


def _check_plans(matrix: Matrix, choice: DatasetChoice, name: str, row: Row, plans: str) -> None:
    """Check that plans exist with the configuration, or that we know how to make them.

    Raises:
        UserError: they do not, or were made with another spacing, patch size or batch size than the study asks for.
    """
    place = row.place if row.plans else (*choice.place, "plans")
    path = matrix.layout.preprocessed / name / f"{plans}.json"
    changed = choice.changed.get(plans)
    if not path.is_file():
        if changed is None and plans not in PLANNERS and plans not in NETWORK_PLANS:
            known = ", ".join((*choice.changed, *PLANNERS, *NETWORK_PLANS))
            raise matrix.study.document.error(place, f"there are no plans {plans} of {name}; name one of {known}, or "
                                              "plan them first, or describe them under plans")  # fmt: skip
        if changed is not None and changed.source not in (*PLANNERS, *NETWORK_PLANS):
            source = matrix.layout.preprocessed / name / f"{changed.source}.json"
            if not source.is_file():
                raise matrix.study.document.error((*choice.place, "plans"), f"there are no plans {changed.source} of "
                                                  f"{name} to derive {plans} from")  # fmt: skip
        return
    if changed is None:
        return
    try:
        present = json.loads(path.read_text(encoding="utf-8"))["configurations"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    configuration = present.get(row.configuration or choice.configuration, {})
    for title, wanted, key in (
        ("spacing", changed.spacing, "spacing"), ("patch", changed.patch, "patch_size"),
        ("batch", changed.batch, "batch_size"),
    ):  # fmt: skip
        have = configuration.get(key)
        want = list(wanted) if isinstance(wanted, tuple) else wanted
        if have is not None and want is not None and sorted(_list(have)) != sorted(_list(want)):
            raise matrix.study.document.error(
                (*choice.place, "plans"),
                f"{path} has {title} {have}, the study asks for {want}; give the plans another name",
            )


def _list(value: object) -> list:
    return value if isinstance(value, list) else [value]


__all__ = ["DEFAULT_PLANS", "Job", "Matrix", "Model", "make_matrix"]
