"""What the trainer base adds to nnU-Net's trainer, on a small convolutional network."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.files import sha256
from nnunet_attn.recipe import SGD
from nnunet_attn.trainer_names import TrainerName
from nnunet_attn.training.base import NetworkTrainer, merged
from nnunet_attn.training.in_process import nnunet_in_process
from nnunet_attn.training.names import compose
from nnunet_attn.training.record import asked_weights

pytestmark = pytest.mark.usefixtures("without_progress_figure")


class SmallNet(nn.Module):
    """Encoder and one head, or two heads."""

    def __init__(self, input_channels: int, num_classes: int, *, width: int = 4, deep_supervision: bool = False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(input_channels, width, 3, padding=1), nn.ReLU())
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision
        self.decoder.seg_layers = nn.ModuleList([nn.Conv2d(width, num_classes, 1) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features = self.encoder(x)
        full = self.decoder.seg_layers[0](features)
        if not self.decoder.deep_supervision:
            return full
        return [full, self.decoder.seg_layers[1](features[..., ::2, ::2])]


class BareNet(SmallNet):
    """A network without ``encoder``."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.body = self.encoder
        del self.encoder


class OneHead(NetworkTrainer):
    network = "tests_small_net.SmallNet"
    recipe = {"initial_lr": 5e-4}
    paper_recipes = {"paper": {"optimizer": "Adam", "initial_lr": 1e-4, "weight_ce": 0.4, "weight_dice": 0.6}}


class OneHead_wide(OneHead):
    network_kwargs = {"width": 6}


class TwoHeads(OneHead):
    deep_supervision = True


class WrongNumber(TwoHeads):
    """Says that it has several heads, but returns one map too few."""

    def set_deep_supervision_enabled(self, enabled):
        super().set_deep_supervision_enabled(enabled)
        if enabled:
            network = self.bare_network
            network.forward = lambda x: [network.decoder.seg_layers[0](network.encoder(x))]


@pytest.fixture
def make(images_2d, tmp_path, monkeypatch):
    """``make(cls)`` gives a trainer of ``cls`` for fold 0 in a folder of its own."""
    import types

    module = types.ModuleType("tests_small_net")
    module.SmallNet = SmallNet
    monkeypatch.setitem(sys.modules, "tests_small_net", module)
    data = images_2d.copy(tmp_path)
    plans = json.loads((data.preprocessed / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((data.preprocessed / "dataset.json").read_text())

    def make(cls, *, fold=0, epochs=2, iterations=2, resume=False):
        if epochs:
            parsed = TrainerName(cls.__name__, "x", epochs=epochs, iterations=iterations)
            cls = compose(cls, parsed, cls.__name__, __name__)
        return cls(plans | {"continue_training": resume}, "2d", fold, dataset_json, torch.device("cpu"))

    with nnunet_in_process(data.root):
        yield make


def test_recipes_and_arguments_merge_along_the_classes(make):
    trainer = make(OneHead_wide)
    assert trainer.settings.initial_lr == trainer.initial_lr == 5e-4
    assert trainer.weight_decay == 5e-2
    assert merged(OneHead_wide, "network_kwargs") == {"width": 6}
    trainer.initialize()
    assert trainer.network.encoder[0].out_channels == 6


def test_unknown_keys_raise(make):
    with pytest.raises(TypeError, match="learning_rate"):
        make(type("Wrong", (OneHead,), {"recipe": {"learning_rate": 1}}))
    wrong = make(type("Wrong", (OneHead,), {"network_kwargs": {"depth": 1}}))
    with pytest.raises(TypeError, match="depth"):
        wrong.initialize()


def test_sgd_suffix_is_stock_nnunet_s_optimiser(make):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    stock_free = compose(OneHead, TrainerName("OneHead", "x", "SGD"), "OneHead_SGD", __name__)
    ours = make(stock_free)
    ours.initialize()
    reference = make(OneHead)
    reference.initialize()
    reference.initial_lr, reference.weight_decay = 1e-2, 3e-5
    expected, _ = nnUNetTrainer.configure_optimizers(reference)
    got = {k: v for k, v in ours.optimizer.param_groups[0].items() if k not in ("params", "initial_lr")}
    assert got == {k: v for k, v in expected.param_groups[0].items() if k not in ("params", "initial_lr")}
    assert ours.settings.clip == SGD["clip"] == 12


def test_paper_suffix_sets_the_loss_weights(make):
    paper = make(compose(OneHead, TrainerName("OneHead", "x", "paper"), "OneHead_paper", __name__))
    paper.initialize()
    assert (paper.loss.loss.weight_ce, paper.loss.loss.weight_dice) == (0.4, 0.6)
    assert isinstance(paper.optimizer, torch.optim.Adam)
    assert make(OneHead).num_epochs == 2


def test_one_head_never_returns_a_list(make):
    trainer = make(OneHead, epochs=1)
    trainer.run_training()
    assert trainer.enable_deep_supervision is False
    trainer.perform_actual_validation()
    trainer.set_deep_supervision_enabled(True)
    assert isinstance(trainer.network(torch.zeros(1, 3, 8, 8)), torch.Tensor)


def test_wrong_number_of_maps_raises_on_the_first_step(make):
    trainer = make(WrongNumber)
    with pytest.raises(ValueError, match=r"the network returned 1 map\(s\)"):
        trainer.run_training()


def test_one_resolution_is_refused(make):
    trainer = make(TwoHeads)
    trainer._get_deep_supervision_scales = lambda: [[1.0, 1.0]]
    with pytest.raises(ValueError, match="needs at least two resolutions"):
        trainer.initialize()


def test_fold_beyond_the_file_is_refused(make):
    trainer = make(OneHead, fold=1)
    splits = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["case00", "case01"], "val": ["case02"]}]))
    with pytest.raises(ValueError, match=r"fold 1 was asked for, but .* has folds 0 to 0"):
        trainer.run_training()


