"""The run record ``fold_X/nnunet_attn_run.json``: what a comparison needs and nnU-Net's own files do not hold."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from nnunet_attn.files import write_json

NAME = "nnunet_attn_run.json"
PACKAGES = ("nnunet-attn", "nnunetv2", "torch", "dynamic-network-architectures", "timm", "numpy")


def git_revision() -> str | None:
    """Revision of the checkout that this package runs from (with "+" if it was changed); None for an installed copy."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        revision = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return revision.stdout.strip()


def environment(device: torch.device) -> dict:
    """Versions and hardware of this process."""
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "git_revision": git_revision(),
    }


class RunRecord:
    """One file per fold; each start or continuation of the training is a session in it.

    Content: ``trainer``, ``network``, ``network_kwargs``, ``recipe``, ``pretrained`` ("from scratch" or the file's name
    and SHA-256), ``sessions``: environment, command, first epoch, seconds per epoch, peak memory in bytes
    (allocated and reserved on the GPU, else null).
    """

    def __init__(self, folder: Path, facts: dict, first_epoch: int, device: torch.device):
        self.path, self.device = Path(folder) / NAME, device
        self.content = {"format": 1, **facts, "sessions": []}
        if first_epoch > 0 and self.path.is_file():
            before = json.loads(self.path.read_text(encoding="utf-8"))
            self.content["sessions"] = before["sessions"]
            self.content["pretrained"] = before["pretrained"]
        self.session = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "environment": environment(device),
            "first_epoch": first_epoch,
            "epoch_seconds": [],
            "peak_memory_allocated": None,
            "peak_memory_reserved": None,
        }
        self.content["sessions"].append(self.session)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        write_json(self.path, self.content)

    def epoch_done(self, seconds: float) -> None:
        """Add an epoch and write the file."""
        self.session["epoch_seconds"].append(round(seconds, 3))
        if self.device.type == "cuda":
            self.session["peak_memory_allocated"] = torch.cuda.max_memory_allocated(self.device)
            self.session["peak_memory_reserved"] = torch.cuda.max_memory_reserved(self.device)
        write_json(self.path, self.content)
