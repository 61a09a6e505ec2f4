"""MixAtt on nnU-Net's networks: the host at the start, recomputed values, neighbourhoods, heads, gradients."""

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from planned_hosts import PATCHES, host_arguments
from torch import nn

from nnunet_attn.architectures import MixAttPlainConvUNet, MixAttResidualEncoderUNet
from nnunet_attn.blocks.dilated_attention import (
    MultiScaleDilatedAttention,
    dilated_attention,
    dilated_attention_gathered,
)
from nnunet_attn.blocks.global_attention import GlobalAttention
from nnunet_attn.blocks.mixing_attention import sampled_mean

HOSTS = {"plain": (PlainConvUNet, MixAttPlainConvUNet), "residual": (ResidualEncoderUNet, MixAttResidualEncoderUNet)}


def build(dim: int, host: str = "plain", widths=(8, 16, 24, 32), **options):
    return HOSTS[host][1](2, 3, patch_size=PATCHES[dim], **options, **host_arguments(dim, host, widths))


def image(dim: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(1, 2, *PATCHES[dim], dtype=dtype)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("dim", [2, 3])
def test_starts_as_the_host_bit_by_bit(dim, host):
    stock = HOSTS[host][0](2, num_classes=3, deep_supervision=True, **host_arguments(dim, host))
    network = build(dim, host, deep_supervision=True)
    for net in (stock, network):
        net.apply(net.initialize)
    missing, unexpected = network.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("path.", "dmk.", "fuse.", "mix.")) for name in missing)
    x = image(dim)
    ours, theirs = network(x), stock(x)
    assert len(ours) == len(theirs) == 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    sum(o.square().sum() for o in ours).backward()
    gains = [p for name, p in network.named_parameters() if name.endswith(".gain")]
    assert gains
    assert all(p.grad.abs().max() > 0 for p in gains)


@pytest.mark.parametrize("dim", [2, 3])
def test_recomputed_values_change_nothing(dim):
    fast = build(dim, min_stride=2).double()
    plain = copy.deepcopy(fast)
    for module in plain.modules():
        if hasattr(module, "recompute"):
            module.recompute = False
    x, outputs = image(dim, torch.float64), []
    for network in (fast, plain):
        torch.manual_seed(1)  # the Monte Carlo cells
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    for (name, p), q in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-10, msg=name)


def test_batch_norms_of_the_plans_count_a_batch_once():
    arguments = host_arguments(2, "plain", (8, 16, 24, 32)) | {"norm_op": nn.BatchNorm2d, "norm_op_kwargs": {}}
    network = HOSTS["plain"][1](2, 3, patch_size=PATCHES[2], min_stride=2, **arguments)
    network(image(2)).square().sum().backward()
    counts = {name: int(value) for name, value in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert len(counts) > 10
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("flat", [(False,) * 3, (True, False, False)])
def test_dilated_attention_in_3d_is_the_literal_one(flat):
    """Also on grids that the dilation leaves, float64, gradients included."""
    tensors = [torch.randn(2, 2, 4, 5, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    results = [form(*tensors, 3, flat) for form in (dilated_attention, dilated_attention_gathered)]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad(r.square().sum(), tensors) for r in results]
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain)


def test_sampled_mean_in_3d_is_a_mean_over_a_cell_of_voxels():
    x = torch.eye(60).reshape(1, 60, 3, 4, 5)
    for _ in range(20):
        shares = sampled_mean(x).flatten()  # 1 / m for each of the m voxels of the cell
        assert shares[shares > 0].unique().numel() == 1
        assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_attention_follows_the_plans():
    network = build(3, min_stride=2)
    assert network(image(3)).shape == (1, 3, *PATCHES[3])
    kinds = [type(block.attn) for block in network.path.blocks]
    assert kinds == [MultiScaleDilatedAttention, GlobalAttention, GlobalAttention]
    assert network.path.blocks[0].attn.flat == (True, False, False)
    assert network.path.blocks[0].pos_embed.kernel_size == (1, 3, 3)
    assert network.path.blocks[0].attn.dilations == (1, 2, 3, 1)
    assert network.dmk["1"].branch.wider[1].kernel_size == (1, 7, 7)
    assert list(network.mix) == ["1", "2"]
    assert list(build(3, min_stride=2, max_tokens=600).mix) == ["2"]
    few = build(2, widths=(5, 7, 9, 10))
    assert [block.attn.heads for block in few.path.blocks] == [3, 2]
    assert few(image(2)).isfinite().all()


@pytest.mark.parametrize("dim", [2, 3])
def test_without_attention_no_attention_is_left(dim):
    network = build(dim, attention=False, fusion="sum", mixatt=False)
    kinds = (MultiScaleDilatedAttention, GlobalAttention)
    assert not [m for m in network.modules() if isinstance(m, kinds)]
    assert not [name for name, _ in network.named_parameters() if "norm1" in name or "gate" in name]
    with pytest.raises(ValueError, match="fusion must be one of caf, sum"):
        build(dim, fusion="concat")


@pytest.mark.parametrize("dim", [2, 3])
def test_memory_counts_the_added_parts(dim):
    size = PATCHES[dim]
    with torch.device("meta"):
        stock = PlainConvUNet(2, num_classes=3, **host_arguments(dim))
        full, less = build(dim), build(dim, mixatt=False)
    sizes = [net.compute_conv_feature_map_size(size) for net in (stock, less, full)]
    assert sizes == sorted(set(sizes))
