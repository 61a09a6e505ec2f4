"""One job, from lock to marker, with every fault that it must survive; nnU-Net is ``fake_nnunet.py``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.study import commands
from nnunet_attn.study.commands import Stopped
from nnunet_attn.study.job import Run, run_job
from nnunet_attn.study.markers import read_done, write_marker
from nnunet_attn.study.states import log_facts
from nnunet_attn.study.train import other_training

FAKE = Path(__file__).with_name("fake_nnunet.py")
WRAPPER = """\
import sys
from nnunet_attn.study import commands
commands.find_command = {bin!r}.__add__
from nnunet_attn.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def fake(small, tmp_path, monkeypatch):
    """Commands named as nnU-Net's that run the stand-in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    words = {f"nnUNetv2_{word}": word for word in ("preprocess", "train", "predict")} | {"nnunet-attn": ""}
    for name, word in words.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} {word} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setattr(commands, "find_command", lambda name: str(folder / name))
    (tmp_path / "wrapper.py").write_text(WRAPPER.format(bin=f"{folder}/"))
    return small


def start(small, job, **environment) -> subprocess.Popen:
    command = [sys.executable, str(small.file.parent / "wrapper.py"), "study", "job", str(small.file), job.id]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(small, job, epoch: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        texts = [path.read_text() for path in small.fold(job).glob("training_log_*.txt")]
        if any(f"Epoch {epoch}\n" in text for text in texts):
            return
        time.sleep(0.02)
    pytest.fail(f"epoch {epoch} was never begun")


def starts(small, job) -> list[list[int]]:
    logs = sorted(small.fold(job).glob("training_log_*.txt"))
    return [[int(n) for n in re.findall(r"Epoch (\d+)\n", log.read_text())] for log in logs]


def test_a_job_trains_scores_and_marks(fake, capsys):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1, 2]]
    marker = json.loads(fake.layout.marker(job.id).read_text())
    assert marker["log"] | {"epoch_seconds": 1.0} == marker["log"]
    assert set(marker["outputs"]) == {"checkpoint_final.pth", "summary.json", "nnunet_attn_metrics.csv"}
    assert not fake.layout.state(job.id).exists()
    assert not fake.layout.lock(job.id).exists()
    log = fake.layout.log(job.id).read_text()
    assert "nnUNetv2_train 901 2d 0 -tr nnUNetTrainer_2epochs_4iterations -p nnUNetPlans -device cpu\n" in log
    assert "threads 1 workers 0" in log
    assert run_job(matrix, job.id) == 0  # all there: nothing is trained or scored again
    assert starts(fake, job) == [[0, 1, 2]]
    assert fake.layout.log(job.id).read_text() == log
    assert main(["study", "job", str(fake.file), "train/nobody"]) == 1
    assert "has no job train/nobody" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_asked_to_end_takes_its_training_along_and_goes_on_later(fake, number):
    """As by ``scancel``, the wall time, or Ctrl-C."""
    matrix = fake.matrix()
    job = matrix.trainings[0]
    process = start(fake, job, FAKE_SLEEP="1")
    wait_for_epoch(fake, job, 1)
    process.send_signal(number)
    assert process.wait(timeout=30) == 143
    assert "stopped; continues when the study is run again" in process.stderr.read()
    before = starts(fake, job)
    time.sleep(1.5)
    assert starts(fake, job) == before  # the training has ended, too
    assert not fake.layout.lock(job.id).exists()
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1], [1, 2]]


def test_a_job_that_is_killed_leaves_its_training_alone_and_the_next_waits_for_it(fake):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    process = start(fake, job, FAKE_SLEEP="0.7")
    wait_for_epoch(fake, job, 0)
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1, 2]]
    log = fake.layout.log(job.id).read_text()
    assert "waiting for it" in log
    assert "left behind by" in log


def test_a_training_that_is_killed_fails_and_goes_on_later(fake):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    process = start(fake, job, FAKE_SLEEP="1")
    wait_for_epoch(fake, job, 1)
    lock = json.loads(fake.layout.lock(job.id).read_text())
    (training,) = (int(pid) for pid in lock["processes"] if int(pid) != process.pid)
    os.killpg(training, signal.SIGKILL)
    assert process.wait(timeout=30) == 137
    assert "nnUNetv2_train was ended by signal 9" in process.stderr.read()
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1], [1, 2]]


def test_a_fold_that_somebody_else_trains_is_left_alone(fake, capsys):
    """As by nnU-Net's own command in folders that the study shares."""
    matrix = fake.matrix()
    job = matrix.trainings[0]
    words = ["901", "2d", "0", "-tr", job.model.trainer, "-p", "nnUNetPlans"]
    code = "import time; time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", code, "nnUNetv2_train", *words], env=os.environ | fake.layout.environment()
    )
    try:
        time.sleep(0.5)
        assert run_job(matrix, job.id) == 1
        assert f"process {other.pid} already trains this fold" in capsys.readouterr().err
        assert not fake.fold(job).exists()
    finally:
        other.kill()
        other.wait()
    assert run_job(matrix, job.id) == 0


