"""Read a trained model's results folder: scores per case, logs, settings."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from nnunet_attn.comparison.training_log import Epoch, read_training_log
from nnunet_attn.errors import UserError
from nnunet_attn.scoring.classes import Classes

RUN_RECORD = "nnunet_attn_run.json"  # written by our trainers; stock trainers have none
PREDICTION_RECORD = "nnunet_attn_prediction.json"  # lies beside predictions; names trainer, plans, configuration
DEFAULT_PLANS = "nnUNetPlans"
NOT_RECORDED = "not recorded"
# The keys of dataset.json that define the data; descriptions and licences may change freely.
DATA_KEYS = ("channel_names", "labels", "regions_class_order", "numTraining", "file_ending")


def digest(content: object) -> str:
    """SHA-256 of JSON content, independent of its formatting."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: the file is not valid JSON, for example because it is truncated.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Fold:
    """One trained fold.

    Attributes:
        problem: Why the fold is incomplete; None if it is complete.
        cases: Case -> class -> Dice, IoU, n_pred, n_ref, as nnU-Net's final validation scored them.
        training_cases: Number of training cases, from the log.
        epochs: What the logs say of each epoch.
        settings: Attributes of the trainer as text, from nnU-Net's debug.json.
        record: Our run record; empty for stock trainers.
    """

    name: str
    problem: str | None
    cases: dict[str, dict[str, dict[str, float]]]
    training_cases: int | None
    epochs: dict[int, Epoch]
    settings: dict[str, str]
    record: dict

    @property
    def epoch_seconds(self) -> dict[int, float]:
        """Duration of each epoch that has ended."""
        return {number: epoch.seconds for number, epoch in self.epochs.items() if epoch.seconds is not None}


@dataclass(frozen=True)
class Model:
    """One training of a comparison: a trainer with plans and configuration, and its folds.

    ``named``: the configuration is not the comparison's, so it is part of the row's name.
    """

    folder: Path
    trainer: str
    plans_name: str
    configuration: str
    dataset: dict
    fingerprint: dict | None
    plans: dict
    folds: dict[str, Fold]
    named: bool = False

    @property
    def name(self) -> str:
        return self.name_with(self.trainer)

    def name_with(self, trainer: str) -> str:
        """The row's name if the trainer were another one, such as a repeat."""
        if self.named:
            return f"{trainer}:{self.plans_name}:{self.configuration}"
        return trainer if self.plans_name == DEFAULT_PLANS else f"{trainer}:{self.plans_name}"

    @property
    def complete(self) -> list[Fold]:
        return [fold for fold in self.folds.values() if fold.problem is None]

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration's settings in the plans, with inheritance resolved."""
        resolved: dict[str, Any] = {}
        name: str | None = self.configuration
        while name is not None:
            level = self.plans["configurations"][name]
            resolved = level | resolved
            name = level.get("inherits_from")
        return resolved

    def validation(self, fold: str) -> Path:
        return self.folder / f"fold_{fold}" / "validation"


def summary_scores(path: Path, classes: Classes, ending: str) -> dict[str, dict[str, dict[str, float]]]:
    """Content of nnU-Net's summary.json by case and class name."""
    names = {values: name for name, values in classes.values.items()}
    cases = {}
    for case in read_json(path)["metric_per_case"]:
        file = PureWindowsPath(case["prediction_file"]).name  # also splits at "/"
        cases[file.removesuffix(ending)] = {
            names[key]: {name: float(value) for name, value in metrics.items()}
            for text, metrics in case["metrics"].items()
            if (key := tuple(map(int, re.findall(r"\d+", text)))) in names
        }
    incomplete = [case for case, scores in cases.items() if set(scores) != set(classes.values)]
    if incomplete:
        raise UserError(
            f"{path}: classes of {incomplete[0]} are not those of dataset.json ({', '.join(classes.values)})"
        )
    return cases


def _read_fold(model: Path, name: str, classes: Classes, ending: str, expected: list[str] | None) -> Fold:
    folder = model / f"fold_{name}"
    if not folder.is_dir():
        return Fold(name, "not trained", {}, None, {}, {}, {})
    settings, record = (
        read_json(folder / file) if (folder / file).is_file() else {} for file in ("debug.json", RUN_RECORD)
    )
    log = read_training_log(folder)
    planned, done = int(settings.get("num_epochs", 0)), log.ended
    summary = folder / "validation" / "summary.json"
    cases: dict = {}
    problem: str | None
    if not (folder / "checkpoint_final.pth").is_file() and not 0 < planned <= done:
        problem = f"training not finished ({done} of {planned or '?'} epochs logged)"
    elif not summary.is_file():
        problem = "not validated (validation/summary.json is missing)"
    else:
        cases = summary_scores(summary, classes, ending)
        missing = sorted(set(expected) - set(cases)) if expected else []
        problem = None
        if missing:
            problem = f"validation lacks {len(missing)} of {len(expected or ())} cases, the first is {missing[0]}"
    return Fold(name, problem, cases, log.training_cases, log.epochs, settings, record)


def read_model(folder: Path, folds: list[str], splits: list[dict] | None) -> Model:
    """Read ``RESULTS/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION``.

    Args:
        folder: The model's folder.
        folds: Folds to read; missing or unfinished ones have a ``problem``.
        splits: Content of splits_final.json, which says what cases each validation must hold.

    Raises:
        UserError: the folder or one of nnU-Net's files in it is missing or unreadable.
    """
    parts = folder.name.split("__")
    if len(parts) != 3:
        raise UserError(f"{folder} is not a model's folder TRAINER__PLANS__CONFIGURATION")
    for file in ("dataset.json", "plans.json"):
        if not (folder / file).is_file():
            there = sorted(p.name for p in folder.parent.glob("*__*__*")) if folder.parent.is_dir() else []
            raise UserError(
                f"{folder / file} is missing; was this row trained? {folder.parent} holds {', '.join(there) or 'none'}"
            )
    dataset, plans = read_json(folder / "dataset.json"), read_json(folder / "plans.json")
    classes = Classes.from_file(folder / "dataset.json")
    fingerprint = folder / "dataset_fingerprint.json"
    read = {}
    for name in folds:
        known = splits[int(name)] if splits is not None and name.isdigit() and int(name) < len(splits) else None
        expected = known["val"] if known else None
        read[name] = _read_fold(folder, name, classes, dataset["file_ending"], expected)
    return Model(
        folder=folder,
        trainer=parts[0],
        plans_name=parts[1],
        configuration=parts[2],
        dataset=dataset,
        fingerprint=read_json(fingerprint) if fingerprint.is_file() else None,
        plans=plans,
        folds=read,
    )
