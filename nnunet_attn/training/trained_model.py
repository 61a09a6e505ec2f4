"""A trained model's folder in nnUNet_results, read for maps and export: plans, weights of the folds, the network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_attn.errors import UserError
from nnunet_attn.training.pretrained import NUMBERS

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class TrainedModel:
    """What ``nnUNetv2_predict`` reads of a trained model.

    Attributes:
        folder: TRAINER__PLANS__CONFIGURATION, with plans.json, dataset.json and fold_X.
        checkpoint: Name of the checkpoints' files.
        folds: Weights by fold ("0", ..., "all").
        trainer: Name of the trainer class.
        configuration: Name of the configuration.
        mirror_axes: Spatial axes to mirror at prediction; None without mirroring.
    """

    folder: Path
    checkpoint: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    folds: dict[str, dict[str, torch.Tensor]]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...] | None

    @cached_property
    def plans_manager(self) -> PlansManager:
        return PlansManager(self.plans)

    @cached_property
    def configuration_manager(self) -> ConfigurationManager:
        return self.plans_manager.get_configuration(self.configuration)

    @cached_property
    def label_manager(self) -> LabelManager:
        return self.plans_manager.get_label_manager(self.dataset_json)

    @property
    def channels(self) -> list[str]:
        names = self.dataset_json.get("channel_names") or self.dataset_json["modality"]
        return [names[key] for key in sorted(names, key=int)]

    @property
    def input_channels(self) -> int:
        return determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json)

    def network(self, fold: str) -> nn.Module:
        """The network with the weights of a fold, in evaluation mode, with one output.

        Raises:
            UserError: nnU-Net does not find the trainer, or the weights are another network's.
        """
        network = self._empty_network()
        try:
            network.load_state_dict(self.folds[fold])
        except RuntimeError as error:
            raise UserError(
                f"{self.folder / f'fold_{fold}' / self.checkpoint} holds the weights of another network than "
                f"{self.trainer} builds: {str(error).splitlines()[-1].strip()}"
            ) from error
        return network.eval()

    def _empty_network(self) -> nn.Module:
        try:
            trainer = recursive_find_trainer_class_by_name(self.trainer)
        except RuntimeError as error:
            raise UserError(f"nnU-Net finds no trainer {self.trainer}; is its package installed?") from error
        return trainer.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.input_channels,
            self.label_manager.num_segmentation_heads,
            enable_deep_supervision=False,
        )

    def predictor(self, device: torch.device, **options: Any) -> nnUNetPredictor:
        """nnU-Net's own predictor of these folds; ``options`` as it takes them."""
        predictor = nnUNetPredictor(device=device, **options)
        predictor.manual_initialization(
            self.network(next(iter(self.folds))),
            self.plans_manager,
            self.configuration_manager,
            list(self.folds.values()),
            self.dataset_json,
            self.trainer,
            self.mirror_axes,
        )
        return predictor


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file of the model.

    Raises:
        UserError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; give a trained model's folder, TRAINER__PLANS__CONFIGURATION in nnUNet_results"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nnU-Net's, read with ``weights_only=True``.

    Raises:
        UserError: it is missing, cut, or holds more than tensors and numbers.
    """
    if not path.is_file():
        present = sorted(p.name for p in path.parent.glob("checkpoint_*.pth")) if path.parent.is_dir() else []
        hint = f"; there is {', '.join(present)}, give it by -chk" if present else ""
        raise UserError(f"{path} is missing{hint}")
    try:
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign, unsafe or cut file; all mean the same here
        raise UserError(f"{path} is no checkpoint of nnU-Net's: {str(error).strip().splitlines()[0]}") from error


def read_model(folder: Path, folds: Sequence[str] | None = None, checkpoint: str = CHECKPOINT) -> TrainedModel:
    """Read a trained model.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION in nnUNet_results.
        folds: Folds to read; by default those that have the checkpoint, without "all", as nnU-Net takes them.
        checkpoint: Name of the checkpoints' files.

    Raises:
        UserError: something is missing or cannot be read.
    """
    folder = Path(folder)
    plans, dataset_json = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    if not folds:
        found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
        folds = [fold for fold in found if fold != "all"] or found
    if not folds:
        raise UserError(f"{folder} has no fold_X/{checkpoint}; is the training finished? -chk names another checkpoint")
    read = {fold: read_checkpoint(folder / f"fold_{fold}" / checkpoint) for fold in folds}
    first = next(iter(read.values()))
    axes = first.get("inference_allowed_mirroring_axes")
    return TrainedModel(
        folder=folder,
        checkpoint=checkpoint,
        plans=plans,
        dataset_json=dataset_json,
        folds={fold: content["network_weights"] for fold, content in read.items()},
        trainer=first["trainer_name"],
        configuration=first["init_args"]["configuration"],
        mirror_axes=None if axes is None else tuple(axes),
    )
