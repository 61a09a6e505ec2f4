"""The output of ``check``, ``status`` and ``list``."""

from collections import Counter

from nnunet_attn.catalog import STOCK
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.study.commands import tail
from nnunet_attn.study.markers import Done, before_text
from nnunet_attn.study.matrix import Job, Matrix
from nnunet_attn.study.states import DEFAULT_EPOCHS, DONE, FAILED, RUNNING, STALLED, STOPPED, THERE, State, duration
from nnunet_attn.trainer_names import parse_trainer_name

States = dict[str, State]


def _columns(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def check_text(matrix: Matrix, states: States, done: Done) -> str:
    """The output of ``check``: finished trainings by row and dataset, remarks, and estimated cost."""
    by_cell: dict[tuple[int, int], list[Job]] = {}
    for job in matrix.trainings:
        if job.model is not None:
            by_cell.setdefault((job.model.row, job.dataset), []).append(job)
    lines = [["", *matrix.names]]
    for r, row in enumerate(matrix.study.rows):
        cells = []
        for d in range(len(matrix.names)):
            jobs = by_cell[r, d]
            words = Counter(states[job.id].word for job in jobs)
            cell = f"{words[DONE] + words[THERE]} of {len(jobs)}"
            extra = [f"{words[w]} {w}" for w in (RUNNING, STALLED, STOPPED, FAILED) if words[w]]
            cells.append(cell + (f" ({', '.join(extra)})" if extra else ""))
        lines.append([row.text, *cells])
    study = matrix.study
    repeats = " or ".join(map(str, sorted({row.repeats for row in study.rows})))
    size = f"rows: {len(study.rows)}, datasets: {len(matrix.names)}, repeats: {repeats}"
    text = [
        f"{study.name}: {len(matrix.trainings)} trainings ({size}), device {study.device}",
        f"folder {matrix.layout.folder}, results {matrix.layout.results}",
        "",
        "trainings done:",
        _columns(lines),
        "",
        *_preparation(matrix, states),
        *_data(matrix),
        *_changes(done, matrix, states),
        cost_text(matrix, states),
    ]
    return "\n".join(text)


def _preparation(matrix: Matrix, states: States) -> list[str]:
    lines = []
    for i, name in enumerate(matrix.names):
        steps = [
            job for job in matrix.jobs.values() if job.dataset == i and job.kind in ("convert", "plan", "preprocess")
        ]
        missing = [job.id for job in steps if states[job.id].word not in (DONE, THERE)]
        folds = ", ".join(map(str, matrix.folds[i]))
        made = "of the converter" if matrix.study.datasets[i].convert else "as nnU-Net will make them"
        origin = made if matrix.splits[i] is None else "of the split file"
        lines.append(
            f"{name}: folds {folds} ({origin}); " + (f"to do: {', '.join(missing)}" if missing else "prepared")
        )
    return lines


def _data(matrix: Matrix) -> list[str]:
    """Downloads that are not there, and where to get them."""
    lines = []
    for name, choice in zip(matrix.names, matrix.study.datasets, strict=True):
        conversion = choice.convert
        if conversion is None or (matrix.layout.raw / name / "dataset.json").is_file():
            continue
        dataset = DATASETS[conversion.converter]
        for source in conversion.sources:
            if not source.exists():
                lines.append(f"missing: {source}, which becomes {name}: {dataset.title}; get it from {dataset.page} "
                             f"({dataset.access}; licence: {dataset.licence})")  # fmt: skip
                if "$" in str(source):
                    lines.append(f"  set the variable in {source}, to the folder of your downloads")
    return lines


def _changes(done: Done, matrix: Matrix, states: States) -> list[str]:
    lines = [f"will run again: {job}: {reason}" for job, reason in done.gone.items()]
    lines += [f"changed: {job} was {before_text(job, what)} (run --retrain does it again)"
              for job, what in done.flags.items()]  # fmt: skip
    taken = sum(states[job.id].word == THERE for job in matrix.trainings)
    if taken:
        lines.append(f"{taken} trainings were done outside this study; run only scores them")
    bare = [row.text for row in matrix.study.rows if row.trainer == STOCK]
    if matrix.study.device == "cpu" and bare:
        lines.append(f"{bare[0]} takes all cores and ignores threads; with a schedule it does not")
    return lines


def cost_text(matrix: Matrix, states: States) -> str:
    """Hours of training so far and to come, estimated from logs of the same row and dataset (any fold or repeat)."""
    spent = sum(states[job.id].hours for job in matrix.trainings)
    seconds: dict[tuple[int, int], list[float]] = {}
    for job in matrix.trainings:
        value = states[job.id].epoch_seconds
        if value is not None and job.model is not None:
            seconds.setdefault((job.model.row, job.dataset), []).append(value)
    left, known, unknown = 0.0, 0, 0
    for job in matrix.trainings:
        state = states[job.id]
        if state.word in (DONE, THERE) or job.model is None:
            continue
        of_row = sorted(seconds.get((job.model.row, job.dataset), []))
        if not of_row:
            unknown += 1
            continue
        known += 1
        left += max(0, planned(job, state) - state.epoch) * of_row[len(of_row) // 2]
    text = f"epochs so far: {spent:.1f} h"
    if known:
        text += f"; to come: {left / 3600:.1f} h for {known} trainings, one after the other"
    if unknown:
        text += f"; {unknown} trainings belong to rows without logs, so their cost is unknown"
    return text


def planned(job: Job, state: State) -> int:
    """Number of epochs of a training: from its log, or its name, else nnU-Net's 1000."""
    if state.epochs:
        return state.epochs
    parsed = parse_trainer_name(job.model.trainer) if job.model else None
    return parsed.epochs if parsed and parsed.epochs else DEFAULT_EPOCHS


def status_text(matrix: Matrix, states: States, *, everything: bool = False) -> str:
    """The output of ``status``: a line for each job that is running, stopped or failed; counts of the others."""
    counts = Counter(states[job.id].word for job in matrix.trainings)
    done = counts[DONE] + counts[THERE]
    parts = [f"{counts[w]} {w}" for w in (RUNNING, STALLED, STOPPED, FAILED) if counts[w]]
    waiting = len(matrix.trainings) - done - sum(counts[w] for w in (RUNNING, STALLED, STOPPED, FAILED))
    lines = [f"{matrix.study.name}: {done} of {len(matrix.trainings)} trainings done"
             + "".join(f", {part}" for part in parts) + f", {waiting} waiting"]  # fmt: skip
    for job in matrix.jobs.values():
        state = states[job.id]
        quiet = state.word in (DONE, THERE) and not state.note
        if (quiet or (state.word == "waiting" and not state.epoch and not state.note)) and not everything:
            continue
        lines.append(job_line(job, state))
        if state.word == FAILED:
            lines += [f"    | {line}" for line in tail(matrix.layout.log(job.id), 4)]
    lines.append(cost_text(matrix, states))
    return "\n".join(lines)


def status_rows(matrix: Matrix, states: States) -> list[dict[str, object]]:
    """All jobs as JSON content."""
    return [
        {
            "job": job.id, "kind": job.kind, "state": states[job.id].word, "epoch": states[job.id].epoch,
            "epochs": states[job.id].epochs, "pseudo_dice": states[job.id].dice,
            "seconds_left": states[job.id].seconds_left, "host": states[job.id].host,
            "slurm_job": states[job.id].slurm_job, "note": states[job.id].note,
        }
        for job in matrix.jobs.values()
    ]  # fmt: skip


def job_line(job: Job, state: State) -> str:
    """One line about a job."""
    facts = []
    if state.word not in (DONE, THERE) and (state.epoch or state.epochs) and job.kind == "train":
        facts.append(f"epoch {state.epoch} of {planned(job, state)}")
        if state.epochs and state.epoch >= state.epochs:
            facts.append("validating")
    if state.dice is not None and state.word != DONE:
        facts.append(f"pseudo Dice {state.dice:.3f}")
    if state.word == RUNNING and state.seconds_left:
        facts.append(f"{duration(state.seconds_left)} left")
    if state.host and state.word != DONE:
        facts.append(state.host + (f", Slurm job {state.slurm_job}" if state.slurm_job else ""))
    if state.note:
        facts.append(state.note)
    return f"{state.word:8} {job.id}" + (f"  ({'; '.join(facts)})" if facts else "")
