"""Zip and tar archives, listed without unpacking.

A compressed tar archive cannot be read out of order, so it is decompressed to one plain tar file in a scratch folder;
an archive inside an archive is copied there. Refused are paths that lead out of the archive's folder, links and special
files, encrypted members, two members of the same name, overlapping members, members larger than any image, and archives
that expand to an absurd size.
"""

import bz2
import functools
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nnunet_attn.dataset_conversion.sources import File, open_zip, printable, without_rubbish
from nnunet_attn.errors import UserError

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
OTHER_ARCHIVES = (b"Rar!", b"7z\xbc\xaf")  # first bytes of formats that only other programs unpack
DEPTH = 3  # levels of archives inside archives
LARGEST_MEMBER = 4 << 30  # bytes
EXPANSION = (512 << 20, 200)  # a compressed tar archive may expand to these bytes or this many times its own size
_DECOMPRESSORS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))


def list_archive(path: Path, shown: str, scratch: Path, top: str, name: str = "", depth: int = 1) -> list[File]:
    """List the files of a zip or tar archive, and of the archives in it.

    Args:
        path: The archive.
        shown: The archive's name in messages.
        scratch: Folder for decompressed archives and for archives inside archives.
        top: Name of the folder or archive that was given as SOURCE.
        name: Path of the archive inside the source, shown as a folder; empty if the archive is the source itself.
        depth: 1 for an archive in the source, 2 for an archive inside that, ...

    Raises:
        UserError: The archive is damaged, encrypted or unsafe.
    """
    prefix = re.sub(ARCHIVE, "", name) + "/" if name else ""
    try:
        if zipfile.is_zipfile(path):
            files = list(_list_zip(path, shown, top, prefix))
        elif tarfile.is_tarfile(path):
            files = list(_list_tar(path, shown, top, prefix, scratch))
        else:
            with path.open("rb") as stream:
                begin = stream.read(6)
            if begin.startswith(OTHER_ARCHIVES):
                raise UserError(f"{shown} is a RAR or 7z archive, which cannot be read; unpack it, and give its folder")
            raise UserError(f"{shown} is neither a folder nor a complete zip or tar archive; download it again")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # an error of the disk, not of the decompressor
            raise
        raise UserError(f"{shown} is damaged ({error}); download it again") from error
    nested = [file for file in without_rubbish(files) if ARCHIVE.search(file.name)]
    for file in nested:
        if depth == DEPTH:
            raise UserError(f"{file} lies more than {DEPTH} archives deep; unpack the outer ones")
        copy = scratch / f"{len(os.listdir(scratch))}.archive"
        copy.write_bytes(file.read())
        files += list_archive(copy, file.shown, scratch, top, file.name, depth + 1)
    return [file for file in files if file not in nested]


def _list_zip(path: Path, shown: str, top: str, prefix: str) -> Iterator[File]:
    seen, archive = set(), open_zip(path.resolve())
    members = archive.infolist()
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise UserError(
            f"{shown} has overlapping members, which no genuine download has; it may be malicious and was not read"
        )
    for member in members:
        label = f"{shown}: {printable(member.filename)}"
        name = _safe_name(member.filename.replace("\\", "/"), label)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or kind == stat.S_IFDIR:
            continue
        if kind not in (0, stat.S_IFREG):
            raise UserError(f"{label} is a link or special file; links in archives are refused")
        if member.flag_bits & 1:
            raise UserError(f"{label} is encrypted; unpack the archive and give the folder")
        _refuse_huge(member.file_size, label)
        if name in seen:
            raise UserError(f"{label} occurs twice in the archive; unpack it and keep the right one")
        seen.add(name)
        yield File(prefix + name, label, path.resolve(), top, member=member.filename, size=member.file_size)


def _list_tar(path: Path, shown: str, top: str, prefix: str, scratch: Path) -> Iterator[File]:
    archive_file, seen = _decompressed(path, shown, scratch), set()
    with tarfile.open(archive_file, "r:") as archive:
        for member in archive:
            label = f"{shown}: {printable(member.name)}"
            name = _safe_name(member.name, label)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UserError(f"{label} is a link or special file; links in archives are refused")
            _refuse_huge(member.size, label)
            if name in seen:
                raise UserError(f"{label} occurs twice in the archive; unpack it and keep the right one")
            seen.add(name)
            span = member.offset_data, member.size
            yield File(prefix + name, label, archive_file.resolve(), top, span=span, size=member.size)


def _refuse_huge(size: int, label: str) -> None:
    if size > LARGEST_MEMBER:
        raise UserError(f"{label} would be {size / 1e9:.1f} GB, more than any image; the archive was not read")


def _decompressed(path: Path, shown: str, scratch: Path) -> Path:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opener in _DECOMPRESSORS:
        if start.startswith(magic):
            plain = scratch / f"{len(os.listdir(scratch))}.tar"
            most = max(EXPANSION[0], EXPANSION[1] * path.stat().st_size)
            with opener(path) as compressed, plain.open("wb") as file:
                for block in iter(functools.partial(compressed.read, 1 << 20), b""):
                    if file.write(block) and file.tell() > most:
                        raise UserError(
                            f"{shown} expands to more than {EXPANSION[1]} times its size, which no genuine "
                            "download does; it may be malicious and was not read"
                        )
            return plain
    return path


def _safe_name(name: str, label: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        raise UserError(
            f"{label} would be unpacked outside the archive's folder; the archive may be malicious and was not read"
        )
    return str(path)  # without a leading ./
