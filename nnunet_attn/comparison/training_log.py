"""Read nnU-Net's training logs: learning rate, losses, pseudo Dice and duration of each epoch."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The time stamp of a line is ignored, since a machine's clock may be set back.
LINE = re.compile(
    r"^\S+ \S+: (?:"
    r"Epoch (?P<epoch>\d+)|Current learning rate: (?P<rate>\S+)|train_loss (?P<train>\S+)|val_loss (?P<val>\S+)|"
    r"Pseudo dice \[(?P<dice>.*)\]|Epoch time: (?P<seconds>[\d.]+) s|"
    r"This .*split has (?P<cases>\d+) training)",
    re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])(?:nan|-?\d+\.?\d*(?:e-?\d+)?)(?![\w.])")


@dataclass
class Epoch:
    """One logged epoch; ``seconds`` is None until it has ended.

    ``pseudo_dice`` holds a number for each class, computed by nnU-Net on patches of the validation cases.
    """

    number: int
    learning_rate: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    pseudo_dice: tuple[float, ...] = ()
    seconds: float | None = None

    @property
    def mean_dice(self) -> float | None:
        """Mean pseudo Dice over the classes that have a value."""
        values = [value for value in self.pseudo_dice if value == value]
        return sum(values) / len(values) if values else None


@dataclass
class TrainingLog:
    """The logs of a fold, combined.

    Attributes:
        epochs: Epochs by number; of a repeated epoch (after a kill), the last one that ended.
        starts: Numbers of the epochs in the order in which they started, with all repetitions.
        training_cases: Number of training cases, from the newest log with an epoch; a mere validation also states one.
        files: The logs, the oldest first.
    """

    epochs: dict[int, Epoch]
    starts: list[int]
    training_cases: int | None
    files: list[Path]

    @property
    def ended(self) -> int:
        """Number of completed epochs, from the highest one that ended."""
        return max((e.number for e in self.epochs.values() if e.seconds is not None), default=-1) + 1


def log_files(folder: Path) -> list[Path]:
    """The training logs of a fold, in the order of the times in their names."""
    return sorted(
        folder.glob("training_log_*.txt"), key=lambda path: [int(number) for number in re.findall(r"\d+", path.stem)]
    )


def _epochs(text: str) -> Iterator[Epoch | int]:
    """Yield the epochs of one log as they start, and as a plain number the number of training cases."""
    epoch: Epoch | None = None
    for found in LINE.finditer(text):
        kind = found.lastgroup
        value = found[kind] if kind else ""
        if kind == "epoch":
            epoch = Epoch(int(value))
            yield epoch
        elif kind == "cases":
            yield int(value)
        elif epoch is None:
            continue
        elif kind == "rate":
            epoch.learning_rate = float(value)
        elif kind == "train":
            epoch.train_loss = float(value)
        elif kind == "val":
            epoch.val_loss = float(value)
        elif kind == "dice":
            epoch.pseudo_dice = tuple(map(float, NUMBER.findall(value)))
        elif kind == "seconds":
            epoch.seconds = float(value)


def read_training_log(folder: Path) -> TrainingLog:
    """Read all training logs of ``fold_X``."""
    log = TrainingLog({}, [], None, log_files(folder))
    for path in log.files:
        items = list(_epochs(path.read_text(encoding="utf-8", errors="replace")))
        trained = any(isinstance(item, Epoch) for item in items)
        for item in items:
            if isinstance(item, int):
                log.training_cases = item if trained or log.training_cases is None else log.training_cases
                continue
            log.starts.append(item.number)
            before = log.epochs.get(item.number)
            if before is None or before.seconds is None or item.seconds is not None:
                log.epochs[item.number] = item
    return log
