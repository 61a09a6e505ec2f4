"""The weights that a fresh training of ours starts with: of an encoder, or of the host of a network on plans."""

import os
import pydoc
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_attn.files import named_file, sha256
from nnunet_attn.training.host_weights import HOST_VARIABLE, host_of, load_host, refuse_host_weights
from nnunet_attn.training.pretrained import (
    PRETRAINED_VARIABLE,
    cannot_take_weights,
    load_encoder,
    published_weights,
)
from nnunet_attn.training.record import FROM_SCRATCH

Mixin: Any = object  # to mypy: with whatever the class's other base has


def planned_arguments(configuration_manager: ConfigurationManager) -> dict:
    """Arguments of the network that the plans name."""
    arguments = dict(configuration_manager.network_arch_init_kwargs)
    for key in configuration_manager.network_arch_init_kwargs_req_import:
        if arguments[key] is not None:
            arguments[key] = pydoc.locate(arguments[key])
    return arguments


class StartingWeights(Mixin):
    """Mixin of ``NetworkTrainer``: loads the weights that the environment names.

    Attributes:
        follows_plans: Whether the network is nnU-Net's own, perhaps with more, so that stock weights fit.
    """

    follows_plans: bool = False

    def load_weights(self) -> str | dict:
        """Load the weights that a fresh training starts with; what was loaded goes into the log and the record.

        NNUNET_ATTN_HOST_WEIGHTS names a stock checkpoint for the host of a network on nnU-Net's plans. Encoder weights
        come from the file that NNUNET_ATTN_PRETRAINED names ("none": from nowhere), else, for networks on an
        encoder of timm (``timm_encoder``), from timm's published weights where these can be had.

        Raises:
            ValueError: a file is named, but the network has no such part, or not the file's; or both are named.
        """
        network: Any = self.bare_network
        if host_file := named_file(HOST_VARIABLE):
            if not self.follows_plans:
                raise ValueError(refuse_host_weights(type(self).__name__))
            if named_file(PRETRAINED_VARIABLE):
                raise ValueError(f"{HOST_VARIABLE} and {PRETRAINED_VARIABLE} both name weights; unset one of them")
            classes = self.label_manager.num_segmentation_heads
            host = host_of(network, self.num_input_channels, classes, planned_arguments(self.configuration_manager))
            loaded = load_host(network, host, host_file)
            self.print_to_log_file("\n".join((f"Host weights: {host_file}", *loaded.pop("lines"))))
            return loaded
        path: str | Path | None = os.environ.get(PRETRAINED_VARIABLE)
        if not path and hasattr(network, "timm_encoder"):
            path = self.published_weights(network.timm_encoder)
        if not path or path == "none":
            self.print_to_log_file(f"Encoder weights: {FROM_SCRATCH}")
            return FROM_SCRATCH
        if not hasattr(network, "encoder"):
            raise ValueError(cannot_take_weights(type(self).__name__))
        ignored, rename = getattr(network, "ignored_pretrained_keys", ()), getattr(network, "pretrained_names", dict)
        report = load_encoder(network.encoder, Path(path), ignored, rename)
        self.print_to_log_file(f"Encoder weights: {report}")
        return {"file": Path(path).name, "sha256": sha256(Path(path)), "report": report}

    def published_weights(self, model: str) -> Path | None:
        """The file of timm's weights of ``model``, or None with a line in the log; all processes of a run agree."""
        found: list[Path | None] = [None]
        if self.local_rank == 0:
            try:
                found = [published_weights(model)]
            except OSError as error:
                self.print_to_log_file(
                    f"No published weights of {model} ({error}): the encoder starts from scratch, unlike the paper's. "
                    f"To change that, set {PRETRAINED_VARIABLE} to a file of its ImageNet weights and start again."
                )
        if self.is_ddp:
            torch.distributed.broadcast_object_list(found)
        return found[0]
