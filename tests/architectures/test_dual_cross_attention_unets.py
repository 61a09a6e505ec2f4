import math

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attn.architectures.dual_cross_attention_unets import (
    DualCADoubleUNet,
    DualCAMultiResUNet,
    DualCAPlainConvUNet,
    DualCAR2UNet,
    DualCAResidualEncoderUNet,
    DualCAResUNetPlusPlus,
    DualCAUNet,
    DualCAVNet,
    anchor_level,
    cumulative_strides,
)
from nnunet_attn.blocks import cross_attention
from nnunet_attn.blocks.dual_cross_attention import DualCrossAttention
from nnunet_attn.complexity import gmacs, saved_bytes

# Parameters and GMACs at 224 x 224 of the host and with DCA, 3 channels, 1 class; then three logits of each, see below.
HOSTS = {
    DualCAUNet: (
        (8_637_345, 12.530), (8_747_905, 14.572),
        [0.517678995703, 0.51716090404, 0.459591321728], [0.510224493073, 0.532349380934, 0.521788356828],
    ),
    DualCAVNet: (
        (35_970_106, 31.777), (36_080_666, 33.819),
        [0.140365374731, 1.01680993445, 0.229834604912], [0.105836053227, 0.938675559225, 0.240125975827],
    ),
    DualCAR2UNet: (
        (9_781_729, 29.190), (9_892_289, 31.232),
        [-0.108739249532, -1.26429676388, 1.09440596191], [0.995848942149, 2.03638743612, -0.285743005404],
    ),
    DualCAResUNetPlusPlus: (
        (13_090_980, 42.428), (13_121_668, 51.709),
        [7.22351682476, 7.49552545891, 7.19128642308], [9.83258324258, 3.31427738811, 9.15800558126],
    ),
    DualCADoubleUNet: (
        (29_683_556, 41.194), (30_584_516, 53.671),
        [-0.0804366395162, 0.0988950147733, 0.15106356732], [1.08868522209, 0.512613537641, 0.241892264581],
    ),
    DualCAMultiResUNet: (
        (7_244_070, 12.001), (7_354_630, 14.043),
        [2.06529321838, 7.84537466206, 3.79310623244], [1.83413808503, 5.71253496747, 3.65709336692],
    ),
}  # fmt: skip
EACH_HOST = pytest.mark.parametrize("network", HOSTS, ids=lambda cls: cls.__name__)


def leaves(module: nn.Module) -> list[nn.Module]:
    """Modules with parameters of their own in the order of registration, DCA left out."""
    if isinstance(module, DualCrossAttention):
        return []
    own = [module] if list(module.parameters(recurse=False)) else []
    return own + [leaf for child in module.children() for leaf in leaves(child)]


def fill(network: nn.Module) -> None:
    """Sine waves as weights and statistics: first the host's in the order of its leaves, then DCA's."""
    plugs = [module for module in network.modules() if isinstance(module, DualCrossAttention)]
    tensors = [tensor for module in (*leaves(network), *plugs) for tensor in module.state_dict().values()]
    for number, tensor in enumerate(tensors):
        steps = torch.arange(tensor.numel(), dtype=torch.float64)
        wave = torch.sin((1 + number % 5) * steps + number).view(tensor.shape)
        if tensor.ndim > 1:
            tensor.copy_(wave * math.sqrt(4 / tensor[0].numel()))
        else:
            tensor.copy_(1 + wave / 2)


@pytest.mark.parametrize("dca", [False, True], ids=["host", "DCA"])
@EACH_HOST
def test_equal_to_the_released_code(network, dca):
    """A transcription of the authors' modules (DoubleU-Net repaired, no input norm), filled alike, gave these."""
    model = network(3, 2, dca=dca).double().eval()
    image = torch.sin(0.37 * torch.arange(3 * 32 * 32, dtype=torch.float64)).view(1, 3, 32, 32)
    with torch.no_grad():
        fill(model)
        logits = model(image)
    assert logits[0, 1, [3, 17, 30], [29, 8, 14]].tolist() == pytest.approx(HOSTS[network][2 + dca], rel=1e-10)


@pytest.mark.parametrize("dca", [False, True], ids=["host", "DCA"])
@EACH_HOST
def test_published_counts(network, dca):
    with torch.device("meta"):
        model = network(3, 1, dca=dca)
    parameters, macs = HOSTS[network][dca]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert gmacs(model, (224, 224), 3) == pytest.approx(macs, abs=6e-4)


