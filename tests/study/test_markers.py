"""What is done, what no longer is, what changed, and how fast all that is told."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.study.driver import pending_jobs
from nnunet_attn.study.inputs import Inputs
from nnunet_attn.study.locks import this_process
from nnunet_attn.study.markers import output_files, read_done, stamp
from nnunet_attn.study.states import FAILED, RUNNING, STALLED, STOPPED, THERE, read_states
from tests.study.conftest import Small, add_dataset, dead_process, log_text, own_folders

HEAVY = ("torch", "nnunetv2", "pandas", "numpy", "scipy", "snakemake", "matplotlib")


def test_a_training_is_done_until_its_outputs_are_gone(small):
    matrix = small.matrix()
    first, *others = matrix.trainings
    for job in matrix.trainings:
        small.train(matrix, job)
    done = read_done(matrix)
    assert set(done.markers) == {job.id for job in matrix.trainings}
    for name, word in (("validation/summary.json", "gone"), ("nnunet_attn_metrics.csv", "gone"),
                       ("checkpoint_final.pth", "gone")):  # fmt: skip
        (small.fold(first) / name).unlink()
        done = read_done(matrix)
        assert done.gone == {first.id: f"{name.rpartition('/')[2]} is {word}"}
        assert [job.id for job in pending_jobs(matrix, done).values() if job.kind == "train"] == [first.id]
        small.train(matrix, first)
    (small.fold(first) / "validation" / "summary.json").write_text("{}")
    (small.fold(others[0]) / "checkpoint_final.pth").write_bytes(b"other weights")
    assert read_done(matrix).gone == {
        first.id: "summary.json has changed", others[0].id: "checkpoint_final.pth has changed",
    }  # fmt: skip
    small.layout.marker(others[1].id).write_text('{"format": 1,')
    assert "its marker cannot be read" in read_done(matrix).gone[others[1].id]


def test_changed_inputs_flag_the_trainings_by_name_and_nothing_is_trained_again(small, capsys):
    matrix = small.matrix()
    for job in matrix.trainings:
        small.train(matrix, job)
    raw, folder = (f / "Dataset901_Blobs" for f in (small.layout.raw, small.layout.preprocessed))
    label = raw / "labelsTr" / "case003.png"
    label.write_text(label.read_text())  # the same content at another time
    assert read_done(small.matrix()).flags == {}
    label.write_text("corrected")
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["batch_size"] = 3
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    first, second = json.loads((folder / "splits_final.json").read_text())
    second["train"].pop()
    (folder / "splits_final.json").write_text(json.dumps([first, second]))
    matrix = small.matrix()
    done = read_done(matrix)
    assert {job: set(what) for job, what in done.flags.items()} == {
        job.id: {"images or labels", "the plans"} | ({"the cases of the fold"} if job.fold else set())
        for job in matrix.trainings
    }
    assert not pending_jobs(matrix, done)
    assert main(["study", "check", str(small.file)]) == 0
    assert f"changed: {matrix.trainings[0].id} was trained before" in capsys.readouterr().out


def test_results_of_others_are_seen_and_counted(small, capsys):
    """As of trainings with nnU-Net's own command in the same folders."""
    matrix = small.matrix()
    done, half, short, _ = matrix.trainings
    small.train(matrix, done, marker=False)
    small.train(matrix, short, marker=False)
    summary = small.fold(short) / "validation" / "summary.json"
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps({"metric_per_case": content["metric_per_case"][1:]}))  # a case is missing
    small.fold(half).mkdir(parents=True)
    (small.fold(half) / "training_log_2026_1_1_10_00_00.txt").write_text(log_text(1))
    states = read_states(matrix, read_done(matrix))
    assert [states[job.id].word for job in matrix.trainings] == [THERE, "waiting", "waiting", "waiting"]
    assert states[half.id].epoch == 1
    assert states[half.id].dice == 0.6
    assert main(["study", "check", str(small.file)]) == 0
    printed = capsys.readouterr().out
    assert "nnUNetTrainer         1 of 2" in printed
    assert "1 trainings were done outside this study" in printed
    # 2 + 1 + 2 epochs of 36 s behind us; 1 to come of the half trained, none of the other, 2 x 0 unknown
    assert "epochs so far: 0.1 h" in printed


