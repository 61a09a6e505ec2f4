"""Run a job's commands as a user would type them, with one log, and leave no process behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from nnunet_attn.study.locks import Lock

GRACE = 20.0  # seconds between SIGTERM and SIGKILL; Slurm allows 30 in total


class CommandFailed(Exception):
    """A command ended with an exit code other than 0; negative after a signal."""

    def __init__(self, command: Sequence[str], code: int):
        self.code = code
        what = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        super().__init__(f"{Path(command[0]).name} {what}")


class Stopped(BaseException):
    """This process was asked to stop (Ctrl-C, scancel, wall time)."""


def find_command(name: str) -> str:
    """Path of a command: from this Python's environment if there, else the first on PATH."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=str(beside)) or shutil.which(name) or name


class Log:
    """A job's log file: messages of the job, and the output of its commands."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = path.open("ab", buffering=0)

    def say(self, text: str) -> None:
        """Write a message of the job."""
        with suppress(OSError):  # a full disk; important messages go to stderr as well
            self.file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} study: {text}\n".encode())

    def tail(self, lines: int) -> list[str]:
        """The last lines."""
        return tail(self.path, lines)


def tail(path: Path, lines: int) -> list[str]:
    """The last non-empty lines of a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.replace("\r", "\n").splitlines() if line.strip()][-lines:]


def run_command(command: Sequence[str], log: Log, environment: Mapping[str, str], lock: Lock | None = None) -> None:
    """Run a command until it ends, or end it if this process is asked to stop.

    Raises:
        CommandFailed: its exit code is not 0.
        Stopped: this process got SIGTERM or SIGINT; the command has ended.
    """
    log.say(" ".join(command))
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, ask) for number in numbers} if main else {}
    try:
        process = subprocess.Popen(
            [find_command(command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=log.file, stderr=log.file,
            env=os.environ | dict(environment), start_new_session=True,
        )  # fmt: skip
        if lock is not None:
            lock.add_process(process.pid)
        code = _wait(process, asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        log.say(f"stopped by signal {asked[0]}")
        raise Stopped
    if code != 0:
        raise CommandFailed(command, code)


def _wait(process: subprocess.Popen, asked: list[int]) -> int:
    """Wait for a process; when asked to stop, end it and all processes that it started."""
    deadline: float | None = None
    while True:
        try:
            code = process.wait(timeout=1.0)
            break
        except subprocess.TimeoutExpired:
            if asked and deadline is None:
                deadline = time.monotonic() + GRACE
                _signal(process, signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                _signal(process, signal.SIGKILL)
    if code != 0:
        _signal(process, signal.SIGKILL)  # workers that outlived their parent
    return code


def _signal(process: subprocess.Popen, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
