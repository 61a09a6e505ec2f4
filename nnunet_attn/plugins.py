"""Trainers of other packages, found by the entry points that the packages declare. Standard library only.

    [project.entry-points."nnunet_attn.trainers"]
    nnUNetTrainerMine = "my_package.trainer:nnUNetTrainerMine"

    [project.entry-points."nnunet_attn.rows"]
    nnUNetTrainerMine = "my_package.row:ROW"

Names alone tell which trainers there are; a trainer's module is imported when the trainer is asked for, and its row, a
catalogue entry that need not import torch, when it is listed or one of its ablations is asked for. What is broken in
such a package is one line on stderr that names the package, and the rest goes on without it.
"""

import re
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nnunet_attn.catalog import ENTRIES, STOCK, STOCK_TRAINERS, Entry, Family
from nnunet_attn.library_rows import LIBRARY_ENTRIES

TRAINERS = "nnunet_attn.trainers"
ROWS = "nnunet_attn.rows"

SUFFIX = re.compile(r"(SGD|paper\w*|lr\d.*|\d+epochs?|\d+iterations?|run\d+)")  # what looks like one of our suffixes


def package_of(point: EntryPoint) -> str:
    """Name and version of the package that declares the entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


@cache
def warn(line: str) -> None:
    """Print a line on stderr, once."""
    print(f"nnunet-attn: {line}", file=sys.stderr)


@cache
def plugins() -> dict[str, EntryPoint]:
    """The trainers that other packages declare, by name, without those that cannot be used."""
    ours = {STOCK, *STOCK_TRAINERS, *(name for e in (*ENTRIES, *LIBRARY_ENTRIES) for name in e.trainers)}
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=TRAINERS), key=package_of):
        problem = None
        if not point.name.isidentifier() or SUFFIX.fullmatch(point.name.rpartition("_")[2]):
            problem = "is no name of a trainer (letters, digits and _, without one of our suffixes at its end)"
        elif point.name in ours:
            problem = "is the name of a trainer of nnunet-attn"
        elif point.name in found and found[point.name].value != point.value:
            problem = f"is the name of a trainer of {package_of(found[point.name])}"
        if problem:
            warn(f"a trainer of the package {package_of(point)} is left out: {point.name!r} {problem}")
        else:
            found.setdefault(point.name, point)
    return found


_BROKEN = object()


def _loaded(point: EntryPoint, what: str) -> Any:
    """What the entry point names; ``_BROKEN``, with a line, if it cannot be had."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # another package's code, which may fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        warn(f"{what} of the package {package_of(point)} cannot be imported from {point.value} ({reason})")
        return _BROKEN


@cache
def row(trainer: str) -> Entry | None:
    """The row of a trainer of another package; None, with a line if it is broken, where there is none."""
    for point in entry_points(group=ROWS, name=trainer):
        if package_of(point) != package_of(plugins()[trainer]):
            continue
        found = _loaded(point, f"the row {trainer}")
        if found is _BROKEN:
            return None
        if isinstance(found, Entry) and isinstance(found.family, Family) and found.trainer == trainer:
            return found
        warn(
            f"the row {trainer} of the package {package_of(point)} is left out: {point.value} should be an Entry with "
            f"trainer={trainer!r} and a Family as family"
        )
    return None


@cache
def trainer_class(trainer: str) -> type | None:
    """The class of a trainer of another package; None, with a line, if it cannot be used."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    point = plugins()[trainer]
    found = _loaded(point, f"the trainer {trainer}")
    if found is _BROKEN:
        return None
    if isinstance(found, type) and issubclass(found, nnUNetTrainer) and found.__name__ == trainer:
        return found
    warn(
        f"the trainer {trainer} of the package {package_of(point)} is left out: {point.value} should be a subclass of "
        f"nnUNetTrainer with the name {trainer}"
    )
    return None
