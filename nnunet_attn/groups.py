"""Groups of cases that a user gives: a CSV file of case and group. Standard library only."""

import csv
from collections.abc import Container
from pathlib import Path

from nnunet_attn.errors import UserError


def read_groups(path: Path, cases: Container[str] = ()) -> tuple[str, dict[str, str]]:
    """What a group is, and the group of each case, from a CSV file with two columns and a line of names.

    The first column names cases, the second groups; its name says what a group is (``case,patient``).

    Args:
        path: The file.
        cases: Names of cases, none of which can be the name of the first column.

    Raises:
        UserError: The file cannot be read, has other columns or no line of names, or gives a case two groups.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--groups: {path} cannot be read as a CSV file ({error})") from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(map(str.strip, row))]
    if len(rows) < 2 or any(len(row) < 2 or not row[0] or not row[1] for row in rows):
        raise UserError(f"--groups: {path} should hold lines like 'case,patient': a line of names, then case and group")
    if rows[0][0] in cases:
        raise UserError(f"--groups: {path} begins with the case {rows[0][0]}; put the line 'case,patient' before it")
    groups: dict[str, str] = {}
    for name, group, *_ in rows[1:]:
        if groups.setdefault(name, group) != group:
            raise UserError(f"--groups: {path} gives {name} two groups, {groups[name]} and {group}")
    return rows[0][1].lower(), groups
