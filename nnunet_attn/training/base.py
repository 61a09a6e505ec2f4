"""The base class of all our trainers: what a network needs in order to be trained by nnU-Net, without copied code.

A trainer is class attributes (network, its arguments, recipe); nnU-Net finds it by name, see ``nnunet_attn.trainers``.
"""

import inspect
import os
import pydoc
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_attn.recipe import SGD, Recipe
from nnunet_attn.training.losses import CheckedLoss, MutationLoss
from nnunet_attn.training.paper_schedule import rescaled, set_paper_epochs
from nnunet_attn.training.recipe import (
    WarmupScheduler,
    clip_gradients,
    loaded_region,
    make_optimizer,
    save_interval,
    with_augmentation,
)
from nnunet_attn.training.record import Recorded, bare_network
from nnunet_attn.training.starting_weights import StartingWeights, planned_arguments
from nnunet_attn.training.threads import limit_threads
from nnunet_attn.training.wandb_run import named_run


def merged(cls: type, attribute: str) -> dict:
    """The dictionaries that a class and its bases hold under ``attribute``, the nearest winning."""
    result: dict = {}
    for base in reversed(cls.__mro__):
        result |= vars(base).get(attribute, {})
    return result


def takes_patch_size(network: type[nn.Module]) -> bool:
    """Whether the network's constructor wants the patch size of the plans."""
    return "patch_size" in inspect.signature(network).parameters


