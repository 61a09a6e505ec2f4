"""The studies of the papers' tables: they check without data, and say what is missing."""

import csv
import re
import runpy
from pathlib import Path

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.study.papers import paper_studies
from nnunet_attn.study.study_file import read_study

NAMES = [
    "dcaunet_acdc", "dcaunet_synapse", "dualca_five_datasets", "fias_acdc", "fias_synapse", "xattnres_polyps_isic",
    "xattnres_synapse",
]  # fmt: skip


def test_list_shows_them(capsys):
    assert sorted(paper_studies()) == NAMES
    assert main(["study", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_check_names_what_is_missing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NNUNET_ATTN_DOWNLOADS", str(tmp_path / "downloads"))
    assert main(["study", "check", name]) == 0
    out = capsys.readouterr().out
    study = read_study(paper_studies()[name])
    assert len(study.rows) >= 2, "a report compares"
    for choice in study.datasets:
        assert choice.convert.options[-2:] == ("--input-size", str(choice.changed[choice.plans].input_size))
        assert f"missing: {choice.convert.sources[0]}, which becomes" in out
        assert str(choice.convert.sources[0]).startswith(str(tmp_path / "downloads"))
    assert f"folder {tmp_path / name}" in out
    assert list(tmp_path.iterdir()) == []


def test_estimates_of_gpu_hours_are_of_these_studies():
    script = Path(__file__).parents[2] / "scripts" / "estimate_papers.py"
    made = runpy.run_path(str(script))
    with made["OUTPUT"].open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == list(made["estimates"]()), f"run python {script.name}"


def test_an_unset_variable_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNUNET_ATTN_DOWNLOADS", raising=False)
    assert main(["study", "check", "dcaunet_acdc"]) == 0
    assert "set the variable in $NNUNET_ATTN_DOWNLOADS/ACDC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ("{name: A, input_size: 224}", "need a batch"),
        ("{name: A, input_size: 224, batch: 2, patch: [96, 96]}", "take nothing else"),
        ("{name: A, input_size: 16, batch: 2}", "whole number from 32"),
    ],
)
def test_wrong_input_sizes(plans, message, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: a\ndatasets:\n  - dataset: 901\n    configuration: 2d\n    plans: {plans}\nrows: [nnUNetTrainer]\n"
    )
    assert main(["study", "check", str(file)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert re.search(r"study.yaml:5: ", error)
