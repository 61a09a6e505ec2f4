import json
import re

import pytest
import torch

from nnunet_attn.cli.main import main
from nnunet_attn.cli.quickstart import TRAINERS
from nnunet_attn.cli.quickstart_job import with_schedule


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["quickstart", "-o", str(tmp_path)]) == 1
    assert "is not empty and no quickstart of ours" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_run_s_folder_is_refused(tmp_path, capsys):
    (tmp_path / "quickstart.json").write_text(json.dumps({"seed": "9"}))
    assert main(["quickstart", "-o", str(tmp_path)]) == 1
    assert "holds a quickstart with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainers", "told"),
    [
        (["nnUNetTrainer"], "two or more different names"),
        (["nnUNetTrainer", "nnUNetTrainer"], "two or more different names"),
        (["nnUNetTrainer", "nnUNetTrainerDCAUNet_3epochs"], "without a schedule"),
        (["nnUNetTrainer", "nnUNetTrainerDCAUnet"], "did you mean nnUNetTrainerDCAUNet?"),
    ],
)
def test_wrong_trainers_are_refused_before_anything_is_written(trainers, told, tmp_path, capsys):
    assert main(["quickstart", "-o", str(tmp_path / "new"), "--trainers", *trainers]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nnUNetTrainer", "nnUNetTrainer_lr3e2_10epochs_20iterations"),
        ("nnUNetTrainerDualCA_SGD", "nnUNetTrainerDualCA_SGD_lr3e2_10epochs_20iterations"),
        ("nnUNetTrainerDCAUNet_noAttention", "nnUNetTrainerDCAUNet_noAttention_lr1e3_10epochs_20iterations"),
        ("nnUNetTrainerDCAUNet_paper", "nnUNetTrainerDCAUNet_paper_10epochs_20iterations"),
        ("nnUNetTrainer_lr1e2", "nnUNetTrainer_lr1e2_10epochs_20iterations"),
        ("nnUNetTrainerAdam", "nnUNetTrainerAdam_10epochs_20iterations"),
    ],
)
def test_rates_fit_a_short_schedule_unless_the_name_has_one(name, expected):
    assert with_schedule(name, 10, 20) == expected
    assert with_schedule(name, 100, 250) == f"{name}_100epochs_250iterations"


def test_it_ends_with_the_report(tmp_path, capsys):
    """The whole job as --quick does it: few cases and a tiny plan."""
    arguments = ["--quick", "--trainers", "nnUNetTrainer", "nnUNetTrainerStockAdamW", "--iterations", "1"]
    assert main(["quickstart", "-o", str(tmp_path), *arguments]) == 0
    assert not list(tmp_path.rglob("checkpoint_best.pth"))
    checkpoint = torch.load(next(tmp_path.rglob("checkpoint_final.pth")), weights_only=False)
    assert checkpoint["optimizer_state"]["state"] == {}
    out = capsys.readouterr().out
    path = re.search(r"Report: +(\S+)", out)[1]
    assert "Everything runs; nothing is learned in so few steps" in out
    page = (tmp_path / "report" / "report.html").read_text()
    assert path == str(tmp_path / "report" / "report.html")
    assert "nnunet-attn compare 27 -c 2d -tr nnUNetTrainer nnUNetTrainerDCAUNet" in out
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the report opens offline"
    scores = json.loads((tmp_path / "scores.json").read_text())
    summary = json.loads((tmp_path / "report" / "comparison.json").read_text())["summary"]
    assert {row["row"] for row in summary} == set(scores)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_networks_learn(seed, tmp_path, capsys, monkeypatch):
    """The whole job as a user runs it; nothing outside its folder is touched, and it goes on where it stopped."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    folder = tmp_path / "work"
    assert main(["quickstart", "-o", str(folder), "--seed", str(seed)]) == 0
    scores = json.loads((folder / "scores.json").read_text())
    assert [name.split("_")[0] for name in scores] == list(TRAINERS)
    assert all(values["mean"] > 0.85 for values in scores.values()), scores
    out = capsys.readouterr().out
    assert "All networks learn. A run this short compares nothing" in out
    assert (folder / "overlay.png").stat().st_size > 50_000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 150e6
    assert "Paired differences" in (folder / "report" / "report.html").read_text()
    assert not list((tmp_path / "mine").iterdir())
    assert main(["quickstart", "-o", str(folder), "--seed", str(seed)]) == 0
    assert json.loads((folder / "scores.json").read_text()) == scores
