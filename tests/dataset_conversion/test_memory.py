"""Large pictures are converted one at a time: the memory does not grow with their number."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_attn.dataset_conversion.target import read_record

SIZE = (5600, 4000)


def memory(process: int) -> int:
    """Proportional memory of a process and what it started, in bytes: shared pages count once."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True).stdout.split()
    children: dict[int, list[int]] = {}
    for child, parent in zip(map(int, listed[::2]), map(int, listed[1::2]), strict=True):
        children.setdefault(parent, []).append(child)
    total, todo = 0, [process]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except OSError:
            pass
    return total


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_isic_2017_in_bounded_memory(tmp_path, nnunet_folders):
    """NNUNET_ATTN_PICTURES sets how many; the whole dataset has 2,750."""
    count = int(os.environ.get("NNUNET_ATTN_PICTURES", "12"))
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    picture = np.stack([(x // 7) % 256, (y // 5) % 256, (x + y) // 40 % 256], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.jpg", quality=80)
    mask = ((x - 2800) ** 2 + (y - 2000) ** 2 < 1200**2).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    source = tmp_path / "source"
    data, truth = source / "ISIC-2017_Training_Data", source / "ISIC-2017_Training_Part1_GroundTruth"
    data.mkdir(parents=True)
    truth.mkdir()
    for i in range(count):
        (data / f"ISIC_{i:07d}.jpg").hardlink_to(tmp_path / "picture.jpg")
        (data / f"ISIC_{i:07d}_superpixels.png").hardlink_to(tmp_path / "mask.png")
        (truth / f"ISIC_{i:07d}_segmentation.png").hardlink_to(tmp_path / "mask.png")
    command = [
        sys.executable,
        "-m",
        "nnunet_attn.cli.main",
        "convert",
        "isic2017",
        str(source),
        "33",
        "--processes",
        "2",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0
    record = read_record(nnunet_folders / "Dataset033_ISIC2017")
    assert record["cases"] == {"train": count}
    print(f"peak of {count} pictures: {peak / 1e6:.0f} MB")
    assert peak < 1e9
    shutil.rmtree(nnunet_folders / "Dataset033_ISIC2017")
