import json

import pytest

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
    assert not list((tmp_path / "mine").iterdir())
    assert main(["quickstart", "-o", str(folder), "--seed", str(seed)]) == 0
    assert json.loads((folder / "scores.json").read_text()) == scores
