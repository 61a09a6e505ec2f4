import json

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.blocks.cross_attention import ChannelCrossAttention, SpatialCrossAttention
from nnunet_attn.catalog import ENTRIES
from nnunet_attn.recipe import Augmentation, Recipe
from nnunet_attn.training.base import merged
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process
from nnunet_attn.training.record import NAME as RECORD

pytestmark = pytest.mark.usefixtures("without_progress_figure")

OURS = "nnunet_attn.architectures.dual_cross_attention_unets."
STOCK = "dynamic_network_architectures.architectures.unet."
BASES = [entry.trainer for entry in ENTRIES if entry.family == "dual_cross_attention"]


def configuration(network: str = f"{STOCK}PlainConvUNet", **more) -> ConfigurationManager:
    blocks = "n_blocks_per_stage" if "Residual" in network else "n_conv_per_stage"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [8, 16, 32],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * 3,
        "strides": [[1, 1], [2, 2], [2, 2]],
        blocks: [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    architecture = {
        "network_class_name": network,
        "arch_kwargs": arguments | more,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return ConfigurationManager({"patch_size": [32, 48], "architecture": architecture})


def build(trainer: str, plans: ConfigurationManager) -> nn.Module:
    return getattr(trainers, trainer).build_network_architecture(None, plans, 1, 3, True)


@pytest.mark.parametrize(
    ("planned", "built"),
    [
        (f"{STOCK}PlainConvUNet", "DualCAPlainConvUNet"),
        (f"{STOCK}ResidualEncoderUNet", "DualCAResidualEncoderUNet"),
        (f"{OURS}DualCAPlainConvUNet", "DualCAPlainConvUNet"),
        (f"{OURS}DualCAResidualEncoderUNet", "DualCAResidualEncoderUNet"),
    ],
)
def test_the_plans_choose_the_network(planned, built):
    network = build("nnUNetTrainerDualCA", configuration(planned))
    assert type(network).__name__ == built
    assert network.decoder.deep_supervision


def test_a_patch_size_in_the_plans_network_is_the_configuration_s():
    network = build("nnUNetTrainerDualCA", configuration(f"{OURS}DualCAPlainConvUNet", patch_size=[8, 8, 8], dca=True))
    assert network.skips.pool == ((2, 2), (1, 1))


def test_other_networks_are_refused():
    with pytest.raises(
        ValueError, match=r"builds on PlainConvUNet or ResidualEncoderUNet, but the plans name .*PrimusX"
    ):
        build("nnUNetTrainerDualCA", configuration("somewhere.PrimusX"))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("suffix", "attentions"),
    [
        ("", {ChannelCrossAttention, SpatialCrossAttention}),
        ("_noDCA", set()),
        ("_channelOnly", {ChannelCrossAttention}),
        ("_spatialOnly", {SpatialCrossAttention}),
    ],
)
def test_ablations(base, suffix, attentions):
    network = build(base + suffix, configuration())
    found = {type(m) for m in network.modules() if isinstance(m, (ChannelCrossAttention, SpatialCrossAttention))}
    assert found == attentions


@pytest.mark.parametrize("base", BASES)
def test_paper_recipe(base):
    settings = Recipe(**merged(getattr(trainers, f"{base}_noDCA_paper_10epochs"), "recipe"))
    assert (settings.optimizer, settings.initial_lr, settings.weight_decay) == ("Adam", 1e-4, 0.0)
    assert (settings.schedule, settings.warmup, settings.num_epochs) == ("constant", 0.0, 200)
    assert (settings.weight_ce, settings.weight_dice) == (0.0, 1.0)
    assert settings.augmentation == Augmentation(rotation=60.0, p_rotation=0.2, p_mirror=0.2)


def test_paper_recipe_runs(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        run = make_trainer(data.dataset_id, "2d", "nnUNetTrainerDualCA_paper_1epoch_1iterations")
        run.run_training()
        assert run.optimizer.param_groups[0]["lr"] == 1e-4
    folder = "nnUNetTrainerDualCA_paper_1epoch_1iterations__nnUNetPlans__2d"
    record = json.loads((data.root / "nnUNet_results" / data.name / folder / "fold_0" / RECORD).read_text())
    assert record["network"] == f"{OURS}DualCAPlainConvUNet"