def test_a_write_that_fails_leaves_the_last_checkpoint(make, monkeypatch):
    trainer = make(OneHead, epochs=1)
    trainer.run_training()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    before = final.read_bytes()

    def full_disk(content, filename):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(final))
    assert final.read_bytes() == before


def test_checkpoints_come_often_in_short_runs(make):
    for epochs, expected in ((1, 1), (19, 1), (100, 5), (1000, 50), (4000, 50)):
        trainer = make(OneHead, epochs=epochs)
        trainer.initialize()
        assert trainer.save_every == expected


def test_pretrained_encoder_on_a_fresh_training_only(make, tmp_path, monkeypatch):
    weights = SmallNet(3, 3).encoder.state_dict()
    torch.save(weights, tmp_path / "encoder.pth")
    monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", str(tmp_path / "encoder.pth"))
    trainer = make(OneHead)
    trainer.initialize()
    assert torch.equal(trainer.network.encoder[0].weight, weights["0.weight"])
    assert trainer.pretrained["file"] == "encoder.pth"
    trainer.run_training()
    os.remove(tmp_path / "encoder.pth")  # neither a continued training nor prediction needs the file
    resumed = make(OneHead, resume=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert not torch.equal(resumed.network.encoder[0].weight, weights["0.weight"])
    with pytest.raises(FileNotFoundError, match="no such file"):
        make(OneHead).initialize()


def test_run_record(make):
    trainer = make(OneHead_wide)
    trainer.run_training()
    record = json.loads((Path(trainer.output_folder) / "nnunet_attn_run.json").read_text())
    assert record["trainer"] == "OneHead_wide"
    assert record["network_kwargs"] == {"width": 6}
    assert record["recipe"]["initial_lr"] == 5e-4
    assert record["pretrained"] == "from scratch"
    (session,) = record["sessions"]
    assert len(session["epoch_seconds"]) == 2
    assert min(session["epoch_seconds"]) > 0
    assert session["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert session["peak_memory_allocated"] is None


def test_stock_network_is_nnunet_s(images_2d, tmp_path):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((images_2d.preprocessed / "nnUNetPlans.json").read_text()))
    arguments = (plans, plans.get_configuration("2d"), 3, 3, True)
    torch.manual_seed(0)
    ours = trainers.nnUNetTrainerStockAdamW.build_network_architecture(*arguments).state_dict()
    torch.manual_seed(0)
    stock = nnUNetTrainer.build_network_architecture(*arguments).state_dict()
    assert all(np.array_equal(ours[k], v) for k, v in stock.items())
    assert ours.keys() == stock.keys()


def test_threads_are_the_variable_s(make, monkeypatch):
    monkeypatch.setenv("NNUNET_ATTN_THREADS", "2")
    try:
        make(OneHead).initialize()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    monkeypatch.setenv("NNUNET_ATTN_THREADS", "0")
    with pytest.raises(ValueError, match="NNUNET_ATTN_THREADS must be a positive whole number, got '0'"):
        make(OneHead).initialize()


def test_stock_trainers_with_our_suffixes(make, monkeypatch):
    """A stock trainer with a suffix has the rate asked for, our threads, a fitting save interval and a run record."""
    monkeypatch.setenv("NNUNET_ATTN_THREADS", "1")
    trainer = make(trainers.nnUNetTrainer_lr3e3_2epochs_2iterations, epochs=None)
    trainer.run_training()
    record = json.loads((Path(trainer.output_folder) / "nnunet_attn_run.json").read_text())
    assert record["recipe"]["initial_lr"] == trainer.optimizer.defaults["lr"] == 3e-3
    assert record["sessions"][0]["environment"]["threads"] == 1
    assert trainer.save_every == 1
    assert record["pretrained"] == "from scratch"

    class OwnRate(nnUNetTrainer):
        def configure_optimizers(self):
            self.initial_lr = 1e-5
            return super().configure_optimizers()

    parsed = TrainerName("OwnRate", None, initial_lr=1e-3)
    with pytest.raises(ValueError, match=r"sets its own initial learning rate \(1e-05\), so _lr has no effect"):
        make(compose(OwnRate, parsed, "OwnRate_lr1e3", __name__), epochs=None).initialize()


def test_suffixes_on_nnu_net_s_trainers_with_a_warmup(make):
    """Their optimisers are made in stages; the rate of the first step is not the initial one."""
    trainer = make(trainers.nnUNetTrainer_warmup_lr3e3_51epochs_1iterations, epochs=None)
    trainer.initialize()
    trainer.on_train_epoch_start()
    assert (trainer.training_stage, trainer.initial_lr) == ("warmup_all", 3e-3)
    assert trainer.optimizer.param_groups[0]["lr"] < 3e-3
    trainer.current_epoch = 50
    trainer.on_train_epoch_start()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(3e-3)
    with pytest.raises(ValueError, match=r"rises for its first 50 epochs, so a training of 20 would end within"):
        make(trainers.nnUNetTrainer_warmup_20epochs, epochs=None)


def recorded(trainer) -> dict:
    return json.loads((Path(trainer.output_folder) / "nnunet_attn_run.json").read_text())


STOCK_SHORT = "nnUNetTrainer_1epoch_1iterations"


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("told", [True, False])
def test_weights_that_nnunet_loads_are_recorded(stock, told, make, tmp_path, monkeypatch):
    """nnUNetv2_train -pretrained_weights loads between initialize and run_training, as a user of the API may do."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    trainer = make(getattr(trainers, STOCK_SHORT), epochs=None) if stock else make(OneHead, epochs=1, iterations=1)
    trainer.initialize()
    file = tmp_path / "other.pth"
    torch.save({"network_weights": {k: v + 1 for k, v in trainer.network.state_dict().items()}}, file)
    load_pretrained_weights(trainer.network, str(file))
    if told:
        monkeypatch.setattr(sys, "argv", ["/bin/nnUNetv2_train", "901", "2d", "0", "-pretrained", str(file)])
    trainer.on_train_start()
    pretrained = recorded(trainer)["pretrained"]
    if told:
        assert (pretrained["file"], pretrained["sha256"]) == ("other.pth", sha256(file))
    else:
        assert pretrained == "weights loaded, file unknown"
    assert json.loads((Path(trainer.output_folder) / "debug.json").read_text())["pretrained"] == str(pretrained)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("nnUNetv2_train 1 2d 0 -pretrained_weights a.pth --npz", "a.pth"),
        ("nnUNetv2_train 1 2d 0 -pretrained_weights=a.pth", "a.pth"),
        ("/opt/run_training.py 1 2d 0 -pre a.pth", "a.pth"),
        ("nnUNetv2_train 1 2d 0 -p Plans --c", None),
        ("nnUNetv2_train 1 2d 0 -pretrained_weights", None),
        ("my_script.py -pretrained_weights a.pth", None),
    ],
)
def test_file_on_the_command_line(command, file):
    assert asked_weights(command.split()) == file


@pytest.mark.parametrize("stock", [False, True])
def test_continued_without_a_record_is_unknown(stock, make):
    def new():
        if stock:
            return make(trainers.nnUNetTrainer_2epochs_1iterations, epochs=None, resume=True)
        return make(OneHead, iterations=1, resume=True)

    trainer = new()
    trainer.initialize()
    trainer.current_epoch = 1
    trainer.save_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
    for expected in ("unknown", "from scratch"):
        resumed = new()
        resumed.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_latest.pth"))
        resumed.on_train_start()
        record = recorded(resumed)
        assert record["pretrained"] == expected
        record["pretrained"] = "from scratch"
        (Path(trainer.output_folder) / "nnunet_attn_run.json").write_text(json.dumps(record))


def test_networks_without_an_encoder_refuse_encoder_weights(make, monkeypatch):
    monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", "encoder.pth")

    class NoEncoder(OneHead):
        @classmethod
        def network_class(cls, configuration_manager):
            return BareNet

    for trainer in (make(trainers.nnUNetTrainer_2epochs, epochs=None), make(NoEncoder)):
        with pytest.raises(ValueError, match=r"cannot take it; those of .*nnUNetTrainerEMCAD \(PVTv2-B2\) can"):
            trainer.initialize()


def test_runs_of_weights_and_biases_have_names(make, monkeypatch):
    """nnU-Net's own logger, with a stand-in for wandb that notes the variables that wandb reads."""
    from nnunetv2.training.logging import nnunet_logger

    seen = []

    class Run:
        config, summary, step = {}, {}, 0

    def init(**arguments):
        seen.append(arguments | {key: value for key, value in os.environ.items() if key.startswith("WANDB_")})
        return Run

    stand_in = type("wandb", (), {"init": staticmethod(init)})
    monkeypatch.setattr(nnunet_logger, "wandb", stand_in)
    for key in ("WANDB_NAME", "WANDB_TAGS", "WANDB_RUN_GROUP", "nnUNet_wandb_project", "nnUNet_wandb_enabled"):
        monkeypatch.delenv(key, raising=False)
    make(trainers.nnUNetTrainerStockAdamW, epochs=0)
    assert seen == []  # off by default
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("nnUNet_wandb_mode", "offline")
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    make(trainers.nnUNetTrainerStockAdamW, epochs=0)
    (run,) = seen
    assert run["project"] == "Dataset901_Images"
    assert run["mode"] == "offline"
    assert run["WANDB_NAME"] == "nnUNetTrainerStockAdamW__nnUNetPlans__2d__fold_0"
    assert run["WANDB_RUN_GROUP"] == "mine"
    assert run["WANDB_TAGS"].split(",") == [
        "Dataset901_Images", "2d", "nnUNetPlans", "fold_0", "nnUNetTrainerStockAdamW",
    ]  # fmt: skip
    assert "WANDB_NAME" not in os.environ
