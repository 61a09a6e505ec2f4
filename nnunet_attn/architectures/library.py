"""Networks of other libraries as nnU-Net wants a network; their code stays theirs."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from nnunet_attn.blocks.padding import pad_to

# Names that libraries give to what a plan says; the constructor's own parameters tell which of them it has.
CHANNELS = ("in_channels", "input_channels")
CLASSES = ("out_channels", "classes", "num_classes")
AXES = ("spatial_dims",)
SIZE = ("img_size",)


class LibraryNetwork(nn.Module):
    """A network of another library, made from its dotted path and keywords.

    Images are padded (last values repeated) to a multiple of ``size_divisor``, and the logits are cropped. Of several
    outputs the first counts.

    Args:
        path: Dotted path of the class or function, for example "monai.networks.nets.SwinUNETR".
        input_channels, num_classes: Handed on under the names that the library has for them.
        patch_size: Of the plans: its axes, and the size for networks that are made for one (UNETR).
        keywords: Further keyword arguments of the network.
        size_divisor: What the library's network divides sizes by.
        extra: Extra of nnunet-attn that brings the library, named where the library is missing.
        unused: Names of parts whose outputs are not among the logits. Their parameters are frozen: several GPUs need
            a gradient for all others.

    Raises:
        ImportError: The library is not installed, or has nothing of this path.
        ValueError: The network has no such keyword, cannot be made, or not for this number of axes.

    Shape:
        (B, input_channels, *size) -> (B, num_classes, *size)
    """

    def __init__(
        self,
        path: str,
        input_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        *,
        keywords: Mapping[str, Any] | None = None,
        size_divisor: int = 1,
        extra: str = "",
        unused: Sequence[str] = (),
    ):
        super().__init__()
        self.size_divisor = size_divisor
        make = located(path, extra)
        parameters = inspect.signature(make).parameters
        keywords = dict(keywords or {})
        unknown = [key for key in keywords if key not in parameters]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            own = ", ".join(name for name in parameters if name not in (*CHANNELS, *CLASSES, *AXES, *SIZE))
            raise ValueError(f"{whose(path)} has no keyword {', '.join(unknown)}; it has {own}")
        for names in (CHANNELS, CLASSES):
            if not any(name in parameters for name in names):
                raise ValueError(
                    f"{whose(path)} has no parameter {' or '.join(names)}; name the network's class itself"
                )
        axes = len(patch_size)
        if axes != 2 and not any(name in parameters for name in AXES):
            raise ValueError(f"{whose(path)} has no {' or '.join(AXES)}: it takes 2D images, this patch is {axes}D")
        padded = tuple(-(-int(n) // size_divisor) * size_divisor for n in patch_size)
        planned = ((CHANNELS, input_channels), (CLASSES, num_classes), (AXES, axes), (SIZE, padded))
        given = {name: value for names, value in planned for name in names if name in parameters}
        try:
            with torch.device("cpu"):  # some cannot be made on the device "meta"
                self.network = make(**(given | keywords))
        except Exception as error:  # whatever the library raises
            raise ValueError(f"{whose(path)} cannot be made with {keywords}: {first_line(error)}") from error
        self.network.to(torch.get_default_device())
        for name in unused:
            self.network.get_submodule(name).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[2:]
        output = self.network(pad_to(x, [-(-n // self.size_divisor) * self.size_divisor for n in size]))
        if isinstance(output, (list, tuple)):
            output = output[0]
        return output[(..., *(slice(n) for n in size))]


def first_line(error: BaseException) -> str:
    """The error in one line."""
    return " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())


def whose(path: str) -> str:
    """Name, package and version: "SwinUNETR of monai 1.6.1"."""
    package, name = path.partition(".")[0], path.rpartition(".")[2]
    try:
        return f"{name} of {package} {version(package.replace('_', '-'))}"
    except PackageNotFoundError:
        return f"{name} of {package}"


def located(path: str, extra: str = "") -> Any:
    """What the dotted path names.

    Raises:
        ImportError: its package is not installed, does not import, or has nothing of this path.
    """
    package, *rest = path.split(".")
    try:
        found: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise ImportError(f"{path}: {package} cannot be imported: {first_line(error)}") from error
        name = f"nnunet-attn[{extra}]" if extra else package
        raise ImportError(f"{path}: {package} is not installed; run: pip install '{name}'") from error
    for n, name in enumerate(rest):
        if not hasattr(found, name):
            module = ".".join([package, *rest[: n + 1]])
            try:
                found = importlib.import_module(module)
                continue
            except ImportError as error:
                raise ImportError(f"{path}: there is no {module}; {whose(path)} was looked for") from error
        found = getattr(found, name)
    if not callable(found):
        raise ImportError(f"{path} is no class or function")  # noqa: TRY004 - as for a path that names nothing
    return found
