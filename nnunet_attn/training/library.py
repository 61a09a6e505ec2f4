"""Trainers of networks of other libraries: a dotted path and keywords in one class attribute."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_attn.architectures.library import LibraryNetwork, first_line, whose
from nnunet_attn.training.base import NetworkTrainer, merged


@dataclass(frozen=True)
class Library:
    """A network of another library.

    Attributes:
        path: Dotted path, for example "monai.networks.nets.SwinUNETR".
        keywords: Its keyword arguments, other than channels, classes, number of axes and patch, which the plans give.
        size_divisor: What it divides sizes by; images are padded to a multiple.
        extra: Extra of nnunet-attn that brings the library ("monai", "smp"); empty for other libraries.
        unused: Names of parts of the network that only serve outputs other than the first.
    """

    path: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    size_divisor: int = 1
    extra: str = ""
    unused: tuple[str, ...] = ()


class LibraryTrainer(NetworkTrainer):
    """Trainer of a network of another library, under our recipe and without deep supervision.

        class nnUNetTrainerMONAISwinUNETR(LibraryTrainer):
            library = Library("monai.networks.nets.SwinUNETR", {"feature_size": 48}, size_divisor=32, extra="monai")
            dimensions = (2, 3)

    Attributes:
        library: The network.
        encoder: Name of the encoder, for libraries whose networks take one (``encoder_name``); a subclass with another
            has a results folder of its own.

    Raises:
        ImportError: at construction, if the library is not installed (with the line that installs it), or has no such
            network.
        ValueError: at construction, if the network has no such keyword, or does not take the plans' patch.
    """

    library: Library
    encoder: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "library"):
            cls.network = cls.library.path

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        cls.check_configuration(configuration_manager)
        return LibraryNetwork(
            cls.library.path,
            num_input_channels,
            num_output_channels,
            configuration_manager.patch_size,
            keywords=cls.network_keywords(),
            size_divisor=cls.library.size_divisor,
            extra=cls.library.extra,
            unused=cls.library.unused,
        )

    @classmethod
    def network_keywords(cls) -> dict:
        """Keywords of the library's network, other than those that the plans give."""
        keywords = dict(cls.library.keywords) | merged(cls, "network_kwargs")
        return keywords | ({"encoder_name": cls.encoder} if cls.encoder else {})

    def run_facts(self) -> dict:
        facts = {"network": self.library.path, "library": whose(self.library.path)}
        return super().run_facts() | facts | {"network_kwargs": self.network_keywords()}

    @classmethod
    def check_plans(cls, plans_manager: PlansManager, configuration: str, dataset_json: dict) -> None:
        """Make the network, and run it on an image without content, which costs no memory."""
        manager = plans_manager.get_configuration(configuration)
        channels = determine_num_input_channels(plans_manager, manager, dataset_json)
        classes = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
        network = cls.build_network_architecture(plans_manager, manager, channels, classes, False).to("meta").train()
        patch = [int(n) for n in manager.patch_size]
        image = torch.empty(max(1, int(manager.batch_size)), channels, *patch, device="meta")
        try:
            with torch.no_grad():
                shape = list(network(image).shape[2:])
        except Exception as error:  # whatever the library raises
            raise ValueError(
                f"{cls.__name__}: {cls.library.path} does not take the plans' patch {patch}: {first_line(error)}"
            ) from error
        if shape != patch:
            raise ValueError(f"{cls.__name__}: {cls.library.path} returns {shape} for the plans' patch {patch}")
