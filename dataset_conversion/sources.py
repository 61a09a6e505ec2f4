"""Files of a download, in an unpacked folder or inside its archives. Nothing is ever unpacked from an archive.

Members of zip and tar archives are read by name into memory, so that no name in an archive can reach the disk; names
that would leave the archive's folder, links and special files are refused all the same. Compressed tar archives cannot
be read out of order: they are decompressed, as one file, into a scratch folder first.
"""

import bz2
import functools
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunet_attn.errors import UserError

_JUNK = re.compile(r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
_DECOMPRESSORS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: Path inside the folder or archive, with forward slashes.
        shown: What messages call the file.
        container: The folder or archive to read from.
        member: Name inside a zip archive, as it is stored there.
        span: Offset and length inside a tar archive.
    """

    name: str
    shown: str
    container: Path
    member: str | None = None
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.shown

    @property
    def basename(self) -> str:
        return PurePosixPath(self.name).name

    @property
    def place(self) -> str:
        """What messages call the folder that the file lies in."""
        return self.shown[: -len(self.basename)].rstrip("/\\") or "."

    @property
    def parent(self) -> str:
        """Path of the folder inside the source; ``.`` at its top."""
        return str(PurePosixPath(self.name).parent)

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            UserError: The archive is damaged or encrypted there.
        """
        if self.member is not None:
            try:
                return _open_zip(self.container).read(self.member)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
                raise UserError(f"{self} cannot be read from the archive ({error}); download it again") from error
        if self.span is not None:
            offset, size = self.span
            with self.container.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
            if len(content) != size:
                raise UserError(f"{self} is cut off in the archive; download it again")
            return content
        return (self.container / self.name).read_bytes()


@dataclass(frozen=True)
class Content:
    """The bytes of a file, and what messages call it."""

    shown: str
    data: bytes

    def __str__(self) -> str:
        return self.shown


@functools.lru_cache(maxsize=8)
def _open_zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # stays open: once per process, not once per image


def open_sources(paths: Sequence[Path], scratch: Path) -> list[File]:
    """List the files of folders and archives; hidden files and what file managers leave behind are skipped.

    Args:
        paths: Folders, zip archives, or tar archives (plain, gzip, bzip2 or xz).
        scratch: Folder for the plain copy of a compressed tar archive; must live as long as the files are read.

    Raises:
        UserError: A path does not exist or is of another kind, or an archive is damaged, encrypted or unsafe.
    """
    _open_zip.cache_clear()
    files = [file for path in paths for file in _list(Path(path), scratch)]
    return sorted((file for file in files if not _JUNK.search(file.name)), key=lambda file: (file.name, file.shown))


def _list(path: Path, scratch: Path) -> Iterable[File]:
    if path.is_dir():
        return _list_folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; SOURCE is the unpacked folder or the archive as downloaded")
    if zipfile.is_zipfile(path):
        return _list_zip(path)
    try:
        if tarfile.is_tarfile(path):
            return list(_list_tar(path, scratch))
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, not of the decompressor
            raise
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    raise UserError(f"{path} is neither a folder nor a complete zip or tar archive; download it again")


def _list_folder(path: Path) -> Iterator[File]:
    seen = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up the tree
            subfolders.clear()
            continue
        seen.add(real)
        for name in names:
            file = Path(folder, name)
            yield File(file.relative_to(path).as_posix(), str(file), path)


def _list_zip(path: Path) -> Iterator[File]:
    seen = set()
    try:
        members = _open_zip(path.resolve()).infolist()
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged ({error}); download it again") from error
    for member in members:
        shown = f"{path}: {member.filename}"
        name = _safe_name(member.filename.replace("\\", "/"), shown)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or kind == stat.S_IFDIR:
            continue
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{shown} is a link or special file; links in archives are refused")
        if member.flag_bits & 1:
            raise UserError(f"{shown} is encrypted; unpack the archive and give the folder")
        if name in seen:
            raise UserError(f"{shown} is twice in the archive; unpack it and keep the right one")
        seen.add(name)
        yield File(name, shown, path.resolve(), member=member.filename)


def _list_tar(path: Path, scratch: Path) -> Iterator[File]:
    plain, seen = _decompressed(path, scratch), set()
    with tarfile.open(plain, "r:") as archive:
        for member in archive:
            shown = f"{path}: {member.name}"
            name = _safe_name(member.name, shown)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UserError(f"{shown} is a link or special file; links in archives are refused")
            if name in seen:
                raise UserError(f"{shown} is twice in the archive; unpack it and keep the right one")
            seen.add(name)
            yield File(name, shown, plain.resolve(), span=(member.offset_data, member.size))


def _decompressed(path: Path, scratch: Path) -> Path:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opener in _DECOMPRESSORS:
        if start.startswith(magic):
            plain = scratch / f"{path.name}.{len(os.listdir(scratch))}.tar"
            with opener(path) as compressed, plain.open("wb") as file:
                shutil.copyfileobj(compressed, file, 1 << 20)
            return plain
    return path


def _safe_name(name: str, shown: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{shown} leaves the archive's own folder; the archive is not safe and was not read")
    return str(path)  # without a leading ./
