"""The state of each job of a study, for ``check`` and ``status``. Reads few files and needs no Snakemake."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from nnunet_attn.comparison.training_log import TrainingLog, log_files, read_training_log
from nnunet_attn.study.locks import is_alive, read_lock
from nnunet_attn.study.markers import Done, before_text
from nnunet_attn.study.matrix import Job, Matrix
from nnunet_attn.study.outputs import data_problem, planned_epochs, plans_problem, read_json, training_problem

STALLED_EPOCHS = 10
STALLED_LEAST = 120.0  # seconds; longer than a case of the validation takes
DONE, THERE, RUNNING, STALLED, FAILED, STOPPED, WAITING = (
    "done", "there", "running", "stalled", "failed", "stopped", "waiting"
)  # fmt: skip
DEFAULT_EPOCHS = 1000


@dataclass
class State:
    """One job's state.

    Attributes:
        word: ``done``; ``there`` (trained outside this study, which will only score it); ``running``, ``stalled``,
            ``failed``, ``stopped`` (killed or cancelled, will continue), ``waiting``.
        epoch, epochs: Number of completed and of planned epochs.
        dice: Pseudo Dice of the last epoch, mean over classes.
        epoch_seconds: Median duration of the logged epochs.
        seconds_left: Estimated time until the training ends, without the validation.
        host, slurm_job: Of the running job, or of its last attempt.
        note: A remark, such as the reason of a failure.
        hours: Hours spent on epochs so far.
    """

    word: str
    epoch: int = 0
    epochs: int | None = None
    dice: float | None = None
    epoch_seconds: float | None = None
    seconds_left: float | None = None
    host: str | None = None
    slurm_job: str | None = None
    note: str = ""
    hours: float = 0.0


def epoch_seconds(log: TrainingLog) -> float | None:
    """Median duration of an epoch."""
    seconds = [e.seconds for e in log.epochs.values() if e.seconds is not None]
    return statistics.median(seconds) if seconds else None


def log_facts(fold: Path) -> dict[str, float | int | None]:
    """The facts from a fold's logs that its marker stores, so that the logs need not be read again."""
    log = read_training_log(fold)
    seconds = [e.seconds for e in log.epochs.values() if e.seconds is not None]
    return {
        "epochs": log.ended,
        "epoch_seconds": epoch_seconds(log),
        "hours": round(sum(seconds) / 3600, 4),
        "starts_from_0": log.starts.count(0),
    }


def read_states(matrix: Matrix, done: Done) -> dict[str, State]:
    """The state of every job."""
    return {job.id: _state(matrix, job, done) for job in matrix.jobs.values()}


def _state(matrix: Matrix, job: Job, done: Done) -> State:
    layout = matrix.layout
    marker = done.markers.get(job.id)
    if marker is not None:
        facts = marker.get("log", {})
        flags = done.flags.get(job.id, [])
        note = before_text(job.id, flags) if flags else ""
        epochs = facts.get("epochs") or 0
        return State(
            DONE, epochs, epochs, None, facts.get("epoch_seconds"), 0.0, note=note, hours=facts.get("hours", 0)
        )
    state = State(WAITING, note=done.gone.get(job.id, ""))
    if job.kind == "train":
        fold = layout.results / job.id.partition("/")[2]
        if fold.is_dir():
            _read_fold(matrix, job, fold, state)
    elif not state.note and _is_there(matrix, job):
        state.word = THERE
    lock = read_lock(layout.lock(job.id)) if state.word != THERE else None
    attempt = read_json(layout.state(job.id))
    attempt = attempt if isinstance(attempt, dict) else {}
    if lock and lock.get("job", job.id) == job.id and is_alive(lock) is not False:
        state.host, state.slurm_job = lock.get("host"), lock.get("slurm_job")
        quiet = _quiet_seconds(layout.results / job.id.partition("/")[2]) if job.kind == "train" else None
        limit = max(STALLED_LEAST, STALLED_EPOCHS * (state.epoch_seconds or 0))
        state.word = RUNNING
        if quiet is not None and state.epoch_seconds and quiet > limit:
            state.word, state.note = STALLED, f"its log has not changed for {duration(quiet)}"
    elif attempt and state.word == WAITING:
        state.host, state.slurm_job = attempt.get("host"), attempt.get("slurm_job")
        code = attempt.get("exit_code")
        if code is None or code < 0 or code > 128:
            state.word, state.note = STOPPED, "was killed; continues when the study is run again"
        elif code:
            state.word, state.note = FAILED, str(layout.log(job.id))
    return state


def _is_there(matrix: Matrix, job: Job) -> bool:
    """Whether a preparation job has nothing to do."""
    folder = matrix.layout.preprocessed / matrix.names[job.dataset]
    if job.kind == "convert":
        return (matrix.layout.raw / matrix.names[job.dataset] / "dataset.json").is_file()
    if job.kind == "plan":
        return plans_problem(folder, matrix.plans[job.dataset]) is None
    if job.kind == "preprocess":
        return data_problem(folder, str(job.plans), str(job.configuration)) is None
    return False


def expected_split(matrix: Matrix, job: Job) -> dict | None:
    """The "train" and "val" cases of a training; None if they are not known."""
    splits = matrix.splits[job.dataset]
    return splits[job.fold] if splits is not None and job.fold is not None else None


def expected_cases(matrix: Matrix, job: Job) -> tuple[list[str] | None, str | None]:
    """The validation cases of a training and their file ending; None if they are not known."""
    split = expected_split(matrix, job)
    name, layout = matrix.names[job.dataset], matrix.layout
    description = read_json(layout.preprocessed / name / "dataset.json") or read_json(
        layout.raw / name / "dataset.json"
    )
    ending = description.get("file_ending") if isinstance(description, dict) else None
    return None if split is None else split["val"], ending


def _read_fold(matrix: Matrix, job: Job, fold: Path, state: State) -> None:
    log = read_training_log(fold)
    seconds = [e.seconds for e in log.epochs.values() if e.seconds is not None]
    last = log.epochs.get(log.ended - 1)
    state.epoch, state.dice = log.ended, last.mean_dice if last else None
    state.epochs = planned_epochs(fold, job.model.trainer if job.model else "")
    state.epoch_seconds, state.hours = epoch_seconds(log), sum(seconds) / 3600
    if state.epochs is not None and state.epoch_seconds is not None:
        state.seconds_left = max(0, state.epochs - state.epoch) * state.epoch_seconds
    if not state.note and training_problem(fold, *expected_cases(matrix, job)) is None:
        state.word = THERE


def _quiet_seconds(fold: Path) -> float | None:
    """Seconds since the newest log changed; if the clock was set back, an underestimate."""
    times = [path.stat().st_mtime for path in log_files(fold)]
    return time.time() - max(times) if times else None


def duration(seconds: float) -> str:
    """A time span as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
