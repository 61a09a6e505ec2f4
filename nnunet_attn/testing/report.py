"""What a check of a network found, as a table that a person reads."""

from dataclasses import dataclass

OK, FAIL, NOTE, LEFT_OUT = "ok", "FAIL", "note", "-"


class CheckFailed(Exception):
    """A check's finding against a network: the cause, and what helps."""

    def __init__(self, cause: str, remedy: str):
        super().__init__(cause)
        self.cause, self.remedy = " ".join(cause.split()), remedy


class CheckNoted(CheckFailed):
    """Something that a user should know, but that breaks nothing."""


class CheckLeftOut(Exception):
    """A check that does not apply or cannot be run here, with the reason."""


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        dims: Number of spatial axes of the images.
        status: "ok", "FAIL", "note" (breaks nothing), or "-" (does not apply, or could not be run).
        cause: What was found; may be empty.
        remedy: What helps; empty unless the check failed or noted something.
    """

    check: str
    dims: int
    status: str
    cause: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class NetworkReport:
    """All findings on a network; printed, it is a table with cause and remedy of each failure below."""

    network: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the failed checks, each once."""
        return tuple(dict.fromkeys(f.check for f in self.findings if f.status == FAIL))

    def __str__(self) -> str:
        names = list(dict.fromkeys(f.check for f in self.findings))
        dims = sorted({f.dims for f in self.findings})
        status = {(f.check, f.dims): f.status for f in self.findings}
        width = max(map(len, names), default=0)
        lines = [self.network, f"{'check':{width}}" + "".join(f"  {d}D  " for d in dims)]
        lines += [
            f"{name:{width}}" + "".join(f"  {status.get((name, d), ''):<4}" for d in dims).rstrip() for name in names
        ]
        for finding in self.findings:
            if finding.status in (FAIL, NOTE):
                lines += [
                    f"{finding.status} {finding.check}, {finding.dims}D: {finding.cause}",
                    f"     {finding.remedy}",
                ]
        told: dict[tuple[str, str], list[str]] = {}
        for f in self.findings:
            if f.cause and f.status in (OK, LEFT_OUT):
                told.setdefault((f.check, f.cause), []).append(f"{f.dims}D")
        lines += [f"{check}, {' and '.join(where)}: {cause}" for (check, cause), where in told.items()]
        return "\n".join(lines)
