"""DiffCA on nnU-Net's networks: the host at the start, fast and plain form, windows, heads, memory."""

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from planned_hosts import PATCHES, host_arguments

from nnunet_attn.architectures import DiffCAPlainConvUNet, DiffCAResidualEncoderUNet
from nnunet_attn.blocks.dca_block import DCABlock
from nnunet_attn.complexity import saved_bytes, use_plain_path

HOSTS = {"plain": (PlainConvUNet, DiffCAPlainConvUNet), "residual": (ResidualEncoderUNet, DiffCAResidualEncoderUNet)}


def build(dim: int, host: str = "plain", widths=(8, 16, 24, 32), **options):
    return HOSTS[host][1](2, 3, patch_size=PATCHES[dim], **options, **host_arguments(dim, host, widths))


def image(dim: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(1, 2, *PATCHES[dim], dtype=dtype)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("dim", [2, 3])
def test_attention_alone_starts_as_the_host_bit_by_bit(dim, host):
    stock = HOSTS[host][0](2, num_classes=3, deep_supervision=True, **host_arguments(dim, host))
    network = build(dim, host, fusion="concat", deep_supervision=True)
    for net in (stock, network):
        net.apply(net.initialize)
    missing, unexpected = network.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(name.startswith("attention.") for name in missing)
    x = image(dim)
    ours, theirs = network(x), stock(x)
    assert len(ours) == len(theirs) == 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_without_zero_start_the_network_differs_from_its_host():
    stock = PlainConvUNet(2, num_classes=3, **host_arguments(2))
    network = build(2, fusion="concat", zero_start=False)
    network.apply(network.initialize)
    network.load_state_dict(stock.state_dict(), strict=False)
    x = image(2)
    assert not torch.equal(network(x), stock(x))


@pytest.mark.parametrize("attention", ["differential", "standard"])
@pytest.mark.parametrize("dim", [2, 3])
def test_fast_and_plain_form_agree(dim, attention):
    """Fused attention and recomputed values against the formulas as written, float64, all gradients."""
    fast = build(dim, attention=attention, window=3).double()
    plain = use_plain_path(copy.deepcopy(fast))
    for block in plain.modules():
        if isinstance(block, DCABlock):
            assert block.recompute
            block.recompute = False
    x = image(dim, torch.float64)
    outputs = [net(x) for net in (fast, plain)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    for output in outputs:
        output.square().sum().backward()
    for (name, p), q in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-9, msg=name)


def test_windows_and_kernels_are_flat_where_the_plans_are():
    network = build(3, blocks=2, head_width=8)
    third, last = network.attention[2], network.attention[3]
    assert not len(network.attention[0])
    assert not len(network.attention[1])
    assert [len(third), len(last)] == [2, 2]
    assert [block.attention.window for block in (*third, *last)] == [(7, 7, 7)] * 4
    assert [block.attention.lambda_init for block in (*third, *last)] == pytest.approx(
        [0.2, 0.3555, 0.4707, 0.556], abs=1e-3
    )
    early = build(3, min_stride=2).attention[1][0]
    assert early.attention.window == (1, 7, 7)
    assert early.conv.kernel_size == (1, 3, 3)
    fusion = build(3, min_stride=2, fusion_kernel=3).fusion["1"]
    assert fusion.spatial_attention.conv.conv.kernel_size == (1, 7, 7)
    assert fusion.refine_skip.conv.kernel_size == (1, 3, 3)


def test_stages_beyond_max_tokens_stay_the_host_s():
    network = build(2, max_tokens=95)  # stage 2 has 8 x 12 voxels
    assert [len(stage) for stage in network.attention] == [0, 0, 0, 1]
    assert not network.fusion
    stock = PlainConvUNet(2, num_classes=3, **host_arguments(2))
    assert {k: v.shape for k, v in network.decoder.state_dict().items()} == {
        k: v.shape for k, v in stock.decoder.state_dict().items()
    }
    with pytest.raises(ValueError, match="24 tokens for a patch of \\[32, 48\\], more than max_tokens 23"):
        build(2, max_tokens=23)


@pytest.mark.parametrize(("widths", "heads"), [((8, 16, 24, 36), [3, 3]), ((4, 4, 10, 14), [1, 1])])
def test_heads_divide_the_width(widths, heads):
    network = build(2, widths=widths, head_width=8)
    assert [stage[0].attention.heads for stage in network.attention if len(stage)] == heads
    with pytest.raises(ValueError, match="even widths, but stage 2 has 9"):
        build(2, widths=(4, 4, 9, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"attention": "cross"}, "attention must be one of"), ({"fusion": "sum"}, "fusion must be one of csff, concat")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(2, **options)


@pytest.mark.parametrize("dim", [2, 3])
def test_memory_counts_what_training_keeps(dim):
    """nnU-Net's measure of the added parts is half of the values that autograd keeps for them, and some more."""
    stock = PlainConvUNet(2, num_classes=3, deep_supervision=True, **host_arguments(dim, widths=(16, 32, 64, 128)))
    network = build(dim, widths=(16, 32, 64, 128), deep_supervision=True)
    size, x = PATCHES[dim], image(dim)
    added = network.compute_conv_feature_map_size(size) - stock.compute_conv_feature_map_size(size)
    kept = (saved_bytes(network, x) - saved_bytes(stock, x)) / 4
    assert 0.5 * kept < added < 1.5 * kept
    with torch.device("meta"):
        assert build(dim, deep_supervision=True).compute_conv_feature_map_size(size) > 0
