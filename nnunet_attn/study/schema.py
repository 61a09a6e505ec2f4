"""A study file as data: what it may hold, and one line with the line's number for what it may not.

    name: acdc-short
    datasets:
      - dataset: 27
        configuration: 2d
    rows:
      - nnUNetTrainer
      - nnUNetTrainerDCAUNet

Nothing is looked up outside the file, except which trainers exist. All keys are described in docs/studies.md.
"""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nnunet_attn.catalog import find_entry
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.errors import UserError
from nnunet_attn.study.lines import Document, Place
from nnunet_attn.study.trainers import trainer_problem
from nnunet_attn.trainer_names import parse_trainer_name

DEFAULT_PLANS = "nnUNetPlans"
# How plans that a row may name are made, by the names that their planners give them.
PLANNERS = {
    DEFAULT_PLANS: "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}
FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
SCHEDULE = re.compile(r"[1-9]\d*epochs?(_[1-9]\d*iterations)?")
NAMED_SCHEDULE = re.compile(r"_[1-9]\d*epochs?(_[1-9]\d*iterations)?$")
GPU_JOB_THREADS = 8  # of which nnU-Net's augmentation takes as many worker processes


@dataclass(frozen=True)
class Conversion:
    """How a raw dataset is made: ``nnunet-attn convert CONVERTER SOURCE... NUMBER OPTIONS``."""

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
        dataset: Number, or name of its folder.
        convert: How it is made where it does not exist.
        configuration: Of the rows that name none.
        plans: Name of the plans of the rows that name none.
        changed: Plans with changes, by name.
        splits: A split file to use instead of the converter's or nnU-Net's own.
        folds: None for all of the split file.
        test: Predict imagesTs with the folds' ensemble, and score it.
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
    """One trainer of a study; ``text`` is how the file names it.

    Attributes:
        trainer: With the study's schedule, without ``_run<K>``.
        plans, configuration: None for the dataset's.
        group: Groups run one after the other.
        repeats: Trainings of each fold.
        gpus: Of one training (nnU-Net's ``-num_gpus``).
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


class Reader:
    """Reads one mapping of the file, and raises for whatever in it is not expected."""

    def __init__(self, document: Document, content: Any, place: Place, keys: Collection[str]):
        self.document, self.place = document, place
        if not isinstance(content, dict):
            raise self.error((), f"expected the keys {', '.join(keys)}, got {_shown(content)}")
        self.content = content
        for key in content:
            if key not in keys:
                near = get_close_matches(str(key), keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"possible are {', '.join(keys)}"
                raise self.error((key,), f"unknown key {key}; {hint}")

    def error(self, place: Sequence[str | int], message: str) -> UserError:
        return self.document.error((*self.place, *place), message)

    def get(self, key: str, kind: type | tuple[type, ...], what: str, default: object = None) -> Any:
        """The value of a key, which must be of a kind; ``default`` where it is left out."""
        value = self.content.get(key, default)
        if value is None and key not in self.content:
            return None
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise self.error((key,), f"{key} must be {what}, got {_shown(value)}")
        return value

    def count(self, key: str, default: int, least: int = 1) -> int:
        """A whole number."""
        value = self.get(key, int, f"a whole number from {least}", default)
        if value < least:
            raise self.error((key,), f"{key} must be a whole number from {least}, got {value}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self.get(key, str, " or ".join(choices), default)
        if value not in choices:
            raise self.error((key,), f"{key} must be {' or '.join(choices)}, got {_shown(value)}")
        return value

    def numbers(self, key: str, kind: Any, what: str) -> tuple | None:
        values: list[Any] | None = self.get(key, list, what)
        if values is None:
            return None
        if not values or not all(isinstance(v, kind) and not isinstance(v, bool) and float(v) > 0 for v in values):
            raise self.error((key,), f"{key} must be {what}, got {_shown(values)}")
        return tuple(values)

    def located(self, text: str) -> Path:
        """A path as the file means it: relative to the study file, with ``$VARIABLES`` of the environment."""
        path = Path(os.path.expandvars(text)).expanduser()
        return path if text.startswith("$") else (self.document.file.parent / path).resolve()

    def path(self, key: str) -> Path | None:
        """A path; it need not be there."""
        value = self.get(key, str, "a path")
        return None if value is None else self.located(value)


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)


def read_study(file: Path) -> Study:
    """Read and check a study file.

    Raises:
        UserError: ``FILE:LINE: what is wrong``.
    """
    document = Document(file)
    keys = ("name", "device", "threads", "folders", "datasets", "rows", "schedule", "repeats", "retries", "checkpoint",
            "report")  # fmt: skip
    top = Reader(document, document.content, (), keys)
    for key in ("name", "datasets", "rows"):
        if key not in top.content:
            raise top.error((), f"the study has no {key}")
    name = top.get("name", str, "text")
    if not FOLDER_NAME.fullmatch(name):
        raise top.error(("name",), f"name becomes a folder: letters, digits, '.', '-' and '_' only, got {name!r}")
    device = top.choice("device", ("cuda", "cpu", "mps"), "cuda")
    schedule = top.get("schedule", str, "text like 100epochs or 10epochs_150iterations")
    if schedule is not None and not SCHEDULE.fullmatch(schedule):
        raise top.error(("schedule",), f"schedule must be like 100epochs or 10epochs_150iterations, got {schedule!r}")
    datasets = _datasets(top)
    rows = _rows(top, schedule, top.count("repeats", 1), device)
    for row in rows:
        for dataset in datasets:
            _check_fit(document, row, dataset)
    return Study(
        document=document,
        name=name,
        device=device,
        threads=top.count("threads", GPU_JOB_THREADS if device == "cuda" else 1),
        environment=top.choice("folders", ("own", "environment"), "own") == "environment",
        datasets=datasets,
        rows=rows,
        retries=top.count("retries", 0, least=0),
        report=_report(top),
        checkpoint=top.choice("checkpoint", ("final", "best"), "final"),
    )


# ---- datasets --------------------------------------------------------------------------------------------------------


def _datasets(top: Reader) -> tuple[DatasetChoice, ...]:
    listed: list[Any] = top.get("datasets", list, "a list")
    if not listed:
        raise top.error(("datasets",), "datasets is empty")
    datasets: list[DatasetChoice] = []
    keys = ("dataset", "convert", "configuration", "plans", "splits", "folds", "test")
    for i, content in enumerate(listed):
        reader = Reader(top.document, content, ("datasets", i), keys)
        for key in ("dataset", "configuration"):
            if key not in reader.content:
                raise reader.error((), f"{key} is missing")
        number = reader.get("dataset", (int, str), "a number or a name like Dataset027_ACDC")
        if isinstance(number, int) and not 1 <= number <= 999:
            raise reader.error(("dataset",), f"numbers of datasets go from 1 to 999, got {number}")
        if isinstance(number, str) and not re.fullmatch(r"Dataset\d{3}_\w[\w-]*", number):
            raise reader.error(("dataset",), f"dataset must be a number or a name like Dataset027_ACDC, got {number!r}")
        if any(_number(d.dataset) == _number(number) for d in datasets):
            raise reader.error(("dataset",), f"dataset {number} is there twice")
        folds = reader.content.get("folds")
        if folds is not None:
            folds = reader.get("folds", list, "a list like [0, 1]")
            if not folds or any(isinstance(f, bool) or not isinstance(f, int) or f < 0 for f in folds):
                raise reader.error(("folds",), f"folds must be a list of numbers from 0, got {_shown(folds)}")
            if len(set(folds)) != len(folds):
                raise reader.error(("folds",), f"a fold is there twice in {folds}")
        plans, changed = _plans(reader)
        datasets.append(DatasetChoice(
            dataset=number,
            convert=_conversion(reader, number),
            configuration=reader.get("configuration", str, "text"),
            plans=plans,
            changed=changed,
            splits=reader.path("splits"),
            folds=tuple(folds) if folds else None,
            test=reader.get("test", bool, "true or false", False),
            place=reader.place,
        ))  # fmt: skip
    return tuple(datasets)


def _number(dataset: int | str) -> int:
    return dataset if isinstance(dataset, int) else int(dataset[7:10])


def _plans(reader: Reader) -> tuple[str, dict[str, PlansWithChanges]]:
    """Name of the default plans, and all plans with changes."""
    content = reader.content.get("plans", DEFAULT_PLANS)
    items = content if isinstance(content, list) else [content]
    names, changed = [], {}
    for i, item in enumerate(items):
        place = ("plans", i) if isinstance(content, list) else ("plans",)
        if isinstance(item, dict):
            keys = ("name", "from", "spacing", "patch", "batch", "input_size")
            inner = Reader(reader.document, item, (*reader.place, *place), keys)
            if "name" not in item:
                raise inner.error((), "plans with changes need a name")
            name = inner.get("name", str, "text")
            source = inner.get("from", str, "text", DEFAULT_PLANS)
            if name in PLANNERS or name == source:
                raise inner.error(("name",), f"plans with changes need a name of their own, not {name}")
            size = inner.count("input_size", 224, least=32) if "input_size" in item else None
            if size and ({"from", "spacing", "patch"} & item.keys() or "batch" not in item):
                raise inner.error(("input_size",), "plans with an input_size need a batch, and take nothing else")
            patch = inner.numbers("patch", int, "a list of whole numbers")
            changed[name] = PlansWithChanges(
                name=name,
                source=source,
                spacing=inner.numbers("spacing", (int, float), "a list of positive numbers"),
                patch=(size, size) if size else patch,
                batch=inner.count("batch", 1) if "batch" in item else None,
                input_size=size,
            )
            names.append(name)
        elif isinstance(item, str):
            names.append(item)
        else:
            raise reader.error(place, f"plans must be a name, or name, spacing, patch and batch; got {_shown(item)}")
    bad = [name for name in names if not FOLDER_NAME.fullmatch(name) or "__" in name]
    if bad or len(set(names)) != len(names):
        raise reader.error(("plans",), f"names of plans must be different names of folders, got {', '.join(names)}")
    return names[0], changed


def _conversion(reader: Reader, number: int | str) -> Conversion | None:
    if "convert" not in reader.content:
        return None
    keys = ("converter", "source", "num_folds", "split", "groups", "input_size", "options")
    inner = Reader(reader.document, reader.content["convert"], (*reader.place, "convert"), keys)
    converter = inner.choice("converter", tuple(DATASETS), "")
    name = number.partition("_")[2] if isinstance(number, str) else DATASETS[converter].folder
    if isinstance(number, int) and "input_size" in inner.content:
        name += str(inner.content["input_size"])
    split = inner.get("split", str, "text")
    if split is not None and split not in DATASETS[converter].splits:
        known = ", ".join(DATASETS[converter].splits) or "none"
        raise inner.error(("split",), f"{converter} has no split {split}; it has {known}")
    source = inner.get("source", (str, list), "a path or a list of paths", [])
    sources = [source] if isinstance(source, str) else source
    if not sources or not all(isinstance(text, str) for text in sources):
        raise inner.error(("source",), f"source must be a path or a list of paths, got {_shown(source)}")
    size = inner.count("input_size", 224, least=32) if "input_size" in inner.content else None
    options = inner.get("options", list, 'a list of words like ["--organs", "13"]', [])
    groups = inner.path("groups")
    return Conversion(
        converter=converter,
        sources=tuple(map(inner.located, sources)),
        name=name,
        num_folds=inner.count("num_folds", 5, least=0) if "num_folds" in inner.content else None,
        split=split,
        options=(
            *map(str, options),
            *(("--groups", str(groups)) if groups else ()),
            *(("--input-size", str(size)) if size else ()),
        ),
    )


# ---- rows ------------------------------------------------------------------------------------------------------------


def _rows(top: Reader, schedule: str | None, repeats: int, device: str) -> tuple[Row, ...]:
    listed = top.get("rows", list, "a list")
    if not listed:
        raise top.error(("rows",), "rows is empty")
    rows: list[Row] = []
    for i, item in enumerate(listed):
        if isinstance(item, list):
            entries: list[tuple[Place, Any]] = [(("rows", i, j), inner) for j, inner in enumerate(item)]
        else:
            entries = [(("rows", i), item)]
        grouped = any(isinstance(other, list) for other in listed)
        for place, entry in entries:
            row = _row(top.document, place, entry, schedule, repeats, group=i if grouped else 0)
            same = next((r for r in rows if (r.trainer, r.plans, r.configuration)
                         == (row.trainer, row.plans, row.configuration)), None)  # fmt: skip
            if same is not None:
                raise top.document.error(place, f"{row.text} is there twice")
            if row.gpus > 1 and device != "cuda":
                raise top.document.error(place, f"gpus needs device: cuda, this study has {device}")
            rows.append(row)
    return tuple(rows)


def _row(document: Document, place: Place, entry: object, schedule: str | None, repeats: int, group: int) -> Row:
    gpus = 1
    if isinstance(entry, dict):
        reader = Reader(document, entry, place, ("row", "repeats", "gpus"))
        repeats, gpus = reader.count("repeats", repeats), reader.count("gpus", 1)
        entry = reader.get("row", str, "TRAINER, TRAINER:PLANS or TRAINER:PLANS:CONFIGURATION")
    if not isinstance(entry, str):
        raise document.error(place, f"a row is TRAINER, TRAINER:PLANS or TRAINER:PLANS:CONFIGURATION; "
                             f"got {_shown(entry)}")  # fmt: skip
    parts = entry.split(":")
    if len(parts) > 3 or not all(parts):
        raise document.error(place, f"a row is TRAINER, TRAINER:PLANS or TRAINER:PLANS:CONFIGURATION; got {entry!r}")
    trainer, plans, configuration = parts[0], *(*parts[1:], None, None)[:2]
    if "_run" in trainer and re.search(r"_run\d+$", trainer):
        raise document.error(place, f"{trainer}: repeats get their _run<K> from the key repeats; leave it out here")
    problem = trainer_problem(trainer)
    if problem is not None:
        raise document.error(place, problem)
    if schedule is not None and not NAMED_SCHEDULE.search(trainer):
        trainer = f"{trainer}_{schedule}"
    return Row(entry, trainer, plans, configuration, group, repeats, gpus, place)


def _check_fit(document: Document, row: Row, dataset: DatasetChoice) -> None:
    """Refuse a network on a configuration of the wrong dimensions, as far as names tell."""
    parsed = parse_trainer_name(row.trainer)
    entry = find_entry(parsed.base) if parsed else None
    configuration = row.configuration or dataset.configuration
    dimensions = 2 if configuration.startswith("2d") else 3 if configuration.startswith("3d") else None
    if entry is not None and dimensions is not None and dimensions not in entry.dimensions:
        takes = " and ".join(f"{d}D" for d in entry.dimensions)
        raise document.error(row.place, f"{row.text} takes {takes} data, but dataset {dataset.dataset} is trained on "
                             f"{configuration}")  # fmt: skip


# ---- report ----------------------------------------------------------------------------------------------------------


def _report(top: Reader) -> dict[str, Any]:
    """The options of ``nnunet-attn compare`` that a report takes."""
    if "report" not in top.content:
        return {}
    keys = ("published", "surface", "nsd_tolerance", "patients", "groups")
    reader = Reader(top.document, top.content["report"], ("report",), keys)
    values = {key: reader.get(key, bool, "true or false") for key in ("published", "surface")}
    values["patients"] = reader.get("patients", str, "a regular expression or a JSON file")
    if values["patients"] and values["patients"].endswith(".json"):
        values["patients"] = str(reader.path("patients"))
    values["groups"] = reader.path("groups")
    values["nsd_tolerance"] = reader.get("nsd_tolerance", (int, float), "a number")
    if values["nsd_tolerance"] is not None and values["nsd_tolerance"] < 0:
        raise reader.error(("nsd_tolerance",), f"nsd_tolerance must not be negative, got {values['nsd_tolerance']}")
    return {key: value for key, value in values.items() if value is not None}
