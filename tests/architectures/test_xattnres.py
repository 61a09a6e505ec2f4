"""XAttnRes on its hosts: counts, modes, positions, and what must not change."""

import pydoc

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_attn.architectures.emcad import EMCAD
from nnunet_attn.architectures.xattnres import XAttnResPlainConvUNet, XAttnResResidualEncoderUNet, XAttnResUNet
from nnunet_attn.architectures.xattnres_emcad import XAttnResEMCAD
from nnunet_attn.blocks.cross_stage_attention import CrossStageAttentionResidual

HOSTS = {XAttnResPlainConvUNet: PlainConvUNet, XAttnResResidualEncoderUNet: ResidualEncoderUNet}
STRIDES = {
    "2d": [[1, 1], [2, 2], [2, 2], [2, 1]],
    "3d": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "3d_anisotropic": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 1]],
}
SHAPES = {"2d": (2, 2, 16, 24), "3d": (2, 2, 8, 8, 12), "3d_anisotropic": (2, 2, 4, 16, 16)}
ON_PLANS = pytest.mark.parametrize("network_class", list(HOSTS), ids=lambda c: c.__name__)
PLANS = pytest.mark.parametrize("plan", list(STRIDES))


def planned(network_class, plan="2d", **more):
    """What plans say of a small network; with the classes of the right dimension."""
    strides = STRIDES[plan]
    dim, stages = len(strides[0]), len(strides)
    widths = [4, 8, 8, 12][:stages]
    units = "n_conv_per_stage" if issubclass(network_class, PlainConvUNet) else "n_blocks_per_stage"
    return {
        "n_stages": stages, "features_per_stage": widths, "kernel_sizes": [[3] * dim] * stages, "strides": strides,
        "conv_op": pydoc.locate(f"torch.nn.Conv{dim}d"), "norm_op": pydoc.locate(f"torch.nn.InstanceNorm{dim}d"),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "conv_bias": True, "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True}, units: [1, 2, 2, 2][:stages],
        "n_conv_per_stage_decoder": [2] * (stages - 1), **more,
    }  # fmt: skip


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def readers_of(network: nn.Module) -> dict[str, CrossStageAttentionResidual]:
    named = network.named_modules()
    return {n: m for n, m in named if isinstance(m, CrossStageAttentionResidual) and m.history_channels}


def set_queries(network: nn.Module) -> None:
    for read in readers_of(network).values():
        nn.init.normal_(read.query)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1_154_161),
        ({"position": "encoder"}, 1_085_581),
        ({"position": "decoder"}, 1_130_941),
        ({"site": "concat"}, 1_278_469),
        ({"mode": "replace"}, 1_028_773),
        ({"mode": "none"}, 936_973),
        ({"mode": "skip"}, 1_062_361),
    ],
    ids=str,
)
def test_counts_of_the_u_net(options, count):
    assert parameters(XAttnResUNet(3, 1, **options)) == count


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 27_761_787),
        ({"deepest": False}, 27_498_619),
        ({"mode": "replace"}, 27_750_770),
        ({"mode": "none"}, 26_753_394),
        ({"mode": "skip"}, 26_764_411),
    ],
    ids=str,
)
def test_counts_of_emcad(options, count):
    with torch.device("meta"):
        assert parameters(XAttnResEMCAD(3, 1, **options)) == count


@pytest.mark.parametrize(
    ("dim", "widths", "added"),
    [(2, (32, 64, 128, 256, 512, 512), 1_766_208), (3, (32, 64, 128, 256, 320, 320), 1_212_096)],
)
def test_what_xattnres_adds_to_nnunet_s_network(dim, widths, added):
    plan = {
        "n_stages": 6, "features_per_stage": widths, "kernel_sizes": [[3] * dim] * 6,
        "strides": [[1] * dim, *[[2] * dim] * 5], "conv_op": pydoc.locate(f"torch.nn.Conv{dim}d"),
        "n_conv_per_stage": [2] * 6, "n_conv_per_stage_decoder": [2] * 5,
    }  # fmt: skip
    with torch.device("meta"):
        both, host = XAttnResPlainConvUNet(1, 2, **plan), PlainConvUNet(1, num_classes=2, **plan)
    assert parameters(both) - parameters(host) == added


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, [f"x_enc.{n}" for n in (1, 2, 3, 4)] + [f"x_dec.{n}" for n in (0, 1, 2, 3)]),
        ({"mode": "replace", "position": "encoder"}, [f"x_enc.{n}" for n in (1, 2, 3, 4)]),
        ({"mode": "replace", "position": "decoder"}, [f"x_dec.{n}" for n in (0, 1, 2, 3)]),
        ({"mode": "none"}, []),
        ({"mode": "skip"}, []),
    ],
    ids=str,
)
def test_which_stages_read(options, stages):
    assert list(readers_of(XAttnResUNet(3, 1, **options))) == stages


