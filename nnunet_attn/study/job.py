"""``nnunet-attn study job STUDY.yaml JOB``: do one job of a study, from taking its lock to writing its marker."""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json
from nnunet_attn.study.commands import CommandFailed, Log, Stopped, run_command
from nnunet_attn.study.gpus import free_gpus
from nnunet_attn.study.layout import Layout
from nnunet_attn.study.locks import Lock, waited_for
from nnunet_attn.study.markers import write_marker
from nnunet_attn.study.matrix import Job, Matrix
from nnunet_attn.study.prepare import convert, plan, preprocess
from nnunet_attn.study.states import log_facts
from nnunet_attn.study.train import predict, train

FULL = 50_000_000  # bytes; with less free space the disk counts as full
STOPPED_CODE = 143  # the exit code after SIGTERM
STEPS: dict[str, Callable[["Run"], dict[str, object]]] = {
    "convert": convert, "plan": plan, "preprocess": preprocess, "train": train, "predict": predict,
}  # fmt: skip


class Run:
    """A running job.

    Attributes:
        matrix, job: The study and the job.
        layout: The study's folders.
        log: The job's log.
        environment: Environment variables of its commands.
    """

    def __init__(self, matrix: Matrix, job: Job, log: Log):
        self.matrix, self.job, self.log = matrix, job, log
        self.layout: Layout = matrix.layout
        self.lock: Lock | None = None
        self.environment = self.layout.environment()

    @property
    def name(self) -> str:
        """The folder name of the job's dataset."""
        return self.matrix.names[self.job.dataset]

    def command(self, *words: object, **environment: str) -> None:
        """Run a command in this job's environment."""
        run_command([str(word) for word in words], self.log, self.environment | environment, self.lock)


def run_job(matrix: Matrix, job_id: str) -> int:
    """Do a job unless it is done, and write its marker.

    Returns:
        0; the exit code of the command that failed, or 1; 143 if the job was stopped.

    Raises:
        UserError: the study has no such job.
    """
    job = matrix.jobs.get(job_id)
    if job is None:
        raise UserError(f"the study {matrix.study.file} has no job {job_id}; nnunet-attn study list shows all")
    log = Log(matrix.layout.log(job_id))
    code, reason = 1, ""
    try:
        with waited_for(matrix.layout.lock(job_id), job_id, lambda text: _say(log, text)) as lock:
            run = Run(matrix, job, log)
            run.lock = lock
            note_attempt(matrix.layout, job_id)
            with free_gpus(job.gpus if matrix.study.device == "cuda" else 0, log.say) as gpus:
                run.environment |= gpus
                facts = STEPS[job.kind](run)
            if job.kind == "train":
                facts = facts | {"log": log_facts(run.layout.results / job.id.partition("/")[2])}
            write_marker(matrix, job, facts)
            matrix.layout.state(job_id).unlink(missing_ok=True)
        code = 0
    except CommandFailed as error:
        code, reason = (error.code if error.code > 0 else 128 - error.code), str(error)
    except (UserError, OSError) as error:
        reason = str(error)
    except (Stopped, KeyboardInterrupt):
        code, reason = STOPPED_CODE, "stopped; continues when the study is run again"
    if code:
        full = _full_disk(matrix.layout)
        reason = f"{reason}; {full}" if full else reason
        _say(log, f"{job_id}: {reason}")
        with suppress(OSError):
            note_attempt(matrix.layout, job_id, exit_code=code, reason=reason)
    return code


def _say(log: Log, text: str) -> None:
    log.say(text)
    print(text, file=sys.stderr, flush=True)


def note_attempt(layout: Layout, job_id: str, **more: object) -> None:
    """Record who attempts a job and how the attempt ended; the file is removed when the job is done."""
    path = layout.state(job_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "job": job_id, "host": socket.gethostname(), "process": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"), "time": time.strftime("%Y-%m-%d %H:%M:%S"), **more,
    }  # fmt: skip
    write_json(path, content)


def _full_disk(layout: Layout) -> str | None:
    """A message on a full disk among those that a job writes to; None if there is space."""
    for folder in (layout.results, layout.preprocessed, layout.raw, layout.folder):
        existing = next((f for f in (folder, *folder.parents) if f.exists()), Path("/"))
        free = shutil.disk_usage(existing).free
        if free < FULL:
            return f"the disk of {existing} is full ({free / 1e6:.0f} MB free)"
    return None
