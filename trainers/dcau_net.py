"""DCAU-Net and the ablations of its Tables IV and V."""

from nnunet_attn.training.base import AttnTrainer
from nnunet_attn.training.recipe import Augmentation

PAPER = {
    "initial_lr": 1e-3,
    "weight_decay": 1e-4,
    "decay_1d": True,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "clip": 12.0,
    "num_epochs": 400,
    "weight_ce": 0.4,
    "weight_dice": 0.6,
    "augmentation": Augmentation(rotation=20.0),
}


class nnUNetTrainerDCAUNet(AttnTrainer):
    """DCAU-Net (arXiv:2603.09530).

    ``_paper`` (rate for Synapse) and ``_paperACDC``: AdamW, decay 1e-4, 400 epochs, 0.4 cross-entropy + 0.6 Dice,
    rotations and flips. The paper is silent on the poly schedule, the betas (torch's), the angle (20 degrees) and the
    probabilities (1/2); these are our choice, as is nnU-Net's clip at 12. An epoch is nnU-Net's 250 iterations: the
    100,000 steps are 2.7 times the paper's on Synapse (2211 slices, batch 24: 92 steps an epoch) and 4.6 times its
    steps on ACDC (70 patients, about 1300 slices: 54 steps an epoch). Patch and batch come from the plans; the paper
    resizes to 224 x 224 and takes batches of 24.
    """

    network = "nnunet_attn.architectures.dcau_net.DCAUNet"
    paper_recipes = {"paper": PAPER, "paperACDC": PAPER | {"initial_lr": 3e-4}}


class nnUNetTrainerDCAUNet_standardAttention(nnUNetTrainerDCAUNet):
    """Table IV, standard attention over the same keys."""

    network_kwargs = {"attention": "standard"}


class nnUNetTrainerDCAUNet_noAttention(nnUNetTrainerDCAUNet):
    """Without the differential attention; depth-wise convolutions, MLPs and the fusion stay. Not in the paper."""

    network_kwargs = {"attention": "none"}


class nnUNetTrainerDCAUNet_lambda05(nnUNetTrainerDCAUNet):
    """Table IV, fixed 0.5."""

    network_kwargs = {"lambda_init": 0.5}


class nnUNetTrainerDCAUNet_lambda08(nnUNetTrainerDCAUNet):
    """Table IV, fixed 0.8."""

    network_kwargs = {"lambda_init": 0.8}


class nnUNetTrainerDCAUNet_concatFusion(nnUNetTrainerDCAUNet):
    """Table V, the U-Net's fusion."""

    network_kwargs = {"fusion": "concat"}


class nnUNetTrainerDCAUNet_noSpatialAttention(nnUNetTrainerDCAUNet):
    """Table V, without spatial attention."""

    network_kwargs = {"fusion": "no_spatial_attention"}


class nnUNetTrainerDCAUNet_noChannelAttention(nnUNetTrainerDCAUNet):
    """Table V, without channel attention."""

    network_kwargs = {"fusion": "no_channel_attention"}


class nnUNetTrainerDCAUNet_postNorm(nnUNetTrainerDCAUNet):
    """Norm after each residual, the other reading of the text on the block; not an ablation of the paper."""

    network_kwargs = {"norm": "post"}
