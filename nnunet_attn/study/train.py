"""Jobs that train and predict with nnU-Net's own commands, and continue from where an earlier attempt stopped."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_attn.catalog import PRETRAINED_VARIABLE
from nnunet_attn.comparison.results import summary_scores
from nnunet_attn.comparison.stored import read_stored, same_dice
from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_folder, named_file
from nnunet_attn.lookup import find_entry
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.study.outputs import (
    BEST,
    FINAL,
    LATEST,
    SCORES,
    checkpoint_problem,
    set_aside,
    split_problem,
    summary_problem,
    training_problem,
)
from nnunet_attn.study.states import expected_cases, expected_split
from nnunet_attn.trainer_names import parse_trainer_name

if TYPE_CHECKING:
    from nnunet_attn.study.job import Run


DEFAULTS = {"-tr": "nnUNetTrainer", "-p": "nnUNetPlans"}  # of nnUNetv2_train


def usable_checkpoint(fold: Path, say: Callable[[str], None]) -> str | None:
    """The checkpoint from which a training continues, in nnU-Net's order of preference; unreadable ones are set aside.

    If all checkpoints are unreadable, the whole folder is set aside and the fold starts from scratch.
    """
    for left in fold.glob("*.pth.tmp"):
        left.unlink()
    damaged = False
    for name in (FINAL, LATEST, BEST):
        path = fold / name
        if not path.exists():
            continue
        problem = checkpoint_problem(path)
        if problem is None:
            return name
        damaged = True
        say(f"{problem}; set aside as {set_aside(path, 'corrupt').name}")
    if damaged:
        say(
            f"no checkpoint can be read, so the fold starts from scratch; the old folder is now "
            f"{set_aside(fold, 'aside').name}"
        )
    return None


def other_training(results: Path, dataset: str, words: set[str]) -> int | None:
    """Id of a process on this machine that trains the fold with nnU-Net's command, started outside the study.

    Args:
        results: nnU-Net's results folder.
        dataset: Name of the dataset's folder; a command may also give its number.
        words: All other words that the command must have.
    """
    names = {dataset, dataset[7:10], str(int(dataset[7:10]))}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if not any(Path(word).name == "nnUNetv2_train" for word in command):
                continue
            given = set(command) | {default for option, default in DEFAULTS.items() if option not in command}
            if not words <= given or names.isdisjoint(command):
                continue
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        where = next((v.partition("=")[2] for v in variables if v.startswith("nnUNet_results=")), "")
        if where and Path(where).resolve() == results.resolve():
            return int(entry.name)
    return None


def train(run: "Run") -> dict[str, object]:
    """Train one fold to the end, validate it, score it."""
    model, study = run.job.model, run.matrix.study
    assert model is not None
    fold = run.layout.results / run.job.id.partition("/")[2]
    cases, ending = expected_cases(run.matrix, run.job)
    command: list[object] = [
        "nnUNetv2_train", int(run.name[7:10]), model.configuration, run.job.fold, "-tr", model.trainer,
        "-p", model.plans, "-device", study.device,
    ]  # fmt: skip
    if run.job.gpus > 1:
        command += ["-num_gpus", run.job.gpus]
    words = {str(run.job.fold), model.configuration, model.trainer, model.plans}
    other = other_training(run.layout.results, run.name, words)
    if other is not None:
        raise UserError(f"process {other} already trains this fold, outside the study; wait for it, or stop it first")
    found = usable_checkpoint(fold, run.log.say) if fold.is_dir() else None
    split = expected_split(run.matrix, run.job)
    other_split = split_problem(fold, split, ending) if found is not None and split is not None else None
    if other_split is not None:
        raise UserError(
            f"{fold} was trained on another split: {other_split}; move the folder away to train the fold anew"
        )
    if found is None:
        run.command(*command, **_threads(run), **_weights(run, model.trainer))
    elif found != FINAL:
        run.log.say(f"continues from {found}")
        run.command(*command, "--c", **_threads(run))
    elif summary_problem(fold / "validation", cases, ending) is not None:
        run.command(*command, "--val", **_threads(run))
    problem = training_problem(fold, cases, ending) or checkpoint_problem(fold / FINAL)
    if problem is not None:
        raise UserError(f"nnUNetv2_train has ended, but {fold}: {problem}")
    if not scores_fit(fold):
        _score(run, fold, None, fold / SCORES)
    return {}


def _threads(run: "Run") -> dict[str, str]:
    """Variables for training only: nnUNet_n_proc_DA=0 breaks planning, OMP_THREAD_LIMIT makes torch hang."""
    threads = str(run.job.threads)
    if run.matrix.study.device == "cuda":
        return {} if "nnUNet_n_proc_DA" in os.environ else {"nnUNet_n_proc_DA": threads}
    return {
        "NNUNET_ATTN_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": threads,
    }


def _weights(run: "Run", trainer: str) -> dict[str, str]:
    """Keeps encoder weights that the environment names from networks that cannot take them, which would refuse."""
    if named_file(PRETRAINED_VARIABLE) is None:
        return {}
    parsed = parse_trainer_name(trainer)
    entry = find_entry(parsed.base) if parsed is not None else None
    if entry is not None and entry.pretrained_encoder:
        return {}
    run.log.say(f"{PRETRAINED_VARIABLE} is not for {trainer}, which starts from scratch")
    return {PRETRAINED_VARIABLE: "none"}


def _score(run: "Run", predictions: Path, references: Path | None, scores: Path) -> None:
    """Write all metrics by case, beside the predictions."""
    words: list[object] = ["nnunet-attn", "evaluate", predictions]
    words += [references] if references is not None else []
    description = json.loads((run.layout.preprocessed / run.name / "dataset.json").read_text(encoding="utf-8"))
    if references is None and description.get("input_size") and description["file_ending"] == ".png":
        words += ["--at-input-size"]  # as nnU-Net's own validation, with which these scores are compared
    tolerance = run.matrix.study.report.get("nsd_tolerance")
    words += ["--nsd-tolerance", tolerance] if tolerance is not None else []
    words += ["--voxels"] if run.matrix.study.report.get("voxels") else []
    run.command(*words, "-o", scores, "-np", run.job.threads)


def scores_fit(fold: Path) -> bool:
    """Whether a fold's stored scores belong to its current validation: the same Dice for the same cases."""
    if not (fold / SCORES).is_file():
        return False
    description = fold.parent / "dataset.json"
    ending = json.loads(description.read_text(encoding="utf-8"))["file_ending"]
    cases = summary_scores(fold / "validation" / "summary.json", Classes.from_file(description), ending)
    return same_dice(read_stored(fold / SCORES), cases)


def predict(run: "Run") -> dict[str, object]:
    """Predict imagesTs with the ensemble of the folds, and score the predictions."""
    model = run.job.model
    assert model is not None
    images, references = (run.layout.raw / run.name / part for part in ("imagesTs", "labelsTs"))
    for folder in (images, references):
        if not folder.is_dir():
            raise UserError(f"test: true, but {folder} is missing")
    output = run.layout.folder / run.job.id
    with complete_folder(output, overwrite=True) as temporary:
        device = run.matrix.study.device
        workers = [] if device == "cuda" else ["-npp", 1, "-nps", 1]
        run.command(
            "nnUNetv2_predict", "-i", images, "-o", temporary, "-d", int(run.name[7:10]), "-c", model.configuration,
            "-tr", model.trainer, "-p", model.plans, "-f", *run.job.folds, "-device", device, *workers,
            *(["-chk", BEST] if run.matrix.study.checkpoint == "best" else []),
        )  # fmt: skip
        shutil.copyfile(run.layout.preprocessed / run.name / "dataset.json", temporary / "dataset.json")
        _score(run, temporary, references, temporary / SCORES)
    return {}
