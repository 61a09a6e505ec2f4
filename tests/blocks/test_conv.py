"""The shared convolution piece."""

import pytest
import torch
from torch import nn

from nnunet_attn.blocks.conv import ConvNormAct


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 4), (7, 1)])
def test_size_is_divided_by_the_stride_and_rounded_up(kernel_size, dilation, stride):
    module = ConvNormAct(2, 3, kernel_size, stride=stride, dilation=dilation)
    assert module(torch.randn(2, 2, 17, 12)).shape == (2, 3, -(-17 // stride), -(-12 // stride))


def test_parts_are_convolution_norm_activation():
    assert [name for name, _ in ConvNormAct(2, 3).named_children()] == ["conv", "norm", "act"]
    assert [name for name, _ in ConvNormAct(2, 3, norm=None, act=nn.GELU).named_children()] == ["conv", "act"]
    assert [name for name, _ in ConvNormAct(2, 3, norm=None, act=None).named_children()] == ["conv"]
    module = ConvNormAct(2, 3).eval()
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(module(x), torch.relu(module.norm(module.conv(x))))
    assert module(x).min() == 0


def test_bias_and_groups_reach_the_convolution():
    assert ConvNormAct(4, 4).conv.bias is None
    conv = ConvNormAct(4, 4, groups=4, bias=True).conv
    assert conv.weight.shape == (4, 1, 3, 3)
    assert conv.bias is not None


def test_activation_survives_the_conversion_to_sync_batch_norm():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(ConvNormAct(2, 3))
    assert isinstance(converted.norm, nn.SyncBatchNorm)
    assert isinstance(converted.act, nn.ReLU)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="got 4"):
        ConvNormAct(2, 3, 4)
