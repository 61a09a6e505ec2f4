"""Dual Cross-Attention on nnU-Net's own networks and on the paper's six hosts, and the ablations of each.

``_paper``: Adam 1e-4 at a constant rate, 200 epochs, Dice alone, rotations up to 60 degrees and flips with probability
0.2. nnU-Net's Dice leaves the background out, the paper's has it. nnU-Net's clip at 12 is our choice. An epoch is
nnU-Net's 250 iterations: the 50,000 steps are 2.7 times the paper's on Synapse (2211 slices, batch 24: 92 steps an
epoch) and 12 times its steps on GlaS (85 images, batch 4: 21 steps an epoch). Patch and batch come from the plans; the
paper resizes to 224 x 224, and keeps the epoch that is best on the test split, which we do not.

``_noDCA`` is the host under the same recipe, ``_channelOnly`` and ``_spatialOnly`` keep one of the two attentions.
"""

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_attn.training.base import AttnTrainer, PlanDrivenTrainer
from nnunet_attn.training.recipe import Augmentation

PAPER = {
    "optimizer": "Adam",
    "initial_lr": 1e-4,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "schedule": "constant",
    "clip": 12.0,
    "num_epochs": 200,
    "weight_ce": 0.0,
    "weight_dice": 1.0,
    "augmentation": Augmentation(rotation=60.0, p_rotation=0.2, p_mirror=0.2),
}

NO_DCA = {"dca": False}
CHANNEL_ONLY = {"dca_kwargs": {"spatial_attention": False}}
SPATIAL_ONLY = {"dca_kwargs": {"channel_attention": False}}


class nnUNetTrainerDualCA(PlanDrivenTrainer):
    """DCA in the skips of the network that the plans name, PlainConvUNet or ResidualEncoderUNet, 2D and 3D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.dual_cross_attention_unets.DualCAPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.dual_cross_attention_unets.DualCAResidualEncoderUNet",
    }
    paper_recipes = {"paper": PAPER}

    @classmethod
    def plan_arguments(cls, configuration_manager: ConfigurationManager) -> dict:
        return super().plan_arguments(configuration_manager) | {"patch_size": configuration_manager.patch_size}


class nnUNetTrainerDualCA_noDCA(nnUNetTrainerDualCA):
    """nnU-Net's network."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCA_channelOnly(nnUNetTrainerDualCA):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCA_spatialOnly(nnUNetTrainerDualCA):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCAUNet(AttnTrainer):
    """The paper's U-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAUNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCAUNet_noDCA(nnUNetTrainerDualCAUNet):
    """The paper's U-Net alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCAUNet_channelOnly(nnUNetTrainerDualCAUNet):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCAUNet_spatialOnly(nnUNetTrainerDualCAUNet):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCAVNet(AttnTrainer):
    """The paper's V-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAVNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCAVNet_noDCA(nnUNetTrainerDualCAVNet):
    """The paper's V-Net alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCAVNet_channelOnly(nnUNetTrainerDualCAVNet):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCAVNet_spatialOnly(nnUNetTrainerDualCAVNet):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCAR2UNet(AttnTrainer):
    """The paper's R2U-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAR2UNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCAR2UNet_noDCA(nnUNetTrainerDualCAR2UNet):
    """The paper's R2U-Net alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCAR2UNet_channelOnly(nnUNetTrainerDualCAR2UNet):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCAR2UNet_spatialOnly(nnUNetTrainerDualCAR2UNet):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCAResUNetPlusPlus(AttnTrainer):
    """The paper's ResUNet++ with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAResUNetPlusPlus"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCAResUNetPlusPlus_noDCA(nnUNetTrainerDualCAResUNetPlusPlus):
    """The paper's ResUNet++ alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCAResUNetPlusPlus_channelOnly(nnUNetTrainerDualCAResUNetPlusPlus):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCAResUNetPlusPlus_spatialOnly(nnUNetTrainerDualCAResUNetPlusPlus):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCADoubleUNet(AttnTrainer):
    """The paper's DoubleU-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCADoubleUNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCADoubleUNet_noDCA(nnUNetTrainerDualCADoubleUNet):
    """The paper's DoubleU-Net alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCADoubleUNet_channelOnly(nnUNetTrainerDualCADoubleUNet):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCADoubleUNet_spatialOnly(nnUNetTrainerDualCADoubleUNet):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY


class nnUNetTrainerDualCAMultiResUNet(AttnTrainer):
    """The paper's MultiResUNet with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAMultiResUNet"
    paper_recipes = {"paper": PAPER}


class nnUNetTrainerDualCAMultiResUNet_noDCA(nnUNetTrainerDualCAMultiResUNet):
    """The paper's MultiResUNet alone."""

    network_kwargs = NO_DCA


class nnUNetTrainerDualCAMultiResUNet_channelOnly(nnUNetTrainerDualCAMultiResUNet):
    """Without the spatial attention."""

    network_kwargs = CHANNEL_ONLY


class nnUNetTrainerDualCAMultiResUNet_spatialOnly(nnUNetTrainerDualCAMultiResUNet):
    """Without the channel attention."""

    network_kwargs = SPATIAL_ONLY