class NetworkTrainer(StartingWeights, Recorded, nnUNetTrainer):
    """nnU-Net's trainer with network and recipe as class attributes.

    Attributes:
        network: Dotted path of the network, ``Net(input_channels, num_classes, *, ..., deep_supervision=False)``.
            On instances nnU-Net keeps the built network under this name.
        network_kwargs: Keyword arguments of the network; merged along the base classes.
        ablations: Keyword arguments of the network by ablation: ``{"noGate": {"gate": False}}`` makes
            ``<trainer>_noGate``; what each tests and costs is in the catalogue.
        recipe: Fields of ``Recipe`` that differ from its defaults; merged along the base classes.
        paper_recipes: Recipes by suffix, for example ``{"paper": {...}}``; merged along the base classes.
        dimensions: Numbers of spatial axes that the network takes.
        deep_supervision: Whether the network has several heads. If not, deep supervision stays off, even when nnU-Net
            switches it on.
        fixed_schedule: Whether a schedule suffix stands in for the recipe's epochs.

    Raises:
        ValueError: at construction, if the network does not take the configuration's dimensions, or a recipe is wrong.
    """

    network: Any = None
    network_kwargs: dict = {}
    ablations: Mapping[str, Mapping[str, Any]] = {}
    recipe: dict = {}
    paper_recipes: dict[str, dict] = {}
    dimensions: tuple[int, ...] = (2,)
    deep_supervision: bool = False
    fixed_schedule: bool = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        self.check_configuration(PlansManager(plans).get_configuration(configuration))
        self.check_plans(PlansManager(plans), configuration, dataset_json)
        self.settings = Recipe(**merged(type(self), "recipe"))
        axes = len(PlansManager(plans).get_configuration(configuration).patch_size)
        if self.settings.scales != (1.0,) and axes != 2:
            raise ValueError(f"{type(self).__name__} trains at several scales, in 2D only; {configuration} is {axes}D")
        with named_run(type(self).__name__, plans, configuration, fold):
            super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.settings.initial_lr
        self.weight_decay = self.settings.weight_decay
        self.num_epochs = self.settings.num_epochs
        self.num_iterations_per_epoch = self.settings.num_iterations_per_epoch
        self.enable_deep_supervision = self.deep_supervision

    # ---- network ----------------------------------------------------------------------------------------------------

    @classmethod
    def recipes(cls) -> dict[str, dict]:
        """All recipes that compose on this trainer by suffix."""
        return {"SGD": SGD} | merged(cls, "paper_recipes")

    @classmethod
    def check_configuration(cls, configuration_manager: ConfigurationManager) -> None:
        """Refuse a configuration that the network cannot take, before anything is written."""
        patch_size = configuration_manager.patch_size
        if len(patch_size) not in cls.dimensions:
            raise ValueError(
                f"{cls.__name__} takes {' or '.join(f'{d}D' for d in cls.dimensions)} configurations, but this one is "
                f"{len(patch_size)}D (patch size {list(patch_size)}). Use another configuration, for example 2d."
            )

    @classmethod
    def check_plans(cls, plans_manager: PlansManager, configuration: str, dataset_json: dict) -> None:
        """Refuse whatever else the network cannot take, before anything is written; a hook for subclasses."""

    @classmethod
    def network_class(cls, configuration_manager: ConfigurationManager) -> type[nn.Module]:
        """The network's class; plan-driven trainers choose it by what the plans name."""
        found: Any = pydoc.locate(cls.network)
        if found is None:
            raise ImportError(f"{cls.__name__}: there is no network {cls.network}")
        return found

    @classmethod
    def plan_arguments(cls, configuration_manager: ConfigurationManager) -> dict:
        """Arguments of the network that come from the plans; none for networks of fixed shape."""
        return {}

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net's hook, called in training and, on the class, at prediction."""
        cls.check_configuration(configuration_manager)
        network: Any = cls.network_class(configuration_manager)(
            num_input_channels,
            num_output_channels,
            **(cls.plan_arguments(configuration_manager) | merged(cls, "network_kwargs")),
            deep_supervision=enable_deep_supervision and cls.deep_supervision,
        )
        if hasattr(network, "initialize"):
            network.apply(network.initialize)
        return network

    @property
    def bare_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        return bare_network(self.network)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Networks with one head stay without deep supervision, though nnU-Net switches it on after validating."""
        if self.deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    # ---- start ------------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """nnU-Net's set-up; then, on a fresh training only, the weights that the environment names."""
        limit_threads()
        self.save_every = save_interval(self.num_epochs)
        super().initialize()
        if self.settings.passes and self.input_size and not self.fixed_schedule:
            set_paper_epochs(self)

    @property
    def input_size(self) -> int | None:
        """Of plans that ``nnunet-attn plan --input-size`` made."""
        return self.plans_manager.plans.get("input_size")

    def configure_optimizers(self) -> Any:
        if self.settings.optimizer == "SGD":
            optimizer, scheduler = super().configure_optimizers()
        else:
            optimizer = make_optimizer(self.network, self.settings)
            scheduler = WarmupScheduler(optimizer, self.settings, self.num_epochs)
        clip_gradients(optimizer, self.settings.clip, self.settings.clip_by)
        return optimizer, scheduler

    def _build_loss(self) -> nn.Module:
        scales = self._get_deep_supervision_scales()
        if scales is not None and len(scales) < 2:
            raise ValueError(
                f"deep supervision of {type(self).__name__} needs at least two resolutions, but the plans give "
                f"{len(scales)} (pool_op_kernel_sizes {self.configuration_manager.pool_op_kernel_sizes}); "
                "nnU-Net's loss weights would become NaN. Use plans with a larger patch."
            )
        loss = super()._build_loss()
        weighted = loss.loss if scales is not None else loss
        weighted.weight_ce, weighted.weight_dice = self.settings.weight_ce, self.settings.weight_dice
        return CheckedLoss(loss)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        rotation, dummy_2d, size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.settings.augmentation is not None:
            patch_size = self.configuration_manager.patch_size
            size = np.array(loaded_region(patch_size, self.settings.augmentation, one_slice=dummy_2d))
        return rotation, dummy_2d, size, axes

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        transforms = super().get_training_transforms(*args, **kwargs)
        if self.settings.augmentation is None:
            return transforms
        return with_augmentation(transforms, self.settings.augmentation)

    def do_split(self) -> Any:
        """nnU-Net's split; a fold beyond the split file is refused, where nnU-Net draws a random one that may leak."""
        path = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        if self.fold != "all" and self.input_size and not path.is_file():
            raise ValueError(f"{path} is missing; nnunet-attn plan --input-size copies the conversion's folds to it")
        if self.fold != "all" and path.is_file():
            folds = len(load_json(path))
            if self.fold >= folds:
                raise ValueError(f"fold {self.fold} was asked for, but {path} has folds 0 to {folds - 1}")
        return super().do_split()

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; with several scales one step at each, and the mean of their losses."""
        if self.settings.scales == (1.0,):
            return super().train_step(batch)
        pooled = self.configuration_manager.pool_op_kernel_sizes if self.follows_plans else [(1, 1)]
        sizes = [rescaled(batch, scale, np.prod(pooled, axis=0)) for scale in self.settings.scales]
        losses = [super(NetworkTrainer, self).train_step(size)["loss"] for size in sizes]
        return {"loss": np.mean(losses)}

    # ---- run --------------------------------------------------------------------------------------------------------

    def run_facts(self) -> dict:
        return super().run_facts() | {
            "network_kwargs": merged(type(self), "network_kwargs"),
            "recipe": asdict(self.settings),
        }

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint, moved into place when complete, so that a killed run never leaves half of one."""
        if self.disable_checkpointing or self.local_rank != 0:
            super().save_checkpoint(filename)  # writes nothing, and says so
            return
        super().save_checkpoint(f"{filename}.tmp")
        os.replace(f"{filename}.tmp", filename)


