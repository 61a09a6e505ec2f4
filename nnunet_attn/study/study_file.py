"""Read a study file:

    name: acdc-short
    datasets:
      - dataset: 27
        configuration: 2d
    rows:
      - nnUNetTrainer
      - nnUNetTrainerDCAUNet

Mistakes raise an error of one line with the line number. Nothing outside the file is looked up, except which trainers
exist. docs/studies.md describes all keys.
"""

import re
from pathlib import Path
from typing import Any

from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.lookup import find_entry
from nnunet_attn.study.lines import Document, Place, Reader, shown
from nnunet_attn.study.schema import DEFAULT_PLANS, PLANNERS, Conversion, DatasetChoice, PlansWithChanges, Row, Study
from nnunet_attn.study.trainers import trainer_problem
from nnunet_attn.trainer_names import parse_trainer_name

FOLDER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
SCHEDULE = re.compile(r"[1-9]\d*epochs?(_[1-9]\d*iterations)?")
NAMED_SCHEDULE = re.compile(r"_[1-9]\d*epochs?(_[1-9]\d*iterations)?$")
GPU_JOB_THREADS = 8  # nnU-Net uses as many worker processes for augmentation


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
        raise top.error(
            ("name",), f"name becomes a folder name: use letters, digits, '.', '-' and '_' only, got {name!r}"
        )
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
            raise reader.error(("dataset",), f"the number of a dataset is between 1 and 999, got {number}")
        if isinstance(number, str) and not re.fullmatch(r"Dataset\d{3}_\w[\w-]*", number):
            raise reader.error(("dataset",), f"dataset must be a number or a name like Dataset027_ACDC, got {number!r}")
        if any(_number(d.dataset) == _number(number) for d in datasets):
            raise reader.error(("dataset",), f"dataset {number} occurs twice")
        folds = reader.content.get("folds")
        if folds is not None:
            folds = reader.get("folds", list, "a list like [0, 1]")
            if not folds or any(isinstance(f, bool) or not isinstance(f, int) or f < 0 for f in folds):
                raise reader.error(("folds",), f"folds must be a list of numbers from 0, got {shown(folds)}")
            if len(set(folds)) != len(folds):
                raise reader.error(("folds",), f"a fold occurs twice in {folds}")
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
    """Name of the default plans, and all derived plans."""
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
            raise reader.error(place, f"plans must be a name, or name, spacing, patch and batch; got {shown(item)}")
    bad = [name for name in names if not FOLDER_NAME.fullmatch(name) or "__" in name]
    if bad or len(set(names)) != len(names):
        raise reader.error(
            ("plans",), f"names of plans must be different and valid as folder names, got {', '.join(names)}"
        )
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
        raise inner.error(("source",), f"source must be a path or a list of paths, got {shown(source)}")
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
                raise top.document.error(place, f"{row.text} occurs twice")
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
                             f"got {shown(entry)}")  # fmt: skip
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
    """Raise if a network does not take a configuration's dimensions, as far as the names show."""
    parsed = parse_trainer_name(row.trainer)
    entry = find_entry(parsed.base) if parsed else None
    configuration = row.configuration or dataset.configuration
    dimensions = 2 if configuration.startswith("2d") else 3 if configuration.startswith("3d") else None
    if entry is not None and dimensions is not None and dimensions not in entry.dimensions:
        takes = " and ".join(f"{d}D" for d in entry.dimensions)
        raise document.error(row.place, f"{row.text} takes {takes} data, but dataset {dataset.dataset} is trained on "
                             f"{configuration}")  # fmt: skip


# ---- report ----------------------------------------------------------------------------------------------------------


GROUP_FILES = (".csv", ".json")


def _report(top: Reader) -> dict[str, Any]:
    """The options of the report, named like those of ``nnunet-attn compare``."""
    if "report" not in top.content:
        return {}
    keys = ("published", "surface", "voxels", "nsd_tolerance", "patients", "groups")
    reader = Reader(top.document, top.content["report"], ("report",), keys)
    values = {key: reader.get(key, bool, "true or false") for key in ("published", "surface", "voxels")}
    if {"groups", "patients"} <= set(reader.content):
        raise reader.error(("patients",), "patients is the earlier name of groups; give one of them")
    for key in ("groups", "patients"):
        rule = reader.get(key, str, "a CSV or JSON file, or a regular expression")
        if rule is not None:
            values["groups"] = str(reader.located(rule)) if rule.lower().endswith(GROUP_FILES) else rule
    values["nsd_tolerance"] = reader.get("nsd_tolerance", (int, float), "a number")
    if values["nsd_tolerance"] is not None and values["nsd_tolerance"] < 0:
        raise reader.error(("nsd_tolerance",), f"nsd_tolerance must not be negative, got {values['nsd_tolerance']}")
    return {key: value for key, value in values.items() if value is not None}
