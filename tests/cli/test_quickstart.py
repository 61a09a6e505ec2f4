import functools
import json
import re

import pytest

from nnunet_attn.cli import quickstart_job
from nnunet_attn.cli.main import main
from nnunet_attn.cli.quickstart_job import TRAINERS


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["quickstart", "-o", str(tmp_path)]) == 1
    assert "is not empty and no quickstart of ours" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_run_s_folder_is_refused(tmp_path, capsys):
    (tmp_path / "quickstart.json").write_text(json.dumps({"seed": "9"}))
    assert main(["quickstart", "-o", str(tmp_path)]) == 1
    assert "holds a quickstart with other settings" in capsys.readouterr().err


def test_it_ends_with_the_report(tmp_path, capsys, monkeypatch):
    """The whole job with tiny networks, five patients to train on, one iteration and one patient to test."""
    small = functools.partial(quickstart_job.write_phantom, training=5, test=1)
    monkeypatch.setattr(quickstart_job, "write_phantom", small)
    shrunk = functools.partial(quickstart_job.plan_and_preprocess, shrink=True)
    monkeypatch.setattr(quickstart_job, "plan_and_preprocess", shrunk)
    monkeypatch.setattr(quickstart_job, "TRAINERS", ("nnUNetTrainer", "nnUNetTrainerStockAdamW"))
    assert main(["quickstart", "-o", str(tmp_path), "--epochs", "1", "--iterations", "1"]) == 0
    out = capsys.readouterr().out
    path = re.search(r"Report: +(\S+)", out)[1]
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
    assert all(values["mean"] > 0.8 for values in scores.values()), scores
    out = capsys.readouterr().out
    assert "Both networks learn. A run this short compares nothing" in out
    assert (folder / "overlay.png").stat().st_size > 50_000
    assert "Paired differences" in (folder / "report" / "report.html").read_text()
    assert not list((tmp_path / "mine").iterdir())
    assert main(["quickstart", "-o", str(folder), "--seed", str(seed)]) == 0
    assert json.loads((folder / "scores.json").read_text()) == scores
