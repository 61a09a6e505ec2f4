"""Dual Cross-Attention on nnU-Net's own networks and on the paper's six hosts.

``_paper``: Adam 1e-4 at a constant rate, 200 epochs, Dice alone, rotations up to 60 degrees and flips with probability
0.2. nnU-Net's Dice leaves the background out, the paper's has it and smooths by 1; a third of nnU-Net's patches are
drawn to hold foreground. nnU-Net's clip at 12 is our choice. On plans of ``nnunet-attn plan --input-size`` an epoch is
a pass over the slices, as in the paper. On other plans it is nnU-Net's 250 iterations: the 50,000 steps are 2.7 times
the paper's on Synapse (2211 slices, batch 24: 92 steps an epoch) and 12 times its steps on GlaS (85 images, batch 4:
21 steps an epoch). Patch and batch come from the plans; the paper resizes to 224 x 224, and keeps the epoch that is
best on the test split, which we do not.
"""

from nnunet_attn.paper_tables import TABLES
from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer


class nnUNetTrainerDualCA(PlanDrivenTrainer):
    """DCA in the skips of the network that the plans name, PlainConvUNet or ResidualEncoderUNet, 2D and 3D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.dual_cross_attention_unets.DualCAPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.dual_cross_attention_unets.DualCAResidualEncoderUNet",
    }
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCA"]


class nnUNetTrainerDualCAUNet(NetworkTrainer):
    """The paper's U-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAUNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCAUNet"]


class nnUNetTrainerDualCAVNet(NetworkTrainer):
    """The paper's V-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAVNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCAVNet"]


class nnUNetTrainerDualCAR2UNet(NetworkTrainer):
    """The paper's R2U-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAR2UNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCAR2UNet"]


class nnUNetTrainerDualCAResUNetPlusPlus(NetworkTrainer):
    """The paper's ResUNet++ with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAResUNetPlusPlus"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCAResUNetPlusPlus"]


class nnUNetTrainerDualCADoubleUNet(NetworkTrainer):
    """The paper's DoubleU-Net with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCADoubleUNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCADoubleUNet"]


class nnUNetTrainerDualCAMultiResUNet(NetworkTrainer):
    """The paper's MultiResUNet with DCA, 2D."""

    network = "nnunet_attn.architectures.dual_cross_attention_unets.DualCAMultiResUNet"
    paper_recipes, ablations = TABLES["nnUNetTrainerDualCAMultiResUNet"]
