"""The run record ``fold_X/nnunet_attn_run.json``: what a comparison needs and nnU-Net's own files do not hold."""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_attn.files import sha256, write_json

Mixin: Any = object  # to mypy: with whatever the class's other base has

NAME = "nnunet_attn_run.json"
FROM_SCRATCH = "from scratch"
UNKNOWN = "unknown"
FILE_UNKNOWN = "weights loaded, file unknown"
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


def bare_network(network: nn.Module) -> nn.Module:
    """The network without the wrappers of DDP and torch.compile."""
    network = network.module if isinstance(network, DistributedDataParallel) else network
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def attention_lambdas(network: nn.Module) -> dict[str, float]:
    """Lambda of each differential attention, by the layer's name."""
    layers = [(name, getattr(layer, "attention_lambda", None)) for name, layer in network.named_modules()]
    return {name: compute().item() for name, compute in layers if compute is not None}


def attention_heads(network: nn.Module) -> dict[str, int]:
    """Number of heads of each attention, by the layer's name."""
    counts = [(name, getattr(layer, "heads", None)) for name, layer in network.named_modules()]
    return {name: count for name, count in counts if isinstance(count, int)}


def read_record(folder: str | Path) -> dict:
    """The run record in a fold's folder; empty where there is none."""
    path = Path(folder) / NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def fingerprint(network: nn.Module) -> list[float]:
    """Numbers that tell whether any weight or buffer of the network has changed."""
    state = bare_network(network).state_dict()
    return [t.cpu().double().sum().item() for t in state.values()]  # the device mps has no float64


def asked_weights(command: Sequence[str]) -> str | None:
    """The file that a command line of nnUNetv2_train hands to ``-pretrained_weights``; argparse takes shorter forms."""
    if Path(command[0]).stem not in ("nnUNetv2_train", "run_training"):
        return None
    for n, word in enumerate(command):
        flag, equals, value = word.partition("=")
        if flag.startswith("-pr") and "-pretrained_weights".startswith(flag):
            return value if equals else (*command, None)[n + 1]
    return None


class RunRecord:
    """One file per fold; each start or continuation of the training is a session in it.

    Content: ``trainer``, ``network``, ``network_kwargs``, ``recipe``, ``pretrained`` (see ``Recorded``),
    ``attention_heads`` by layer, ``sessions``:
    environment, command, first epoch, seconds per epoch, peak memory in bytes (allocated and reserved on the GPU, else
    null), ``attention_lambda`` by layer, a value per epoch.
    """

    def __init__(self, folder: Path, facts: dict, first_epoch: int, device: torch.device):
        self.path, self.device = Path(folder) / NAME, device
        self.content: dict[str, Any] = {"format": 1, **facts, "sessions": []}
        if first_epoch > 0:
            self.content["sessions"] = read_record(folder).get("sessions", [])
        self.session: dict[str, Any] = {
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

    def epoch_done(self, seconds: float, lambdas: dict[str, float]) -> None:
        """Add an epoch and write the file; ``lambdas``: ``attention_lambda`` of each layer that has one."""
        self.session["epoch_seconds"].append(round(seconds, 3))
        for layer, value in lambdas.items():
            self.session.setdefault("attention_lambda", {}).setdefault(layer, []).append(round(value, 6))
        if self.device.type == "cuda":
            self.session["peak_memory_allocated"] = torch.cuda.max_memory_allocated(self.device)
            self.session["peak_memory_reserved"] = torch.cuda.max_memory_reserved(self.device)
        write_json(self.path, self.content)


class Recorded(Mixin):
    """Mixin of trainers that write the run record; ``run_facts`` says what goes into it.

    Attributes:
        pretrained: Where the weights come from that the training starts with: "from scratch"; name, SHA-256 and report
            of a file, whether it was named to ``load_weights`` or to nnU-Net's ``-pretrained_weights``; "weights
            loaded, file unknown" where they changed between ``initialize`` and the start of the training; "unknown"
            after a continuation without a record.
    """

    run_record: RunRecord | None = None
    pretrained: str | dict = FROM_SCRATCH
    _restoring = False
    _initial: list[float] | None = None

    def initialize(self) -> None:
        """nnU-Net's set-up, then the weights that a fresh training starts with."""
        super().initialize()
        if not self._restoring:
            self.pretrained = self.load_weights()
        self._initial = fingerprint(self.network)

    def load_weights(self) -> str | dict:
        """Load what a fresh training starts with, and say what it was."""
        return FROM_SCRATCH

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        self._restoring = True
        super().load_checkpoint(filename_or_checkpoint)

    def origin_of_weights(self) -> str | dict:
        """What ``pretrained`` is at the start of the training, by all that has happened until then."""
        if self.current_epoch > 0:
            return read_record(self.output_folder).get("pretrained", UNKNOWN)
        if fingerprint(self.network) == self._initial:
            return self.pretrained
        file = asked_weights(sys.argv)
        if file is None or not Path(file).is_file():
            return FILE_UNKNOWN
        report = "the whole network but its segmentation layers, by nnU-Net's -pretrained_weights"
        return {"file": Path(file).name, "sha256": sha256(Path(file)), "report": report}

    def run_facts(self) -> dict:
        """What does not change from session to session."""
        network = type(bare_network(self.network))
        return {
            "trainer": type(self).__name__,
            "network": f"{network.__module__}.{network.__qualname__}",
            "recipe": {"initial_lr": self.initial_lr, "weight_decay": self.weight_decay},
            "num_epochs": self.num_epochs,
            "num_iterations_per_epoch": self.num_iterations_per_epoch,
            "batch_size": self.configuration_manager.batch_size,
            "patch_size": list(self.configuration_manager.patch_size),
            "compiled": self._do_i_compile(),
            "processes": torch.distributed.get_world_size() if self.is_ddp else 1,
            "pretrained": self.pretrained,
            "attention_heads": attention_heads(bare_network(self.network)),
        }

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        self.pretrained = self.origin_of_weights()
        super().on_train_start()
        if self.local_rank == 0:
            self.run_record = RunRecord(self.output_folder, self.run_facts(), self.current_epoch, self.device)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.run_record is not None:
            start = self.logger.get_value("epoch_start_timestamps", step=-1)
            seconds = self.logger.get_value("epoch_end_timestamps", step=-1) - start
            self.run_record.epoch_done(seconds, attention_lambdas(bare_network(self.network)))
