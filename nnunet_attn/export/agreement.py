"""Compare an export's predictions of images with nnU-Net's own, case by case."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nnunet_attn.errors import UserError
from nnunet_attn.export.predict import READERS, find_cases
from nnunet_attn.files import sha256
from nnunet_attn.training.trained_model import TrainedModel, read_json, read_model

EQUAL_VOXELS = 0.9999
DICE_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """The agreement of two predictions, of one case or of all cases together.

    Attributes:
        voxels: Number of voxels.
        different: Number of voxels with different labels.
        dice: Dice between the two predictions, for each foreground label that either has.
    """

    voxels: int
    different: int
    dice: dict[int, float]

    @property
    def equal(self) -> float:
        """Share of voxels with equal labels."""
        return 1 - self.different / self.voxels

    @property
    def agrees(self) -> bool:
        return self.equal >= EQUAL_VOXELS and all(1 - dice < DICE_DIFFERENCE for dice in self.dice.values())

    def __str__(self) -> str:
        dice = ", ".join(f"{label}: {1 - value:.1e}" for label, value in self.dice.items())
        return f"{self.different} of {self.voxels} voxels differ ({100 * self.equal:.4f} % equal); 1 - Dice: {dice}"


def compare(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Agreement:
    """The agreement of pairs of label maps, over all pairs together."""
    overlap: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for first, second in pairs:
        if first.shape != second.shape:
            raise UserError(f"the predictions have different shapes, {first.shape} and {second.shape}")
        for label in np.union1d(np.unique(first), np.unique(second)):
            a, b = first == label, second == label
            overlap[int(label)] = overlap.get(int(label), 0) + int((a & b).sum())
            sizes[int(label)] = sizes.get(int(label), 0) + int(a.sum() + b.sum())
    different = sum(int((first != second).sum()) for first, second in pairs)
    dice = {label: 2 * overlap[label] / sizes[label] for label in sorted(sizes) if label != 0}
    return Agreement(sum(first.size for first, _ in pairs), different, dice)


def read_exported(model: TrainedModel, content: dict) -> None:
    """Raise UserError unless the export was made from this model's current checkpoints."""
    for fold in content["folds"]:
        path = model.folder / f"fold_{fold['fold']}" / model.checkpoint
        if sha256(path) != fold["checkpoint_sha256"]:
            raise UserError(f"{path} is not the checkpoint that was exported, it has changed since; export again")


def check_export(
    export: Path, model_folder: Path, images: Sequence[Path], *, threads: int | None = None
) -> dict[str, Agreement]:
    """Predict ``images`` with the export's ``predict.py`` and with nnU-Net, on the CPU, and compare.

    Args:
        export: A folder that ``export_model`` wrote.
        model_folder: The model it was made from.
        images: A folder, or files.
        threads: Number of threads of each; by default all cores.

    Returns:
        Agreement by case; under "all cases", that of all together.

    Raises:
        UserError: the folder is not an export, or of another model, or a case cannot be predicted.
    """
    content = read_json(export / "model.json")
    folds = [str(fold["fold"]) for fold in content["folds"]]
    model = read_model(model_folder, folds, content["source"]["checkpoint"])
    read_exported(model, content)
    ending = content["file_ending"]
    cases = find_cases(images, ending)
    threads = threads or torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        exported, reference = Path(folder) / "exported", Path(folder) / "reference"
        command = [sys.executable, str(export / "predict.py"), "-o", str(exported), "--threads", str(threads), "-i"]
        done = subprocess.run([*command, *map(str, images)], check=False)
        if done.returncode:
            raise UserError(f"{export / 'predict.py'} failed, see above")
        reference.mkdir()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model.predictor(torch.device("cpu"), allow_tqdm=True).predict_from_files_sequential(
                [[str(f) for f in files] for files in cases.values()], [str(reference / case) for case in cases]
            )
        finally:
            torch.set_num_threads(before)
        read, _ = READERS[content["reader"]]
        files = {case: f"{case}{ending}" for case in cases}
        pairs = {case: (read(exported / name)[0], read(reference / name)[0]) for case, name in files.items()}
    return {case: compare([pair]) for case, pair in pairs.items()} | {"all cases": compare(list(pairs.values()))}
