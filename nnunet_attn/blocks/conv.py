"""The few shared convolution pieces."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op
from torch import nn


def per_axis(value: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """One number for each of ``dim`` axes; a single one holds for all.

    Raises:
        ValueError: another number of them.
    """
    values = (value,) * dim if isinstance(value, int) else tuple(value)
    if len(values) != dim:
        raise ValueError(f"expected {dim} numbers, one an axis, got {values}")
    return values


def relu() -> nn.Module:
    """ReLU in place of its input."""
    return nn.ReLU(inplace=True)


class ConvNormAct(nn.Sequential):
    """``act(norm(conv(x)))``; with the defaults the 3x3 convolution - BatchNorm - ReLU ("CBR") of many papers.

    The parts are ``conv``, ``norm`` and ``act``. The padding keeps the size at stride 1; stride s gives ``ceil(size
    / s)``. timm's module of this name is not used: its BatchNorm holds the activation, which is lost when training
    on several GPUs turns the norm into ``SyncBatchNorm``.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)); in 3D with three axes.

    >>> from nnunet_attn.blocks import ConvNormAct
    >>> conv = ConvNormAct(3, 32, stride=2)
    >>> conv(torch.randn(2, 3, 57, 56)).shape
    torch.Size([2, 32, 29, 28])

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel, odd, or one an axis.
        stride: Step of the kernel, or one an axis.
        dilation: Spacing of the kernel's points.
        groups: Groups of channels; ``in_channels`` makes the convolution depth-wise.
        bias: Bias of the convolution; redundant before a norm that removes the mean.
        norm: Makes the norm from the number of channels; None for none. The default is for 2D.
        act: Makes the activation; None for none.
        dim: Number of spatial axes.

    Raises:
        ValueError: even kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        stride: int | Sequence[int] = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        act: Callable[[], nn.Module] | None = relu,
        dim: int = 2,
    ):
        kernel, steps = per_axis(kernel_size, dim), per_axis(stride, dim)
        if any(side % 2 == 0 for side in kernel):
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        padding = tuple(dilation * (side // 2) for side in kernel)
        conv = convert_dim_to_conv_op(dim)(
            in_channels, out_channels, kernel, steps, padding, dilation=dilation, groups=groups, bias=bias
        )
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
        if norm is not None:
            parts["norm"] = norm(out_channels)
        if act is not None:
            parts["act"] = act()
        super().__init__(parts)
