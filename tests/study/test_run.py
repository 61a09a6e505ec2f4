"""``study run`` with Snakemake itself (extra ``study``; skipped where it is not installed)."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.study import driver
from nnunet_attn.study.markers import read_done, write_marker
from tests.study.test_job import WRAPPER, fake, starts  # noqa: F401  the fixture

pytest.importorskip("snakemake")


@pytest.fixture
def faked(fake, monkeypatch):  # noqa: F811
    """A study whose jobs run the stand-in for nnU-Net."""
    wrapper = str(fake.file.parent / "wrapper.py")
    command = [sys.executable, wrapper, "study", "job", str(fake.file), "--folder", str(fake.layout.folder)]
    monkeypatch.setattr(driver, "job_command", lambda matrix: command)
    return fake


def test_a_study_runs_to_its_end_once(faked, capfd):
    matrix = faked.matrix(faked.file.read_text() + "repeats: 2\n")
    before = signal.getsignal(signal.SIGTERM)
    assert main(["study", "run", str(faked.file), "--", "--cores", "2"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before, "pools of processes forked from here could not be terminated"
    assert [starts(faked, job) for job in matrix.trainings] == [[[0, 1, 2]]] * 8
    assert "10 of 10 jobs done, 0 failed or stopped, 0 not started" in capfd.readouterr().err
    order = sorted(matrix.trainings, key=lambda job: faked.layout.marker(job.id).stat().st_mtime_ns)
    assert [(job.model.repeat, job.fold) for job in order] == [(1, 0)] * 2 + [(1, 1)] * 2 + [(2, 0)] * 2 + [(2, 1)] * 2
    assert main(["study", "run", str(faked.file)]) == 0
    assert "8 of 8 trainings done, 0 jobs to run" in capfd.readouterr().err
    (faked.fold(order[0]) / "validation" / "summary.json").unlink()
    assert main(["study", "run", str(faked.file), "--", "--cores", "1"]) == 0
    assert "1 of 1 jobs done" in capfd.readouterr().err
    assert starts(faked, order[0]) == [[0, 1, 2], []]


def test_a_trainer_that_raises_stops_nobody_else(faked, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_RAISE", "DCAUNet")
    matrix = faked.matrix()
    assert main(["study", "run", str(faked.file), "--", "--cores", "2"]) == 1
    assert [job.model.row for job in matrix.trainings if faked.layout.marker(job.id).is_file()] == [0, 0]
    error = capfd.readouterr().err
    assert error.count("  | RuntimeError: CUDA error: the card is on fire") == 2
    assert str(faked.layout.log(matrix.trainings[2].id)) in error
    assert "2 failed or stopped" in error
    monkeypatch.setenv("FAKE_RAISE", "-")
    assert main(["study", "run", str(faked.file), "--", "--cores", "2"]) == 0


def test_a_second_driver_and_a_dry_run(faked, capfd):
    from nnunet_attn.study.locks import held

    for word in ("--dry-run", "-np"):
        assert main(["study", "run", str(faked.file), "--", word]) == 0
        assert "priority_1" in "".join(capfd.readouterr())
        assert not (faked.layout.folder / "done").exists()
    with held(faked.layout.folder / "study.lock", "x"):
        assert main(["study", "run", str(faked.file)]) == 1
        assert f"the study short is being run by process {os.getpid()}" in capfd.readouterr().err


def test_retrain_trains_what_changed_and_keeps_the_old(faked, capfd):
    matrix = faked.matrix()
    for job in matrix.trainings:
        faked.train(matrix, job)
    plans = faked.layout.preprocessed / "Dataset901_Blobs" / "nnUNetPlans.json"
    content = json.loads(plans.read_text())
    content["configurations"]["2d"]["batch_size"] = 12
    plans.write_text(json.dumps(content))
    assert main(["study", "run", str(faked.file)]) == 0
    assert "these are kept; --retrain" in capfd.readouterr().err
    assert main(["study", "run", str(faked.file), "--retrain", "--", "--cores", "2"]) == 0
    assert read_done(matrix).flags == {}
    for job in matrix.trainings:
        assert starts(faked, job) == [[0, 1, 2]]
        assert (faked.fold(job).with_name(f"before-1.fold_{job.fold}") / "checkpoint_final.pth").is_file()


def write_prediction(faked, matrix, job) -> None:
    """A finished prediction's scores and marker."""
    scores = faked.layout.folder / job.id / "nnunet_attn_metrics.csv"
    scores.parent.mkdir(parents=True)
    scores.write_text("case,metric,value\n")
    write_marker(matrix, job, {})


def test_retrain_after_a_correction_trains_on_the_corrected_data(faked, capfd):
    """Also where the corrected label file is older than the copy that nnU-Net validates against."""
    text = faked.file.read_text().replace("configuration: 2d", "configuration: 2d\n    test: true")
    matrix = faked.matrix(text)
    raw, folder = (root / "Dataset901_Blobs" for root in (faked.layout.raw, faked.layout.preprocessed))
    for part, name in (("imagesTs", "test00_0000.png"), ("labelsTs", "test00.png")):
        (raw / part).mkdir()
        (raw / part / name).touch()
    run = ["study", "run", str(faked.file)]
    predictions = [job for job in matrix.jobs.values() if job.kind == "predict"]
    assert main(["study", "job", str(faked.file), matrix.trainings[0].needs[0]]) == 0
    for job in matrix.trainings:
        faked.train(matrix, job)
    for job in predictions:
        write_prediction(faked, matrix, job)
    before = [faked.layout.marker(job.id).read_text() for job in predictions]
    label = raw / "labelsTr" / "case003.png"
    label.write_text("corrected")
    os.utime(label, (1, 1))
    assert main(run) == 0
    said = capfd.readouterr().err
    assert said.count("preprocessed before images or labels changed") == 1
    assert said.count("trained before images or labels changed") == 4
    assert main([*run, "--retrain", "--", "--dry-run"]) == 1
    assert "cannot be part of a dry run" in capfd.readouterr().err
    assert main([*run, "--retrain", "--", "--cores", "2"]) == 0
    assert (folder / "nnUNetPlans_2d" / "case003.pkl").read_text() == "corrected"
    assert (folder / "gt_segmentations" / "case003.png").read_text() == "corrected"
    done = read_done(matrix)
    assert (done.flags, done.gone) == ({}, {})
    assert all(faked.fold(job).with_name(f"before-1.fold_{job.fold}").is_dir() for job in matrix.trainings)
    assert not {faked.layout.marker(job.id).read_text() for job in predictions} & set(before)


