"""Trainers of XAttnRes and EMCAD: what each name builds, plans of our own, recipes, encoder weights."""

import json

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_attn import trainers
from nnunet_attn.architectures import xattnres
from nnunet_attn.architectures.encoders import pvt_v2_b2
from nnunet_attn.recipe import Augmentation
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process
from nnunet_attn.training.losses import MutationLoss

pytestmark = pytest.mark.usefixtures("without_progress_figure")

UNREACHABLE = OSError("no route to host")
RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def read_plans(data) -> dict:
    return json.loads((data.preprocessed / "nnUNetPlans.json").read_text())


def with_architecture(plans: dict, configuration: str, network: str, **arguments) -> dict:
    """The plans with another network and some of its arguments."""
    architecture = plans["configurations"][configuration]["architecture"]
    architecture["network_class_name"] = network
    architecture["arch_kwargs"] |= arguments
    return plans


def build(name: str, plans: dict, configuration: str = "2d"):
    manager = PlansManager(plans)
    return getattr(trainers, name).build_network_architecture(manager, manager.get_configuration(configuration), 3, 2)


def reading(network) -> tuple[int, int]:
    """Numbers of stages with XAttnRes in encoder and decoder."""
    return tuple(sum(bool(r.history_channels) for r in rs) for rs in (network.x_enc, network.x_dec))


@pytest.mark.parametrize(
    ("suffix", "stages", "skips"),
    [
        ("", (2, 2), True),
        ("_replace", (2, 2), False),
        ("_noSkip", (0, 0), False),
        ("_skipOnly", (0, 0), True),
        ("_encoderOnly", (2, 0), False),
        ("_decoderOnly", (0, 2), False),
        ("_kaimingQuery_SGD_2epochs", (2, 2), True),
    ],
)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_ablations_on_plans(suffix, stages, skips, residual, images_2d):
    plans = read_plans(images_2d)
    if residual:
        arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
        with_architecture(plans, "2d", RESIDUAL)
    network = build(f"nnUNetTrainerXAttnRes{suffix}", plans)
    assert type(network).__name__ == ("XAttnResResidualEncoderUNet" if residual else "XAttnResPlainConvUNet")
    assert reading(network) == stages
    assert network.skips == skips
    assert network.decoder.deep_supervision
    assert bool(network.x_dec[0].history_channels and network.x_dec[0].query.abs().max() > 0) == ("kaiming" in suffix)


def test_plans_that_name_our_network_keep_their_arguments_and_the_trainer_s_win(images_2d):
    ours = "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet"
    plans = with_architecture(read_plans(images_2d), "2d", ours, mode="replace", position="decoder")
    assert reading(build("nnUNetTrainerXAttnRes", plans)) == (0, 2)
    assert reading(build("nnUNetTrainerXAttnRes_encoderOnly", plans)) == (2, 0)


def test_other_networks_in_the_plans_are_refused(images_2d):
    plans = with_architecture(read_plans(images_2d), "2d", "somewhere.Primus")
    with pytest.raises(
        ValueError, match="builds on PlainConvUNet or ResidualEncoderUNet, but the plans name somewhere"
    ):
        build("nnUNetTrainerXAttnRes", plans)


def test_stock_trainer_builds_ours_from_plans_alone(images_2d):
    """Plans that name our network need no trainer of ours."""
    ours = "nnunet_attn.architectures.xattnres.XAttnResPlainConvUNet"
    plans = with_architecture(read_plans(images_2d), "2d", ours, mode="both")
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    manager = PlansManager(plans)
    network = nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("2d"), 3, 2, True)
    assert type(network) is xattnres.XAttnResPlainConvUNet
    assert all(read.query.abs().max() == 0 for read in network.x_dec)
    assert len(network(torch.randn(2, 3, 40, 56))) == 2


@pytest.mark.parametrize("name", ["XAttnRes", "XAttnResUNet", "EMCAD", "XAttnResEMCAD"])
def test_paper_recipe(name):
    recipe = getattr(trainers, f"nnUNetTrainer{name}_paper").recipe
    assert (recipe["initial_lr"], recipe["weight_decay"], recipe["schedule"], recipe["num_epochs"]) == (
        1e-4, 1e-4, "constant", 300
    )  # fmt: skip
    assert (recipe["weight_ce"], recipe["weight_dice"]) == (0.3, 0.7)
    assert isinstance(recipe["augmentation"], Augmentation)
    assert recipe.get("mutation", "mean") == ("sum" if "EMCAD" in name else "mean")


def test_emcad_trains_on_all_subsets_of_its_maps(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        run = make_trainer(data.dataset_id, "2d", "nnUNetTrainerEMCAD_paper")
        run.initialize()
        assert isinstance(run.loss, MutationLoss)
        assert (len(run.loss.subsets), run.loss.reduction, run.loss.base_loss.weight_ce) == (15, "sum", 0.3)
        assert run._get_deep_supervision_scales() == [[1.0, 1.0]]


@pytest.fixture
def initialized_emcad(images_2d, tmp_path, monkeypatch):
    """``f(value, published)`` sets up EMCAD with NNUNET_ATTN_PRETRAINED and what the hub gives; returns run and log."""
    data = images_2d.copy(tmp_path / "data")

    def make(value: str | None, published: object = UNREACHABLE):
        def published_weights(model):
            assert model == "pvt_v2_b2"
            if isinstance(published, Exception):
                raise published
            return published

        monkeypatch.setattr("nnunet_attn.training.starting_weights.published_weights", published_weights)
        if value is not None:
            monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", value)
        run = make_trainer(data.dataset_id, "2d", "nnUNetTrainerEMCAD_1epoch")
        run.initialize()
        return run, next((data.root / "nnUNet_results").rglob("training_log*.txt")).read_text()

    with nnunet_in_process(data.root):
        yield make


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    file = tmp_path / "pvt.pth"
    torch.save(pvt_v2_b2().state_dict(), file)
    return file


def first_weight(network) -> torch.Tensor:
    return network.encoder.state_dict()["patch_embed.proj.weight"]


def test_without_weights_the_log_says_so(initialized_emcad):
    run, log = initialized_emcad(None)
    assert run.pretrained == "from scratch"
    assert "No published weights of pvt_v2_b2 (no route to host): the encoder starts from scratch" in log
    assert "NNUNET_ATTN_PRETRAINED" in log


@pytest.mark.parametrize("source", ["file", "hub"])
def test_weights_from_a_file_or_the_hub(initialized_emcad, weights, source):
    run, log = initialized_emcad(str(weights)) if source == "file" else initialized_emcad(None, weights)
    assert torch.equal(first_weight(run.bare_network), torch.load(weights)["patch_embed.proj.weight"])
    assert run.pretrained["file"] == "pvt.pth"
    assert "loaded from pvt.pth" in log


def test_none_asks_nobody(initialized_emcad):
    run, log = initialized_emcad("none", AssertionError("asked"))
    assert run.pretrained == "from scratch"
    assert "No published weights" not in log
