"""A network under test: how it is made for a plan of nnU-Net's, and what its parts hold."""

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn

from nnunet_attn.training.default_plans import default_configuration
from nnunet_attn.training.starting_weights import planned_arguments

CHANNELS, CLASSES, BATCH, WIDTH = 2, 3, 2, 8

# Patches that nnU-Net plans, the second of sizes that are no multiples of 16, in 3D with slices three times as thick.
PATCHES = {2: ((64, 64), (40, 56)), 3: ((32, 32, 32), (12, 40, 32))}
SPACINGS = {2: (1.0, 1.0), 3: (3.0, 1.0, 1.0)}
LARGE = {2: (256, 256), 3: (64, 96, 96)}  # where memory is counted, on the device "meta"


def is_trainer(factory: Any) -> bool:
    return isinstance(factory, type) and hasattr(factory, "build_network_architecture")


def name_of(factory: Any) -> str:
    return getattr(factory, "__qualname__", None) or repr(factory)


class Subject:
    """Makes the network for images of ``dims`` axes; ``first`` and ``second`` are the plans of the two patches."""

    def __init__(self, factory: Callable[..., nn.Module], dims: int):
        self.factory, self.dims = factory, dims
        self.first = default_configuration(PATCHES[dims][0], width=WIDTH)
        self.second = default_configuration(PATCHES[dims][1], SPACINGS[dims], WIDTH)

    def asked(self) -> set[str]:
        """Names of the arguments that the factory takes, its bases' where it hands on; "**" if it takes any."""
        made = [vars(base)["__init__"] for base in getattr(self.factory, "__mro__", ()) if "__init__" in vars(base)]
        names: set[str] = set()
        for function in made or [self.factory]:
            parameters = inspect.signature(function).parameters.values()
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                return names
            if function is nn.Module.__init__:
                break
        return names | {"**"}

    def follows_plans(self) -> bool:
        """Whether the plan, or its patch, takes part in making the network."""
        if is_trainer(self.factory):
            return True
        return bool(self.asked() & {"**", "patch_size", *self.first.network_arch_init_kwargs})

    def make(
        self, plan: ConfigurationManager | None = None, *, classes: int = CLASSES, deep_supervision: bool = False
    ) -> nn.Module:
        """The network for a plan, with the same initial weights each time."""
        plan = plan or self.first
        torch.manual_seed(SEED)
        if is_trainer(self.factory):
            built: Any = self.factory
            return built.build_network_architecture(None, plan, CHANNELS, classes, deep_supervision)
        asked = self.asked()
        given = planned_arguments(plan) | {"patch_size": tuple(plan.patch_size), "deep_supervision": deep_supervision}
        given |= {"dims": self.dims, "spatial_dims": self.dims}
        if "**" in asked:
            asked |= {*plan.network_arch_init_kwargs, "deep_supervision"}
        network: Any = self.factory(CHANNELS, classes, **{k: v for k, v in given.items() if k in asked})
        if hasattr(network, "initialize") and hasattr(network, "apply"):
            network.apply(network.initialize)  # as nnU-Net does with a network of its plans
        return network

    def image(self, plan: ConfigurationManager | None = None, seed: int = 0, batch: int = BATCH) -> torch.Tensor:
        """A standardised image (B, C, *patch)."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, CHANNELS, *(plan or self.first).patch_size, generator=generator)

    def heads(self) -> nn.Module | None:
        """The network with deep supervision, or None if it has one head."""
        try:
            network = self.make(deep_supervision=True)
        except ValueError:  # the contract's word for "one head"
            return None
        with torch.no_grad():
            return network if isinstance(network.train()(self.image()), (list, tuple)) else None


SEED = 20_250_521


def maps_of(output: Any) -> list[torch.Tensor]:
    """The maps of a network, the first being the prediction."""
    return list(output) if isinstance(output, (list, tuple)) else [output]


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def python_state(network: nn.Module) -> dict[str, Any]:
    """Everything that the modules hold in attributes other than parameters and buffers, by name, comparable."""
    own = {"_parameters", "_buffers", "_modules", "training"}
    return {
        f"{name}.{key}".lstrip("."): comparable(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if key not in own and not key.endswith("_hooks")
    }


def comparable(value: Any) -> Any:
    """The value itself if it is plain, else something that changes with it."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.detach().double().sum().item()
    if isinstance(value, dict):
        return {str(key): comparable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [comparable(item) for item in value]
    return value if isinstance(value, (int, float, str, bool, bytes, type(None))) else id(value)


def settings() -> dict[str, Any]:
    """The global settings that a network has no business to change."""
    return {
        "torch's seed": torch.initial_seed(),
        "the state of random": random.getstate(),
        "the state of numpy.random": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "the default dtype": torch.get_default_dtype(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "cudnn.enabled": torch.backends.cudnn.enabled,
        "the precision of float32 products": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
    }


@contextmanager
def settings_kept() -> Iterator[None]:
    """Puts back what a network may have changed."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    cudnn, precision = torch.backends.cudnn, torch.get_float32_matmul_precision()
    flags = cudnn.benchmark, cudnn.deterministic, cudnn.enabled
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic)
        cudnn.benchmark, cudnn.deterministic, cudnn.enabled = flags


def sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
