"""Cases in the groups that the user gives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nnunet_attn.dataset_conversion.cases import Case, some
from nnunet_attn.errors import UserError


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
