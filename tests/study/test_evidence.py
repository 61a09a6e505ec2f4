"""The study files of the repository name trainers that exist, and read as they are meant."""

from pathlib import Path

import pytest

from nnunet_attn.study.study_file import read_study

STUDIES = sorted((Path(__file__).parents[2] / "studies").rglob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_study_files_are_valid(file):
    study = read_study(file)
    assert len(study.rows) >= 2
    assert all(choice.splits is None or choice.splits.is_file() for choice in study.datasets)
