"""Which GPU a job takes, on a machine of its own and within Slurm."""

import pytest

from nnunet_attn.errors import UserError
from nnunet_attn.study import gpus
from nnunet_attn.study.driver import snakemake_arguments
from nnunet_attn.study.gpus import VARIABLE, free_gpus


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A machine with two GPUs."""
    monkeypatch.setenv(VARIABLE, "4,5")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpus, "lock_folder", lambda: tmp_path)
    return monkeypatch


@pytest.mark.parametrize("slurm", [False, True])
def test_each_job_takes_another_one(two, slurm):
    """Also of an allocation by Slurm that holds more than a job needs."""
    if slurm:
        two.setenv("SLURM_JOB_ID", "77")
    with free_gpus(1, print) as first, free_gpus(1, print) as second:
        assert [first[VARIABLE], second[VARIABLE]] == ["4", "5"]
    with free_gpus(1, print) as again:
        assert again[VARIABLE] == "4"


def test_what_slurm_gave_is_the_job_s(two):
    two.setenv("SLURM_JOB_ID", "77")
    with free_gpus(2, print) as all_of_them:
        assert all_of_them == {}


def test_too_few_are_told(two):
    with pytest.raises(UserError, match="needs 3 GPUs, and this machine has 2"), free_gpus(3, print):
        pass


def test_the_only_gpu_of_mps_trains_one_at_a_time(small):
    matrix = small.matrix(small.file.read_text().replace("device: cpu", "device: mps"))
    arguments = snakemake_arguments(matrix, small.file, [])
    assert arguments[arguments.index("--resources") + 1] == "gpu=1"
    assert {job.gpus for job in matrix.trainings} == {1}
