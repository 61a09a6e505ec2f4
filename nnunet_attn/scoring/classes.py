"""The foreground classes of a dataset, as nnU-Net reads them from dataset.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from nnunet_attn.errors import UserError


@dataclass(frozen=True)
class Classes:
    """The foreground classes to score.

    Attributes:
        values: Label values of each class (several for a region), in nnU-Net's order.
        ignore: The ignore label, if the dataset has one.
        drawn: The value of each class in a drawn label map; for a region, the value that nnU-Net writes for it.
    """

    values: dict[str, tuple[int, ...]]
    ignore: int | None
    drawn: dict[str, int]

    @property
    def known(self) -> set[int]:
        """All values that a label map may hold, without the ignore label."""
        return {0}.union(*self.values.values())

    @classmethod
    def from_dataset_json(cls, dataset: dict) -> "Classes":
        labels = {name: tuple(v) if isinstance(v, (list, tuple)) else (v,) for name, v in dataset["labels"].items()}
        ignore = labels.pop("ignore", (None,))[0]
        foreground = {name: tuple(map(int, v)) for name, v in labels.items() if set(v) != {0}}
        if any(len(v) > 1 for v in foreground.values()):
            drawn = dict(zip(foreground, map(int, dataset["regions_class_order"]), strict=True))
        else:
            foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
            drawn = {name: v[0] for name, v in foreground.items()}
        return cls(foreground, ignore, drawn)

    @classmethod
    def from_file(cls, path: Path) -> "Classes":
        """Read dataset.json.

        Raises:
            UserError: the file does not exist or is not a dataset.json.
        """
        try:
            return cls.from_dataset_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist") from None
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a dataset.json of nnU-Net ({type(error).__name__}: {error})") from error
