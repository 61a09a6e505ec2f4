"""DCAU-Net: counts part by part, keys at every size, what each option changes, half precision, pretrained encoder."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.architectures.dcau_net import DCABlock, DCAUNet
from nnunet_attn.blocks.channel_spatial_fusion import ChannelAttention
from nnunet_attn.blocks.differential_cross_attention import WindowCrossAttention, lambda_schedule
from nnunet_attn.training.pretrained import load_encoder

SMALL = dict(widths=(16, 32, 48, 64), depths=(1, 2, 1, 1), head_width=16)
VARIANTS = {
    "default": {},
    "standard": {"attention": "standard"},
    "fixed": {"lambda_init": 0.5},
    "concat": {"fusion": "concat"},
    "no_spatial_attention": {"fusion": "no_spatial_attention"},
    "no_channel_attention": {"fusion": "no_channel_attention"},
    "post": {"norm": "post"},
    "plain": {"implementation": "plain"},
    "window keys last": {"pixel_keys_last": False},
}
EACH_VARIANT = pytest.mark.parametrize("options", [pytest.param(v, id=k) for k, v in VARIANTS.items()])


def small(channels: int = 2, classes: int = 3, *, seed: int = 0, **options) -> DCAUNet:
    torch.manual_seed(seed)
    return DCAUNet(channels, classes, **SMALL, **options)


def image(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(**options) -> DCAUNet:
    with torch.device("meta"):
        return DCAUNet(3, 9, **options)


def keys_per_stage(network: DCAUNet, *size: int) -> list[int]:
    """Number of keys in the blocks of each stage, on the device "meta", where a forward pass costs nothing."""
    counts = []

    def record(_module, arguments):
        counts.append(arguments[0].shape[1])

    hooks = [m.key.register_forward_pre_hook(record) for m in network.modules() if isinstance(m, WindowCrossAttention)]
    logits = network.eval()(torch.empty(1, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    assert logits.shape == (1, 9, *size)
    depths = [len(stage) for stage in network.encoder.stages]
    stages = [counts[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(4)]
    assert all(len(set(stage)) == 1 for stage in stages)
    return [stage[0] for stage in stages]


def names(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


# ---- counts ---------------------------------------------------------------------------------------------------------


def test_parameters_part_by_part():
    network = on_meta()
    encoder, decoder = network.encoder, network.decoder
    assert [parameters(e) for e in encoder.patch_embeds] == [19_488, 73_984, 295_424, 1_180_672]
    assert [parameters(s) for s in encoder.stages] == [151_872, 797_440, 6_333_952, 9_468_480]
    assert [parameters(u) for u in decoder.ups] == [131_584, 33_024, 8_320]
    assert [parameters(f) for f in decoder.fusions] == [2_369_122, 592_738, 148_450]
    assert (parameters(decoder.last), parameters(decoder.seg_layers)) == (9_248, 153)
    assert parameters(network) == 21_613_951


def test_heads_and_norms_of_the_paper_s_stages():
    for stage, heads, depth in zip(on_meta().encoder.stages, (1, 2, 4, 8), (3, 4, 8, 3), strict=True):
        assert len(stage) == depth
        for block in stage:
            assert block.attention.heads == heads
            assert block.attention.norm.weight.shape == (64,)
            assert block.attention.lambda_q1.shape == (32,)


def test_patch_embeddings_are_convolutions_of_stride_2():
    stem, *others = ([m for m in embed.modules() if not list(m.children())] for embed in on_meta().encoder.patch_embeds)
    assert [type(m) for m in stem] == [nn.Conv2d, nn.BatchNorm2d, nn.GELU, nn.Conv2d, nn.BatchNorm2d]
    assert all([type(m) for m in embed] == [nn.Conv2d, nn.BatchNorm2d] for embed in others)
    for conv in (stem[0], stem[3], *(embed[0] for embed in others)):
        assert (conv.kernel_size, conv.stride, conv.bias) == ((3, 3), (2, 2), None)


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "keys"),
    [
        ((224, 224), [64, 16, 4, 49]),
        ((512, 512), [361, 100, 25, 256]),
        ((256, 224), [80, 20, 6, 56]),
        ((320, 256), [120, 30, 9, 80]),
        ((40, 56), [4, 35, 12, 4]),
        ((48, 48), [4, 36, 9, 4]),
    ],
)
def test_keys_at_each_size(size, keys):
    assert keys_per_stage(on_meta(), *size) == keys


def test_the_last_stage_can_take_window_keys():
    network = on_meta(pixel_keys_last=False)
    assert keys_per_stage(network, 224, 224) == [64, 16, 4, 49]
    assert keys_per_stage(network, 256, 224)[3] == 2
    assert keys_per_stage(network, 512, 512)[3] == 9


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(33, 47), (28, 256), (40, 56), (7, 9)])
def test_any_size_and_number_of_channels(size, channels):
    network = small(channels).eval()
    with torch.no_grad():
        x = image(2, channels, *size)
        features, logits = network.encoder(x), network(x)
    for stride, feature in zip((4, 8, 16, 32), features, strict=True):
        assert feature.shape[2:] == tuple(-(-n // stride) for n in size)
        assert feature.is_contiguous(memory_format=torch.channels_last)
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


def test_a_bottleneck_of_one_pixel_trains():
    network = small().train()
    network(image(2, 2, 32, 30)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


# ---- formulas -------------------------------------------------------------------------------------------------------


class Halve(nn.Module):
    """Stands in for attention: easy to write down, and not symmetric in the two axes."""

    def forward(self, x):
        return 0.5 * x.cumsum(1) + x.cumsum(2)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_is_equations_8_to_10(norm):
    torch.manual_seed(0)
    block = DCABlock(6, Halve(), norm=norm).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.uniform_(-0.5, 1)
    x = image(2, 6, 5, 4, dtype=torch.float64)

    def layer_norm(x, part):
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        weight, bias = (t[:, None, None] for t in (part.weight, part.bias))
        return (x - mean) / (variance + 1e-6).sqrt() * weight + bias

    def attention(x):
        return Halve()(x.movedim(1, 3)).movedim(3, 1)

    def mlp(x):
        hidden = F.gelu(torch.einsum("bchw,dc->bdhw", x, block.mlp[0].weight) + block.mlp[0].bias[:, None, None])
        return torch.einsum("bchw,dc->bdhw", hidden, block.mlp[2].weight) + block.mlp[2].bias[:, None, None]

    assert block.mlp[0].out_features == 4 * 6
    x1 = x + block.conv(x)
    assert block.conv.weight.shape == (6, 1, 3, 3)
    if norm == "pre":
        x2 = x1 + attention(layer_norm(x1, block.norm_attention))
        x3 = x2 + mlp(layer_norm(x2, block.norm_mlp))
    else:
        x1 = layer_norm(x1, block.norm_conv)
        x2 = layer_norm(x1 + attention(x1), block.norm_attention)
        x3 = layer_norm(x2 + mlp(x2), block.norm_mlp)
    torch.testing.assert_close(block(x), x3)


def test_decoder_step_by_step():
    network = small().double().eval()
    decoder, x = network.decoder, image(1, 2, 45, 61, dtype=torch.float64)
    e1, e2, e3, e4 = network.encoder(x)

    def up(x, size):
        return F.interpolate(x, size=tuple(size), mode="bilinear")

    d3 = decoder.fusions[0](e3, up(decoder.ups[0](e4), e3.shape[2:]))
    d2 = decoder.fusions[1](e2, up(decoder.ups[1](d3), e2.shape[2:]))
    d1 = decoder.fusions[2](e1, up(decoder.ups[2](d2), e1.shape[2:]))
    torch.testing.assert_close(network(x), decoder.seg_layers[0](decoder.last(up(d1, (45, 61)))))


def test_lambda_follows_the_depth_through_the_whole_encoder():
    def starts(network):
        return [m.lambda_init for m in network.modules() if isinstance(m, WindowCrossAttention)]

    assert starts(on_meta()) == [lambda_schedule(depth) for depth in range(1, 19)]
    assert starts(on_meta(lambda_init=0.8)) == [0.8] * 18


def test_both_implementations_give_the_same_logits_and_gradients():
    results = {}
    for implementation in ("plain", "fused"):
        network = small(implementation=implementation).double().train()
        logits = network(image(2, 2, 45, 61, dtype=torch.float64))
        (logits * image(*logits.shape, seed=3, dtype=torch.float64)).sum().backward()
        results[implementation] = {"logits": logits.detach()} | {n: p.grad for n, p in network.named_parameters()}
    for name, expected in results["plain"].items():
        difference = (results["fused"][name] - expected).norm()
        assert difference <= 1e-8 * (1 + expected.norm()), name


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"attention": "standard"}, 21_610_495),
        ({"attention": "none"}, 16_043_455),
        ({"lambda_init": 0.5}, 21_613_951),
        ({"fusion": "concat"}, 20_827_865),
        ({"fusion": "no_spatial_attention"}, 21_613_657),
        ({"fusion": "no_channel_attention"}, 21_603_199),
        ({"norm": "post"}, 21_622_527),
        ({"implementation": "plain"}, 21_613_951),
        ({"pixel_keys_last": False}, 21_613_951),
    ],
)
def test_options_change_only_their_own_parameters(options, count):
    network = on_meta(**options)
    assert parameters(network) == count
    ours, default = names(network), names(on_meta())
    gone, new = default.keys() - ours.keys(), ours.keys() - default.keys()
    assert all(ours[name] == default[name] for name in ours.keys() & default.keys())
    own = {
        "standard": ("attention.lambda_", "attention.norm."),
        "none": (".attention.", ".norm_attention."),
        "concat": ("decoder.fusions.",),
        "no_spatial_attention": (".spatial_attention.",),
        "no_channel_attention": (".channel_attention.",),
        "post": (".norm_conv.",),
    }
    marks = own.get(next(iter(options.values())), ())
    for name in gone | new:
        assert any(mark in name for mark in marks), name
    assert bool(gone | new) == bool(marks)


def test_without_attention_the_network_is_the_one_whose_attention_adds_nothing():
    full, without = small().eval(), small(attention="none").eval()
    for name, parameter in full.named_parameters():
        if ".attention.out." in name:
            nn.init.zeros_(parameter)
    without.load_state_dict({k: v for k, v in full.state_dict().items() if k in without.state_dict()})
    x = torch.randn(1, 2, 40, 56)
    with torch.no_grad():
        assert torch.equal(full(x), without(x))


@pytest.mark.parametrize("fusion", ["concat", "no_spatial_attention", "no_channel_attention"])
def test_fusions_leave_the_encoder_alone(fusion):
    default, other = small().eval(), small(fusion=fusion).eval()
    other.encoder.load_state_dict(default.encoder.state_dict())
    x = image(1, 2, 40, 56)
    with torch.no_grad():
        for expected, found in zip(default.encoder(x), other.encoder(x), strict=True):
            assert torch.equal(expected, found)
        other.load_state_dict(default.state_dict(), strict=False)
        assert not torch.allclose(default(x), other(x), rtol=1e-2)


def test_attention_options_change_the_result_at_equal_weights():
    x, default = image(1, 2, 64, 72), small().eval()
    with torch.no_grad():
        for options in (VARIANTS["standard"], VARIANTS["fixed"]):
            other = small(**options).eval()
            assert not other.load_state_dict(default.state_dict(), strict=False).missing_keys
            assert not torch.allclose(default(x), other(x), rtol=1e-2)


@EACH_VARIANT
def test_gradients_of_every_variant(options):
    """All are alive but the last bias of the encoder, which BatchNorm removes."""
    network = small(**options).double().train()
    for module in network.modules():
        if isinstance(module, ChannelAttention):
            nn.init.uniform_(module.mlp[0].weight)  # its one or two hidden units could all be dead otherwise
    logits = network(image(2, 2, 72, 104, dtype=torch.float64))
    (logits * image(*logits.shape, seed=3, dtype=torch.float64)).sum().backward()
    part = "norm_mlp" if options.get("norm") == "post" else "mlp.2"
    free = f"encoder.stages.3.0.{part}.bias"
    sizes = {name: p.grad.abs().max().item() for name, p in network.named_parameters()}
    assert sizes.pop(free) < 1e-9
    assert min(sizes.values()) > 1e-5, min(sizes, key=sizes.get)


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "standard", "fusion": "concat", "norm": "post"},
        {"implementation": "plain", "fusion": "no_spatial_attention", "pixel_keys_last": False},
    ],
    ids=["standard, concat, post", "plain, no_spatial_attention, window keys"],
)
def test_the_other_options_compile_in_one_graph(options):
    network = DCAUNet(2, 3, **SMALL | {"depths": (1, 1, 1, 1)}, **options).eval()
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    x = image(2, 2, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deep_supervision": True}, "nnUNetTrainerNoDeepSupervision"),
        ({"attention": "cross"}, "attention must be one of differential, standard, none, got 'cross'"),
        ({"fusion": "sum"}, "fusion must be one of csff, .*, got 'sum'"),
        ({"norm": "none"}, "norm must be one of pre, post, got 'none'"),
        ({"implementation": "flash"}, "got 'flash'"),
        ({"widths": (64, 128), "depths": (1, 2, 3)}, "got 2 and 3"),
        ({"widths": (64, 96, 128, 256)}, "multiples of head_width 64, got 64, 96, 128, 256"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DCAUNet(1, 2, **options)


# ---- weights and precision ------------------------------------------------------------------------------------------


def test_initialisation():
    network = small()
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups > 1):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.25), name
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 500:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.2), name
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any(), name
    assert not hasattr(network, "initialize")
    vectors = torch.cat([p.flatten() for n, p in DCAUNet(1, 2).named_parameters() if "attention.lambda_" in n])
    assert vectors.std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_encoder_weights_from_a_file(tmp_path, channels):
    """A file with a whole network of three channels, or its encoder alone, fills the encoder and nothing else."""
    source = small(3, 9, seed=1)
    torch.save(source.state_dict(), tmp_path / "whole.pth")
    torch.save({"state_dict": source.encoder.state_dict()}, tmp_path / "encoder.pth")
    for file in ("whole.pth", "encoder.pth"):
        network = small(channels, 4)
        decoder = {k: v.clone() for k, v in network.decoder.state_dict().items()}
        load_encoder(network.encoder, tmp_path / file)
        stem = "patch_embeds.0.0.conv.weight"
        expected = source.encoder.state_dict()
        if channels == 1:
            expected[stem] = expected[stem].sum(1, keepdim=True)
        for name, value in network.encoder.state_dict().items():
            torch.testing.assert_close(value, expected[name], msg=name)
        assert all(torch.equal(v, decoder[k]) for k, v in network.decoder.state_dict().items())


@pytest.mark.parametrize("attention", ["standard", "none"])
def test_twins_take_the_encoder_weights_of_the_whole_network(attention, tmp_path):
    small = {"widths": (64, 64), "depths": (1, 1)}
    whole = DCAUNet(3, 2, **small).encoder.state_dict()
    torch.save(whole, tmp_path / "encoder.pth")
    twin = DCAUNet(3, 2, attention=attention, **small)
    with pytest.raises(ValueError, match="unknown stages"):
        load_encoder(twin.encoder, tmp_path / "encoder.pth")
    load_encoder(twin.encoder, tmp_path / "encoder.pth", twin.ignored_pretrained_keys)
    assert all(torch.equal(value, whole[name]) for name, value in twin.encoder.state_dict().items())
    del whole[min(whole)]
    torch.save(whole, tmp_path / "encoder.pth")
    with pytest.raises(ValueError, match="missing"):
        load_encoder(twin.encoder, tmp_path / "encoder.pth", twin.ignored_pretrained_keys)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("implementation", ["plain", "fused"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)], ids=str)
def test_autocast_with_peaked_attention_and_large_heads(dtype, tolerance, implementation, norm):
    """Scores and heads of the magnitude that training reaches, BatchNorm on batch statistics, against float32."""
    torch.manual_seed(0)
    network = DCAUNet(1, 4, depths=(2, 2, 2, 2), implementation=implementation, norm=norm).train()
    heads = []
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, WindowCrossAttention):
                for projection, deviation in ((module.query, 1.5), (module.key, 1.5), (module.value, 300.0)):
                    projection.weight.normal_(std=deviation / math.sqrt(projection.in_features))
                module.value.register_forward_hook(lambda _module, _arguments, output: heads.append(output.abs().max()))
        x = image(2, 1, 96, 104)
        exact = network(x)
        with torch.autocast("cpu", dtype=dtype):
            close = network(x).float()
    assert max(heads) > 300
    assert (close - exact).norm() / exact.norm() < tolerance
