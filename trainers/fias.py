"""FIAS (2D): DilateFormer and multi-kernel encoders, context-aware fusion, mixing attention."""

from typing import Any

from nnunet_attn.training.base import MutationTrainer, PlanDrivenTrainer
from nnunet_attn.training.recipe import Augmentation

PAPER_RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "optimizer": "Adam",
        "initial_lr": 1e-4,
        "weight_decay": 1e-4,
        "decay_1d": True,
        "betas": (0.9, 0.999),
        "warmup": 0.0,
        "schedule": "poly",
        "clip": 12.0,
        "num_epochs": 1000,
        "weight_ce": 0.6,
        "weight_dice": 0.4,
        "mutation": "mean",
        "augmentation": Augmentation(rotation=20, p_scaling=0.5, shift=0.1),
    }
}

ABLATIONS: dict[str, dict[str, Any]] = {
    "noDMK": {"dmk": False},
    "sumFusion": {"fusion": "sum"},
    "noMixAtt": {"mixatt": False},
    "noAttention": {"attention": False, "fusion": "sum", "mixatt": False},
}


class nnUNetTrainerFIAS(MutationTrainer):
    """FIAS with the mutation loss over its three maps; the aggregate is the prediction, and no member of the subsets.

    The plans give patch and batch size, the network has a fixed shape. The paper says that it
    starts from a pre-trained DilateFormer; that this is the published DilateFormer-Tiny, trained on ImageNet, is our
    inference. ``NNUNET_ATTN_PRETRAINED`` takes such a checkpoint; without, training is from scratch.

    ``_paper`` (arXiv:2411.10881, implementation details): Adam 1e-4 with L2 decay 1e-4, 0.4 Dice + 0.6 CE, rotation,
    zoom, shift and flips. The paper also has 256x256 images and batches of 2: patch and batch come from the plans
    here. Our choices, where it is silent: 1000 epochs of 250 iterations (it prints no number, so there is no ratio to
    give), poly rate, rotation up to 20 degrees, shifts up to a tenth of the patch, each transform with probability 1/2,
    clip at nnU-Net's own 12. Dice loss and choice of patches are nnU-Net's, see ``nnunet_attn.trainers.emcad``.
    """

    network = "nnunet_attn.architectures.fias.FIAS"
    maps = 4
    first_map = 1
    paper_recipes = PAPER_RECIPES
    ablations = ABLATIONS


class nnUNetTrainerMixAtt(PlanDrivenTrainer):
    """FIAS's parts on the network that the plans name, 2D and 3D, with stock deep supervision.

    Our design; see ``MixAttOnPlans``. ``_paper``: see ``nnUNetTrainerFIAS``, without its mutation loss.
    """

    network = "nnunet_attn.architectures.mix_att.MixAttPlainConvUNet"
    networks = {
        "PlainConvUNet": "nnunet_attn.architectures.mix_att.MixAttPlainConvUNet",
        "ResidualEncoderUNet": "nnunet_attn.architectures.mix_att.MixAttResidualEncoderUNet",
    }
    paper_recipes = PAPER_RECIPES
    ablations = ABLATIONS
