"""Count the parameters and multiply-accumulates of any network, ours or not, as the table of ``list`` has them.

  nnunet-attn count nnunet_attn.architectures.DCAUNet num_classes=9 --input 3 224 224
  nnunet-attn count torchvision.models.resnet18 --input 3 224 224
  nnunet-attn count my_file.MyNet width=32 norm=torch.nn.BatchNorm3d --input 1 64 96 96

NETWORK is the dotted path of a class or function that makes a torch module; modules of the current folder are found,
too. Values are Python literals or dotted names; anything else is taken as text. A constructor that asks for
input_channels gets the first number of --input. GMACs are 1e9 multiply-accumulates of one forward pass of one image in
evaluation mode: convolutions and matrix products, no element-wise operations (torch.utils.flop_counter, divided by 2).
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

HELP = "count parameters and GMACs of any network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="dotted path, for example nnunet_attn.architectures.DCAUNet")
    parser.add_argument("arguments", metavar="KEY=VALUE", nargs="*", help="keyword arguments of the network")
    parser.add_argument(
        "--input", metavar="N", type=int, nargs="+", required=True, help="channels, then the size of the image"
    )
    parser.add_argument("--json", action="store_true", help="print an object instead of lines")


def run(options: argparse.Namespace) -> None:
    import json

    from nnunet_attn.complexity import gmacs
    from nnunet_attn.errors import UserError

    channels, *size = options.input
    if not 1 <= len(size) <= 3 or min(options.input) < 1:
        raise UserError(f"--input takes channels and one to three sizes, for example 3 224 224; got {options.input}")
    network = build(located(options.network), keywords(options.arguments), channels)
    counts = {
        "network": options.network,
        "parameters": sum(p.numel() for p in network.parameters()),
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
    }
    try:
        counts["gmacs"] = round(gmacs(network, size, channels), 4)
    except Exception as error:
        shape = (1, channels, *size)
        raise UserError(f"{options.network} does not take an input of {shape}: {first_line(error)}") from error
    if options.json:
        print(json.dumps(counts | {"input": options.input}))
        return
    print(options.network)
    trainable = "" if counts["trainable"] == counts["parameters"] else f" ({counts['trainable']:,} of them trainable)"
    print(f"  parameters  {counts['parameters']:,}{trainable}")
    print(f"  GMACs       {counts['gmacs']:.3f} at {'x'.join(map(str, options.input))}")


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def located(path: str) -> "Callable[..., nn.Module]":
    """What the dotted path names, from the installed packages or the current folder."""
    import os
    import pydoc
    import sys

    from nnunet_attn.errors import UserError

    sys.path.append(os.getcwd())
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{path} cannot be imported: {first_line(error)}") from error
    finally:
        sys.path.pop()
    if not callable(found):
        raise UserError(f"{path} is not a class or function; expected a dotted path such as package.module.Network")
    return found


def keywords(arguments: list[str]) -> dict[str, object]:
    """``["widths=(8, 16)", "norm=torch.nn.BatchNorm2d", "mode=both"]`` as keyword arguments."""
    import ast
    import pydoc

    from nnunet_attn.errors import UserError

    result: dict[str, object] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"arguments of the network are KEY=VALUE, got {argument!r}")
        try:
            result[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found = pydoc.locate(text) if "." in text else None
            result[key] = text if found is None else found
    return result


def build(make: "Callable[..., nn.Module]", arguments: dict[str, object], channels: int) -> "nn.Module":
    """The network on the device "meta", where it costs no memory, or on the CPU if it cannot be made there."""
    import inspect

    import torch
    from torch import nn

    from nnunet_attn.errors import UserError

    if "input_channels" in inspect.signature(make).parameters:
        arguments = {"input_channels": channels} | arguments
    try:
        try:
            with torch.device("meta"):
                network = make(**arguments)
        except (NotImplementedError, RuntimeError):
            network = make(**arguments)
    except Exception as error:
        name = getattr(make, "__name__", str(make))
        raise UserError(f"{name} cannot be made with {arguments or 'no arguments'}: {first_line(error)}") from error
    if not isinstance(network, nn.Module) or next(network.parameters(), None) is None:
        raise UserError(
            f"{getattr(make, '__name__', make)} made no torch module with parameters, but {network!r}"[:200]
        )
    return network
