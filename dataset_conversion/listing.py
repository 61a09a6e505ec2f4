"""List the files in the folders and archives that were given as SOURCE. No file is unpacked under its own name.

An archive inside a folder or inside another archive is treated as a folder of the same name. Files that file managers
leave behind (such as .DS_Store) are skipped, here and nowhere else.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_attn.dataset_conversion.archives import ARCHIVE, list_archive
from nnunet_attn.dataset_conversion.sources import RUBBISH, File, open_zip, printable, without_rubbish
from nnunet_attn.errors import UserError

_KINDS = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass
class Source:
    """The files of SOURCE.

    Attributes:
        files: All files except those that file managers leave behind, sorted by name.
        empty: Empty folders.
        notes: What was skipped: links to folders that are read anyway, archives whose unpacked files lie beside them.
    """

    files: list[File] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_sources(paths: Sequence[Path], scratch: Path) -> Source:
    """List the files of folders and archives; hidden files and what file managers leave behind are skipped.

    Args:
        paths: Folders, zip archives, or tar archives (plain, gzip, bzip2 or xz).
        scratch: Folder for decompressed tar archives and for archives inside archives; it must exist as long as files
            are read.

    Raises:
        UserError: A path does not exist or is of another kind, a file is a pipe, a device or a broken link, or an
            archive is damaged, encrypted or unsafe.
    """
    open_zip.cache_clear()
    source = Source()
    for origin, path in enumerate(map(Path, paths)):
        before = len(source.files)
        if path.is_dir():
            _list_folder(path, scratch, source)
        elif not path.exists():
            raise UserError(
                f"{printable(str(path))} does not exist; SOURCE is the unpacked folder or the archive as downloaded"
            )
        else:
            _refuse_special(path)
            top = path.name.split(".")[0]
            source.files += list_archive(path, printable(str(path)), scratch, top)
        source.files[before:] = [replace(file, origin=origin) for file in source.files[before:]]
    source.files = sorted(without_rubbish(source.files), key=lambda file: (file.name, file.shown))
    return source


def _refuse_special(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"{printable(str(path))} is a broken link; repair it or take it out of SOURCE") from error
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        what = _KINDS.get(kind, "a special file")
        raise UserError(f"{printable(str(path))} is {what}, not a regular file; take it out of SOURCE")
    return status


def _list_folder(root: Path, scratch: Path, source: Source) -> None:
    """Real folders come first, so that a folder is listed under its own path and not under that of a link to it."""
    seen: set[str] = set()
    links: list[Path] = []
    files: list[File] = []
    archives: list[File] = []
    top = Path(os.path.abspath(root)).name

    def refuse(error: OSError) -> None:
        raise UserError(f"{printable(str(error.filename))} cannot be read ({error.strerror})") from error

    def walk(start: Path) -> None:
        for folder, subfolders, names in os.walk(start, onerror=refuse):
            if os.path.realpath(folder) in seen:  # below a link
                subfolders.clear()
                continue
            seen.add(os.path.realpath(folder))
            subfolders[:] = sorted(name for name in subfolders if not RUBBISH.search(name))
            links.extend(Path(folder, name) for name in subfolders if Path(folder, name).is_symlink())
            kept = [name for name in names if not RUBBISH.search(name)]
            if not kept and not subfolders and folder != str(root):
                source.empty.append(printable(folder))
            for path in (Path(folder, name) for name in sorted(kept)):
                relative, shown = path.relative_to(root).as_posix(), printable(str(path))
                size = _refuse_special(path).st_size
                name = unicodedata.normalize("NFC", relative)
                if re.search(r"\.(rar|7z)$", name, re.IGNORECASE):
                    raise UserError(f"{shown} cannot be read; unpack it, and take it out of SOURCE")
                file = File(name, shown, root, top, member=relative, size=size)
                (archives if ARCHIVE.search(name) else files).append(file)

    walk(root)
    while links:
        link = links.pop(0)
        if os.path.realpath(link) in seen:
            source.notes.append(f"{printable(str(link))} leads to {os.path.realpath(link)}, which is read only once")
        else:
            walk(link)
    unpacked = {(file.basename, file.size) for file in files}
    for archive in archives:
        inside = without_rubbish(list_archive(root / str(archive.member), archive.shown, scratch, top, archive.name))
        if inside and all((file.basename, file.size) in unpacked for file in inside):
            source.notes.append(f"{archive} was not read, since its files lie unpacked beside it")
        else:
            files += inside
    source.files += files
