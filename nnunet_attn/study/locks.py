"""Locks that survive nothing but their holder: one for a study's driver, one for each fold, one for each GPU.

A lock is a file that names host and processes. It is taken atomically (a hard link to a finished file), so it also
works on the file systems of clusters. Whether its holder lives is not guessed from clocks, which may go back: on the
same host its processes are looked for, from another host the file is watched, which a living holder keeps touching.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_attn.errors import UserError

HEARTBEAT = 20.0  # seconds between two touches
PATIENCE = 120.0  # seconds without one after which a holder on another host counts as gone


def boot() -> str:
    """Names this start of this machine; a process's number means something only together with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When a process started, in ticks since boot; empty where that cannot be read; None if there is none."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat")
            state, *rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else rest[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def this_process() -> dict[str, object]:
    """What a lock says of its holder."""
    return {
        "host": socket.gethostname(),
        "boot": boot(),
        "processes": {str(os.getpid()): process_start(os.getpid())},
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def holder_name(content: dict) -> str:
    """A lock's holder in words."""
    job = f", Slurm job {content['slurm_job']}" if content.get("slurm_job") else ""
    processes = ", ".join(content.get("processes", {}))
    return f"process {processes} on {content.get('host', '?')}{job}, since {content.get('since', '?')}"


def read_lock(path: Path) -> dict | None:
    """Content of a lock; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_alive(content: dict) -> bool | None:
    """Whether a lock's holder lives; None if this cannot be told from this host."""
    if not content:
        return False
    if content.get("host") != socket.gethostname() or content.get("boot") != boot():
        same_machine = content.get("host") == socket.gethostname()
        return False if same_machine and content.get("boot") and boot() else None
    return any(
        (now := process_start(int(pid))) is not None and now == start for pid, start in content["processes"].items()
    )


class Lock:
    """A lock file, held within ``held`` or ``waited_for``."""

    def __init__(self, path: Path, job: str = ""):
        self.path, self.job = Path(path), job
        self.content: dict | None = None
        self._stop = threading.Event()

    def try_take(self, say: Callable[[str], None]) -> dict | None:
        """Take the lock, over from a dead holder, who is named; with a living holder, what his lock says."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.content = this_process() | ({"job": self.job} if self.job else {})
            if self._link():
                self._touch_often()
                return None
            present = read_lock(self.path)
            if present is None:
                continue
            alive = is_alive(present)
            if alive or (alive is None and self._is_touched(say, present)):
                return present
            say(f"{self.path.name} was left behind by {holder_name(present)}, which is gone; taking it over")
            self._remove(present)

    def _link(self) -> bool:
        temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            temporary.write_text(json.dumps(self.content), encoding="utf-8")
            try:
                os.link(temporary, self.path)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
                    raise
                with self.path.open("x", encoding="utf-8") as file:  # a file system without hard links
                    file.write(json.dumps(self.content))
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _is_touched(self, say: Callable[[str], None], present: dict) -> bool:
        """Watch a lock of another host for a while."""

        def stamp() -> int | None:
            try:
                return self.path.stat().st_mtime_ns
            except OSError:
                return None

        first, waited = stamp(), 0.0
        say(f"{self.path.name} is held by {holder_name(present)}; watching for {PATIENCE:.0f} s whether it lives")
        while waited < PATIENCE:
            time.sleep(1)
            waited += 1
            if stamp() != first:
                return stamp() is not None
        return False

    def _remove(self, stale: dict) -> None:
        """Remove a dead holder's file, and only that: somebody else may have taken the lock over meanwhile."""
        aside = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if read_lock(aside) != stale:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _touch_often(self) -> None:
        def touch() -> None:
            while not self._stop.wait(HEARTBEAT):
                with suppress(OSError):
                    os.utime(self.path)

        self._stop.clear()
        threading.Thread(target=touch, daemon=True).start()

    def add_process(self, pid: int) -> None:
        """Another process holds the lock, too: it stays held if this one is killed and the other goes on."""
        if self.content is not None:
            self.content["processes"][str(pid)] = process_start(pid)
            temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
            temporary.write_text(json.dumps(self.content), encoding="utf-8")
            os.replace(temporary, self.path)

    def release(self) -> None:
        """Give the lock back."""
        self._stop.set()
        if self.content is not None:
            self._remove(self.content)
        self.content = None


def warn(message: str) -> None:
    """Say something on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def held(path: Path, what: str, say: Callable[[str], None] = warn) -> Iterator[Lock]:
    """Hold a lock, or say who holds it.

    Raises:
        UserError: somebody else holds it.
    """
    lock = Lock(path)
    holder = lock.try_take(say)
    if holder is not None:
        raise UserError(f"{what} is being run by {holder_name(holder)}; wait for it, or end it first ({path})")
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def waited_for(path: Path, job: str, say: Callable[[str], None] = warn, *, pause: float = 2.0) -> Iterator[Lock]:
    """Hold the lock of a job, after waiting for whoever holds it."""
    lock, told = Lock(path, job), None
    while (holder := lock.try_take(say)) is not None:
        if holder != told:
            say(f"{path.name} is held by {holder_name(holder)}; waiting for it")
        told = holder
        time.sleep(pause)
    try:
        yield lock
    finally:
        lock.release()