def test_states_of_running_stalled_failed_and_killed_jobs(small, capsys):
    matrix = small.matrix()
    running, stalled, failed, killed = matrix.trainings
    for job in (running, stalled, killed):
        small.fold(job).mkdir(parents=True)
        (small.fold(job) / "training_log_2026_1_1_10_00_00.txt").write_text(log_text(1))
    small.layout.lock(running.id).write_text(json.dumps(this_process() | {"slurm_job": "77"}))
    small.layout.lock(stalled.id).write_text(json.dumps(this_process()))
    old = time.time() - 3600
    os.utime(small.fold(stalled) / "training_log_2026_1_1_10_00_00.txt", (old, old))
    future = time.time() + 3600  # the clock went back since
    os.utime(small.fold(running) / "training_log_2026_1_1_10_00_00.txt", (future, future))
    small.layout.lock(killed.id).write_text(json.dumps(this_process() | {"processes": {str(dead_process()): "1"}}))
    for job, code in ((failed, 1), (killed, None)):
        small.layout.state(job.id).parent.mkdir(parents=True, exist_ok=True)
        small.layout.state(job.id).write_text(json.dumps({"host": "node7", **({"exit_code": code} if code else {})}))
    small.layout.log(failed.id).parent.mkdir(parents=True)
    small.layout.log(failed.id).write_text("one\nRuntimeError: it broke\n")
    states = read_states(matrix, read_done(matrix))
    assert [states[job.id].word for job in matrix.trainings] == [RUNNING, STALLED, FAILED, STOPPED]
    assert main(["study", "status", str(small.file)]) == 0
    printed = capsys.readouterr().out
    assert "0 of 4 trainings done, 1 running, 1 stalled, 1 stopped, 1 failed, 0 waiting" in printed
    assert "epoch 1 of 2; pseudo Dice 0.600; 36 s left" in printed
    assert "Slurm job 77" in printed
    assert "its log has not changed for 60 min" in printed
    assert "    | RuntimeError: it broke" in printed
    assert main(["study", "status", "--json", str(small.file)]) == 0
    rows = {row["job"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[job.id]["state"] for job in matrix.trainings] == [RUNNING, STALLED, FAILED, STOPPED]
    first = rows[running.id]
    assert (first["epoch"], first["epochs"], first["seconds_left"], first["slurm_job"]) == (1, 2, 36, "77")
    assert first["pseudo_dice"] == pytest.approx(0.6)


MANY = "name: many\ndevice: cpu\ndatasets:\n{datasets}\nrows:\n{rows}\nrepeats: 3\nschedule: 2epochs\n"
ABLATIONS = ("", "_SGD", *(f"_lr{m}e4" for m in range(1, 9)))


@pytest.mark.parametrize("rows", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_2400_trainings_are_checked_in_seconds_without_heavy_imports(tmp_path, rows):
    """8 datasets, 5 folds, 3 repeats; by default a tenth of the rows."""
    names = [f"Dataset{d:03d}_Many" for d in range(1, 9)]
    layout = own_folders(tmp_path / "many")
    for name in names:
        add_dataset(layout, name, 250, 5)
    trainers = [f"  - nnUNetTrainer{n}{a}" for n in ("DCAUNet", "FIAS") for a in ABLATIONS][-rows:]
    file = tmp_path / "study.yaml"
    datasets = "\n".join(f"  - {{dataset: {d}, configuration: 2d}}" for d in range(1, 9))
    file.write_text(MANY.format(datasets=datasets, rows="\n".join(trainers)))
    small = Small(file, layout)
    matrix = small.matrix()
    assert len(matrix.trainings) == 120 * rows
    _fill(small, matrix)
    code = (
        "import sys\nfrom nnunet_attn.cli.main import main\n"
        f"code = main(['study', 'check', {str(file)!r}])\n"
        f"print([m for m in {HEAVY} if m in sys.modules], "
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
        "sys.exit(code)"
    )
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    elapsed = time.monotonic() - started
    processor = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("15 of 15") == 8 * rows
    heavy, _, memory = done.stdout.splitlines()[-1].rpartition(" ")
    assert heavy == "[]"
    assert int(memory) < 500 * 1024
    assert min(elapsed, 2 * processor) < 5.0  # others may be busy on this machine


def _fill(small, matrix) -> None:
    """All trainings done, with markers; written directly, since hashing 2,400 inputs one by one takes long."""
    inputs = Inputs(matrix, hash_files=True)
    scores = "dataset,trainer,fold,case,class,metric,value\n" + "Dataset001_Many,nnUNetTrainer,0,c,x,Dice,0.5\n" * 1000
    for job in matrix.trainings:
        small.train(matrix, job, marker=False, scores=scores)
        content = {
            "outputs": {p.name: stamp(p) for p in output_files(matrix.layout, job)}, "inputs": inputs.of(job),
            "log": {"epochs": 2, "epoch_seconds": 36.0, "hours": 0.02},
        }  # fmt: skip
        path = matrix.layout.marker(job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
