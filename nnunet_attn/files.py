"""Files that appear only when they are complete. Standard library only."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_attn.errors import UserError


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it takes the place of ``path`` if nothing was raised."""
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON, all or nothing."""
    with complete_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise UserError if ``path`` exists and must not be replaced."""
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; remove it, or give --overwrite to replace it")


@contextmanager
def complete_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary sibling of ``path`` to fill; it becomes ``path`` if nothing was raised.

    What a killed earlier run left of the temporary folder is removed first.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is False.
    """
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name}.partial")
    replaced = path.with_name(f".{path.name}.replaced")
    for stale in (temporary, replaced):
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            os.replace(path, replaced)
        os.replace(temporary, path)
    finally:
        for stale in (temporary, replaced):
            shutil.rmtree(stale, ignore_errors=True)
