"""The contents of a study file as data classes. ``study_file`` reads them; docs/studies.md describes all keys."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_attn.study.lines import Document, Place

DEFAULT_PLANS = "nnUNetPlans"
# How to make the plans that a row may name, by name.
PLANNERS = {
    DEFAULT_PLANS: "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}


@dataclass(frozen=True)
class Conversion:
    """How to convert a raw dataset: ``nnunet-attn convert CONVERTER SOURCE... NUMBER OPTIONS``."""

    converter: str
    sources: tuple[Path, ...]
    name: str
    num_folds: int | None
    split: str | None
    options: tuple[str, ...]


@dataclass(frozen=True)
class PlansWithChanges:
    """Plans derived from others, see ``nnunet-attn plan --from`` and, with ``input_size``, ``--input-size``."""

    name: str
    source: str
    spacing: tuple[float, ...] | None
    patch: tuple[int, ...] | None
    batch: int | None
    input_size: int | None = None


@dataclass(frozen=True)
class DatasetChoice:
    """One dataset of a study.

    Attributes:
        dataset: Number or folder name.
        convert: How to convert it if it does not exist.
        configuration: Configuration of the rows that name none.
        plans: Plans of the rows that name none.
        changed: Derived plans, by name.
        splits: A split file to use instead of the converter's or nnU-Net's own.
        folds: Folds to train; None means all of the split file.
        test: Whether to predict imagesTs with the ensemble of the folds, and score it.
    """

    dataset: int | str
    convert: Conversion | None
    configuration: str
    plans: str
    changed: dict[str, PlansWithChanges]
    splits: Path | None
    folds: tuple[int, ...] | None
    test: bool
    place: Place


@dataclass(frozen=True)
class Row:
    """One trainer of a study; ``text`` is its name in the file.

    Attributes:
        trainer: The trainer's name with the study's schedule, without ``_run<K>``.
        plans, configuration: None means the dataset's.
        group: Groups run one after the other.
        repeats: Number of trainings of each fold.
        gpus: Number of GPUs of one training (nnU-Net's ``-num_gpus``).
    """

    text: str
    trainer: str
    plans: str | None
    configuration: str | None
    group: int
    repeats: int
    gpus: int
    place: Place


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        checkpoint: What predicts imagesTs: "final", or "best" by nnU-Net's moving average of the pseudo Dice.
    """

    document: Document
    name: str
    device: str
    threads: int
    environment: bool
    datasets: tuple[DatasetChoice, ...]
    rows: tuple[Row, ...]
    retries: int
    report: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = "final"

    @property
    def file(self) -> Path:
        return self.document.file
