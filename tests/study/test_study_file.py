"""Every mistake in a study file is one line with the file's name and the line's number, before anything runs."""

import json
import re

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.errors import UserError
from nnunet_attn.study.lines import Document
from nnunet_attn.study.study_file import read_study

GOOD = """\
name: short
device: cpu
threads: 2
folders: own
datasets:
  - dataset: 027
    convert: {converter: acdc, source: downloads/ACDC, num_folds: 2}
    configuration: 2d
    plans: {name: Small, spacing: [2.5, 2.5], patch: [96, 96], batch: 10}
    folds: [0, 1]
    test: true
rows:
  - nnUNetTrainer
  - nnUNetTrainer:nnUNetResEncUNetMPlans
  - {row: nnUNetTrainerDCAUNet, repeats: 3}
  - nnUNetTrainer_20epochs
schedule: 10epochs_150iterations
repeats: 2
retries: 2
report: {published: true, nsd_tolerance: 2, voxels: true}
"""


def test_a_good_file_is_read(tmp_path):
    (tmp_path / "study.yaml").write_text(GOOD)
    study = read_study(tmp_path / "study.yaml")
    assert [row.trainer for row in study.rows] == [
        "nnUNetTrainer_10epochs_150iterations", "nnUNetTrainer_10epochs_150iterations",
        "nnUNetTrainerDCAUNet_10epochs_150iterations", "nnUNetTrainer_20epochs",
    ]  # fmt: skip
    assert [row.repeats for row in study.rows] == [2, 2, 3, 2]
    (dataset,) = study.datasets
    assert dataset.dataset == 27  # 027 is no octal number
    assert dataset.convert.sources == (tmp_path / "downloads" / "ACDC",)
    assert dataset.plans == "Small"
    assert dataset.changed["Small"].patch == (96, 96)
    assert (study.threads, study.retries, study.environment) == (2, 2, False)


WRONG = [
    ("threads: 2", "thread: 2", 3, "unknown key thread; did you mean threads?"),
    ("threads: 2", "threads: 0", 3, "threads must be a whole number from 1, got 0"),
    ("threads: 2", "threads: true", 3, "threads must be a whole number"),
    ("device: cpu", "device: gpu", 2, "device must be cuda or cpu or mps, got 'gpu'"),
    ("name: short", "name: a/b", 1, "name becomes a folder"),
    ("name: short\n", "", 1, "the study has no name"),
    ("threads: 2", "device: cuda", 3, "device occurs twice"),
    ("threads: 2", "threads: [2", 4, "expected"),
    ("  - dataset: 027", "  - dataset: 1000", 6, "is between 1 and 999"),
    ("  - dataset: 027", "  - dataset: ACDC", 6, "a number or a name like Dataset027_ACDC"),
    ("converter: acdc", "converter: acdx", 7, "converter must be synapse or acdc"),
    ("source: downloads/ACDC, ", "", 7, "source must be a path"),
    ("    configuration: 2d\n", "", 6, "configuration is missing"),
    ("patch: [96, 96]", "patch: [96, -1]", 9, "patch must be a list of whole numbers"),
    ("name: Small, ", "", 9, "plans with changes need a name"),
    ("name: Small, ", "name: nnUNetPlans, ", 9, "a name of their own"),
    ("folds: [0, 1]", "folds: [0, 0]", 10, "a fold occurs twice"),
    ("folds: [0, 1]", "folds: all", 10, "folds must be a list like [0, 1], got 'all'"),
    ("test: true", "test: 1", 11, "test must be true or false, got 1"),
    ("  - nnUNetTrainer\n", "  - nnUNetTrainerDCAUnet\n", 13, "did you mean nnUNetTrainerDCAUNet"),
    ("  - nnUNetTrainer\n", "  - nnUNetTrainerNobody\n", 13, "there is no trainer nnUNetTrainerNobody"),
    ("  - nnUNetTrainer\n", "  - nnUNetTrainer_run2\n", 13, "repeats get their _run<K> from the key repeats"),
    ("  - nnUNetTrainer\n", "  - nnUNetTrainer_20epochs_lr1e3\n", 13, "suffixes come in the order"),
    ("  - nnUNetTrainer\n", "  - a:b:c:d\n", 13, "TRAINER:PLANS:CONFIGURATION; got 'a:b:c:d'"),
    ("  - nnUNetTrainer\n", "  - nnUNetTrainer_20epochs\n", 16, "nnUNetTrainer_20epochs occurs twice"),
    ("configuration: 2d", "configuration: 3d_fullres", 15, "takes 2D data, but dataset 27 is trained on 3d_fullres"),
    ("repeats: 3", "repeat: 3", 15, "unknown key repeat; did you mean repeats?"),
    ("published: true", "groups: a.csv, patients: b.json", 20, "patients is the earlier name of groups"),
    ("repeats: 3", "gpus: 2", 15, "gpus needs device: cuda"),
    ("schedule: 10epochs_150iterations", "schedule: 10", 17, "schedule must be text like 100epochs"),
    ("schedule: 10epochs_150iterations", "schedule: 150iterations", 17, "schedule must be like 100epochs"),
    ("published: true", "publish: true", 20, "unknown key publish; did you mean published?"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), WRONG, ids=[f"{w[1].strip()}-{w[2]}" for w in WRONG])