def test_history_of_the_u_net_is_causal():
    network = XAttnResUNet(3, 1)
    encoder, decoder = [18, 36, 72, 144, 144], [72, 36, 18, 18]
    for n in range(1, 5):
        assert list(network.x_enc[n].history_channels) == encoder[:n]
    for n in range(4):
        assert list(network.x_dec[n].history_channels) == encoder + decoder[:n]
    assert [read.channels for read in network.x_dec] == [144, 72, 36, 18]
    assert [read.channels for read in XAttnResUNet(3, 1, site="concat").x_dec] == [288, 144, 72, 36]


def test_second_encoder_stage_of_the_u_net_is_the_identity():
    """Its only history entry is x itself; elsewhere the query moves the output."""
    network = XAttnResUNet(2, 2, widths=(4, 6, 8, 8)).double()
    set_queries(network)
    x = random(2, 2, 16, 24, dtype=torch.float64)
    (network(x) * random(2, 2, 16, 24, seed=1, dtype=torch.float64)).sum().backward()
    largest = {name: read.query.grad.abs().max().item() for name, read in readers_of(network).items()}
    assert largest.pop("x_enc.1") < 1e-12
    assert min(largest.values()) > 1e-6


@pytest.mark.parametrize("size", [(16, 24), (17, 23), (40, 56), (3, 40)])
@pytest.mark.parametrize("options", [{}, {"site": "concat"}, {"mode": "replace"}, {"mode": "none"}], ids=str)
def test_u_net_takes_any_size(options, size):
    network = XAttnResUNet(2, 3, widths=(4, 6, 8, 8), **options)
    assert network(random(2, 2, *size)).shape == (2, 3, *size)


