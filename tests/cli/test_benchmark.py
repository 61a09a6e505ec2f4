import csv
from argparse import Namespace

import pytest
import torch
from torch import nn

from nnunet_attn.cli.benchmark import NetworkMaker
from nnunet_attn.cli.main import main
from nnunet_attn.complexity import Subject, gmacs, measure, peak_rss, saved_bytes


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


def test_measure_takes_turns():
    subjects = [Subject("a", Known()), Subject("b", Known())]
    calls = []
    measure(subjects, torch.zeros(1, 2, 10, 12), 3, lambda: calls.append(1))
    assert [len(s.training) for s in subjects] == [len(s.inference) for s in subjects] == [3, 3]
    assert len(calls) == 8


def test_peak_rss_sees_large_activations():
    small, large = peak_rss(Known, (1, 2, 64, 64)), peak_rss(Known, (1, 2, 2048, 2048))
    assert large > 8 * 2048**2 * 4 > small


def test_command_writes_table_with_command_and_versions(tmp_path, capsys):
    arguments = ["benchmark", "nnUNetTrainerStockAdamW", "--patch", "32", "32", "--rounds", "1", "--plain"]
    assert main([*arguments, "-o", str(tmp_path / "cost.csv")]) == 0
    facts, rows = [], []
    for line in (tmp_path / "cost.csv").read_text().splitlines():
        (facts if line.startswith("#") else rows).append(line)
    assert "torch" in facts[1]
    stock, ours, plain = csv.DictReader(rows)
    assert plain["network"] == "nnUNetTrainerStockAdamW (plain)"
    assert stock["network"] == "stock"
    assert float(stock["training_ratio"]) == 1
    assert ours["parameters"] == stock["parameters"]
    assert float(ours["saved_ratio"]) == 1


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDCAUNet", "nnUNetTrainerDualCA", "nnUNetTrainerXAttnRes"])
def test_plain_formulations_are_others(trainer):
    """They keep other amounts for the backward pass; which keeps less depends on the size."""
    options = Namespace(patch=[128, 128], channels=1, classes=4)
    image = torch.zeros(1, 1, 128, 128)
    default, plain = (saved_bytes(NetworkMaker(trainer, options, plain=p)(), image) for p in (False, True))
    assert default != plain


@pytest.mark.parametrize(("arguments", "message"), [
    (["nnUNetTrainerFoo"], "not one of our trainers"),
    (["nnUNetTrainerStockAdamW", "--patch", "33", "32"], "nnU-Net would not plan the patch"),
])  # fmt: skip
def test_wrong_arguments(arguments, message, capsys):
    assert main(["benchmark", *arguments, "--rounds", "1"]) == 1
    assert message in capsys.readouterr().err
