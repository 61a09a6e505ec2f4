"""The DMK stage against its equations."""

import pytest
import torch
import torch.nn.functional as F

from nnunet_attn.blocks.depthwise_multi_kernel import DepthwiseMultiKernel, DepthwiseMultiKernelEncoder


def test_stage_is_the_paper_s_formula():
    torch.manual_seed(0)
    stage, x = DepthwiseMultiKernel(3, 8).double().eval(), torch.randn(2, 3, 11, 14, dtype=torch.float64)
    weights = dict(stage.named_parameters())
    for name in ("local.norm", "mix.norm"):
        weights[f"{name}.weight"].data.uniform_(0.5, 2)
        weights[f"{name}.bias"].data.normal_()

    def norm_relu(y, name):
        y = y / (1 + 1e-5) ** 0.5 * weights[f"{name}.norm.weight"][:, None, None]
        return (y + weights[f"{name}.norm.bias"][:, None, None]).relu()

    local = norm_relu(F.conv2d(x, weights["local.conv.weight"], stride=2, padding=1), "local")
    summed = local.clone()
    for i, padding in ((0, 2), (1, 3)):
        for c in range(8):  # each channel by itself
            kernel, bias = weights[f"wider.{i}.weight"][c : c + 1], weights[f"wider.{i}.bias"][c]
            summed[:, c : c + 1] += F.conv2d(local[:, c : c + 1], kernel, padding=padding) + bias
    expected = norm_relu(F.conv2d(summed, weights["mix.conv.weight"]), "mix")
    torch.testing.assert_close(stage(x), expected)


@pytest.mark.parametrize("size", [(64, 64), (45, 61), (33, 1)], ids=str)
def test_scales_are_halves_rounded_up(size):
    maps = DepthwiseMultiKernelEncoder(2, (8, 16, 24)).eval()(torch.randn(1, 2, *size))
    for i, (x, width) in enumerate(zip(maps, (8, 16, 24), strict=True)):
        assert x.shape == (1, width, *(-(-n // 2 ** (i + 2)) for n in size))
