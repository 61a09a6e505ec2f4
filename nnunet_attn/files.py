"""Files and folders that appear only when they are complete. Standard library only.

A folder that replaces another goes through these steps; a copy that is complete is at every moment under its own name
or under ``.NAME.replaced``, which the next start puts back:

    .NAME.partial is filled; NAME -> .NAME.replaced; .NAME.partial -> NAME; .NAME.replaced -> .NAME.discarded; removed
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_attn.errors import UserError


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An OSError that names no file, as of a full disk while writing, names ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it takes the place of ``path`` if nothing was raised."""
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        with _named(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Make the folder of ``path`` and try that ``complete_file`` can write there, before hours of work.

    Raises:
        UserError: ``path`` is a folder.
        OSError: the folder cannot be made or written, or the name is too long.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of the file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    temporary.touch()
    temporary.unlink()


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON, all or nothing."""
    with complete_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _sibling(path: Path, kind: str) -> Path:
    path = Path(os.path.abspath(path))  # "." has no name
    return path.with_name(f".{path.name}.{kind}")


def _remove(path: Path) -> None:
    """Remove a folder with its content; of a symbolic link the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def put_back(path: Path) -> None:
    """Undo what a run that was killed while it replaced the folder ``path`` has left behind."""
    replaced = _sibling(path, "replaced")
    if os.path.lexists(replaced):
        os.replace(replaced, _sibling(path, "discarded") if os.path.lexists(path) else path)
    for left in ("partial", "discarded"):
        _remove(_sibling(path, left))


def refuse_existing(path: Path, overwrite: bool, inputs: Iterable[Path | str] = ()) -> None:
    """Raise UserError if ``path`` exists, or comes back at the next start, and must not be replaced.

    Args:
        path: The folder to write.
        overwrite: Whether it may be replaced.
        inputs: Files and folders that must not be replaced with it; names of nothing are passed over.
    """
    for given in inputs:
        if os.path.exists(given) and Path(given).resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f"the input {given} lies in {path}, which the output would replace; keep them apart")
    if not overwrite and (os.path.lexists(path) or os.path.lexists(_sibling(path, "replaced"))):
        raise UserError(f"{path} exists already; remove it, or give --overwrite to replace it")


@contextmanager
def complete_folder(path: Path, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> Iterator[Path]:
    """Yield an empty temporary sibling of ``path`` to fill; it becomes ``path`` if nothing was raised.

    What a killed earlier run left is put back or removed first. Where ``path`` is a symbolic link the new folder takes
    the place of the link, and what the link points to stays as it is.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is False, or one of ``inputs`` lies in it.
        OSError: it cannot be written; the folder that was there is still there, or comes back at the next start.
    """
    path = Path(os.path.abspath(path))  # "." cannot be renamed
    put_back(path)
    refuse_existing(path, overwrite, inputs)
    temporary, replaced, discarded = (_sibling(path, kind) for kind in ("partial", "replaced", "discarded"))
    temporary.mkdir(parents=True)
    try:
        with _named(path):
            yield temporary
        if os.path.lexists(path):
            os.replace(path, replaced)
        try:
            os.replace(temporary, path)
        except BaseException:
            if os.path.lexists(replaced):
                os.replace(replaced, path)
            raise
        if os.path.lexists(replaced):
            os.replace(replaced, discarded)
            _remove(discarded)
    finally:
        _remove(temporary)


def named_file(variable: str) -> Path | None:
    """The file that an environment variable names; None where it is not set, empty or "none"."""
    value = os.environ.get(variable, "none")
    return None if value in ("", "none") else Path(value)
