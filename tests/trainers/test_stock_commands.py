"""nnU-Net's own commands in processes of their own, as a user runs them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BIN = Path(sys.executable).parent
TRAINER = "nnUNetTrainerStockAdamW"


def command(name: str, *arguments: str, data, **kwargs) -> subprocess.Popen:
    """Start one of nnU-Net's commands with only its three folders set, and what keeps it small."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet", "NNUNET"))}
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        environment[folder] = str(data.root / folder)
    environment |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1"}
    log = (data.root / f"{name}.log").open("a")
    return subprocess.Popen([BIN / name, *arguments], env=environment, stdout=log, stderr=log, **kwargs)


def run(name: str, *arguments: str, data) -> None:
    assert command(name, *arguments, data=data).wait() == 0, (data.root / f"{name}.log").read_text()[-3000:]


def test_train_and_predict(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    name = f"{TRAINER}_1epoch_2iterations"
    run("nnUNetv2_train", "901", "2d", "0", "-tr", name, "-device", "cpu", data=data)
    fold = data.root / "nnUNet_results" / data.name / f"{name}__nnUNetPlans__2d" / "fold_0"
    assert json.loads((fold / "validation" / "summary.json").read_text())["metric_per_case"]
    run(
        "nnUNetv2_predict", "-i", str(data.raw / "imagesTs"), "-o", str(tmp_path / "out"), "-d", "901", "-c", "2d",
        "-f", "0", "-tr", name, "-device", "cpu", "-npp", "1", "-nps", "1", data=data,
    )  # fmt: skip
    assert np.array(Image.open(tmp_path / "out" / "test00.png")).shape == (40, 56)


def sessions(fold: Path) -> list[dict]:
    path = fold / "nnunet_attn_run.json"
    return json.loads(path.read_text())["sessions"] if path.is_file() else []


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")
@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_at_any_moment_then_continued(kills, images_2d, tmp_path):
    """kill -9 of the whole process group at random moments; --c goes on from the last complete checkpoint."""
    data = images_2d.copy(tmp_path)
    name = f"{TRAINER}_16epochs_1iterations"
    fold = data.root / "nnUNet_results" / data.name / f"{name}__nnUNetPlans__2d" / "fold_0"
    arguments = ("901", "2d", "0", "-tr", name, "-device", "cpu")
    rng = random.Random(0)
    for attempt in range(kills):
        seen = sum(len(session["epoch_seconds"]) for session in sessions(fold))
        process = command(
            "nnUNetv2_train", *arguments, *(["--c"] if attempt else []), data=data, start_new_session=True
        )
        deadline = time.monotonic() + 50
        while sum(len(s["epoch_seconds"]) for s in sessions(fold)) < seen + 2 and time.monotonic() < deadline:
            assert process.poll() is None, (data.root / "nnUNetv2_train.log").read_text()[-3000:]
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert (fold / "checkpoint_latest.pth").is_file() or (fold / "checkpoint_final.pth").is_file()
    run("nnUNetv2_train", *arguments, "--c", data=data)
    starts = [session["first_epoch"] for session in sessions(fold)]
    assert starts[0] == 0
    assert len(starts) == kills + 1
    assert all(1 <= a <= b < 16 for a, b in pairwise([1, *starts[1:]]))
    last = sessions(fold)[-1]
    assert last["first_epoch"] + len(last["epoch_seconds"]) == 16
    assert (fold / "checkpoint_final.pth").is_file()