def test_a_training_on_data_that_were_preprocessed_before_a_correction_is_flagged(faked):
    matrix = faked.matrix()
    first, second, *_ = matrix.trainings
    for job in (first.needs[0], first.id):
        assert main(["study", "job", str(faked.file), job]) == 0
    (faked.layout.raw / "Dataset901_Blobs" / "labelsTr" / "case003.png").write_text("corrected")
    assert main(["study", "job", str(faked.file), second.id]) == 0
    jobs = (first.needs[0], first.id, second.id)
    assert read_done(matrix, hash_files=True).flags == {job: ["images or labels"] for job in jobs}


PHANTOM = """\
name: phantom
device: cpu
datasets:
  - dataset: 27
    convert: {converter: acdc, source: source, num_folds: 2}
    configuration: 2d
    plans: {name: Tiny, patch: [64, 64], batch: 2}
rows:
  - nnUNetTrainer
  - nnUNetTrainerXAttnResUNet
schedule: 2epochs_4iterations
repeats: 2
retries: 3
"""


@pytest.fixture
def phantom(tmp_path) -> Path:
    """A study of the cardiac phantom, nothing done yet."""
    from nnunet_attn.dataset_conversion.phantom import write_phantom

    write_phantom(tmp_path / "source", training=4, test=1)
    (tmp_path / "study.yaml").write_text(PHANTOM)
    return tmp_path / "study.yaml"


def begin(file: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "nnunet_attn.cli.main", "study", "run", str(file), "--", *more]
    log = file.with_name("driver.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=file.parent)


def trained_once(file: Path) -> list[str]:
    """Trainings that were not trained exactly once, by their logs: what each did twice or not at all."""
    problems = []
    for fold in sorted((file.parent / "phantom" / "nnUNet_results").glob("*/*/fold_*")):
        epochs = []
        for log in sorted(fold.glob("training_log_*.txt")):
            text = log.read_text()
            epochs += [(int(n), "ended") for n in re.findall(r"Epoch (\d+) \n(?:.*\n)*?.*Epoch time", text)]
        seen = [n for n, _ in epochs]
        if sorted(set(seen)) != [0, 1] or not (fold / "checkpoint_final.pth").is_file() or seen.count(0) > 2:
            problems.append(f"{fold.parent.name}/{fold.name}: {seen}")
    return problems


def pids_of(text: str) -> list[int]:
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if text in line and " ps " not in line]


@pytest.mark.slow
def test_the_phantom_with_kills_at_random_moments(phantom):
    """SIGKILL of the driver and of trainings; afterwards everything was trained once."""
    rng, kills = random.Random(os.environ.get("SEED", "1")), []
    driver_process = begin(phantom, "--cores", "2")
    deadline = time.monotonic() + 3600
    while time.monotonic() < deadline:
        time.sleep(rng.uniform(5, 20))
        if driver_process.poll() == 0:
            break
        trainings = [pid for pid in pids_of("nnUNetv2_train 27") if str(phantom.parent) in environment_of(pid)]
        if trainings and kills.count("training") <= kills.count("driver"):
            os.killpg(rng.choice(trainings), signal.SIGKILL)
            kills.append("training")
        elif trainings or kills.count("driver") < 2:  # most of them while something trains
            driver_process.kill()
            driver_process.wait()
            kills.append("driver")
            driver_process = begin(phantom, "--cores", "2")
        if len(kills) >= 8:
            break
    assert driver_process.wait(timeout=3600) == 0 or begin(phantom, "--cores", "2").wait(timeout=3600) == 0
    print(kills)
    assert {"driver", "training"} <= set(kills)
    assert trained_once(phantom) == []
    assert len(list((phantom.parent / "phantom" / "done" / "train").rglob("fold_*.json"))) == 8


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


SLURM = "--executor slurm --jobs 2 --slurm-no-account --slurm-status-command squeue --default-resources mem_mb=2000"
SLURM_FAST = "--slurm-init-seconds-before-status-checks 2"


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm")
def test_the_phantom_on_slurm_with_scancel_in_mid_training(phantom):
    """Jobs that are cancelled while they train go on in their next try."""
    process, cancelled = begin(phantom, *SLURM.split(), *SLURM_FAST.split()), []
    deadline = time.monotonic() + 3600
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(3)
        for lock in (phantom.parent / "phantom" / "nnUNet_results").glob("*/*/.fold_*.lock"):
            job = json.loads(lock.read_text()).get("slurm_job")
            logs = list(lock.with_name(lock.name[1:-5]).glob("training_log_*.txt"))
            if job and len(cancelled) < 3 and job not in cancelled and any("Epoch 1" in p.read_text() for p in logs):
                subprocess.run(["scancel", job], check=True)
                cancelled.append(job)
    assert process.wait(timeout=60) == 0
    assert len(cancelled) == 3
    assert trained_once(phantom) == []
