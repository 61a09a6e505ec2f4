"""Choose a job's GPUs. Slurm assigns them; on a single machine Snakemake only counts, so each job picks free ones."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.study.locks import Lock

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    if VARIABLE in os.environ:
        return [part.strip() for part in os.environ[VARIABLE].split(",") if part.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit()]


def lock_folder() -> Path:
    """Folder of this machine's GPU locks, which all studies of a user share."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"nnunet_attn_gpus_{user}"


@contextmanager
def free_gpus(count: int, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Reserve GPUs, waiting while all are taken; yields the environment variables for the job.

    A Slurm job that was given as many as it needs has them for itself; of an allocation with more, each job takes some.

    Raises:
        UserError: this machine has too few.
    """
    slurm = os.environ.get("SLURM_JOB_ID")
    gpus = visible_gpus() if count else []
    if count == 0 or (slurm and len(gpus) <= count):
        yield {}
        return
    if len(gpus) < count:
        raise UserError(f"a training needs {count} GPU{'s' * (count > 1)}, and this machine has {len(gpus)}; set "
                        "device: cpu in the study, or run it on Slurm (-- --executor slurm)")  # fmt: skip
    with ExitStack() as stack:
        taken: list[str] = []
        while True:
            for gpu in (g for g in gpus if g not in taken):
                lock = Lock(lock_folder() / (f"slurm_{slurm}_gpu_{gpu}.lock" if slurm else f"gpu_{gpu}.lock"))
                if lock.try_take(say) is None:
                    stack.callback(lock.release)
                    taken.append(gpu)
                if len(taken) == count:
                    say(f"on GPU {', '.join(taken)}")
                    yield {VARIABLE: ",".join(taken)}
                    return
            stack.close()  # release the GPUs taken so far, so that two jobs never wait for each other
            taken = []
            say("all GPUs are taken; waiting")
            time.sleep(10)
