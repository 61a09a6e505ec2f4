"""Plans for a network of ours, made by nnU-Net's planners, with memory measured by the network itself.

Plans for a network on nnU-Net's own name it and train with the stock trainer: ``nnUNetv2_train DATASET 2d 0 -p
DualCAPlans``. Plans for a network of fixed shape have patch and batch for it and train with its trainer. nnU-Net looks
for planners in its own package only, hence the command ``nnunet-attn plan``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncM,
)
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_attn.architectures.planned import kept_values
from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json
from nnunet_attn.training.base import NetworkTrainer, takes_patch_size

Mixin: Any = object  # to mypy: with whatever the class's other base has

STOCK_PLANS = "nnUNetPlans"
SHARED = ("image_reader_writer", "transpose_forward", "foreground_intensity_properties_per_channel")
PREPROCESSING = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg_kwargs",
)


class OurPlans(Mixin):
    """Mixin: where the planner that follows in the class's bases writes, and that it overwrites its own files only.

    Preprocessed data of the stock plans are used again wherever these would make the same.

    Raises:
        UserError: the plans file exists and was not written by this planner.
    """

    def __init__(self, dataset_name_or_id: str | int, *, plans_name: str, **arguments: Any):
        super().__init__(dataset_name_or_id, plans_name=plans_name, **arguments)
        if self.plans_file.is_file() and load_json(self.plans_file)["experiment_planner_used"] != type(self).__name__:
            raise UserError(
                f"{self.plans_file} was not written by this command and would be lost; name other plans with "
                "-overwrite_plans_name"
            )

    @property
    def folder(self) -> Path:
        return Path(nnUNet_preprocessed) / self.dataset_name

    @property
    def plans_file(self) -> Path:
        return self.folder / f"{self.plans_identifier}.json"

    def generate_data_identifier(self, configuration_name: str) -> str:
        return f"{self.plans_identifier}_{configuration_name}"

    def save_plans(self, plans: dict) -> None:
        """Write the plans; configurations that the user added to an older file stay, as in nnU-Net."""
        recursive_fix_for_json_export(plans)
        stock_file = self.folder / f"{STOCK_PLANS}.json"
        if stock_file.is_file():
            use_stock_data(plans, load_json(stock_file))
        if self.plans_file.is_file():
            plans["configurations"] = load_json(self.plans_file)["configurations"] | plans["configurations"]
        write_json(self.plans_file, plans)


class NetworkPlanner(OurPlans):
    """Mixin: the planner that follows in the class's bases plans for ``network`` instead of nnU-Net's network.

    ``network`` takes the arguments that nnU-Net plans for its own class, and measures its memory in
    ``compute_conv_feature_map_size``, as nnU-Net's do. If its constructor has ``patch_size``, it gets that, too.
    """

    def __init__(self, dataset_name_or_id: str | int, network: type[nn.Module], *, plans_name: str, **arguments: Any):
        super().__init__(dataset_name_or_id, plans_name=plans_name, **arguments)
        self.UNet_class = network
        self.takes_patch_size = takes_patch_size(network)

    def arguments_for(self, arguments: dict, patch_size: Sequence[int]) -> dict:
        return arguments | {"patch_size": [int(n) for n in patch_size]} if self.takes_patch_size else arguments

    def static_estimate_VRAM_usage(
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict,
        arch_kwargs_req_import: Sequence[str],
    ) -> int:
        """nnU-Net's measure of memory, by the network itself, built without weights."""
        arguments = self.arguments_for(arch_kwargs, patch_size)
        try:
            with torch.device("meta"):
                network = get_network_from_plans(
                    arch_class_name,
                    arguments,
                    arch_kwargs_req_import,
                    input_channels,
                    output_channels,
                    allow_init=False,
                )
        except ValueError as error:
            raise UserError(
                f"no network for a patch of {'x'.join(str(n) for n in patch_size)} ({error}); the memory target of "
                f"{self.UNet_vram_target_GB:g} GB may be too small"
            ) from error
        return network.compute_conv_feature_map_size(patch_size)

    def get_plans_for_configuration(self, *args: Any, **kwargs: Any) -> dict:
        plan = super().get_plans_for_configuration(*args, **kwargs)
        architecture = plan["architecture"]
        architecture["arch_kwargs"] = self.arguments_for(architecture["arch_kwargs"], plan["patch_size"])
        return plan


