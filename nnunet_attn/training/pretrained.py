"""Encoder weights from a file, checked key by key. Used once, at the start of a fresh training."""

import argparse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from nnunet_attn.catalog import ENTRIES, PRETRAINED_VARIABLE

# nnU-Net's checkpoints hold its log, in numpy's numbers; nothing else but tensors is let in
SCALAR = np.float64(0).__reduce__()[0]  # what numpy's numbers are pickled by
NUMBERS: list[Any] = [SCALAR, np.dtype, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd")]
NUMBERS += [(SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # numpy before 2, and since
WRAPPERS = ("model", "model_ema", "state_dict", "network_weights")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name: a bare state dict, or one under a usual key; "module." is stripped.

    The file is read with ``weights_only=True``; besides tensors only ``argparse.Namespace`` and the numbers
    of nnU-Net's log may be in it. Files named
    ``*.safetensors`` are read as such.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; pretrained weights were asked for")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace, *NUMBERS]):
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


def published_weights(model: str, *, timeout: float = 5.0) -> Path:
    """The file of timm's published weights of ``model``: from the Hugging Face cache, else downloaded into it.

    Whether the hub can be reached is tried once, for ``timeout`` seconds, because the hub's own client keeps trying.

    Raises:
        OSError: not in the cache, and no way to get it.
    """
    import huggingface_hub  # seconds to import, both
    import timm

    config: Any = timm.get_pretrained_cfg(model)
    file: dict[str, Any] = {"repo_id": config.hf_hub_id, "filename": "model.safetensors"}
    try:
        return Path(huggingface_hub.hf_hub_download(**file, local_files_only=True))
    except OSError as error:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise OSError(f"{file['repo_id']} is not in the cache, and HF_HUB_OFFLINE is set") from error
    request = urllib.request.Request(huggingface_hub.hf_hub_url(**file), method="HEAD")
    with urllib.request.urlopen(request, timeout=timeout):
        pass
    return Path(huggingface_hub.hf_hub_download(**file))


def cannot_take_weights(trainer: str) -> str:
    """One line on a trainer that has no encoder for the file that NNUNET_ATTN_PRETRAINED names."""
    able = ", ".join(f"{e.trainer} ({e.pretrained_encoder})" for e in ENTRIES if e.pretrained_encoder)
    return (
        f"{PRETRAINED_VARIABLE} names a file of encoder weights, but the network of {trainer} cannot take it; those of "
        f"{able} can. Unset the variable, or set it to none."
    )


def load_encoder(
    encoder: nn.Module,
    path: Path,
    ignored: tuple[str, ...] = (),
    rename: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
) -> str:
    """Load all of ``encoder`` from ``path`` and return a line that says what was loaded.

    Keys may carry the prefix "encoder." (weights of a whole network: the rest is left out). A first convolution made
    for 3 channels is adapted to the encoder's as timm does it (summed for 1 channel, else repeated and rescaled).

    Args:
        encoder: Module to fill; every one of its tensors must be in the file, with its shape.
        path: The checkpoint.
        ignored: Prefixes of keys that the file may hold beyond the encoder (a classifier's head).
        rename: Brings the keys of other releases of the same network to the encoder's.

    Raises:
        FileNotFoundError, ValueError: see ``read_weights``.
        ValueError: missing, unknown or misshapen tensors, named.
    """
    weights = read_weights(path)
    if any(key.startswith("encoder.") for key in weights):
        weights = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    from timm.models import adapt_input_conv  # seconds to import, and few runs come here

    weights = rename({k: v for k, v in weights.items() if not k.startswith(ignored)})
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
