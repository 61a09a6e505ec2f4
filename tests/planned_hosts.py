"""Arguments of nnU-Net's two networks as its plans give them, for the tests of networks on plans."""

from collections.abc import Sequence

from torch import nn

PATCHES = {2: (32, 48), 3: (8, 32, 32)}
STRIDES = {2: [(1, 1), (2, 2), (2, 2), (2, 2)], 3: [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]}
KERNELS = {2: [(3, 3)] * 4, 3: [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]}


def host_arguments(dim: int, host: str = "plain", widths: Sequence[int] = (8, 16, 24, 32)) -> dict:
    """Four stages; in 3D of a scan with thick slices, whose third axis is convolved and strided late."""
    per_stage = {"plain": "n_conv_per_stage", "residual": "n_blocks_per_stage"}[host]
    return {
        "n_stages": 4,
        "features_per_stage": widths,
        "conv_op": (nn.Conv2d, nn.Conv3d)[dim - 2],
        "kernel_sizes": KERNELS[dim],
        "strides": STRIDES[dim],
        per_stage: (1, 2, 2, 2),
        "n_conv_per_stage_decoder": (1, 2, 2),
        "conv_bias": True,
        "norm_op": (nn.InstanceNorm2d, nn.InstanceNorm3d)[dim - 2],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
