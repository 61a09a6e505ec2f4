"""Groups of cases that belong together: frames of a video, slices or visits of a patient, tiles of a slide.

Cases of one group are not independent, so intervals and tests are computed over groups (``scoring.intervals``).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.groups import read_groups
from nnunet_attn.scoring.cases import listed
from nnunet_attn.scoring.folders import nnunet_folder

# Names with several frames or slices of one patient or sequence, as our converters write them.
FRAME = re.compile(r"(.+?)[_-](?:frame|slice|time)[_-]?\d+$")
INDEPENDENT = "cases counted as independent"


@dataclass(frozen=True)
class Groups:
    """The group of each case.

    Attributes:
        of: Group by case. If groups are unknown, each case is a group of its own.
        kind: What a group is, in the singular: "patient", "sequence", "group"; "case" if groups are unknown.
        how: Where the groups come from.
        known: Whether the groups are known.
    """

    of: dict[str, str]
    kind: str
    how: str
    known: bool

    def counted(self, number: int | None = None) -> str:
        """A number of groups as text, by default of all: "20 patients", "30 cases counted as independent"."""
        number = len(set(self.of.values())) if number is None else number
        return f"{number} {self.plural if self.known else INDEPENDENT}"

    def summary(self) -> dict[str, object]:
        """As JSON content."""
        return {"count": len(set(self.of.values())), "kind": self.kind, "known": self.known, "how": self.how}

    @property
    def plural(self) -> str:
        return f"{self.kind[:-1]}ies" if self.kind.endswith("y") else f"{self.kind}s"


def find_groups(
    cases: Sequence[str], rule: str | None = None, *, dataset: str | None = None, folders: Sequence[Path] = ()
) -> Groups:
    """The groups of the cases, from the first of these sources that has them.

    1. ``rule``, given by the user: a CSV file with a header and lines of case and group, a JSON object of case and
       group, or a regular expression whose first parenthesised part (or whole match) in the case's name is the group.
    2. ``manifest.json`` of our converters, in nnU-Net's raw folder of ``dataset`` or in ``folders``.
    3. The names, if all cases have names like ``patient007_frame01``.

    Raises:
        UserError: the rule does not cover all cases, or a file cannot be read.
    """
    if rule is not None:
        return _from_rule(cases, rule)
    raw = nnunet_folder("nnUNet_raw", dataset) if dataset else None
    manifests = (folder / "manifest.json" for folder in ([raw] if raw is not None else []) + list(folders))
    manifest = next((path for path in manifests if path.is_file()), None)
    found = None if manifest is None else _from_manifest(cases, manifest)
    if isinstance(found, Groups):
        return found
    frames = {case: FRAME.fullmatch(case) for case in cases}
    if all(frames.values()):
        return Groups(
            {c: m[1] for c, m in frames.items() if m},
            "group",
            "by the part of the name before _frame, _slice or _time",
            True,
        )
    return Groups({case: case for case in cases}, "case", found or "no manifest.json of a converter was found", False)


def _from_rule(cases: Sequence[str], rule: str) -> Groups:
    kind = "group"
    if rule.lower().endswith((".csv", ".json")):
        if rule.lower().endswith(".csv"):
            kind, known = read_groups(Path(rule), set(cases))
        else:
            known = _read_json(Path(rule), "give a CSV file, or JSON of case and group")
        groups, how = {case: str(known.get(case, "")) for case in cases}, f"from {Path(rule).name}"
    else:
        try:
            matches = {case: re.search(rule, case) for case in cases}
        except re.error as error:
            raise UserError(f"--groups {rule} is neither a CSV file nor a regular expression: {error}") from error
        groups = {case: (m[1] if m.re.groups else m[0]) or "" if m else "" for case, m in matches.items()}
        how = f"by the pattern {rule}"
    missing = sorted(case for case, group in groups.items() if not group)
    if missing:
        raise UserError(f"--groups {rule} gives no group for {listed(missing)}")
    return Groups(groups, kind, how, True)


def _from_manifest(cases: Sequence[str], path: Path) -> Groups | str:
    """The groups of a converter's manifest; or a string, the reason why it has none."""
    remedy = "convert the dataset again, or give --groups"
    groups = _read_json(path, remedy).get("groups")
    if groups is None:
        return f"{path.parent.name}/manifest.json has no groups"
    try:
        of, kind = {case: str(group) for case, group in groups["of"].items()}, str(groups["kind"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds groups in an unknown form; {remedy}") from error
    missing = [case for case in cases if not of.get(case)]
    if missing:
        return f"{path.parent.name}/manifest.json names no group for {listed(sorted(missing))}"
    return Groups({case: of[case] for case in cases}, kind, f"from {path.parent.name}/manifest.json", True)


def _read_json(path: Path, remedy: str) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; {remedy}")
    return content
