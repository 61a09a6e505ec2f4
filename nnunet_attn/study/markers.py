"""Find out which jobs are done. A marker is a small file in the study's folder that a job writes last.

It records the job's outputs (SHA-256 of small files, size and time of checkpoints) and the inputs they were made from:
of a training, those that its data were preprocessed from. A job whose outputs are missing or changed is not done. A job
whose inputs changed stays done and is flagged.
"""

import json
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_attn.files import sha256, write_json
from nnunet_attn.study.inputs import Inputs, changed_inputs
from nnunet_attn.study.layout import Layout
from nnunet_attn.study.matrix import Job, Matrix
from nnunet_attn.study.outputs import SCORES, data_problem, plans_problem, read_json

FORMAT = 1


def stamp(path: Path) -> dict[str, object]:
    """A file's identity, to detect changes: size and time of a large file, SHA-256 of others."""
    stat = path.stat()
    if path.suffix == ".pth":
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return {"sha256": sha256(path)}


def output_files(layout: Layout, job: Job) -> list[Path]:
    """The output files that a job's marker records."""
    if job.kind == "convert":
        return [layout.raw / job.id.partition("/")[2] / "dataset.json"]
    if job.kind == "plan":
        folder = layout.preprocessed / job.id.partition("/")[2]
        return [folder / "dataset_fingerprint.json"]
    if job.kind == "train":
        fold = layout.results / job.id.partition("/")[2]
        return [fold / "checkpoint_final.pth", fold / "validation" / "summary.json", fold / SCORES]
    if job.kind == "predict":
        return [layout.folder / job.id / SCORES]
    return []


def write_marker(matrix: Matrix, job: Job, facts: dict[str, object]) -> None:
    """Write a job's marker; the job's outputs must exist."""
    layout = matrix.layout
    content: dict[str, object] = {
        "format": FORMAT,
        "job": job.id,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "host": socket.gethostname(),
        "outputs": {str(path.name): stamp(path) for path in output_files(layout, job)},
        **facts,
    }
    if job.kind == "train":
        content["inputs"] = Inputs(matrix, hash_files=True).of(job)
        for need in job.needs:
            content["inputs"] |= (read_json(layout.marker(need)) or {}).get("inputs", {})
    if job.kind == "predict":
        content["checkpoints"] = _checkpoints(layout, job)
        content["checkpoint"] = matrix.study.checkpoint
    path = layout.marker(job.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def _checkpoints(layout: Layout, job: Job) -> dict[str, object]:
    """The trainings of the folds whose ensemble a prediction uses."""
    files = {need: layout.results / need.partition("/")[2] / "checkpoint_final.pth" for need in job.needs}
    return {need: stamp(path) if path.is_file() else None for need, path in files.items()}


@dataclass
class Done:
    """Which jobs of a study are done.

    Attributes:
        markers: Content of the markers of jobs that are done.
        gone: By job that is no longer done, the reason.
        flags: By preprocessing or training that is done, the inputs that changed since.
    """

    markers: dict[str, dict] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)


def read_done(matrix: Matrix, *, hash_files: bool = False) -> Done:
    """Read all markers and compare them with the files. Writes nothing but the cache of input digests."""
    done, inputs = Done(), Inputs(matrix, hash_files=hash_files)
    for job in matrix.jobs.values():
        path = matrix.layout.marker(job.id)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            reason = _gone(matrix, job, content, done)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"its marker cannot be read ({error})"
        if reason is not None:
            done.gone[job.id] = reason
            continue
        done.markers[job.id] = content
        had = content.get("inputs", {})
        changed = changed_inputs(had, inputs.of(job)) if had else []
        if changed:
            done.flags[job.id] = changed
    return done


def _gone(matrix: Matrix, job: Job, content: dict, done: Done) -> str | None:
    """Why a job with a marker is not done; None if it is."""
    layout = matrix.layout
    for path in output_files(layout, job):
        try:
            if stamp(path) != content["outputs"][path.name]:
                return f"{path.name} has changed"
        except FileNotFoundError:
            return f"{path.name} is gone"
    if job.kind == "plan":
        return plans_problem(layout.preprocessed / matrix.names[job.dataset], matrix.plans[job.dataset])
    if job.kind == "preprocess":
        return data_problem(layout.preprocessed / matrix.names[job.dataset], str(job.plans), str(job.configuration))
    if job.kind == "predict":
        missing = [need for need in job.needs if need not in done.markers]
        if missing:
            return f"{missing[0]} is not done"
        if content["checkpoints"] != _checkpoints(layout, job):
            return "its models have been trained again"
        if content.get("checkpoint", matrix.study.checkpoint) != matrix.study.checkpoint:
            return f"it is of another checkpoint than the study's, {matrix.study.checkpoint}"
    return None


def before_text(job: str, changed: list[str]) -> str:
    """A remark on a job whose inputs changed."""
    return f"{'trained' if job.startswith('train/') else 'preprocessed'} before {', '.join(changed)} changed"


def remove_markers(layout: Layout, jobs: list[str]) -> None:
    """Remove the markers of jobs, so that the jobs run again."""
    for job in jobs:
        layout.marker(job).unlink(missing_ok=True)
