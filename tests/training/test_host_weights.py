"""NNUNET_ATTN_HOST_WEIGHTS: stock weights in the host part of the networks on nnU-Net's plans."""

import json
import pydoc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from planned_hosts import PATCHES, host_arguments

from nnunet_attn import trainers
from nnunet_attn.files import sha256
from nnunet_attn.training.base import merged, takes_patch_size
from nnunet_attn.training.host_weights import host_of, load_host
from nnunet_attn.training.in_process import nnunet_in_process
from nnunet_attn.training.pretrained import read_weights
from nnunet_attn.training.record import read_record

VARIABLE = "NNUNET_ATTN_HOST_WEIGHTS"
HOSTS = {"plain": PlainConvUNet, "residual": ResidualEncoderUNet}
BIT_EQUAL = ("nnUNetTrainerDiffCA_concatFusion", "nnUNetTrainerMixAtt", "nnUNetTrainerDualCA_noDCA",
             "nnUNetTrainerXAttnRes_skipOnly")  # fmt: skip


def network_of(trainer: str, host: str, dim: int, **other: object) -> torch.nn.Module:
    cls = getattr(trainers, trainer)
    made = pydoc.locate(cls.networks[HOSTS[host].__name__])
    arguments = host_arguments(dim, host) | merged(cls, "network_kwargs") | other
    if takes_patch_size(made):
        arguments["patch_size"] = PATCHES[dim]
    network = made(input_channels=1, num_classes=3, **arguments)
    return network.apply(network.initialize)


def save(network: torch.nn.Module, path: Path) -> Path:
    """As nnU-Net saves: the weights among other things, its log with numpy's numbers among them."""
    torch.save({"network_weights": network.state_dict(), "logging": {"mean_fg_dice": [np.float64(0.5)]}}, path)
    return path


def test_numbers_of_both_numpys_are_read(tmp_path):
    """numpy 2 renamed the module that its numbers are pickled from; checkpoints of either are read."""
    path = save(torch.nn.Linear(2, 1), tmp_path / "w.pth")
    here = b"numpy._core.multiarray" if int(np.__version__.split(".")[0]) > 1 else b"numpy.core.multiarray"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for there in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
            for name, content in members.items():
                assert not name.endswith("data.pkl") or here in content
                archive.writestr(name, content.replace(b"c" + here, b"c" + there))
        assert read_weights(tmp_path / "other.pth")["weight"].shape == (1, 2)


@pytest.mark.parametrize(("host", "dim"), [("plain", 2), ("residual", 3)])
@pytest.mark.parametrize("trainer", BIT_EQUAL)
def test_networks_that_start_as_their_host_predict_what_stock_s_checkpoint_predicts(trainer, host, dim, tmp_path):
    arguments = host_arguments(dim, host)
    stock = HOSTS[host](input_channels=1, num_classes=3, **arguments).eval()
    network = network_of(trainer, host, dim).eval()
    assert {t.device.type for t in host_of(network, 1, 3, arguments).parameters()} == {"meta"}
    report = load_host(network, host_of(network, 1, 3, arguments), save(stock, tmp_path / "w.pth"))
    image = torch.randn(1, 1, *PATCHES[dim], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(image), stock(image))
    assert report["report"].endswith("100.0% of the host's parameters")
    assert not report["unfitting"]
    assert not report["unused"]
    added = {name for name, _ in network.named_parameters()} - {name for name, _ in stock.named_parameters()}
    assert set(report["new"]) == added


def test_what_fits_is_loaded_and_the_rest_is_named(tmp_path):
    arguments = host_arguments(2)
    stock = PlainConvUNet(input_channels=1, num_classes=5, **arguments)
    network = network_of("nnUNetTrainerDiffCA", "plain", 2)
    torch.save(stock.state_dict() | {"elsewhere.weight": torch.zeros(2)}, tmp_path / "w.pth")
    report = load_host(network, host_of(network, 1, 3, arguments), tmp_path / "w.pth")
    assert torch.equal(
        network.encoder.stages[0][0].convs[0].conv.weight, stock.encoder.stages[0][0].convs[0].conv.weight
    )
    narrowed = "decoder.stages.0.convs.0.conv.weight"  # reads the fusion, not the concatenation
    assert report["unfitting"][narrowed] == "(24 x 48 x 3 x 3 in the file, 24 x 24 x 3 x 3 here)"
    assert "decoder.seg_layers.0.weight" in report["unfitting"]  # 5 classes in the file, 3 here
    assert report["unused"] == ["elsewhere.weight"]
    assert all(name.startswith(("attention.", "fusion.")) for name in report["new"])
    assert any(narrowed in line for line in report["lines"])


def test_a_file_of_another_host_is_refused_and_changes_nothing(tmp_path):
    arguments = host_arguments(2)
    save(
        PlainConvUNet(input_channels=1, num_classes=3, **host_arguments(2, widths=(12, 20, 28, 36))), tmp_path / "w.pth"
    )
    network = network_of("nnUNetTrainerMixAtt", "plain", 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"only 0\.0% of the parameters of the host, PlainConvUNet, .* same plans"):
        load_host(network, host_of(network, 1, 3, arguments), tmp_path / "w.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.fixture
def make(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    plans = json.loads((data.preprocessed / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((data.preprocessed / "dataset.json").read_text())

    def make(name: str, *, resume: bool = False):
        cls = getattr(trainers, name)
        return cls(plans | {"continue_training": resume}, "2d", 0, dataset_json, torch.device("cpu"))

    with nnunet_in_process(data.root):
        yield make


def test_a_fresh_training_takes_them_and_records_the_file(make, tmp_path, monkeypatch):
    stock = make("nnUNetTrainerStockAdamW_1epochs_1iterations")
    stock.initialize()
    file = save(stock.network, tmp_path / "stock.pth")
    monkeypatch.setenv(VARIABLE, str(file))
    trainer = make("nnUNetTrainerMixAtt_1epochs_1iterations")
    trainer.initialize()
    weight = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(trainer.network.get_parameter(weight), stock.network.get_parameter(weight))
    trainer.run_training()
    record = read_record(trainer.output_folder)
    assert {n for k, n in record["attention_heads"].items() if k.startswith("path.")} <= {1, 2, 3, 4}
    recorded = record["pretrained"]
    assert recorded["sha256"] == sha256(file)
    assert weight in recorded["loaded"]
    assert all(name.startswith(("path.", "dmk.", "fuse.", "mix.")) for name in recorded["new"])
    log = next(Path(trainer.output_folder).glob("training_log_*.txt")).read_text()
    assert "100.0% of the host's parameters" in log
    file.unlink()  # a continued training does not need the file
    resumed = make("nnUNetTrainerMixAtt_1epochs_1iterations", resume=True)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        make("nnUNetTrainerMixAtt_1epochs_1iterations").initialize()


def test_trainers_without_a_host_refuse_them(make, monkeypatch):
    monkeypatch.setenv(VARIABLE, "stock.pth")
    for name in ("nnUNetTrainerDCAUNet", "nnUNetTrainer_2epochs"):
        with pytest.raises(ValueError, match=r"nnUNetTrainerDiffCA.* do, and nnU-Net's own trainers by -pretrained"):
            make(name).initialize()
    monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", "encoder.pth")
    with pytest.raises(ValueError, match="both name weights"):
        make("nnUNetTrainerDiffCA").initialize()
