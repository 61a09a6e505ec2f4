"""The few shared convolution pieces."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn


def relu() -> nn.Module:
    """ReLU in place of its input."""
    return nn.ReLU(inplace=True)


class ConvNormAct(nn.Sequential):
    """``act(norm(conv(x)))``; with the defaults the 3x3 convolution - BatchNorm - ReLU ("CBR") of many papers.

    The parts are ``conv``, ``norm`` and ``act``. The padding keeps the size at stride 1; stride s gives ``ceil(size
    / s)``. timm's module of this name is not used: its BatchNorm holds the activation, which is lost when training
    on several GPUs turns the norm into ``SyncBatchNorm``.

    Shape: (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).

    >>> from nnunet_attn.blocks import ConvNormAct
    >>> conv = ConvNormAct(3, 32, stride=2)
    >>> conv(torch.randn(2, 3, 57, 56)).shape
    torch.Size([2, 32, 29, 28])

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel, odd.
        stride: Step of the kernel.
        dilation: Spacing of the kernel's points.
        groups: Groups of channels; ``in_channels`` makes the convolution depth-wise.
        bias: Bias of the convolution; redundant before a norm that removes the mean.
        norm: Makes the norm from the number of channels; None for none.
        act: Makes the activation; None for none.

    Raises:
        ValueError: even kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        act: Callable[[], nn.Module] | None = relu,
    ):
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        padding = dilation * (kernel_size // 2)
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=bias
        )
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
        if norm is not None:
            parts["norm"] = norm(out_channels)
        if act is not None:
            parts["act"] = act()
        super().__init__(parts)
