"""Groups that the user gives: a CSV file of case and group, or a regular expression that finds the group in a name."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nnunet_attn.dataset_conversion.cases import Case, some
from nnunet_attn.errors import UserError
from nnunet_attn.groups import read_groups


def names_in_list(case: Case) -> tuple[str, str, str]:
    """How a list of groups may call a case."""
    file = PurePosixPath(case.image[0].name).name if case.image else case.name
    return case.name, file, file.split(".")[0]


def with_groups(cases: Sequence[Case], groups: dict[str, str], path: Path) -> list[Case]:
    """Assign groups from a CSV file that names cases as the dataset does, or by their image files.

    Raises:
        UserError: A case is not in the list.
    """
    found, missing = [], []
    for case in cases:
        group = next((groups[name] for name in names_in_list(case) if name in groups), None)
        if group is None:
            missing.append(case.name)
        else:
            found.append(replace(case, group=group))
    if missing:
        raise UserError(f"--groups: {path} names no group for {some(sorted(missing))} (nor for the image files' names)")
    return found


def regroup(cases: Sequence[Case], given: str | Path) -> tuple[str, list[Case]]:
    """The kind of group (patient, ...), and the cases with the groups that the user gives.

    Args:
        cases: The cases.
        given: A CSV file, or a regular expression with one group in parentheses, searched in the path of each case's
            image file; a named one, ``(?P<patient>...)``, sets the kind of group.

    Raises:
        UserError: The file or the expression is wrong, or finds no group for a case.
    """
    if Path(given).suffix.lower() == ".csv" or Path(given).is_file():
        kind, groups = read_groups(Path(given), {name for case in cases for name in names_in_list(case)})
        return kind, with_groups(cases, groups, Path(given))
    try:
        pattern = re.compile(str(given))
    except re.error as error:
        raise UserError(f"--groups: {given} is neither a CSV file nor a regular expression ({error})") from error
    if pattern.groups != 1:
        raise UserError(
            f"--groups: {given} has {pattern.groups} groups in parentheses but needs exactly one, such as "
            "'(patient[0-9]+)'; "
            "for a list of cases and groups give a file whose name ends in .csv"
        )
    matches = {case: pattern.search(case.image[0].name) for case in cases}
    if missing := [case.image[0].name for case, match in matches.items() if not match or not match[1]]:
        raise UserError(f"--groups: {given} finds nothing in {some(sorted(missing))}")
    return next(iter(pattern.groupindex), "group"), [
        replace(case, group=match[1]) for case, match in matches.items() if match
    ]