def test_mistakes_name_their_line(tmp_path, capsys, old, new, line, message):
    assert old in GOOD
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace(old, new, 1))
    assert main(["study", "check", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(rf"study\.yaml:{line}: .*{re.escape(message)}", error), error
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]  # nothing was written


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Document(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(UserError, match=r"empty\.yaml:1: expected the keys name"):
        read_study(tmp_path / "empty.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(UserError, match="not a text file"):
        Document(tmp_path / "bytes.yaml")


NEEDS_DATA = [
    ("dataset: 901", "dataset: 902", 4, "dataset 902 is not in"),
    ("dataset: 901", "dataset: 901\n    folds: [2]", 5, "has folds 0 to 1, not 2"),
    ("dataset: 901", "dataset: 901\n    plans: Nobody", 5, "there are no plans Nobody"),
    (
        "dataset: 901",
        "dataset: Dataset901_Other",
        4,
        "number 901 belongs to Dataset901_Blobs, expected",
    ),
    ("dataset: 901", "dataset: 901\n    splits: none.json", 5, "none.json"),
    ("- nnUNetTrainer\n", "- nnUNetTrainer\n  - nnUNetTrainer:nnUNetPlans\n", 8, "are the same on dataset 901"),
    ("device: cpu", "device: cpu\nfolders: environment", 3, "needs nnU-Net's variables; nnUNet_raw"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), NEEDS_DATA, ids=[w[3] for w in NEEDS_DATA])
def test_mistakes_that_show_with_the_data(small, capsys, monkeypatch, old, new, line, message):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    small.file.write_text(small.file.read_text().replace(old, new, 1))
    assert main(["study", "check", str(small.file)]) == 1
    error = capsys.readouterr().err
    assert re.search(rf"study\.yaml:{line}: .*{re.escape(message)}", error), error


def test_a_split_file_that_differs_from_nnunets_is_refused(small, tmp_path, capsys):
    splits = json.loads((small.layout.preprocessed / "Dataset901_Blobs" / "splits_final.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps({"seed": 1, "splits_final": splits}))
    text = small.file.read_text().replace("dataset: 901", "dataset: 901\n    splits: mine.json")
    assert small.matrix(text).folds == [(0, 1)]
    (tmp_path / "mine.json").write_text(json.dumps(splits[::-1]))
    assert main(["study", "check", str(small.file)]) == 1
    assert "holds other folds than" in capsys.readouterr().err


def test_plans_that_are_there_with_other_numbers_are_refused(small):
    wanted = "dataset: 901\n    plans: {name: Small, patch: [64, 64]}"
    text = small.file.read_text().replace("dataset: 901", wanted)
    assert "preprocess/Dataset901_Blobs/Small__2d" in small.matrix(text).jobs
    folder = small.layout.preprocessed / "Dataset901_Blobs"
    (folder / "Small.json").write_text((folder / "nnUNetPlans.json").read_text())
    with pytest.raises(UserError, match=r"study.yaml:5: .*has patch \[32, 32\], the study asks for \[64, 64\]"):
        small.matrix(text)
