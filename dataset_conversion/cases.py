"""What a converter finds in a source, and what it makes of a case. Standard library only."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nnunet_attn.dataset_conversion.listing import Source
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

# of files that hold images, labels, or more such files; whatever else a download holds is text of some kind
OF_CASES = re.compile(
    r"\.(png|jpe?g|jfif|bmp|tiff?|gif|webp|svs|ndpi|nii|nii\.gz|h5|hdf5|npz|npy|mat|mh[ad]|nrrd|nhdr|dcm|ima|hdr|img|raw|"
    r"zip|tar|tgz|gz|bz2|xz|rar|7z)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Attributes:
        name: Identifier in nnU-Net's file names.
        image: Files that make the image.
        label: Files that make the label.
        group: What must not be divided between training and validation: patient, video sequence, ...
        part: ``train``, ``val`` or ``test``, as the source has it.
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
        layout: The arrangement of files, in words.
        cases: The cases.
        notes: What the user should know.
        channels: Names of channels, only where the layout changes them.
        encode: In place of the converter's, only where the layout changes it.
        kind: What a group is: ``patient``, ``sequence``, ...; None where groups are not known.
        ungrouped: Why cases must not be divided as if they were independent, where groups exist and are not known.
        missing: What keeps a case from being complete, as a line, and the files that are left out for it; refused
            unless the user allows it.
        used: Files that were read beside those of the cases.
        unneeded: Files that are known and not needed, by the reason.
        reading: How each folder was read, set by the frame.
    """

    layout: str
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] | None = None
    encode: Callable[..., "Encoded"] | None = None
    kind: str | None = None
    ungrouped: str = ""
    missing: Mapping[str, Sequence[File]] = field(default_factory=dict)
    used: Sequence[File] = ()
    unneeded: Mapping[str, Sequence[File]] = field(default_factory=dict)
    reading: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Encoded:
    """What a case becomes.

    Attributes:
        images: Content of the image file of each channel.
        label: Content of the label file; None for a test case without one.
        shape: Of the image, in pixels or voxels.
        pixels: How many pixels have each label value.
        notes: What is worth telling, with counts.
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
    """What was not read of a source, as notes for the user.

    Raises:
        UserError: Something looks like a case and was not read.
    """
    read = {file for case in found.cases for file in (*case.image, *case.label)} | set(found.used)
    read |= {file for files in (*found.unneeded.values(), *found.missing.values()) for file in files}
    rest = [file for file in source.files if file not in read]
    for file in rest:
        if re.search(r"\.(rar|7z|gz|bz2|xz)$", file.name, re.IGNORECASE) and not file.name.lower().endswith(".nii.gz"):
            raise UserError(f"{file} is an archive that cannot be read here; unpack it, and take it out of SOURCE")
        if OF_CASES.search(file.name):
            raise UserError(
                f"{file} was not recognised as part of a case ({found.layout}); rename it as the others are, or take "
                "it out of SOURCE"
            )
    shapes = {_pattern(folder) for case in found.cases for file in case.image for folder in file.folders[-1:]}
    for folder in source.empty:
        if _pattern(folder.rsplit("/", 1)[-1]) in shapes:
            raise UserError(f"{folder} is empty, and folders of such names hold cases; complete it or take it out")
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