class MutationTrainer(NetworkTrainer):
    """Trainer of a network with several full-size prediction maps, trained by the mutation loss.

    Attributes:
        maps: Number of maps that the network returns, the prediction first.
        first_map: Index of the first map that takes part in the subsets; 1 where map 0 is their aggregate.
    """

    maps: int = 4
    first_map: int = 0
    deep_supervision = True

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """One target at full resolution; None without deep supervision."""
        return [[1.0] * len(self.configuration_manager.patch_size)] if self.enable_deep_supervision else None

    def _build_loss(self) -> nn.Module:
        # nnU-Net's deep supervision does not fit (it zips maps and targets, and its weights of one scale are NaN), so
        # its loss is built without
        enabled, self.enable_deep_supervision = self.enable_deep_supervision, False
        try:
            checked: Any = super()._build_loss()
        finally:
            self.enable_deep_supervision = enabled
        if not enabled:
            return checked
        return MutationLoss(checked.loss, maps=self.maps, first=self.first_map, reduction=self.settings.mutation)


class PlanDrivenTrainer(NetworkTrainer):
    """Trainer of a network that takes shape from the plans, 2D and 3D, with stock deep supervision.

    Attributes:
        networks: Our network for each class that the plans may name, for example ``{"PlainConvUNet": "dotted.path"}``.
            Plans that name one of ours already (``nnunet-attn plan``) keep it. ``network`` names the first. Networks
            whose constructor has ``patch_size`` get that of the plans.
    """

    networks: dict[str, str] = {}
    dimensions = (2, 3)
    deep_supervision = True
    follows_plans = True

    @classmethod
    def network_class(cls, configuration_manager: ConfigurationManager) -> type[nn.Module]:
        planned = configuration_manager.network_arch_class_name
        path = planned if planned in cls.networks.values() else cls.networks.get(planned.rpartition(".")[2])
        if path is None:
            raise ValueError(f"{cls.__name__} builds on {' or '.join(cls.networks)}, but the plans name {planned}")
        found: Any = pydoc.locate(path)
        return found

    @classmethod
    def plan_arguments(cls, configuration_manager: ConfigurationManager) -> dict:
        arguments = planned_arguments(configuration_manager)
        if takes_patch_size(cls.network_class(configuration_manager)):
            arguments["patch_size"] = configuration_manager.patch_size
        return arguments
