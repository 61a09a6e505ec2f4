"""The configuration that nnU-Net plans for a patch, without a dataset."""

from collections.abc import Sequence

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager


def default_configuration(
    patch: Sequence[int], spacing: Sequence[float] | None = None, width: int = 32
) -> ConfigurationManager:
    """nnU-Net's configuration of its default network for a patch.

    Args:
        patch: Size of the patch, two or three numbers.
        spacing: Of the voxels in mm; isotropic if None.
        width: Features of the first stage; nnU-Net's is 32.

    Raises:
        ValueError: nnU-Net would not plan the patch; the message has the nearest that it plans.
    """
    dim = len(patch)
    _, strides, kernels, rounded, _ = get_pool_and_conv_props(list(spacing or [1.0] * dim), list(patch), 4, 999999)
    if list(rounded) != list(patch):
        raise ValueError(
            f"nnU-Net would not plan the patch {list(patch)}; the nearest that it plans is {list(map(int, rounded))}"
        )
    stages, most = len(strides), (512 if dim == 2 else 320) * width // 32
    return ConfigurationManager({
        "patch_size": list(patch),
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(most, width * 2**i) for i in range(stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": kernels,
                "strides": strides,
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    })  # fmt: skip
