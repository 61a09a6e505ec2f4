"""One file of a download, in an unpacked folder or inside an archive; normalised names.

Members of zip and tar archives are read into memory, so that no path in an archive is ever used on disk.
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
    """Text in one line for a message, without control characters and invalid Unicode."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(name: str) -> str:
    """A name normalised for comparison: lower case, without blanks, ``_``, ``-`` and a plural s."""
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFC", name)).casefold().removesuffix("s")


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: Path inside the folder or archive, with forward slashes; an archive inside is a folder of that name.
        shown: The file's name in messages.
        container: The folder or archive to read from.
        top: Name of the folder or archive that was given as SOURCE.
        member: Name inside ``container``: in a zip archive as it is stored there, in a folder its path.
        span: Offset and length inside a tar archive.
        size: Number of bytes.
        origin: Index of the path in SOURCE that it comes from.
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
        """The name of the file's folder in messages."""
        return self.shown[: -len(printable(self.basename))].rstrip("/\\ :") or "."

    @property
    def parent(self) -> str:
        """Path of the file's folder inside the source; ``.`` at the top."""
        return str(PurePosixPath(self.name).parent)

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of all folders above the file, starting with the source itself."""
        return self.top, *PurePosixPath(self.name).parts[:-1]

    def read(self) -> bytes:
        """The bytes of the file.

        Raises:
            UserError: This member of the archive is damaged or encrypted.
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
            return (self.container / str(self.member)).read_bytes()
        try:
            return open_zip(self.container).read(str(self.member))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"{self} cannot be read from the archive ({error}); download it again") from error


@dataclass(frozen=True)
class Content:
    """The bytes of a file, and its name in messages."""

    shown: str
    data: bytes

    def __str__(self) -> str:
        return self.shown


@functools.lru_cache(maxsize=8)
def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, kept open: once per process, not once per image."""
    return zipfile.ZipFile(path)


def without_rubbish(files: Iterable[File]) -> list[File]:
    """The files without those that match ``RUBBISH``."""
    return [file for file in files if not RUBBISH.search(file.name)]