def use_stock_data(plans: dict, stock: dict) -> None:
    """Take the data of the stock plans for each configuration that is preprocessed in the same way."""
    if any(plans[key] != stock[key] for key in SHARED):
        return
    for name, configuration in plans["configurations"].items():
        theirs = stock["configurations"].get(name, {})
        if "data_identifier" in theirs and all(configuration.get(k) == theirs.get(k) for k in PREPROCESSING):
            configuration["data_identifier"] = theirs["data_identifier"]


class PlainPlanner(NetworkPlanner, ExperimentPlanner):
    """Plans as nnU-Net's default planner does for ``PlainConvUNet``."""


class ResidualPlanner(NetworkPlanner, nnUNetPlannerResEncM):
    """Plans as nnU-Net's ResEnc M planner does for ``ResidualEncoderUNet``."""


class FixedShapePlanner(OurPlans, ExperimentPlanner):
    """Plans patch and batch for a trainer whose network has a shape of its own.

    nnU-Net's rule, fed with the network's memory in nnU-Net's unit: nnU-Net's count of its default network for the
    patch, times what training keeps for the backward pass of ours over what it keeps of that network. So the batch is
    the one with which both keep as much. The plans hold only configurations that the network takes; their architecture
    is nnU-Net's, as its trainers expect one, and is not used.

    Args:
        dataset_name_or_id: A dataset with a fingerprint.
        trainer: The network's trainer.
        plans_name: Name of the plans.
        arguments: Of nnU-Net's planner.
    """

    def __init__(
        self, dataset_name_or_id: str | int, trainer: type[NetworkTrainer], *, plans_name: str, **arguments: Any
    ):
        super().__init__(dataset_name_or_id, plans_name=plans_name, **arguments)
        self.trainer = trainer

    def static_estimate_VRAM_usage(
        self,
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict,
        arch_kwargs_req_import: Sequence[str],
    ) -> float:
        patch = [int(n) for n in patch_size]
        with torch.device("meta"):
            stock = get_network_from_plans(
                arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels, allow_init=False
            )
        count = stock.compute_conv_feature_map_size(patch)
        if len(patch) not in self.trainer.dimensions:
            return count
        architecture = {
            "network_class_name": arch_class_name,
            "arch_kwargs": arch_kwargs,
            "_kw_requires_import": arch_kwargs_req_import,
        }
        plan = {"patch_size": patch, "architecture": architecture}
        return count * relative_memory(self.trainer, stock, plan, input_channels, output_channels)

    def save_plans(self, plans: dict) -> None:
        plans["configurations"] = {
            name: configuration
            for name, configuration in plans["configurations"].items()
            if len(configuration.get("patch_size", ())) in self.trainer.dimensions
        }
        super().save_plans(plans)


def relative_memory(
    trainer: type[NetworkTrainer], stock: nn.Module, plan: dict, input_channels: int, output_channels: int
) -> float:
    """What training keeps for the backward pass of the trainer's network, over what it keeps of ``stock``, same plan.

    Raises:
        UserError: the network does not take the patch.
    """
    configuration, patch_size = ConfigurationManager(plan), plan["patch_size"]
    image = (2, input_channels, *patch_size)  # norms want several values a channel
    try:
        with torch.device("meta"):
            network = trainer.build_network_architecture(None, configuration, input_channels, output_channels, True)
        kept = kept_values(network.train(), [image])
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"no network of {trainer.__name__} for a patch of {'x'.join(map(str, patch_size))} "
            f"({str(error).splitlines()[0]}); the memory target may be too small"
        ) from error
    return kept / kept_values(stock.train(), [image])
