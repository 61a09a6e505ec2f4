"""EMCAD's parts against their formulas written out, and their sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.multi_scale_conv_attention import CAB, EUCB, LGAG, MSCAM, MSCB, SAB


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(module: nn.Module) -> nn.Module:
    """In double precision and evaluation, with norms that are not the identity."""
    torch.manual_seed(0)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)
            nn.init.normal_(m.running_mean)
            nn.init.uniform_(m.running_var, 0.5, 1.5)
    return module.double().eval()


def norm(x, bn):
    shape = (1, -1, 1, 1)
    standard = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + bn.eps).sqrt()
    return standard * bn.weight.view(shape) + bn.bias.view(shape)


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        *[(MSCB(c), n) for c, n in ((512, 1_093_632), (320, 437_760), (128, 76_800), (64, 22_016))],
        *[(EUCB(*pair), n) for pair, n in (((512, 320), 169_792), ((320, 128), 44_608), ((128, 64), 9_664))],
        *[(LGAG(c), n) for c, n in ((320, 6_883), (128, 2_755), (64, 1_379))],
        *[(CAB(c), n) for c, n in ((512, 32_768), (320, 12_800), (128, 2_048), (64, 512))],
        (SAB(), 98),
        (MSCAM(64), 22_016 + 512),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_parameters(module, parameters):
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_channel_attention():
    cab, x = ready(CAB(32)), random(2, 32, 5, 4)
    fc1, fc2 = cab.fc1.weight[..., 0, 0], cab.fc2.weight[..., 0, 0]
    pools = x.flatten(2).mean(2), x.flatten(2).max(2).values
    expected = torch.sigmoid(sum((pool @ fc1.T).clamp(min=0) @ fc2.T for pool in pools))
    torch.testing.assert_close(cab(x), expected[..., None, None])


def test_spatial_attention():
    sab, x = ready(SAB()), random(2, 6, 9, 8)
    maps = F.pad(torch.stack([x.mean(1), x.max(1).values], 1), (3, 3, 3, 3))
    out = sab(x)
    assert out.shape == (2, 1, 9, 8)
    for b, i, j in ((0, 0, 0), (1, 8, 7), (1, 4, 2)):
        window = maps[b, :, i : i + 7, j : j + 7]
        assert out[b, 0, i, j].item() == pytest.approx(torch.sigmoid((window * sab.conv.weight[0]).sum()).item())


def test_multi_scale_convolution():
    mscb, x = ready(MSCB(4)), random(2, 4, 6, 5)
    conv, bn, _ = mscb.expand
    y = norm(torch.einsum("oi,bihw->bohw", conv.weight[..., 0, 0], x), bn).clamp(0, 6)
    branches = []
    for kernel, (conv, bn, _) in zip((1, 3, 5), mscb.branches, strict=True):
        assert conv.weight.shape == (8, 1, kernel, kernel)
        channels = [F.conv2d(y[:, [c]], conv.weight[[c]], padding=kernel // 2) for c in range(8)]
        branches.append(norm(torch.cat(channels, 1), bn).clamp(0, 6))
    shuffled = sum(branches)[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    conv, bn = mscb.project
    expected = x + norm(torch.einsum("oi,bihw->bohw", conv.weight[..., 0, 0], shuffled), bn)
    torch.testing.assert_close(mscb(x), expected)


def test_attention_module_is_channel_then_spatial_then_multi_scale():
    module, sab, x = ready(MSCAM(16)), ready(SAB()), random(1, 16, 6, 5)
    weighted = x * module.channel_attention(x)
    torch.testing.assert_close(module(x, sab), module.multi_scale(weighted * sab(weighted)))


def test_up_convolution():
    eucb, x = ready(EUCB(3, 5)), random(2, 3, 4, 3)
    _, depthwise, bn, _, pointwise = eucb
    up = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    channels = [F.conv2d(up[:, [c]], depthwise.weight[[c]], padding=1) for c in range(3)]
    y = norm(torch.cat(channels, 1), bn).clamp(min=0)
    expected = torch.einsum("oi,bihw->bohw", pointwise.weight[..., 0, 0], y) + pointwise.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(eucb(x), expected)


def test_attention_gate():
    lgag, g, x = ready(LGAG(6)), random(2, 6, 5, 4), random(2, 6, 5, 4, seed=1)

    def grouped(sequence, value):
        conv, bn = sequence
        pairs = [F.conv2d(value[:, 2 * n : 2 * n + 2], conv.weight[[n]], conv.bias[[n]], padding=1) for n in range(3)]
        return norm(torch.cat(pairs, 1), bn)

    conv, bn, _ = lgag.gate
    summed = (grouped(lgag.signal, g) + grouped(lgag.feature, x)).clamp(min=0)
    gate = torch.sigmoid(norm(torch.einsum("oi,bihw->bohw", conv.weight[..., 0, 0], summed) + conv.bias, bn))
    torch.testing.assert_close(lgag(g, x), x * gate)
