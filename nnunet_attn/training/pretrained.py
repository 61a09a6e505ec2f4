"""Encoder weights from a file, checked key by key. Used once, at the start of a fresh training."""

import argparse
from pathlib import Path

import torch
from torch import nn

WRAPPERS = ("model", "model_ema", "state_dict", "network_weights")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name: a bare state dict, or one under a usual key; "module." is stripped.

    The file is read with ``weights_only=True``; besides tensors only ``argparse.Namespace`` may be in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; pretrained encoder weights were asked for")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign, unsafe or cut file; all mean the same here
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: not a checkpoint that holds only tensors ({reason}); save its state dict alone"
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(f"{path}: expected a state dict (name -> tensor), bare or under one of {', '.join(WRAPPERS)}")
    return {key.removeprefix("module."): value for key, value in content.items()}


def load_encoder(encoder: nn.Module, path: Path, ignored: tuple[str, ...] = ()) -> str:
    """Load all of ``encoder`` from ``path`` and return a line that says what was loaded.

    Keys may carry the prefix "encoder." (weights of a whole network: the rest is left out). A first convolution made
    for 3 channels is adapted to the encoder's as timm does it (summed for 1 channel, else repeated and rescaled).

    Args:
        encoder: Module to fill; every one of its tensors must be in the file, with its shape.
        path: The checkpoint.
        ignored: Prefixes of keys that the file may hold beyond the encoder (a classifier's head).

    Raises:
        FileNotFoundError, ValueError: see ``read_weights``.
        ValueError: missing, unknown or misshapen tensors, named.
    """
    weights = read_weights(path)
    if any(key.startswith("encoder.") for key in weights):
        weights = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    weights = {k: v for k, v in weights.items() if not k.startswith(ignored)}
    from timm.models import adapt_input_conv  # seconds to import, and few runs come here

    own = encoder.state_dict()
    problems = [f"missing {key}" for key in own if key not in weights]
    problems += [f"unknown {key}" for key in weights if key not in own]
    adapted = []
    for key in own.keys() & weights.keys():
        have, want = tuple(weights[key].shape), tuple(own[key].shape)
        if have != want and len(have) == 4 and have[1] == 3 and (have[0], *have[2:]) == (want[0], *want[2:]):
            weights[key] = adapt_input_conv(want[1], weights[key])
            adapted.append(f"{key} from 3 to {want[1]} channels")
        elif have != want:
            problems.append(f"{key} is {have}, expected {want}")
    if problems:
        listed = "; ".join(sorted(problems)[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise ValueError(f"{path}: does not fit the encoder {type(encoder).__name__}: {listed}")
    encoder.load_state_dict(weights)
    note = f", adapted {', '.join(adapted)}" if adapted else ""
    return f"{len(own)} tensors of {type(encoder).__name__} loaded from {Path(path).name}{note}"
