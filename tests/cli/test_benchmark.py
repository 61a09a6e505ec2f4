import csv
import os
from argparse import Namespace

import pytest
import torch
from torch import nn

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.cli.benchmark import COLUMNS, NetworkMaker
from nnunet_attn.cli.main import main
from nnunet_attn.complexity import gmacs, measure, peak_rss, saved_bytes
from nnunet_attn.workers import in_own_process


class Known(nn.Sequential):
    """8 channels of 3x3 convolution and a ReLU: cost known by hand."""

    def __init__(self):
        super().__init__(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.ReLU())


def test_gmacs_by_hand():
    with torch.device("meta"):
        assert gmacs(Known(), (10, 12), 2) == pytest.approx(2 * 8 * 9 * 120 / 1e9)


def test_saved_bytes_by_hand():
    """The convolution keeps its input (left out), the ReLU its output."""
    assert saved_bytes(Known(), torch.zeros(1, 2, 10, 12)) == 8 * 120 * 4


def test_measure_leaves_the_warm_up_out():
    calls = []

    class Counting(Known):
        def forward(self, x):
            calls.append(self.training)
            return super().forward(x)

    (times,) = measure([Counting()], torch.zeros(1, 2, 10, 12), 3)
    assert calls == [True, False] * 4
    assert times.training > 0
    assert times.inference > 0


def test_networks_take_turns():
    calls = []

    class Named(Known):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            calls.append(self.name)
            return super().forward(x)

    assert len(measure([Named("a"), Named("b")], torch.zeros(1, 2, 10, 12), 2)) == 2
    assert calls == ["a", "a", "b", "b"] * 3


def test_peak_rss_sees_large_activations():
    small, large = peak_rss(Known, (1, 2, 64, 64)), peak_rss(Known, (1, 2, 2048, 2048))
    assert large > 8 * 2048**2 * 4 > small


def test_a_network_is_measured_in_a_process_of_its_own():
    assert in_own_process(os.getpid) != os.getpid()


def test_command_writes_table_with_command_and_versions(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nnunet_attn.workers.in_own_process", lambda function, *arguments: function(*arguments))
    arguments = ["benchmark", "nnUNetTrainerStockAdamW", "--patch", "32", "32", "--rounds", "1"]
    assert main([*arguments, "-o", str(tmp_path / "cost.csv")]) == 0
    facts, rows = [], []
    for line in (tmp_path / "cost.csv").read_text().splitlines():
        (facts if line.startswith("#") else rows).append(line)
    assert "torch" in facts[1]
    stock, ours, last = csv.DictReader(rows)
    assert stock["network"] == "stock"
    assert last["network"] == "stock (last)"
    assert float(stock["peak_ratio"]) + float(last["peak_ratio"]) == pytest.approx(2, abs=2e-3)
    assert all(float(row["training_ratio"]) > 0 for row in (stock, ours, last))
    assert facts[3].startswith("# drift of stock nnU-Net from first to last: training x")
    assert "drift of stock nnU-Net" in capsys.readouterr().out
    assert ours["parameters"] == stock["parameters"]
    assert float(ours["saved_ratio"]) == 1


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDCAUNet", "nnUNetTrainerDualCA", "nnUNetTrainerXAttnRes"])
def test_plain_formulations_are_others(trainer):
    """They keep other amounts for the backward pass; which keeps less depends on the size."""
    options = Namespace(patch=[128, 128], channels=1, classes=4)
    image = torch.zeros(1, 1, 128, 128)
    default, plain = (saved_bytes(NetworkMaker(trainer, options, plain=p)(), image) for p in (False, True))
    assert default != plain


def test_suite_measures_every_network_of_its_dimension(tmp_path, monkeypatch):
    seen = []

    def at_once(function, make):
        seen.append((make.trainer + make.plain * " (plain)", len(make.options.patch)))
        return dict.fromkeys(COLUMNS[1:9], 1.0)

    monkeypatch.setattr("nnunet_attn.workers.in_own_process", at_once)
    assert main(["benchmark", "--suite", "all", "--plain", "-o", str(tmp_path / "new")]) == 0
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["cost_cpu_2d.csv", "cost_cpu_3d.csv"]
    for dim in (2, 3):
        ours = [e.trainer for e in ENTRIES if dim in e.dimensions]
        expected = ["stock", *ours, *(f"{name} (plain)" for name in ours), "stock"]
        assert [name for name, d in seen if d == dim] == expected


@pytest.mark.parametrize(("arguments", "message"), [
    (["nnUNetTrainerFoo"], "not one of our trainers"),
    (["nnUNetTrainerStockAdamW", "--patch", "33", "32"], "nnU-Net would not plan the patch"),
    (["nnUNetTrainerEMCAD", "--patch", "32", "32", "32"], "does not take a 3D patch"),
    (["--suite", "all", "-o", __file__], "a suite writes its tables into a folder"),
])  # fmt: skip
def test_wrong_arguments(arguments, message, capsys):
    assert main(["benchmark", *arguments, "--rounds", "1"]) == 1
    assert message in capsys.readouterr().err


def test_saved_bytes_on_meta_are_those_of_the_cpu():
    counts = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
            counts.append(saved_bytes(network, torch.zeros(1, 1, 16, 16)))
    assert counts[0] == counts[1] == 4 * 14 * 14 * 4