def test_u_net_stays_one_graph_at_several_sizes():
    """As ``_paperPictures`` trains, with three sizes a batch: dynamo then makes sizes symbols."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    network = torch.compile(XAttnResUNet(1, 2, widths=(4, 8, 8)), fullgraph=True, backend=backend)
    for side in (16, 12, 20, 12, 16):
        network(random(2, 1, side, side))
    assert len(graphs) <= 3


def test_u_net_has_one_head():
    with pytest.raises(ValueError, match="nnUNetTrainerNoDeepSupervision"):
        XAttnResUNet(3, 1, deep_supervision=True)


@pytest.mark.parametrize(
    ("network_class", "options", "message"),
    [
        (XAttnResUNet, {"mode": "all"}, "mode must be one of both, replace, none, skip, got 'all'"),
        (XAttnResUNet, {"position": "middle"}, "position must be one of full, encoder, decoder, got 'middle'"),
        (XAttnResUNet, {"site": "gate"}, "site must be one of up, concat, got 'gate'"),
        (XAttnResUNet, {"site": "concat", "mode": "replace"}, "needs the skip connection and XAttnRes, .* got"),
        (XAttnResEMCAD, {"mode": "all"}, "mode must be"),
        (XAttnResUNet, {"query_init": "one"}, "query_init must be"),
    ],
)
def test_unknown_options_are_refused(network_class, options, message):
    with pytest.raises(ValueError, match=message):
        network_class(3, 1, **options)


@pytest.mark.parametrize("options", [{"mode": "all"}, {"position": "middle"}], ids=str)
def test_unknown_options_on_plans_are_refused(options):
    with pytest.raises(ValueError, match="must be one of"):
        XAttnResPlainConvUNet(2, 2, **planned(XAttnResPlainConvUNet), **options)


@PLANS
@ON_PLANS
def test_mode_skip_is_the_host(network_class, plan):
    kwargs = planned(network_class, plan, deep_supervision=True)
    torch.manual_seed(0)
    host = HOSTS[network_class](2, num_classes=3, **kwargs)
    skip, both = network_class(2, 3, mode="skip", **kwargs), network_class(2, 3, **kwargs)
    skip.load_state_dict(host.state_dict())
    missing, unexpected = both.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("x_enc.", "x_dec.")) for name in missing)
    x = random(*SHAPES[plan])
    for ours, theirs, other in zip(skip(x), host(x), both(x), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.shape == other.shape
        assert not torch.allclose(ours, other)
    host.decoder.deep_supervision = skip.decoder.deep_supervision = False
    assert torch.equal(skip(x), host(x))
    assert skip.compute_conv_feature_map_size(x.shape[2:]) == host.compute_conv_feature_map_size(x.shape[2:])


def test_mode_skip_is_emcad():
    host, skip = (
        EMCAD(3, 2, deep_supervision=True).eval(),
        XAttnResEMCAD(3, 2, mode="skip", deep_supervision=True).eval(),
    )
    skip.load_state_dict(host.state_dict())
    x = random(1, 3, 40, 56)
    with torch.no_grad():
        for ours, theirs in zip(skip(x), host(x), strict=True):
            assert torch.equal(ours, theirs)


def test_mode_both_starts_from_the_u_net_host_s_weights():
    host, both = XAttnResUNet(3, 1, mode="skip"), XAttnResUNet(3, 1)
    missing, unexpected = both.load_state_dict(host.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("x_enc.", "x_dec.")) for name in missing)


@pytest.mark.parametrize("mode", ["replace", "none"])
@ON_PLANS
def test_without_skips_the_decoder_is_narrower(network_class, mode):
    network = network_class(2, 3, mode=mode, **planned(network_class, "3d_anisotropic"))
    inputs = [
        next(m for m in stage.modules() if isinstance(m, nn.Conv3d)).in_channels for stage in network.decoder.stages
    ]
    assert inputs == [8, 8, 4]
    assert network(random(*SHAPES["3d_anisotropic"])).shape == (2, 3, 4, 16, 16)


@pytest.mark.parametrize(("mode", "reached"), [("none", False), ("replace", True), ("both", True), ("skip", True)])
def test_ways_from_the_first_stage_to_the_logits(mode, reached):
    """Cut the way down after encoder stage 1: only skip connections and XAttnRes are left."""
    network = XAttnResPlainConvUNet(2, 3, mode=mode, **planned(XAttnResPlainConvUNet))
    outputs = []
    first = network.stage_units(network.encoder.stages[0])[-1]
    first.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    second = network.stage_units(network.encoder.stages[1])[0]
    second.register_forward_pre_hook(lambda _module, inputs: (inputs[0].detach(),))
    (gradient,) = torch.autograd.grad(network(random(2, 2, 16, 24)).sum(), outputs, allow_unused=True)
    assert (gradient is not None) == reached


@PLANS
@ON_PLANS
def test_zero_queries_survive_nnunet_s_initialisation(network_class, plan):
    network = network_class(2, 3, **planned(network_class, plan))
    before = [p.clone() for read in readers_of(network).values() for p in read.projections.parameters()]
    network.apply(network.initialize)
    after = [p for read in readers_of(network).values() for p in read.projections.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for read in readers_of(network).values():
        assert read.query.abs().max() == 0
        assert (read.scale == 1).all()


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        *[(XAttnResPlainConvUNet(2, 3, **planned(XAttnResPlainConvUNet, plan)), SHAPES[plan]) for plan in STRIDES],
        (XAttnResUNet(2, 3, widths=(4, 6, 8, 8)), (2, 2, 17, 23)),
        (XAttnResUNet(2, 3, widths=(4, 6, 8, 8), site="concat"), (2, 2, 16, 24)),
    ],
    ids=["2d", "3d", "3d_anisotropic", "u_net_odd", "u_net_concat"],
)
def test_whole_networks_have_the_plain_form_s_gradients(network, shape):
    network = network.double()
    set_queries(network)
    x = random(*shape, dtype=torch.float64)
    weight = random(2, 3, *shape[2:], seed=1, dtype=torch.float64)
    results = {}
    for form in ("plain", "streaming"):
        for read in readers_of(network).values():
            read.form = form
        out = network(x)
        results[form] = out, torch.autograd.grad((out * weight).sum(), list(network.parameters()), allow_unused=True)
    assert (results["plain"][0] - results["streaming"][0]).abs().max() < 1e-11
    for plain, streaming in zip(results["plain"][1], results["streaming"][1], strict=True):
        assert (plain is None) == (streaming is None)  # heads without deep supervision
        if plain is not None:
            torch.testing.assert_close(streaming, plain, rtol=1e-9, atol=1e-10)


@ON_PLANS
def test_memory_estimate_counts_what_is_kept(network_class):
    """By hand for three stages: x or out, two statistics per value, pooled entries with positions."""
    kwargs = planned(network_class, "3d")
    network, host = network_class(2, 3, **kwargs), HOSTS[network_class](2, num_classes=3, **kwargs)
    extra = network.compute_conv_feature_map_size((8, 8, 12)) - host.compute_conv_feature_map_size((8, 8, 12))
    v1, v2, v3 = 8 * 8 * 12, 4 * 4 * 6, 2 * 2 * 3
    encoder = (8 + 2 * 2) * v2 + (8 + 2 * 3) * v3
    decoder = (8 + 2 * 4) * v2 + (4 + 2 * 5) * v1
    pooled = 2 * (4 * v2 + 4 * v3 + 8 * v3)
    assert extra == encoder + decoder + pooled