def half(path: Path) -> None:
    """As a kill during writing leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [half, damaged])
def test_a_corrupt_checkpoint_is_set_aside_and_the_best_one_taken(fake, harm):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    fold = fake.fold(job)
    assert run_job(matrix, job.id) == 0
    shutil.copy(fold / "checkpoint_final.pth", fold / "checkpoint_latest.pth")
    (fold / "checkpoint_final.pth").unlink()
    harm(fold / "checkpoint_latest.pth")
    (fold / "checkpoint_best.pth.tmp").write_bytes(b"half")
    import tests.study.fake_nnunet as fake_nnunet

    fake_nnunet.save(fold / "checkpoint_best.pth", 1)
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1, 2], [1, 2]]
    assert (fold / "checkpoint_latest.pth.corrupt-1").is_file()
    assert not (fold / "checkpoint_best.pth.tmp").exists()
    log = fake.layout.log(job.id).read_text()
    assert "set aside as checkpoint_latest.pth.corrupt-1" in log
    assert "continues from checkpoint_best.pth" in log


def test_without_a_readable_checkpoint_the_fold_begins_anew_and_the_old_one_is_kept(fake):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    assert run_job(matrix, job.id) == 0
    fold = fake.fold(job)
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        half(fold / name)
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1, 2]]
    assert log_facts(fold)["starts_from_0"] == 1
    aside = fold.with_name("aside-1.fold_0")
    assert (aside / "checkpoint_best.pth.corrupt-1").is_file()
    from nnunet_attn.scoring.folders import folds_in

    assert folds_in(fold.parent) == ("0",)


def test_a_validation_deleted_by_hand_is_made_again_without_training(fake):
    matrix = fake.matrix()
    for job in matrix.trainings:
        assert run_job(matrix, job.id) == 0
    job, *others = matrix.trainings
    (fake.fold(job) / "validation" / "summary.json").unlink()
    assert list(read_done(matrix).gone) == [job.id]
    assert run_job(matrix, job.id) == 0
    assert starts(fake, job) == [[0, 1, 2], []]
    assert "--val" in fake.layout.log(job.id).read_text()
    assert all(starts(fake, other) == [[0, 1, 2]] for other in others)


@pytest.mark.parametrize("checkpoint", ["final", "best"])
def test_the_test_set_is_predicted_by_the_checkpoint_that_the_study_names(fake, checkpoint):
    text = fake.file.read_text().replace("configuration: 2d", "configuration: 2d\n    test: true")
    matrix = fake.matrix(f"{text}checkpoint: {checkpoint}\n")
    raw = fake.layout.raw / matrix.names[0]
    for part, name in (("imagesTs", "test00_0000.png"), ("labelsTs", "test00.png")):
        (raw / part).mkdir()
        (raw / part / name).touch()
    job = next(job for job in matrix.jobs.values() if job.kind == "predict")
    for training in job.needs:
        assert run_job(matrix, training) == 0
    assert run_job(matrix, job.id) == 0
    output = fake.layout.folder / job.id
    assert (output / "test00.png").read_text() == f"checkpoint_{checkpoint}.pth"
    assert "test00,ring,Dice,0.5" in (output / "nnunet_attn_metrics.csv").read_text()
    assert ("-chk checkpoint_best.pth" in fake.layout.log(job.id).read_text()) is (checkpoint == "best")


def test_encoder_weights_go_to_the_rows_that_take_them(fake, monkeypatch):
    """All rows of a study see one environment; the others would refuse the file."""
    monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", "/weights/encoder.pth")
    for job in fake.matrix().trainings:
        assert run_job(fake.matrix(), job.id) == 0
        wanted = "/weights/encoder.pth" if "DCAUNet" in job.model.trainer else "none"
        (log,) = fake.fold(job).glob("training_log_*.txt")
        assert f"weights {wanted}\n" in log.read_text()


def test_predictions_of_another_checkpoint_are_made_again(fake):
    text = fake.file.read_text().replace("configuration: 2d", "configuration: 2d\n    test: true")
    matrix = fake.matrix(text)
    job = next(job for job in matrix.jobs.values() if job.kind == "predict")
    for training in job.needs:
        assert run_job(matrix, training) == 0
    scores = fake.layout.folder / job.id / "nnunet_attn_metrics.csv"
    scores.parent.mkdir(parents=True)
    scores.write_text("case,metric,value\n")
    write_marker(matrix, job, {})
    assert job.id in read_done(matrix).markers
    assert "another checkpoint" in read_done(fake.matrix(f"{text}checkpoint: best\n")).gone[job.id]


@pytest.mark.parametrize("change", ["log", "scores"])
def test_a_fold_of_another_split_is_not_continued(change, fake, capsys):
    """Validation would overwrite its scores with those of cases that it may have trained on."""
    matrix = fake.matrix()
    job = matrix.trainings[0]
    assert run_job(matrix, job.id) == 0
    fold = fake.fold(job)
    summary = fold / "validation" / "summary.json"
    if change == "scores":
        scored = json.loads(summary.read_text())
        scored["metric_per_case"].pop()
        summary.write_text(json.dumps(scored))
    else:
        summary.unlink()
        (log,) = fold.glob("training_log_*.txt")
        log.write_text(f"2026-01-01 10:00:00: This split has 99 training and 1 validation cases.\n{log.read_text()}")
    before = summary.read_bytes() if summary.exists() else None
    assert run_job(matrix, job.id) == 1
    assert "was trained on another split" in fake.layout.log(job.id).read_text()
    assert (summary.read_bytes() if summary.exists() else None) == before


@pytest.mark.parametrize(("trainer", "words", "trains"), [
    ("nnUNetTrainer", [], True), ("nnUNetTrainer", ["-tr", "nnUNetTrainer"], True),
    ("nnUNetTrainer", ["-p", "OtherPlans"], False), ("nnUNetTrainerDCAUNet", [], False),
])  # fmt: skip
def test_nnunets_defaults_are_known_of_a_training_outside_the_study(trainer, words, trains, fake, tmp_path):
    (script := tmp_path / "nnUNetv2_train").write_text("import time; print('began', flush=True); time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, str(script), "901", "2d", "0", *words],
        env=os.environ | fake.layout.environment(), stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout.readline()
        wanted = {"0", "2d", trainer, "nnUNetPlans"}
        found = other_training(fake.layout.results, "Dataset901_Blobs", wanted)
        other.kill()
    assert (found == other.pid) is trains


def test_the_same_fold_of_another_dataset_may_be_in_training(fake, tmp_path):
    """With nnU-Net's command, outside the study; of the same dataset it is not trained twice."""
    matrix = fake.matrix()
    job = matrix.trainings[0]
    script = tmp_path / "nnUNetv2_train"
    script.write_text("import time; print('began', flush=True); time.sleep(60)")
    for number in ("27", "Dataset027_Blobs", "901", "Dataset901_Blobs"):
        words = [number, "2d", "0", "-tr", job.model.trainer, "-p", "nnUNetPlans"]
        with subprocess.Popen(
            [sys.executable, str(script), *words], env=os.environ | fake.layout.environment(), stdout=subprocess.PIPE
        ) as other:
            assert other.stdout.readline()
            assert run_job(matrix, job.id) == int("901" in number)
            other.kill()
        log = fake.layout.log(job.id).read_text()
        assert (f"process {other.pid} already trains this fold" in log) is ("901" in number)


