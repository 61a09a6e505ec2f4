"""Weights of stock nnU-Net for the host part of a network on nnU-Net's plans. Used once, in a fresh training.

nnU-Net's own ``-pretrained_weights`` refuses a file that lacks any of the network's keys outside the heads, so no
network with added modules can start from a stock checkpoint that way.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_attn.catalog import ENTRIES, STOCK_TRAINERS
from nnunet_attn.files import sha256
from nnunet_attn.training.pretrained import read_weights

HOST_VARIABLE = "NNUNET_ATTN_HOST_WEIGHTS"
HOSTS = "dynamic_network_architectures."
LEAST_SHARE = 0.5  # of the host's parameters that must fit


def refuse_host_weights(trainer: str) -> str:
    """One line on a trainer whose network has no host for the file that NNUNET_ATTN_HOST_WEIGHTS names."""
    able = ", ".join([*(e.trainer for e in ENTRIES if "n_stages" in e.arguments), *STOCK_TRAINERS])
    return (
        f"{HOST_VARIABLE} names weights for the network that nnU-Net plans, which {trainer} does not load; {able} do, "
        f"and nnU-Net's own trainers by -pretrained_weights. Unset the variable, or set it to none."
    )


def host_of(network: nn.Module, input_channels: int, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of nnU-Net's that ``network`` is or extends, with the same arguments, on the device "meta".

    Args:
        network: Of a class that has nnU-Net's among its bases.
        input_channels: Channels of the image.
        num_classes: Channels of the logits.
        arguments: Of the plans; those that only ``network`` takes are left out.
    """
    host: Any = next(cls for cls in type(network).__mro__ if cls.__module__.startswith(HOSTS))
    taken = inspect.signature(host).parameters
    with torch.device("meta"):
        fitting = {k: v for k, v in arguments.items() if k in taken}
        return host(input_channels=input_channels, num_classes=num_classes, **fitting)


@dataclass(frozen=True)
class Fit:
    """How a file fits a network, by names of parameters; one that a network holds under several names counts once.

    Attributes:
        loaded: Taken from the file.
        new: Of the network, not in the file.
        unfitting: Of another shape in the file, with both shapes.
        unused: In the file, not of the network.
        share: Share of the host's parameters (numbers, not tensors) that were taken.
    """

    loaded: list[str]
    new: list[str]
    unfitting: dict[str, str]
    unused: list[str]
    share: float

    def lines(self) -> list[str]:
        """The report, one line for each kind of key."""
        lines = [f"{len(self.loaded)} tensors loaded, {self.share:.1%} of the host's parameters"]
        kinds = {
            "not in the file, start as without it": self.new,
            "of another shape in the file, start as without it": [f"{k} {v}" for k, v in self.unfitting.items()],
            "in the file, not of this network": self.unused,
        }
        return lines + [f"{len(keys)} {kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def load_host(network: nn.Module, host: nn.Module, path: Path) -> dict:
    """Load what fits into ``network`` by name and shape, the heads included; returns what the run record holds.

    Args:
        network: Changed only if the file is accepted.
        host: The same network without what we added; see ``host_of``.
        path: A checkpoint of nnU-Net's or a state dict.

    Raises:
        FileNotFoundError, ValueError: see ``read_weights``.
        ValueError: less than half of the host's parameters fit.
    """
    path = Path(path)
    weights = read_weights(path)
    own = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    fit = compare(network, host, weights, fitting)
    if fit.share < LEAST_SHARE:
        wrong = [f"{key} {shapes}" for key, shapes in fit.unfitting.items()] or [f"{k}: missing" for k in fit.new]
        raise ValueError(
            f"{path}: only {fit.share:.1%} of the parameters of the host, {type(host).__name__}, are in this file with "
            f"name and shape, at least {LEAST_SHARE:.0%} must be; for example {wrong[0]}. Give a checkpoint that was "
            f"trained with the same plans, or unset {HOST_VARIABLE}"
        )
    network.load_state_dict(fitting, strict=False)
    return {
        "file": path.name,
        "sha256": sha256(path),
        "report": f"host weights: {fit.lines()[0]}",
        "loaded": fit.loaded,
        "new": fit.new,
        "unfitting": fit.unfitting,
        "unused": fit.unused,
        "lines": fit.lines(),
    }


def compare(
    network: nn.Module, host: nn.Module, weights: Mapping[str, torch.Tensor], fitting: Mapping[str, torch.Tensor]
) -> Fit:
    """How ``weights``, of which ``fitting`` can be loaded, fit the network and its host."""
    own = network.state_dict()
    names = [name for name, _ in (*network.named_parameters(), *network.named_buffers()) if name in own]
    host_sizes = {name: tensor.numel() for name, tensor in host.named_parameters()}
    return Fit(
        loaded=[name for name in names if name in fitting],
        new=[name for name in names if name not in weights],
        unfitting={
            name: f"({_shape(weights[name])} in the file, {_shape(own[name])} here)"
            for name in names
            if name in weights and name not in fitting
        },
        unused=sorted(name for name in weights if name not in own),
        share=sum(size for name, size in host_sizes.items() if name in fitting) / sum(host_sizes.values()),
    )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "scalar"