@pytest.mark.parametrize(
    ("size", "tokens", "tokens_of_4"),
    [
        ((40, 56), (6, 8), (10, 14)),  # padded to 48 x 64; ResUNet++ needs no padding
        ((256, 224), (32, 28), (64, 56)),
        ((320, 256), (40, 32), (40, 32)),  # 5120 tokens of 4 x 4 pixels are too many
        ((512, 512), (64, 64), (64, 64)),
    ],
    ids=str,
)
@EACH_HOST
def test_any_size(network, size, tokens, tokens_of_4, monkeypatch):
    grids, token_grid = [], DualCrossAttention.token_grid
    monkeypatch.setattr(
        DualCrossAttention, "token_grid", lambda self, sizes: grids.append(token_grid(self, sizes)) or grids[-1]
    )
    with torch.device("meta"):
        assert network(2, 5)(torch.empty(2, 2, *size)).shape == (2, 5, *size)
    assert {grid for _, grid in grids} == {tokens_of_4 if network is DualCAResUNetPlusPlus else tokens}


@EACH_HOST
def test_one_size_after_the_other(network):
    model = network(1, 2).eval()
    with torch.no_grad():
        assert [model(torch.randn(1, 1, *s)).shape[2:] for s in ((40, 56), (33, 17))] == [(40, 56), (33, 17)]


def frozen(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad and not name.endswith("key.bias")}


def test_parameters_without_effect_are_frozen():
    assert frozen(DualCAVNet(1, 2)) == set()
    assert frozen(DualCAVNet(1, 2, dca=False)) == {f"encoder.stages.0.conv_skip.{p}" for p in ("weight", "bias")}
    last = {f"encoder.stages.{i}.path.norms.{3 - i}.{p}" for i in range(4) for p in ("weight", "bias")}
    assert frozen(DualCAMultiResUNet(1, 2)) == last
    assert frozen(DualCAMultiResUNet(1, 2, dca=False)) == set()
    for network in (DualCAUNet, DualCAR2UNet, DualCAResUNetPlusPlus, DualCADoubleUNet):
        assert frozen(network(1, 2)) == frozen(network(1, 2, dca=False)) == set()


def test_activated_skips():
    """The ordinary U-Net's skips are the raw ones behind norm and ReLU; with DCA the option has no effect."""
    torch.manual_seed(0)
    raw, activated = DualCAUNet(1, 2, dca=False).eval(), DualCAUNet(1, 2, dca=False, activated_skips=True).eval()
    activated.load_state_dict(raw.state_dict())
    image = torch.randn(1, 1, 32, 32)
    raws, acts, deepest = raw.encoder(image)
    assert torch.equal(acts[0], raw.encoder.stages[0].norm(raws[0]).relu())
    assert torch.equal(activated(image), raw.decoder(deepest, acts))
    assert torch.equal(raw(image), raw.decoder(deepest, raws))


# ---- on nnU-Net's own networks ---------------------------------------------------------------------------------------


def strides(*per_axis: int) -> list[tuple[int, ...]]:
    """Strides of the stages, as in nnU-Net's plans; ``per_axis`` says how often each axis is halved, late ones wait."""
    stages = 1 + max(per_axis)
    late = [stages - 1 - n for n in per_axis]
    return [(1,) * len(per_axis), *(tuple(2 if s >= w else 1 for w in late) for s in range(stages - 1))]


