"""The command that counts any network."""

import json

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.lookup import find_entry


def counted(capsys, *arguments):
    assert main(["count", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_counts_are_the_catalogue_s(capsys):
    entry = find_entry("nnUNetTrainerDCAUNet")
    counts = counted(capsys, "nnunet_attn.architectures.DCAUNet", "num_classes=9", "--input", "3", "224", "224")
    assert (counts["parameters"], counts["gmacs"]) == (entry.cost.parameters, pytest.approx(entry.cost.gmacs, abs=1e-4))


def test_networks_of_others_and_functions_that_make_one(capsys):
    counts = counted(capsys, "timm.models.resnet18", "num_classes=10", "--input", "3", "224", "224")
    assert (counts["parameters"], counts["gmacs"]) == (11_181_642, pytest.approx(1.8136, abs=1e-3))


def test_a_file_of_the_current_folder_in_lines(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_file.py").write_text(
        "from torch import nn\n\nclass MyNet(nn.Sequential):\n"
        "    implementation = 'mine'\n\n"
        "    def __init__(self, width, norm, mode):\n"
        "        assert mode == 'both'\n"
        "        super().__init__(nn.Conv3d(1, width, 3, padding=1), norm(width))\n"
        "        self[1].bias.requires_grad_(False)\n\n"
        "    def forward(self, x):\n"
        "        assert self.implementation == 'mine'\n"
        "        return super().forward(x)\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["my_file.MyNet", "width=4", "norm=torch.nn.BatchNorm3d", "mode=both"]
    assert main(["count", *arguments, "--input", "1", "10", "10", "10"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "my_file.MyNet",
        "  parameters  120 (116 of them trainable)",
        f"  GMACs       {4 * 27 * 1000 / 1e9:.3f} at 1x10x10x10",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.Net", "--input", "3", "8", "8"], "nowhere.Net is not a class or function"),
        (["torch.nn.Linear", "in=3", "out", "--input", "3", "8", "8"], "KEY=VALUE, got 'out'"),
        (["torch.nn.Linear", "width=3", "--input", "3", "8", "8"], "Linear cannot be made with {'width': 3}"),
        (["torch.nn.ReLU", "--input", "3", "8", "8"], "ReLU made no torch module with parameters"),
        (["torch.nn.Linear", "in_features=3", "out_features=2", "--input", "3", "8"], "an input of (1, 3, 8)"),
        (["torch.nn.Linear", "--input", "3"], "--input takes channels and one to three sizes"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert main(["count", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
