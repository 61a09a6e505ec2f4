"""Finds trainers and their rows by name: ours, those on networks of libraries, and those of other packages."""

from collections.abc import Iterator

from nnunet_attn import plugins
from nnunet_attn.catalog import ENTRIES, FAMILIES, STOCK_TRAINERS, Entry, Family
from nnunet_attn.library_rows import LIBRARY_ENTRIES


def own_trainers() -> Iterator[tuple[str, str]]:
    """Pairs of trainer name and family of this package's trainers without recipe and schedule, ablations included."""
    for entry in (*ENTRIES, *LIBRARY_ENTRIES):
        for name in entry.trainers:
            yield name, entry.key
    yield from STOCK_TRAINERS.items()


def written_trainers() -> Iterator[tuple[str, str]]:
    """As ``own_trainers``, and those of other packages, each with its own name for its family."""
    yield from own_trainers()
    for name in plugins.plugins():
        entry = plugins.row(name)
        for written in entry.trainers if entry else [name]:
            yield written, name


def find_plugin(written: str) -> str | None:
    """The trainer of another package that this name, of itself or an ablation, belongs to; None if there is none."""
    if written in plugins.plugins():
        return written
    for name in plugins.plugins():  # only a row that may have the ablation is imported
        if written.startswith(f"{name}_") and (entry := plugins.row(name)) and written in entry.trainers:
            return name
    return None


def find_written(trainer: str) -> str | None:
    """Family of the network trainer or ablation of this name; None if there is none."""
    return dict(own_trainers()).get(trainer) or find_plugin(trainer)


def find_entry(written: str) -> Entry | None:
    """The row that a written trainer, main network or ablation, belongs to; None if there is none."""
    own = next((e for e in (*ENTRIES, *LIBRARY_ENTRIES) if written in e.trainers), None)
    if own is None and (name := find_plugin(written)):
        return plugins.row(name)
    return own


def find_family(key: str) -> Family:
    """The family of this name, see ``find_written``; that of a trainer without a row is made of the package's name."""
    if key in FAMILIES:
        return FAMILIES[key]
    entry = find_entry(key)
    return entry.about if entry else Family(key, "no paper named", plugins.package_of(plugins.plugins()[key]))
