"""DCAU-Net and the arguments of its ablations; what each tests is in ``nnunet_attn.catalog``."""

from nnunet_attn.training.base import NetworkTrainer, PlanDrivenTrainer
from nnunet_attn.training.recipe import Augmentation

PAPER = {
    "initial_lr": 1e-3,
    "weight_decay": 1e-4,
    "decay_1d": True,
    "betas": (0.9, 0.999),
    "warmup": 0.0,
    "clip": 12.0,
    "num_epochs": 400,
    "passes": True,
    "weight_ce": 0.4,
    "weight_dice": 0.6,
    "augmentation": Augmentation(rotation=20.0),
}


class nnUNetTrainerDCAUNet(NetworkTrainer):
    """DCAU-Net (arXiv:2603.09530).

    ``_paper`` (rate for Synapse) and ``_paperACDC``: AdamW, decay 1e-4, 400 epochs, 0.4 cross-entropy + 0.6 Dice,
    rotations and flips. The paper is silent on the poly schedule, the betas (torch's), the angle (20 degrees) and the
    probabilities (1/2); these are our choice, as is nnU-Net's clip at 12. Dice loss and choice of patches are
    nnU-Net's, see ``nnunet_attn.trainers.emcad``. On plans of ``nnunet-attn plan --input-size`` an epoch is a pass
    over the slices, as in the paper. On other plans it is nnU-Net's 250 iterations: the 100,000 steps are 2.7 times
    the paper's on Synapse (2211 slices, batch 24: 92 steps an epoch) and 4.6 times its steps on ACDC (70 patients,
    about 1300 slices: 54 steps an epoch). Patch and batch come from the plans; the paper resizes to 224 x 224 and
    takes batches of 24.
    """

    network = "nnunet_attn.architectures.dcau_net.DCAUNet"
    paper_recipes = {"paper": PAPER, "paperACDC": PAPER | {"initial_lr": 3e-4}}
    ablations = {
        "standardAttention": {"attention": "standard"},
        "noAttention": {"attention": "none"},
        "lambda05": {"lambda_init": 0.5},
        "lambda08": {"lambda_init": 0.8},
        "concatFusion": {"fusion": "concat"},
        "noSpatialAttention": {"fusion": "no_spatial_attention"},
        "noChannelAttention": {"fusion": "no_channel_attention"},
        "postNorm": {"norm": "post"},
    }


class nnUNetTrainerDiffCA(PlanDrivenTrainer):
    """Differential cross attention and channel-spatial fusion on the network that the plans name, 2D and 3D.

    Our design; see ``DiffCAOnPlans``.
    """

    network = "nnunet_attn.architectures.diff_ca.DiffCAPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.diff_ca.DiffCAPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.diff_ca.DiffCAResidualEncoderUNet",
    }
    paper_recipes = {"paper": PAPER, "paperACDC": PAPER | {"initial_lr": 3e-4}}
    ablations = {
        "standardAttention": {"attention": "standard"},
        "noAttention": {"attention": "none"},
        "concatFusion": {"fusion": "concat"},
    }
