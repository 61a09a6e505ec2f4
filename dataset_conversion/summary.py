"""The summary of a conversion: how the source was read, sizes, shares of labels, and notes that name files."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_attn.dataset_conversion.case_work import Result
from nnunet_attn.dataset_conversion.cases import Found, some
from nnunet_attn.dataset_conversion.listing import Source
from nnunet_attn.dataset_conversion.sources import File


def reading(source: Source, found: Found) -> list[str]:
    """One line for each folder: how many files were images, labels, and so on, or not needed.

    Folders whose names differ only in numbers share a line.
    """
    roles: dict[File, str] = {}
    for case in found.cases:
        roles |= dict.fromkeys(case.label, "labels") | dict.fromkeys(case.image, "images")
    folders: defaultdict[str, Counter[str]] = defaultdict(Counter)
    together: defaultdict[str, set[str]] = defaultdict(set)
    for file in dict.fromkeys(source.files):
        pattern = re.sub(r"\d+", "#", file.parent)
        together[pattern].add(file.parent)
        folders[pattern][roles.get(file, "read" if file in found.used else "not needed")] += 1
    lines = []
    for pattern, counts in sorted(folders.items()):
        name = next(iter(together[pattern])) if len(together[pattern]) == 1 else f"{pattern} ({len(together[pattern])})"
        order = ("images", "labels", "read", "not needed")
        lines.append(f"{name}: {', '.join(f'{counts[role]} {role}' for role in order if counts[role])}")
    return lines


def summarise(results: Sequence[Result], labels: Mapping[str, int]) -> dict[str, Any]:
    """Sizes, share of each label in all pixels, and notes.

    Args:
        results: The cases written.
        labels: Names and values of the labels.
    """
    shapes = sorted({result.shape for result in results}, key=lambda shape: (math.prod(shape), shape))
    sizes = [results_size(shape) for shape in shapes]
    pixels = sum((Counter(result.pixels) for result in results), Counter())
    total = sum(pixels.values())
    shares = {name: round(pixels[value] / total, 6) if total else 0 for name, value in labels.items()}
    return {
        "sizes": {"smallest": sizes[0], "largest": sizes[-1], "different": len(sizes)} if sizes else {},
        "shares": shares,
        "notes": [*_notes(results), *_absent(results, labels), *_doubles(results)],
    }


def results_size(shape: Sequence[int]) -> str:
    """A shape as text; for a picture, width first."""
    return "x".join(map(str, shape[::-1] if len(shape) == 2 else shape))


def _notes(results: Sequence[Result]) -> list[str]:
    counts: Counter[str] = Counter()
    files: defaultdict[str, list[str]] = defaultdict(list)
    for result in results:
        for text, count in result.notes.items():
            counts[text] += count
            files[text].append((result.case.label or result.case.image)[0].name)
    return [f"{text}: {count} ({some(files[text], most=10)})" for text, count in sorted(counts.items())]


def _absent(results: Sequence[Result], labels: Mapping[str, int]) -> list[str]:
    present = {value for result in results for value, count in result.pixels.items() if count}
    absent = [name for name, value in labels.items() if value not in present]
    return [f"no case has the label {', '.join(absent)}"] if absent and present else []


def _doubles(results: Sequence[Result]) -> list[str]:
    """A note on images with identical files, since a split may put them on different sides."""
    same = defaultdict(list)
    for result in results:
        images = result.record["inputs"][: len(result.case.image)]
        same[tuple(checksum for _, checksum in images)].append(result.case.name)
    doubles = [" = ".join(names) for names in same.values() if len(names) > 1]
    return [f"the same image under several names, which a split may divide: {some(doubles)}"] if doubles else []
