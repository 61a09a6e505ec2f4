"""Which cases train, validate and test: official splits, and seeded folds that never divide a group.

Cases of one group (a patient, a video sequence, the tiles of a slide) stay on one side of a split. Where groups are
not known (``Found.kind`` is None), each case is a group of its own.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nnunet_attn.dataset_conversion.cases import Case, some
from nnunet_attn.errors import UserError

SEED = 12345  # nnU-Net's own five-fold split uses this number too
FOLDS = 5

SplitRule = Callable[[Sequence[Case]], tuple[list[Case], list[str]]]


def split_by_lists(
    key: Callable[[Case], str], *, test: Sequence[str] = (), val: Sequence[str] = (), train: Sequence[str] | None = None
) -> SplitRule:
    """The rule of a published split: a case goes to the part that lists its key; ``train=None`` means all others.

    The rule returns the cases of the split, with their parts, and the listed keys that no case has. It raises UserError
    if the split has validation cases and SOURCE holds none of them.
    """
    listed = dict.fromkeys(train or (), "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")

    def rule(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        parts = [(case, listed.get(key(case), "train" if train is None else None)) for case in cases]
        missing = sorted(listed.keys() - {key(case) for case in cases})
        if val and not any(part == "val" for _, part in parts):
            raise UserError(f"SOURCE holds none of the split's validation cases: {some(sorted(val))}")
        return [replace(case, part=part) for case, part in parts if part], missing

    return rule


def split_by_parts(**sizes: Sequence[int]) -> SplitRule:
    """The rule that keeps the source's own parts; ``sizes`` lists the sizes that a complete part may have."""

    def rule(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        counts = Counter(case.part for case in cases)
        if "val" in sizes and not counts["val"]:
            raise UserError("SOURCE holds no validation cases, which this split needs")
        missing = [
            f"{' or '.join(map(str, size))} {part} cases (it has {counts[part]})"
            for part, size in sizes.items()
            if counts[part] not in size
        ]
        return list(cases), missing

    return rule


def split_by_tenths(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """80 % training, 10 % validation, 10 % test cases, drawn by us with a fixed seed; never divides a group.

    Of ten bins, test and validation get those nearest to a tenth of the cases; bins of one group, and those smaller
    than half a tenth, only where there are no others.

    Raises:
        UserError: There are fewer than ten groups.
    """
    groups = Counter(case.group for case in cases)
    if len(groups) < 10:
        raise UserError(f"the 8-1-1 split needs at least ten groups of cases; SOURCE has {len(groups)}")
    tenth = len(cases) / 10

    def unfit(names: list[str]) -> tuple[bool, float]:
        size = sum(groups[name] for name in names)
        return len(names) == 1 or size < tenth / 2, abs(size - tenth)

    test, val, *_ = sorted(balanced(groups, 10), key=unfit)
    parts = dict.fromkeys(test, "test") | dict.fromkeys(val, "val")
    return [replace(case, part=parts.get(case.group, "train")) for case in cases], []


def balanced(groups: Mapping[str, int], count: int) -> list[list[str]]:
    """Divide groups into ``count`` bins of nearly equal numbers of cases: seeded shuffle, then largest first."""
    names = sorted(groups)
    random.Random(SEED).shuffle(names)
    bins: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for name in sorted(names, key=lambda name: -groups[name]):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(name)
        sizes[smallest] += groups[name]
    return bins


def leaks(cases: Sequence[Case]) -> list[str]:
    """Warnings: cases whose group is also trained on, parts of one group, a split without training cases."""
    groups_of = {part: {case.group for case in cases if case.part == part} for part in ("train", "val", "test")}
    if not groups_of["train"] | groups_of["val"]:
        return ["there are test cases only: predict them with a model that was trained on another dataset"]
    warnings = []
    for part, name, learned in (
        ("val", "validation", groups_of["train"]), ("test", "test", groups_of["train"] | groups_of["val"]),
    ):  # fmt: skip
        shared = groups_of[part] & learned
        if shared:
            count = sum(case.part == part and case.group in shared for case in cases)
            text = f"{count} {name} cases belong to {len(shared)} groups (patients, sequences, ...) of training cases"
            warnings.append(f"this split leaks: {text}")
    for part, name in (("val", "validation"), ("test", "test")):
        groups = [case.group for case in cases if case.part == part]
        if len(groups) > 1 and len(set(groups)) == 1:
            text = f"all {len(groups)} {name} cases are of one group ({groups[0]})"
            warnings.append(f"{text}: a score on them is its score")
    return warnings


def make_folds(cases: Sequence[Case], number: int | None = None, *, shrink: bool = False) -> list[dict[str, list[str]]]:
    """Content of splits_final.json: one fold if the split has validation cases, else several that divide no group.

    Args:
        cases: All cases, with their parts.
        number: Number of folds; None means five, 0 none.
        shrink: With ``number`` None and fewer than five groups, make as many folds as there are groups.

    Raises:
        UserError: There are fewer groups than folds, or the split has its own validation cases and a number is given.
    """
    learning = [case for case in cases if case.part != "test"]
    if number is not None and (number < 0 or number == 1):
        raise UserError(f"--num-folds is 0 (no split file) or at least 2, got {number}")
    if any(case.part == "val" for case in learning):
        if number is not None:
            raise UserError(
                "--num-folds cannot be combined with this split, which has its own validation cases (one fold)"
            )
        held_out = [{case.name for case in learning if case.part == "val"}]
    else:
        groups = Counter(case.group for case in learning)
        wanted = FOLDS if number is None else number
        if number is None and shrink and len(groups) < FOLDS:
            wanted = len(groups) if len(groups) > 1 else 0
        if not learning or not wanted:
            return []
        if len(groups) < wanted:
            most = len(groups) if len(groups) > 1 else 0
            raise UserError(
                f"{wanted} folds need at least {wanted} groups (patients, sequences, ...) of training cases; SOURCE "
                f"has {len(groups)}: {some(sorted(groups))}; give --num-folds {most}"
                f"{', the largest number possible' if most else ' to convert without folds'}"
            )
        held_out = [{case.name for case in learning if case.group in fold} for fold in balanced(groups, wanted)]
    names = sorted(case.name for case in learning)
    return [{"train": [n for n in names if n not in val], "val": sorted(val)} for val in held_out]


def about_folds(folds: Sequence[object], number: int | None) -> list[str]:
    """Notes on folds that differ from nnU-Net's usual five, which its command takes without asking."""
    if not folds:
        return ["no split file was written: nnU-Net will make its own five folds, by case, which may divide groups"]
    if len(folds) == 1:
        more = "for other folds nnU-Net draws a random split by case, which may divide patients"
        return [f"one fold: train fold 0 only; {more}"]
    if len(folds) != FOLDS and number is None:
        return [f"{len(folds)} folds, since there are no more groups: train folds 0 to {len(folds) - 1}"]
    return []
