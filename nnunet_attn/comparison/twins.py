"""Where a difference comes from: each network beside its twin without attention, and beside stock under its recipe.

nnU-Net's authors found that several published hybrid networks lose nothing when their attention is removed; a
difference to stock nnU-Net alone does not show what causes it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from nnunet_attn.comparison.facts import Facts
from nnunet_attn.comparison.paired import difference_of, effect_text
from nnunet_attn.comparison.results import NOT_RECORDED
from nnunet_attn.comparison.rows import Row
from nnunet_attn.comparison.scores import CASE_MEAN, Scores
from nnunet_attn.comparison.statistics import Difference
from nnunet_attn.scoring.groups import Groups
from nnunet_attn.trainer_names import same_recipe_pairs, twin_names


@dataclass(frozen=True)
class Twin:
    """A row and its twin, the row with the same network without its attention.

    Attributes:
        difference: Difference in Dice per case, row minus twin.
        parameters: Share of the row's parameters that the twin does not have; None where they were not counted.
        step_time: Share of the row's time per iteration that the twin does not need; None if no log has it, or
            if they ran on different hardware.
    """

    row: str
    twin: str
    difference: Difference
    parameters: float | None
    step_time: float | None

    def text(self, groups: Groups) -> str:
        """One line for the terminal."""
        return (
            f"What the attention adds, {self.row} minus {self.twin}: mean Dice per case "
            f"{effect_text(self.difference, groups)}; {percent(self.parameters)} of its parameters, "
            f"{percent(self.step_time)} of its step time."
        )

    def to_json(self) -> dict[str, object]:
        """As JSON content."""
        return asdict(self) | {"difference": without_nan(self.difference)}


@dataclass(frozen=True)
class OwnEffect:
    """A row's network beside the plans' network, both under one recipe: the difference without that of the recipes.

    Attributes:
        row: The row whose network it is.
        candidate, stock: The rows that are compared; ``candidate`` is the row itself or its ``_SGD``.
        difference: In Dice per case, candidate minus stock.
    """

    row: str
    candidate: str
    stock: str
    difference: Difference

    def text(self, groups: Groups) -> str:
        """One line for the terminal."""
        return (
            f"What the network does without the recipe, {self.candidate} minus {self.stock}: mean Dice per case "
            f"{effect_text(self.difference, groups)}."
        )

    def to_json(self) -> dict[str, object]:
        """As JSON content."""
        return asdict(self) | {"difference": without_nan(self.difference)}


def without_nan(difference: Difference) -> dict[str, object]:
    """As JSON content, None for numbers that do not exist."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in asdict(difference).items()
    }


def find_own_effects(rows: Sequence[Row], scores: Scores, facts: Mapping[str, Facts]) -> list[OwnEffect]:
    """Every row beside the plans' network under the same recipe, with the same plans and suffixes, where both are rows.

    The row itself beside ``StockAdamW``, or its ``_SGD`` beside the stock trainer. Rows whose logs contradict the same
    recipe are not paired.
    """
    names = {row.name for row in rows}
    result = []
    for row in rows:
        for pair in same_recipe_pairs(row.trainer):
            candidate, stock = (row.model.name_with(trainer) for trainer in pair)
            if not {candidate, stock} <= names or _recipes_differ(facts[candidate], facts[stock]):
                continue
            difference = difference_of(scores, candidate, stock, CASE_MEAN, "Dice")
            if difference is not None:
                result.append(OwnEffect(row.name, candidate, stock, difference))
                break
    return result


def _recipes_differ(ours: Facts, theirs: Facts) -> bool:
    """Whether both logs name another optimiser, rate or decay."""
    titles = ("optimiser", "initial rate", "weight decay")
    pairs = [(ours.recipe.get(title), theirs.recipe.get(title)) for title in titles]
    return any(a != b and NOT_RECORDED not in (a, b) and None not in (a, b) for a, b in pairs)


def percent(share: float | None) -> str:
    """A share in percent; "none" where the twin is larger or slower."""
    if share is None:
        return "an unknown share"
    return f"{100 * share:.1f} %" if share >= 0 else "none"


def find_twins(rows: Sequence[Row], scores: Scores, facts: Mapping[str, Facts]) -> list[Twin]:
    """The pairs of rows and their twins with the same plans and suffixes; of several twins, the first."""
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