def test_scores_of_another_validation_are_made_again(fake):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    assert run_job(matrix, job.id) == 0
    scores = fake.fold(job) / "nnunet_attn_metrics.csv"
    good = scores.read_text()
    scores.write_text(good.replace("0.5", "0.6"))
    assert run_job(matrix, job.id) == 0
    assert scores.read_text() == good


def test_a_trainer_that_raises_leaves_its_last_lines(fake, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_RAISE", "DCAUNet")
    matrix = fake.matrix()
    codes = [run_job(matrix, job.id) for job in matrix.trainings]
    assert codes == [0, 0, 1, 1]
    failed = matrix.trainings[2]
    attempt = json.loads(fake.layout.state(failed.id).read_text())
    assert attempt["exit_code"] == 1
    assert "nnUNetv2_train failed with exit code 1" in attempt["reason"]
    assert main(["study", "status", str(fake.file)]) == 0
    printed = capsys.readouterr().out
    assert "2 of 4 trainings done, 2 failed, 0 waiting" in printed
    assert "RuntimeError: CUDA error: the card is on fire" in printed


def test_a_full_disk_is_named_and_the_job_goes_on_when_there_is_room(fake, tmp_path, capsys):
    matrix = fake.matrix()
    job = matrix.trainings[0]
    results = fake.layout.results
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(results)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        assert run_job(matrix, job.id) == 1
        assert f"the disk of {results} is full" in capsys.readouterr().err
        assert "No space left on device" in fake.layout.log(job.id).read_text()
        subprocess.run(["mount", "-o", "remount,size=64m", str(results)], check=True)
        assert run_job(matrix, job.id) == 0
        assert (fake.fold(job) / "checkpoint_final.pth").is_file()
    finally:
        subprocess.run(["umount", str(results)], check=True)


def test_the_folds_of_the_study_survive_planning(small, monkeypatch):
    """nnU-Net's planner copies the raw dataset's split file, and fails where other folds lie already."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import _maybe_copy_splits_file

    folder = small.layout.preprocessed / "Dataset901_Blobs"
    splits, raw = folder / "splits_final.json", small.layout.raw / folder.name / "splits_final.json"
    wanted = json.loads(splits.read_text())
    splits.unlink()
    raw.write_text(json.dumps([{part: fold[part][::-1] for part in fold} for fold in wanted[::-1]]))
    (small.file.parent / "mine.json").write_text(json.dumps(wanted))
    text = small.file.read_text().replace("dataset: 901", "dataset: 901\n    splits: mine.json")
    made = json.loads((folder / "nnUNetPlans.json").read_text())
    for plans in ("nnUNetPlans", "nnUNetResEncUNetMPlans"):
        (folder / f"{plans}.json").unlink(missing_ok=True)
        for stop in (True, False):

            def planner(run, *words, plans=plans, stop=stop, **environment):
                _maybe_copy_splits_file(str(raw), str(splits))
                if stop:
                    raise Stopped
                (folder / f"{plans}.json").write_text(json.dumps(made))

            monkeypatch.setattr(Run, "command", planner)
            matrix = small.matrix(text.replace("nnUNetTrainerDCAUNet", f"nnUNetTrainerDCAUNet:{plans}"))
            job = next(job for job in matrix.jobs.values() if job.kind == "plan")
            assert run_job(matrix, job.id) == (143 if stop else 0)
        assert json.loads(splits.read_text()) == wanted
