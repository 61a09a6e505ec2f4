"""What a converter finds in a source: cases, and what is to be said of them. Standard library only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnunet_attn.dataset_conversion.sources import File


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
        kind: What a group is: ``patient``, ``sequence``, ...; None where groups are not known.
        ungrouped: Why cases must not be divided as if they were independent, where groups exist and are not known.
    """

    layout: str
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] | None = None
    kind: str | None = None
    ungrouped: str = ""


Encoded = tuple[bytes, bytes, Counter[str]]


def some(names: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f"{separator}and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
