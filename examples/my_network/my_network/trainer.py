"""The trainer: what nnU-Net and nnunet-attn need to know of the network."""

from nnunet_attn.api import NetworkTrainer


class nnUNetTrainerMyNetwork(NetworkTrainer):
    """My network under nnunet-attn's recipe; ``_noGate`` is its ablation."""

    network = "my_network.network.MyNetwork"
    dimensions = (2, 3)
    deep_supervision = True
    ablations = {"noGate": {"gate": False}}

    @classmethod
    def plan_arguments(cls, configuration_manager):
        """Of nnU-Net's plans the network takes the strides."""
        return {"strides": configuration_manager.pool_op_kernel_sizes}
