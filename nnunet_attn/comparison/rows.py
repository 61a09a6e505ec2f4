"""The rows of a comparison: trainings that differ only by chance are one row."""

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_attn.comparison.results import Fold, Model
from nnunet_attn.errors import UserError
from nnunet_attn.trainer_names import without_run


@dataclass(frozen=True)
class Row:
    """One row of a comparison: a trainer with its plans, trained once or repeatedly (``_run<K>``).

    Attributes:
        name: The trainer without ``_run<K>``, with plans and configuration if they are not the default.
        runs: The trained models, in the order of their names' numbers.
    """

    name: str
    runs: tuple[Model, ...]

    @property
    def model(self) -> Model:
        """The first training, which represents all repeats in what they have in common."""
        return self.runs[0]

    @property
    def trainer(self) -> str:
        """Name of the trainer without ``_run<K>``."""
        return without_run(self.model.trainer)

    def folds(self, used: Sequence[str]) -> list[Fold]:
        """The compared folds of all repeats."""
        return [run.folds[name] for run in self.runs for name in used]


def fold_rows(models: Sequence[Model]) -> list[Row]:
    """Fold repeats into rows, in the order in which the first training of each row is named.

    Raises:
        UserError: fewer than two rows are left.
    """
    found: dict[str, list[Model]] = {}
    for model in models:
        found.setdefault(model.name_with(without_run(model.trainer)), []).append(model)
    if len(found) < 2:
        raise UserError(
            f"--trainers names repeats of {next(iter(found))} only, which form one row; name a second trainer to "
            "compare"
        )
    return [Row(name, tuple(sorted(runs, key=lambda m: (len(m.trainer), m.trainer)))) for name, runs in found.items()]
