"""Models trained with any earlier version load and predict the same; no public trainer name disappears.

Frozen in ``tests/golden``: every public trainer name, and for each network and ablation the names and shapes of its
parameters and the logits that they give. Weights are made from each parameter's name, not from a network's
initialisation, so that a rewritten network is held to the same numbers. The network is built the way nnU-Net's
predictor builds it, by ``build_network_architecture``.

``python tests/test_golden.py`` adds the trainers of the catalogue that are new and changes nothing that is there.
"""

import contextlib
import functools
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.lookup import own_trainers

FOLDER = Path(__file__).parent / "golden"
NAMES, SHAPES, LOGITS = FOLDER / "trainer_names.txt", FOLDER / "state_dicts.json.gz", FOLDER / "logits.npz"
CHANNELS, CLASSES = 2, 3
PATCHES = {2: (64, 96), 3: (16, 32, 32)}
HOSTS = {"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"}
FIRST = {2: [[2, 2]], 3: [[1, 2, 2]]}


def plans(host: str, dimensions: int) -> PlansManager:
    """Plans of four stages, the first stride of 3D anisotropic as nnU-Net plans it for thick slices."""
    strides = [[1] * dimensions, *FIRST[dimensions], [2] * dimensions, [2] * dimensions]
    blocks = {"n_conv_per_stage": [2] * 4} if host == "plain" else {"n_blocks_per_stage": [1, 2, 2, 2]}
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{HOSTS[host]}",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [8, 16, 32, 32],
            "conv_op": f"torch.nn.Conv{dimensions}d",
            "kernel_sizes": [[1 if s == 1 and i == 0 else 3 for s in strides[1]] if i == 0 else [3] * dimensions
                             for i in range(4)],
            "strides": strides,
            "n_conv_per_stage_decoder": [1] * 3,
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **blocks,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }  # fmt: skip
    configuration = {"patch_size": list(PATCHES[dimensions]), "batch_size": 2, "architecture": architecture}
    return PlansManager(
        {"plans_name": "Golden", "dataset_name": "Dataset999_Golden", "configurations": {"golden": configuration}}
    )


def build(trainer: str, host: str, dimensions: int) -> nn.Module:
    """The network of a trainer with all heads returned where it has several, weights made from their names."""
    manager = plans(host, dimensions)
    with without_initialisation():
        network = getattr(trainers, trainer).build_network_architecture(
            manager, manager.get_configuration("golden"), CHANNELS, CLASSES, enable_deep_supervision=True
        )
    network.load_state_dict({name: weights(name, tensor) for name, tensor in network.state_dict().items()})
    return network.eval()


@contextlib.contextmanager
def without_initialisation() -> Iterator[None]:
    """Leave weights as memory has them: drawing tens of millions of random numbers takes most of the time."""
    with contextlib.ExitStack() as stack:
        for name in ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
            stack.enter_context(mock.patch(f"torch.nn.init.{name}", lambda tensor, *_, **__: tensor))
        yield


NOISE = np.random.RandomState(0).standard_normal(65_537).astype(np.float32)


def weights(name: str, like: torch.Tensor) -> torch.Tensor:
    """Numbers for the parameter or buffer ``name``; a pure function of name and shape."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    offset = zlib.crc32(name.encode()) % NOISE.size
    noise = torch.from_numpy(np.resize(np.roll(NOISE, -offset), like.numel()).reshape(like.shape).copy())
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if like.ndim > 1:
        return noise / max(1, like[0].numel()) ** 0.5
    return 0.1 * noise + (1.0 if name.endswith(("weight", "gamma", "scale")) else 0.0)


def logits(network: nn.Module, dimensions: int) -> np.ndarray:
    """Every map that the network returns for one made image, thinned out to about 100 numbers each, in one row."""
    patch = PATCHES[dimensions]
    size = CHANNELS * int(np.prod(patch))
    image = torch.from_numpy(np.resize(NOISE, size).reshape(1, CHANNELS, *patch).copy())
    with torch.no_grad():
        maps = network(image)
    maps = maps if isinstance(maps, (list, tuple)) else [maps]
    return np.concatenate([m.flatten()[:: max(1, m.numel() // 97)].numpy() for m in maps])


def variants() -> list[tuple[str, str, int]]:
    """Trainer, host and number of axes of everything that is frozen."""
    found = []
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line not in dict(own_trainers()):
            continue  # recipes and schedules change no parameter
        if any(line in entry.trainers for entry in LIBRARY_ENTRIES):
            continue  # what the library's next version makes is the library's
        cls = getattr(trainers, line)
        hosts = HOSTS if len(cls.dimensions) > 1 else ["plain"]
        found += [(line, host, dimensions) for dimensions in cls.dimensions for host in hosts]
    return found


def key(variant: tuple[str, str, int]) -> str:
    return "{}:{}:{}d".format(*variant)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


@functools.cache
def read_shapes() -> dict[str, dict[str, list[int]]]:
    return json.loads(gzip.decompress(SHAPES.read_bytes()))


@functools.cache
def read_logits() -> dict[str, np.ndarray]:
    with np.load(LOGITS) as stored:
        return dict(stored)


@pytest.mark.parametrize("name", NAMES.read_text(encoding="utf-8").split())
def test_public_names_stay(name):
    assert getattr(trainers, name).__name__ == name


@pytest.mark.parametrize("variant", variants(), ids=key)
def test_checkpoints_stay(variant):
    network = build(*variant)
    assert shapes(network) == read_shapes()[key(variant)]
    expected = read_logits()[key(variant)]
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(logits(network, variant[2]), expected, rtol=1e-3, atol=1e-4 * np.ptp(expected))


def test_every_written_trainer_is_frozen():
    missing = {name for name, _ in own_trainers()} - set(NAMES.read_text(encoding="utf-8").split())
    assert not missing, f"run python tests/{Path(__file__).name} to freeze {sorted(missing)}"


def add_what_is_new() -> None:
    frozen = NAMES.read_text(encoding="utf-8").split()
    new = [name for name, _ in own_trainers() if name not in frozen]
    NAMES.write_text("".join(f"{name}\n" for name in (*frozen, *new)), encoding="utf-8")
    all_shapes = read_shapes() if SHAPES.is_file() else {}
    all_logits = read_logits() if LOGITS.is_file() else {}
    for variant in variants():
        if key(variant) not in all_shapes:
            network = build(*variant)
            all_shapes[key(variant)] = shapes(network)
            all_logits[key(variant)] = logits(network, variant[2])
            print(key(variant), all_logits[key(variant)].shape)
    text = json.dumps(all_shapes, separators=(",", ":"))
    SHAPES.write_bytes(gzip.compress(text.encode(), mtime=0))
    np.savez_compressed(LOGITS, **all_logits)


if __name__ == "__main__":
    add_what_is_new()
