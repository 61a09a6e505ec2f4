"""Random plans of nnU-Net's: every network on plans runs on them, and every parameter gets a gradient."""

import math
import pydoc

import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from torch import nn

from nnunet_attn import trainers
from nnunet_attn.catalog import ENTRIES
from nnunet_attn.training.base import takes_patch_size

PLANNED = [getattr(trainers, entry.trainer) for entry in ENTRIES if 3 in entry.dimensions]
MOST_VOXELS = 2**17


def draw(seed: int) -> tuple[tuple[int, ...], int, int, dict]:
    """Patch, channels, classes and the arguments of nnU-Net's network for a random scanner and patch."""
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(2, 4))
    spacing = rng.choice([1.0, 1.0, 1.5, 3.0, 6.0], dim)
    patch = rng.integers(12, 129 if dim == 2 else 65, dim)
    while math.prod(patch) > MOST_VOXELS // 4:
        patch[patch.argmax()] //= 2
    _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
    stages, host = len(strides), ("n_conv_per_stage", "n_blocks_per_stage")[int(rng.integers(2))]
    base = int(rng.choice([4, 6, 8, 10]))
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(40, base * 2**n) for n in range(stages)],
        "conv_op": (nn.Conv2d, nn.Conv3d)[dim - 2],
        "kernel_sizes": kernels,
        "strides": strides,
        host: [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": (nn.InstanceNorm2d, nn.InstanceNorm3d)[dim - 2],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    return tuple(int(n) for n in patch), int(rng.integers(1, 6)), int(rng.integers(2, 16)), arguments


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= 20 else []) for seed in range(200)]
)
def test_random_plans(seed):
    patch, channels, classes, arguments = draw(seed)
    assert math.prod(patch) <= MOST_VOXELS
    if arguments["n_stages"] < 2:
        pytest.skip("nnU-Net plans no network of one stage")
    cls = PLANNED[seed % len(PLANNED)]
    host = "ResidualEncoderUNet" if "n_blocks_per_stage" in arguments else "PlainConvUNet"
    network_class = pydoc.locate(cls.networks[host])
    if takes_patch_size(network_class):
        arguments["patch_size"] = patch
    network = network_class(channels, classes, deep_supervision=True, **arguments)
    maps = network(torch.randn(1, channels, *patch))
    assert len(maps) == arguments["n_stages"] - 1
    assert maps[0].shape == (1, classes, *patch)
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    missing = [
        name for name, p in network.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]  # fmt: skip
    assert not missing
    assert network.compute_conv_feature_map_size(patch) > 0
