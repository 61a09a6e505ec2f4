"""Data classes of a conversion: the cases found in a source, and a case's files. Standard library only."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nnunet_attn.dataset_conversion.listing import Source
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

# Suffixes of images, labels and archives. Other files of a download are taken for documentation.
OF_CASES = re.compile(
    r"\.(png|jpe?g|jfif|bmp|tiff?|gif|webp|svs|ndpi|nii|nii\.gz|h5|hdf5|npz|npy|mat|mh[ad]|nrrd|nhdr|dcm|ima|hdr|img|raw|"
    r"zip|tar|tgz|gz|bz2|xz|rar|7z)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Attributes:
        name: The case's identifier in nnU-Net's file names.
        image: The image's source files.
        label: The label's source files.
        group: Patient, video sequence, ...; cases of one group stay on one side of a split.
        part: ``train``, ``val`` or ``test``, as the source divides its cases.
    """

    name: str
    image: tuple[File, ...]
    label: tuple[File, ...]
    group: str
    part: str = "train"


@dataclass(frozen=True)
class Found:
    """What a converter recognised in a source.

    Attributes:
        layout: Description of the arrangement of files.
        cases: The cases.
        notes: Remarks for the user.
        channels: Names of channels, if this layout has others than the converter states.
        encode: The function to use instead of the converter's ``encode``, if this layout needs one.
        kind: What a group is: ``patient``, ``sequence``, ...; None where groups are not known.
        ungrouped: Where groups exist but are unknown, the reason why cases must not be split as if independent.
        refused: By split, why the source cannot be divided so.
        missing: By problem of an incomplete case (one line of text), the files that are left out because of it. The
            conversion stops unless the user allows missing files.
        used: Further files that were read, such as tables.
        unneeded: By reason, files that are recognised and not needed.
        reading: One line for each folder: how its files were used. ``Converter`` sets it.
    """

    layout: str
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] | None = None
    encode: Callable[..., "Encoded"] | None = None
    kind: str | None = None
    ungrouped: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, Sequence[File]] = field(default_factory=dict)
    used: Sequence[File] = ()
    unneeded: Mapping[str, Sequence[File]] = field(default_factory=dict)
    reading: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Encoded:
    """The files that a case is converted to.

    Attributes:
        images: Content of the image file of each channel.
        label: Content of the label file; None for a test case without one.
        shape: Shape of the image, in pixels or voxels.
        pixels: How many pixels have each label value.
        notes: Remarks for the user, each with a count.
        facts: What the manifest records of this case.
        original_label: Content of the label file at the picture's own size, where ``label`` has another.
        recorded: More for the manifest, as it is.
    """

    images: tuple[bytes, ...]
    label: bytes | None
    shape: tuple[int, ...]
    pixels: Mapping[int, int] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    facts: Mapping[str, float | str] = field(default_factory=dict)
    original_label: bytes | None = None
    recorded: Mapping[str, object] = field(default_factory=dict)


def some(names: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f"{separator}and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def account(source: Source, found: Found) -> list[str]:
    """Notes on the files of a source that were not read.

    Raises:
        UserError: Something looks like a case and was not read.
    """
    read = {file for case in found.cases for file in (*case.image, *case.label)} | set(found.used)
    read |= {file for files in (*found.unneeded.values(), *found.missing.values()) for file in files}
    rest = [file for file in source.files if file not in read]
    for file in rest:
        if re.search(r"\.(rar|7z|gz|bz2|xz)$", file.name, re.IGNORECASE) and not file.name.lower().endswith(".nii.gz"):
            raise UserError(
                f"{file} is an archive of a kind that cannot be read; unpack it, and take the archive out of SOURCE"
            )
        if OF_CASES.search(file.name):
            raise UserError(
                f"{file} was not recognised as part of a case ({found.layout}); rename it as the others are, or take "
                "it out of SOURCE"
            )
    shapes = {_pattern(folder) for case in found.cases for file in case.image for folder in file.folders[-1:]}
    for folder in source.empty:
        if _pattern(folder.rsplit("/", 1)[-1]) in shapes:
            raise UserError(f"{folder} is empty, although folders of this name hold cases; complete it or remove it")
    notes = list(source.notes)
    for reason, files in found.unneeded.items():
        if files:
            notes.append(f"{reason}, not needed: {len(files)} ({some([file.name for file in files], most=3)})")
    if rest:
        notes.append(f"not needed: {some([file.name for file in rest], most=20)}")
    if source.empty:
        notes.append(f"empty folders: {some(source.empty, most=20)}")
    return notes


def _pattern(folder: str) -> str:
    return re.sub(r"\d+", "#", plain(folder))
