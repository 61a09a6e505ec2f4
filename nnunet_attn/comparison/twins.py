"""What the attention adds: each network beside its twin, the same network without the paper's own attention.

nnU-Net's authors found that several published hybrids lose nothing when their attention is taken out; a difference to
stock nnU-Net alone does not tell where it comes from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from nnunet_attn.comparison.facts import Facts
from nnunet_attn.comparison.paired import difference_of
from nnunet_attn.comparison.rows import Row
from nnunet_attn.comparison.scores import CASE_MEAN, Scores
from nnunet_attn.comparison.statistics import Difference
from nnunet_attn.scoring.groups import Groups
from nnunet_attn.trainer_names import twin_names


@dataclass(frozen=True)
class Twin:
    """A row and the row that is the same network without its attention.

    Attributes:
        difference: In Dice per case, row minus twin.
        parameters: Share of the row's parameters that the twin does not have; None where they were not counted.
        step_time: Share of the row's time per iteration that the twin does not need; None where no log has it, or
            where both ran on different hardware.
    """

    row: str
    twin: str
    difference: Difference
    parameters: float | None
    step_time: float | None

    def text(self, groups: Groups) -> str:
        """One line for a terminal."""
        d = self.difference
        interval = "" if math.isnan(d.low) else f" (95 % interval {d.low:+.4f} to {d.high:+.4f})"
        return (
            f"What the attention adds, {self.row} minus {self.twin}: mean Dice per case {d.mean:+.4f}{interval}, "
            f"n = {groups.counted(d.groups)}; {percent(self.parameters)} of its parameters, "
            f"{percent(self.step_time)} of its step time."
        )

    def to_json(self) -> dict[str, object]:
        """As JSON content."""
        content = asdict(self)
        content["difference"] = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in content["difference"].items()
        }
        return content


def percent(share: float | None) -> str:
    """A share in words; negative where the twin is the larger or slower one."""
    return "an unknown share" if share is None else f"{100 * share:.1f} %"


def find_twins(rows: Sequence[Row], scores: Scores, facts: Mapping[str, Facts]) -> list[Twin]:
    """Every row that has its twin among the rows, with the same plans and suffixes; the first of several twins."""
    names = {row.name for row in rows}
    result = []
    for row in rows:
        candidates = (row.model.name_with(trainer) for trainer in twin_names(row.trainer))
        twin = next((name for name in candidates if name in names), None)
        difference = None if twin is None else difference_of(scores, row.name, twin, CASE_MEAN, "Dice")
        if twin is None or difference is None:
            continue
        ours, theirs = facts[row.name], facts[twin]
        same_hardware = ours.environment["GPU"] == theirs.environment["GPU"]
        time = _share(_step_seconds(ours), _step_seconds(theirs)) if same_hardware else None
        result.append(Twin(row.name, twin, difference, _share(ours.parameters, theirs.parameters), time))
    return result


def _share(whole: float | None, rest: float | None) -> float | None:
    return (whole - rest) / whole if whole and rest else None


def _step_seconds(facts: Facts) -> float | None:
    return facts.epoch_seconds / facts.schedule[1] if facts.epoch_seconds and facts.schedule else None
