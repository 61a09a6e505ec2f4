"""Stock nnU-Net's network under our recipe, so that a difference can be told apart: architecture or recipe."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_attn.training.base import NetworkTrainer


class nnUNetTrainerStockAdamW(NetworkTrainer):
    """The network that the plans name, built by nnU-Net itself; AdamW, warm-up and clip as for all our networks."""

    dimensions = (2, 3)
    deep_supervision = True
    follows_plans = True
    build_network_architecture = staticmethod(nnUNetTrainer.build_network_architecture)