def planned(patch_size: tuple[int, ...], stage_strides: list, *, width: int = 32, residual: bool = False) -> dict:
    """nnU-Net's arguments."""
    dimensions, stages = len(patch_size), len(stage_strides)
    return {
        "n_stages": stages,
        "features_per_stage": [min((512, 320)[dimensions - 2], width * 2**i) for i in range(stages)],
        "conv_op": (nn.Conv2d, nn.Conv3d)[dimensions - 2],
        "kernel_sizes": [[3] * dimensions] * stages,
        "strides": stage_strides,
        ("n_blocks_per_stage" if residual else "n_conv_per_stage"): [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": (nn.InstanceNorm2d, nn.InstanceNorm3d)[dimensions - 2],
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


@pytest.mark.parametrize(
    ("patch_size", "stage_strides", "levels", "first_pool", "grid", "added"),
    [
        ((224, 224), strides(5, 5), 4, (8, 8), (28, 28), 110_560),
        ((256, 224), strides(5, 5), 4, (8, 8), (32, 28), 110_560),
        ((320, 256), strides(6, 6), 4, (8, 8), (40, 32), 110_560),
        ((512, 512), strides(7, 7), 5, (16, 16), (32, 32), 405_728),
        ((40, 56), strides(3, 3), 3, (4, 4), (10, 14), 30_688),
        ((128, 128, 128), strides(5, 5, 5), 5, (16, 16, 16), (8, 8, 8), 235_040),
        ((96, 160, 160), [(1, 1, 1), *[(2, 2, 2)] * 4, (1, 2, 2)], 5, (16, 16, 16), (6, 10, 10), 235_040),
        ((40, 224, 192), strides(3, 5, 5), 5, (4, 16, 16), (10, 14, 12), 235_040),
        (
            (20, 320, 256),
            [(1, 1, 1), *[(1, 2, 2)] * 3, (2, 2, 2), (2, 2, 2), (1, 2, 2)], 6, (4, 32, 32), (5, 10, 8), 364_640,
        ),
        ((48, 192, 192), [(1, 1, 1), (1, 2, 2), *[(2, 2, 2)] * 3, (1, 2, 2)], 5, (8, 16, 16), (6, 12, 12), 235_040),
    ],
    ids=str,
)  # fmt: skip
def test_anchor(patch_size, stage_strides, levels, first_pool, grid, added):
    with torch.device("meta"):
        host, network = (
            DualCAPlainConvUNet(1, 3, patch_size=patch_size, dca=dca, **planned(patch_size, stage_strides))
            for dca in (False, True)
        )
    assert anchor_level(stage_strides, patch_size, 2048) == levels - 1
    assert len(network.skips.channels) == levels
    assert network.skips.pool[0] == first_pool
    assert network.skips.pool[-1] == (1,) * len(patch_size)
    cumulative = cumulative_strides(stage_strides)[:levels]
    sizes = [[-(-n // s) for n, s in zip(patch_size, stride, strict=True)] for stride in cumulative]
    assert network.skips.token_grid(sizes)[1] == grid
    assert sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in host.parameters()) == added


def test_all_levels_and_other_caps():
    arguments = planned((224, 224), strides(5, 5))
    with torch.device("meta"):
        all_levels = DualCAPlainConvUNet(1, 3, patch_size=(224, 224), levels="all", **arguments)
        capped = DualCAPlainConvUNet(1, 3, patch_size=(224, 224), max_tokens=783, **arguments)
    assert all_levels.skips.channels == (32, 64, 128, 256, 512)
    assert all_levels.skips.pool[0] == capped.skips.pool[0] == (16, 16)


SMALL_2D = (48, 64), [(1, 1), (2, 2), (2, 2), (1, 2)]
SMALL_3D = (12, 32, 24), [(1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 2, 2)]


@pytest.mark.parametrize(("patch_size", "stage_strides"), [SMALL_2D, SMALL_3D], ids=["2d", "3d"])
@pytest.mark.parametrize(
    ("network", "stock"),
    [(DualCAPlainConvUNet, PlainConvUNet), (DualCAResidualEncoderUNet, ResidualEncoderUNet)],
    ids=["plain", "residual"],
)
def test_without_dca_it_is_stock_nnunet(network, stock, patch_size, stage_strides):
    arguments = planned(patch_size, stage_strides, width=8, residual=stock is ResidualEncoderUNet)
    torch.manual_seed(0)
    theirs = stock(input_channels=2, num_classes=3, deep_supervision=True, **arguments)
    torch.manual_seed(0)
    ours = network(2, 3, patch_size=patch_size, dca=False, deep_supervision=True, **arguments)
    attended = network(2, 3, patch_size=patch_size, deep_supervision=True, **arguments)
    for key in ("key_to_encoder", "key_to_stem", "keys_to_in_proj"):
        assert getattr(ours, key) == getattr(attended, key) == getattr(theirs, key)
    for module in (theirs, ours):
        torch.manual_seed(1)
        module.apply(module.initialize)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    image = torch.randn(1, 2, *patch_size)
    assert all(torch.equal(a, b) for a, b in zip(ours(image), theirs(image), strict=True))

    missing, unexpected = attended.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert {name.partition(".")[0] for name in missing} == {"skips"}
    maps = attended(image)
    assert [m.shape for m in maps] == [m.shape for m in theirs(image)]
    assert not torch.allclose(maps[0], theirs(image)[0])


def test_nnunet_s_initialisation_leaves_dca_alone():
    network = DualCAPlainConvUNet(1, 3, patch_size=SMALL_2D[0], **planned(*SMALL_2D, width=8))
    before = {name: p.clone() for name, p in network.named_parameters()}
    network.apply(network.initialize)
    changed = {name.partition(".")[0] for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"encoder", "decoder"}


@pytest.mark.parametrize(("patch_size", "stage_strides"), [SMALL_2D, SMALL_3D], ids=["2d", "3d"])
def test_dca_hands_skips_to_the_stock_decoder(patch_size, stage_strides):
    """Level by level: the joined skips through DCA, deeper ones and the bottleneck as the encoder made them."""
    network = DualCAPlainConvUNet(1, 3, patch_size=patch_size, max_tokens=10**6, **planned(patch_size, stage_strides))
    network.eval()
    image = torch.randn(1, 1, *patch_size)
    skips = network.encoder(image)
    count = len(network.skips.channels)
    assert count == len(skips) - 1
    expected = network.decoder([*network.skips(skips[:count]), *skips[count:]])
    assert torch.equal(network(image), expected)
    assert not torch.equal(network(image), network.decoder(skips))
    closing = network.skips.close[0]
    assert isinstance(closing[0], (nn.InstanceNorm2d, nn.InstanceNorm3d))
    assert closing[0].affine
    assert isinstance(closing[1], nn.LeakyReLU)


@pytest.mark.parametrize(
    ("patch_size", "stage_strides"),
    [((128, 96), strides(4, 4)), ((16, 48, 32), strides(2, 3, 3))],
    ids=["2d", "3d"],
)
def test_measure_of_memory_for_the_planner(patch_size, stage_strides, monkeypatch):
    """The planner's measure grows by DCA as the bytes kept for backward do, with the attention of a GPU."""
    monkeypatch.setattr(cross_attention, "is_exporting", lambda: True)
    host, network = (
        DualCAPlainConvUNet(1, 3, patch_size=patch_size, dca=dca, **planned(patch_size, stage_strides))
        for dca in (False, True)
    )
    planned_ratio = network.compute_conv_feature_map_size(patch_size) / host.compute_conv_feature_map_size(patch_size)
    image = torch.randn(1, 1, *patch_size)
    kept_ratio = saved_bytes(network, image) / saved_bytes(host, image)
    assert planned_ratio == pytest.approx(kept_ratio, rel=0.06)
    assert planned_ratio > 1.05


def test_bad_arguments_on_plans():
    arguments = planned(*SMALL_2D, width=8)
    with pytest.raises(ValueError, match=r"got strides .* and patch size \[48, 64, 8\]"):
        DualCAPlainConvUNet(1, 3, patch_size=(48, 64, 8), **arguments)
    with pytest.raises(ValueError, match="levels must be anchor or all, got 'some'"):
        DualCAPlainConvUNet(1, 3, patch_size=(48, 64), levels="some", **arguments)
    with pytest.raises(ValueError, match=r"multiples of the 4 heads of SpatialCrossAttention, got \[6, 12, 24\]"):
        DualCAPlainConvUNet(1, 3, patch_size=(48, 64), dca_kwargs={"spatial_heads": 4}, **planned(*SMALL_2D, width=6))
    with pytest.raises(TypeError, match="n_blocks"):
        DualCAPlainConvUNet(1, 3, patch_size=(48, 64), n_blocks=2, **arguments)


@pytest.mark.parametrize(("width", "heads"), [(8, 4), (6, 3), (7, 1)])
def test_heads_on_plans_divide_the_widths(width, heads):
    network = DualCAPlainConvUNet(1, 3, patch_size=SMALL_2D[0], **planned(*SMALL_2D, width=width))
    assert network.skips.blocks[0].attentions[1].heads == heads
    assert network(torch.randn(1, 1, *SMALL_2D[0])).isfinite().all()
