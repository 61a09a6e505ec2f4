"""Groups that the user gives: a CSV file of case and group."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nnunet_attn.dataset_conversion.cases import Case, some
from nnunet_attn.errors import UserError


def read_groups(path: Path) -> tuple[str, dict[str, str]]:
    """What a group is, and the group of each case, from a CSV file with two columns and a line of names.

    The first column names cases, the second groups; its name says what a group is (``case,patient``).

    Raises:
        UserError: The file cannot be read, has other columns, or gives a case two groups.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--groups: {path} cannot be read as a CSV file ({error})") from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(map(str.strip, row))]
    if len(rows) < 2 or any(len(row) < 2 or not row[0] or not row[1] for row in rows):
        raise UserError(f"--groups: {path} should hold lines like 'case,patient': a line of names, then case and group")
    groups = {}
    for name, group, *_ in rows[1:]:
        if groups.setdefault(name, group) != group:
            raise UserError(f"--groups: {path} gives {name} two groups, {groups[name]} and {group}")
    return rows[0][1].lower(), groups


def with_groups(cases: Sequence[Case], groups: dict[str, str], path: Path) -> list[Case]:
    """The cases in the groups of a list that names them as the dataset does, or by their image files.

    Raises:
        UserError: A case is not in the list.
    """
    found, missing = [], []
    for case in cases:
        file = PurePosixPath(case.image[0].name).name if case.image else case.name
        names = (case.name, file, file.split(".")[0])
        group = next((groups[name] for name in names if name in groups), None)
        if group is None:
            missing.append(case.name)
        else:
            found.append(replace(case, group=group))
    if missing:
        raise UserError(f"--groups: {path} names no group for {some(sorted(missing))} (nor for the image files' names)")
    return found
