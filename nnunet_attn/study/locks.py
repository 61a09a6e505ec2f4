"""Locks for a study's driver, each fold and each GPU. A lock whose holder is gone is taken over.

A lock is a file that names its holder's host and processes. It is taken atomically (a hard link to a finished file), so
it also works on the file systems of clusters. Whether the holder is alive is not judged by clocks, which may be set
back: on the same host its processes are looked up; from another host the file is watched, since a living holder touches
it regularly.
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
PATIENCE = 120.0  # seconds without a touch after which a holder on another host counts as dead


def boot() -> str:
    """Identifies the current boot of this machine, without which a process id is ambiguous."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Start time of a process in ticks since boot; empty if it cannot be read; None if there is no such process."""
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
    """The content of a lock file of ours."""
    return {
        "host": socket.gethostname(),
        "boot": boot(),
        "processes": {str(os.getpid()): process_start(os.getpid())},
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def holder_name(content: dict) -> str:
    """Description of a lock's holder."""
    job = f", Slurm job {content['slurm_job']}" if content.get("slurm_job") else ""
    processes = ", ".join(content.get("processes", {}))
    return f"process {processes} on {content.get('host', '?')}{job}, since {content.get('since', '?')}"


def read_lock(path: Path) -> dict | None:
    """The content of a lock file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_alive(content: dict) -> bool | None:
    """Whether a lock's holder is alive; None if this host cannot find out."""
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
        """Take the lock, also from a dead holder; return the lock's content if its holder is alive."""
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
        """Watch a lock held on another host for a while, to see whether it is touched."""

        def stamp() -> int | None:
            try:
                return self.path.stat().st_mtime_ns
            except OSError:
                return None

        first, waited = stamp(), 0.0
        say(f"{self.path.name} is held by {holder_name(present)}; watching for {PATIENCE:.0f} s whether it is alive")
        while waited < PATIENCE:
            time.sleep(1)
            waited += 1
            if stamp() != first:
                return stamp() is not None
        return False

    def _remove(self, stale: dict) -> None:
        """Remove a dead holder's lock file, unless another process has taken the lock meanwhile."""
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
        """Add another process as holder: the lock stays held if this process is killed and that one goes on."""
        if self.content is not None:
            self.content["processes"][str(pid)] = process_start(pid)
            temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
            temporary.write_text(json.dumps(self.content), encoding="utf-8")
            os.replace(temporary, self.path)

    def release(self) -> None:
        """Release the lock."""
        self._stop.set()
        if self.content is not None:
            self._remove(self.content)
        self.content = None


def warn(message: str) -> None:
    """Print a message to stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def held(path: Path, what: str, say: Callable[[str], None] = warn) -> Iterator[Lock]:
    """Hold a lock, or raise an error that names its holder.

    Raises:
        UserError: another process holds it.
    """
    lock = Lock(path)
    holder = lock.try_take(say)
    if holder is not None:
        raise UserError(f"{what} is being run by {holder_name(holder)}; wait for it, or stop it first ({path})")
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def waited_for(path: Path, job: str, say: Callable[[str], None] = warn, *, pause: float = 2.0) -> Iterator[Lock]:
    """Hold the lock of a job, waiting until it is free."""
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
