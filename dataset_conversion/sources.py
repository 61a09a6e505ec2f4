"""One file of a download, in an unpacked folder or inside an archive, and names without what does not matter.

Members of zip and tar archives are read by name into memory, so that no name in an archive can reach the disk.
"""

import functools
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nnunet_attn.errors import UserError

RUBBISH = re.compile(
    r"(^|/)(\.[^/]*|__MACOSX|Thumbs\.db|ehthumbs\.db|desktop\.ini|@eaDir|#recycle|\$RECYCLE\.BIN|"
    r"System Volume Information|lost\+found|Icon\r|__pycache__)(/|$)",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    """Text for one line of a message: no line ends or other control characters, no bytes that are not Unicode."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(name: str) -> str:
    """A name without what does not matter: case, blanks, ``_`` and ``-``, and the s of a plural."""
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFC", name)).casefold().removesuffix("s")


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: Path inside the folder or archive, with forward slashes; archives inside are folders of their names.
        shown: What messages call the file.
        container: The folder or archive to read from.
        top: Name of the folder or archive that was given as SOURCE.
        member: Name inside ``container``: in a zip archive as it is stored there, in a folder its path.
        span: Offset and length inside a tar archive.
        size: Number of bytes.
        origin: Which of the paths that were given as SOURCE it comes from, counted from 0.
    """

    name: str
    shown: str
    container: Path
    top: str = ""
    member: str | None = None
    span: tuple[int, int] | None = None
    size: int = field(default=0, compare=False)
    origin: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.shown

    @property
    def basename(self) -> str:
        return PurePosixPath(self.name).name

    @property
    def stem(self) -> str:
        """The file's name without its suffix (``.nii.gz`` is one)."""
        return re.sub(r"\.nii\.gz$|\.npy\.h5$|\.[^.]+$", "", self.basename, flags=re.IGNORECASE)

    @property
    def place(self) -> str:
        """What messages call the folder that the file lies in."""
        return self.shown[: -len(printable(self.basename))].rstrip("/\\ :") or "."

    @property
    def parent(self) -> str:
        """Path of the folder inside the source; ``.`` at its top."""
        return str(PurePosixPath(self.name).parent)

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of all folders above the file, the source's own first."""
        return self.top, *PurePosixPath(self.name).parts[:-1]

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            UserError: The archive is damaged or encrypted there.
        """
        if self.span is not None:
            offset, size = self.span
            with self.container.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
            if len(content) != size:
                raise UserError(f"{self} is cut off in the archive; download it again")
            return content
        if self.container.is_dir():
            return (self.container / self.member).read_bytes()
        try:
            return open_zip(self.container).read(self.member)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{self} cannot be read from the archive ({error}); download it again") from error


@dataclass(frozen=True)
class Content:
    """The bytes of a file, and what messages call it."""

    shown: str
    data: bytes

    def __str__(self) -> str:
        return self.shown


@functools.lru_cache(maxsize=8)
def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, kept open: once per process, not once per image."""
    return zipfile.ZipFile(path)


def without_rubbish(files: Iterable[File]) -> list[File]:
    """The files that are none of ``RUBBISH``."""
    return [file for file in files if not RUBBISH.search(file.name)]
