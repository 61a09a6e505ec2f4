"""The catalogue's networks as the tests build them: a small image and, where depth only costs time, fewer blocks."""

import pydoc
from dataclasses import dataclass, field

import torch
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.catalog import Entry
from nnunet_attn.training.base import merged


@dataclass(frozen=True)
class Small:
    """How a network is tested; the defaults serve for most.

    Attributes:
        size: A small image, of a size that is no multiple of anything where the network takes such.
        arguments: Arguments that make the network shallow where a test takes long and depth adds nothing to it.
        gradient_free: Patterns (``re.fullmatch``) of parameters whose gradient is zero by construction, with the
            reason in the network's docstring.
    """

    size: tuple[int, ...] = (40, 56)
    arguments: dict[str, object] = field(default_factory=dict)
    gradient_free: tuple[str, ...] = ()


DUAL_CROSS_ATTENTION_BIASES = (
    r"skips\.(\d\.)?project\.\d\.bias",
    r"skips\.(\d\.)?blocks\.0\.attentions\.1\.maps\.\d\.(value|output)\.bias",
)
EMCAD_BIASES = (r"decoder\.gates\.\d+\.(signal|feature|gate)\.0\.bias",)

# by trainer, else by family
SMALL = {
    "dcau_net": Small(arguments={"depths": (1, 1, 1, 1)}, gradient_free=(r"encoder\.stages\.3\.2\.mlp\.2\.bias",)),
    "nnUNetTrainerDiffCA": Small((64, 96), arguments={"min_stride": 16}),
    "dual_cross_attention": Small(gradient_free=DUAL_CROSS_ATTENTION_BIASES),
    "nnUNetTrainerDualCA": Small((64, 96), gradient_free=DUAL_CROSS_ATTENTION_BIASES),
    "fias": Small(gradient_free=(r"encoder\.stages\.[012]\.downsample\.proj\.0\.bias",)),
    "nnUNetTrainerMixAtt": Small((64, 96), arguments={"min_stride": 16}),
    "emcad": Small(gradient_free=EMCAD_BIASES),
    "nnUNetTrainerXAttnRes": Small((64, 96), gradient_free=(r"x_(enc|dec)\.\d+\.scale", r".*\.conv\.bias")),
    "nnUNetTrainerXAttnResUNet": Small(
        gradient_free=(
            r"x_(enc|dec)\.\d+\.scale",
            r"x_enc\.1\.query",
            r"(encoder|decoder\.stages)\.\d+\.[03]\.bias",
        )
    ),
    "nnUNetTrainerXAttnResEMCAD": Small(gradient_free=(r"decoder\.x_.*scale", *EMCAD_BIASES)),
}


BY_INDUCTOR = {"nnUNetTrainerXAttnRes", "nnUNetTrainerDualCA", "nnUNetTrainerDiffCA"}
"""Whose graphs test_inductor counts in the default run; of the others, which take minutes each, test_networks does."""


def small(entry: Entry) -> Small:
    return SMALL.get(entry.trainer) or SMALL.get(entry.family) or Small()


def resolved_arguments(entry: Entry) -> dict[str, object]:
    """The entry's arguments with dotted names of classes (``torch.nn.Conv2d``) replaced by the classes."""
    dotted = {k: pydoc.locate(v) for k, v in entry.arguments.items() if isinstance(v, str) and v.startswith("torch.")}
    return entry.arguments | dotted


def build(entry: Entry, trainer: str | None = None, *, channels: int = 2, classes: int = 3, **kwargs) -> nn.Module:
    """The network of a trainer of ``entry``, in the plans' stead with the entry's own arguments."""
    cls = getattr(trainers, trainer or entry.trainer)
    network = pydoc.locate(cls.network)
    return network(channels, classes, **(resolved_arguments(entry) | merged(cls, "network_kwargs") | kwargs))


def image(entry: Entry, *, batch: int = 2, channels: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, *small(entry).size, generator=torch.Generator().manual_seed(0))


def several_heads(entry: Entry) -> bool:
    return getattr(trainers, entry.trainer).deep_supervision
