"""Check that a job's outputs exist, complete and readable. Functions return one line on what is missing, or None."""

import json
import os
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from nnunet_attn.comparison.training_log import read_training_log

SCORES = "nnunet_attn_metrics.csv"  # written by nnunet-attn evaluate beside the validation or the predictions
FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


def read_json(path: Path) -> Any:
    """Content of a JSON file; None if it is missing or truncated."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ---- data ------------------------------------------------------------------------------------------------------------


def plans_problem(folder: Path, plans: Sequence[str]) -> str | None:
    """Whether fingerprint and plans in a dataset's preprocessed folder can be read."""
    for name in ("dataset_fingerprint", *plans):
        if not isinstance(read_json(folder / f"{name}.json"), dict):
            return f"{name}.json is missing"
    return None


def data_folder(folder: Path, plans: str, configuration: str) -> Path | None:
    """Folder of a configuration's preprocessed data; None if the plans do not name it."""
    content = read_json(folder / f"{plans}.json")
    levels = content.get("configurations", {}) if isinstance(content, dict) else {}
    name: str | None = configuration
    while name in levels:
        if "data_identifier" in levels[name]:
            return folder / levels[name]["data_identifier"]
        name = levels[name].get("inherits_from")
    return None


def data_problem(folder: Path, plans: str, configuration: str) -> str | None:
    """Whether every training case is preprocessed; nnU-Net writes each case's .pkl last."""
    data = data_folder(folder, plans, configuration)
    if data is None:
        return f"{plans}.json has no configuration {configuration}"
    description = read_json(folder / "dataset.json")
    if not isinstance(description, dict):
        return f"{folder.name}/dataset.json is missing"
    count = sum(entry.name.endswith(".pkl") for entry in os.scandir(data)) if data.is_dir() else 0
    wanted = int(description["numTraining"])
    return None if count == wanted else f"{data.name} holds {count} of {wanted} cases"


# ---- trainings -------------------------------------------------------------------------------------------------------


def checkpoint_problem(path: Path) -> str | None:
    """Whether a checkpoint is complete; it is a zip archive, which has a checksum for every member."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        return f"{path.name} cannot be read ({error})"
    return None if bad is None else f"{path.name} is damaged"


def _scored_files(validation: Path) -> set[str] | None:
    """Names of the predictions that validation/summary.json scores; None if it is missing or cannot be read."""
    try:
        cases = read_json(validation / "summary.json")["metric_per_case"]
        return {PureWindowsPath(case["prediction_file"]).name for case in cases}
    except (TypeError, KeyError):
        return None


def summary_problem(validation: Path, cases: Collection[str] | None, ending: str | None) -> str | None:
    """Whether validation/summary.json scores every validation case."""
    files = _scored_files(validation)
    if files is None:
        missing = read_json(validation / "summary.json") is None
        return f"validation/summary.json {'is missing' if missing else 'cannot be read'}"
    if cases is not None and ending is not None:
        lacking = sorted(set(cases) - {name.removesuffix(ending) for name in files})
        if lacking:
            return f"validation/summary.json lacks {len(lacking)} of {len(cases)} cases, the first is {lacking[0]}"
    return None


def split_problem(fold: Path, split: Mapping[str, Collection[str]], ending: str | None) -> str | None:
    """Whether a fold that has begun belongs to another split: by the number in its log, and by its scored cases.

    Args:
        fold: nnU-Net's folder.
        split: Its "train" and "val" cases, by today's split.
        ending: File ending of the cases; None if it is not known.
    """
    logged = read_training_log(fold).training_cases
    if logged is not None and logged != len(split["train"]):
        return f"its log names {logged} training cases, the split {len(split['train'])}"
    scored = _scored_files(fold / "validation")
    if scored is None or ending is None:
        return None
    other = scored ^ {f"{case}{ending}" for case in split["val"]}
    return f"its validation/summary.json and the split differ in {min(other)}" if other else None


def training_problem(fold: Path, cases: Collection[str] | None, ending: str | None) -> str | None:
    """Whether a fold is trained and validated; checkpoints must exist, but are not read."""
    if not (fold / FINAL).is_file():
        return "not trained to the end"
    return summary_problem(fold / "validation", cases, ending)


def set_aside(path: Path, why: str) -> Path:
    """Rename a file or folder to ``NAME.WHY-N``; a fold to ``WHY-N.fold_X``, which nnU-Net does not read as a fold."""
    number = 1
    while True:
        name = f"{why}-{number}.{path.name}" if path.name.startswith("fold_") else f"{path.name}.{why}-{number}"
        target = path.with_name(name)
        if not target.exists():
            path.rename(target)
            return target
        number += 1


def planned_epochs(fold: Path, trainer: str) -> int | None:
    """Number of epochs of a training, from nnU-Net's debug.json, else from the trainer's name."""
    settings = read_json(fold / "debug.json")
    if isinstance(settings, dict) and str(settings.get("num_epochs", "")).isdigit():
        return int(settings["num_epochs"])
    found = re.search(r"_(\d+)epochs?(?:_|$)", trainer)
    return int(found[1]) if found else None
