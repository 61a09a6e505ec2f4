"""nnU-Net's contract, the row's counts, and that nnU-Net finds the trainer."""

import pytest
import torch
from my_network.network import MyNetwork
from my_network.row import ROW
from my_network.trainer import nnUNetTrainerMyNetwork

from nnunet_attn.api import assert_network
from nnunet_attn.complexity import gmacs


@pytest.mark.parametrize("checked", [MyNetwork, nnUNetTrainerMyNetwork])
def test_keeps_nnunet_s_contract(checked):
    assert_network(checked)


@pytest.mark.parametrize("trainer", list(ROW.trainers))
def test_counts_are_the_row_s(trainer):
    changed = nnUNetTrainerMyNetwork.ablations.get(trainer.removeprefix(f"{ROW.trainer}_"), {})
    with torch.device("meta"):
        network = MyNetwork(ROW.input_channels, ROW.num_classes, **(ROW.arguments | changed))
    assert sum(p.numel() for p in network.parameters()) == ROW.trainers[trainer].parameters
    assert gmacs(network, ROW.image_size, ROW.input_channels) == pytest.approx(ROW.trainers[trainer].gmacs, abs=0.006)


@pytest.mark.parametrize("suffix", ["", "_noGate", "_SGD_2epochs"])
def test_nnunet_finds_the_trainer(suffix):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    found = recursive_find_trainer_class_by_name(f"nnUNetTrainerMyNetwork{suffix}")
    assert issubclass(found, nnUNetTrainerMyNetwork)


def test_a_closed_gate_leaves_the_skip_out():
    torch.manual_seed(0)
    network = MyNetwork(1, 2, strides=((1, 1), (2, 2))).eval()
    torch.nn.init.constant_(network.decoder.gates[0].bias, -1e4)
    x = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        up = network.decoder.ups[0](network.encoder[1](network.encoder[0](x)))
        alone = network.decoder.stages[0](torch.cat((up, torch.zeros_like(up)), 1))
        torch.testing.assert_close(network(x), network.decoder.seg_layers[0](alone))
