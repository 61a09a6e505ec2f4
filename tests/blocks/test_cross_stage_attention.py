"""Cross-stage attention residuals: the plain form against loops, the other forms against the plain one."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks.cross_stage_attention import FORMS, CrossStageAttentionResidual
from nnunet_attn.blocks.feature_history import FeatureHistory, max_by_axis
from nnunet_attn.blocks.layout import channels_last
from nnunet_attn.blocks.streaming_attention import streaming_attention, streaming_attention_backward
from nnunet_attn.complexity import gmacs, saved_bytes

# sizes of the history's entries and of x: halves; odd sides; one axis larger and the other smaller than x's
PYRAMID_2D = ((16, 24), (8, 12), (4, 6), (8, 12)), (8, 12)
ODD_2D = ((17, 23), (9, 11), (5, 6), (2, 3)), (9, 11)
MIXED_2D = ((17, 5), (9, 20), (9, 11), (3, 4)), (9, 11)
PYRAMID_3D = ((4, 16, 24), (4, 8, 12), (2, 4, 6), (4, 8, 12)), (4, 8, 12)
ODD_3D = ((5, 7, 9), (5, 4, 5), (3, 2, 3), (3, 4, 4)), (5, 4, 5)
SIZES = pytest.mark.parametrize("sizes", [PYRAMID_2D, ODD_2D, MIXED_2D, PYRAMID_3D, ODD_3D], ids=str)
CORNERS = pytest.mark.parametrize("align_corners", [False, True])
WIDTHS, WIDTH = (4, 6, 8, 6), 6


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(sizes=PYRAMID_2D, *, widths=WIDTHS, width=WIDTH, align_corners=False, dtype=torch.float64):
    """A block with a query and scale that are neither 0 nor 1, a history and x."""
    torch.manual_seed(0)
    block = CrossStageAttentionResidual(
        width, widths, dim=len(sizes[1]), align_corners=align_corners, query_init="xavier"
    ).to(dtype)
    nn.init.uniform_(block.scale, 0.5, 1.5)
    history = [random(2, w, *s, seed=n, dtype=dtype) for n, (w, s) in enumerate(zip(widths, sizes[0], strict=True))]
    return block, history, random(2, width, *sizes[1], seed=9, dtype=dtype)


def output_and_gradients(block, history, x, form):
    block.form = form
    inputs = [t.clone().requires_grad_() for t in (x, *history)]
    out = block(inputs[1:], inputs[0])
    gradients = torch.autograd.grad(out, [*inputs, *block.parameters()], random(*out.shape, seed=7, dtype=out.dtype))
    return out.detach(), gradients


@CORNERS
@SIZES
def test_all_forms_are_equal_with_all_gradients(sizes, align_corners):
    case = make(sizes, align_corners=align_corners)
    plain, plain_gradients = output_and_gradients(*case, "plain")
    for form in ("list", "streaming"):
        out, gradients = output_and_gradients(*case, form)
        assert (out - plain).abs().max() < 1e-12, form
        for gradient, expected in zip(gradients, plain_gradients, strict=True):
            assert (gradient - expected).abs().max() < 1e-10, form


def test_plain_form_is_equations_4_to_8():
    """One pixel after the other, one channel after the other."""
    block, history, x = make()
    block.form = "plain"
    out = block(history, x)
    resized = [
        F.adaptive_max_pool2d(history[0], (8, 12)),
        history[1],
        F.interpolate(history[2], size=(8, 12), mode="bilinear"),
        history[3],
    ]
    aligned = [h if p is None else F.conv2d(h, p) for h, p in zip(resized, matrices(block), strict=True)]
    values = [*aligned, x]
    for b, i, j in ((0, 0, 0), (1, 3, 5), (0, 7, 11)):
        logits = []
        for value in values:
            pixel = value[b, :, i, j].tolist()
            rms = math.sqrt(sum(v * v for v in pixel) / WIDTH + 1e-6)
            keys = [g * v / rms for g, v in zip(block.scale.tolist(), pixel, strict=True)]
            logits.append(sum(w * k for w, k in zip(block.query.tolist(), keys, strict=True)))
        weights = [math.exp(n) / sum(math.exp(m) for m in logits) for n in logits]
        for c in range(WIDTH):
            expected = sum(w * value[b, c, i, j].item() for w, value in zip(weights, values, strict=True))
            assert out[b, c, i, j].item() == pytest.approx(expected, abs=1e-13)


def matrices(block):
    return [getattr(projection, "weight", None) for projection in block.projections]


@pytest.mark.parametrize("sizes", [(((4, 6), (2, 3), (3, 2)), (2, 3)), (((2, 4, 2), (1, 2, 2)), (2, 2, 2))], ids=str)
def test_streaming_passes_gradcheck(sizes):
    widths = (2, 3, 3)[: len(sizes[0])]
    block, history, x = make(sizes, widths=widths, width=3)
    inputs = [t.requires_grad_() for t in (x, *history)]
    parameters = dict(block.named_parameters())

    def function(x, *rest):
        features, values = rest[: len(history)], rest[len(history) :]
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (list(features), x))

    assert block.form == "streaming"
    assert torch.autograd.gradcheck(function, (*inputs, *parameters.values()))


@pytest.mark.parametrize(
    ("sizes", "turned"),
    [
        (((), (5, 7)), True),
        (((), (1, 1, 1)), False),
        ((((2, 3),), (5, 7)), False),
        (PYRAMID_2D, False),
        (ODD_2D, True),
        (ODD_3D, False),
        (ODD_3D, True),
    ],
    ids=str,
)
def test_operators_keep_pytorch_s_rules(sizes, turned):
    """Forward and backward operator; ``turned`` gives maps that are contiguous in no layout, as permuted ones are."""
    sources = [
        random(2, w, *(min(pair) for pair in zip(s, sizes[1], strict=True)), seed=n)
        for n, (w, s) in enumerate(zip(WIDTHS, sizes[0], strict=False))
    ]
    maps = [random(2, WIDTH, *sizes[1], seed=9), *sources]
    matrices = [random(WIDTH, s.shape[1], seed=5) for s in sources if s.shape[1] != WIDTH]
    if turned:
        maps = [m.transpose(-1, -2).contiguous().transpose(-1, -2) for m in maps]
        matrices = [m.T.contiguous().T for m in matrices]
    x, *sources = (m.requires_grad_() for m in maps)
    query, matrices = random(WIDTH, seed=3).requires_grad_(), [m.requires_grad_() for m in matrices]
    torch.library.opcheck(streaming_attention, (x, query, sources, matrices, 1e-6, False))
    with torch.no_grad():
        out, logits, rms = streaming_attention(x, query, sources, matrices, 1e-6, False)
        x, query, *rest = (t.detach() for t in (x, query, *sources, *matrices))
        sources, matrices = rest[: len(sources)], rest[len(sources) :]
        arguments = (random(*out.shape, seed=7), x, query, logits, rms, sources, matrices, False)
    torch.library.opcheck(streaming_attention_backward, arguments)


def test_second_derivative_is_refused():
    block, history, x = make()
    (gradient,) = torch.autograd.grad(block(history, x.requires_grad_()).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative; set the blocks' form to 'list'"):
        gradient.sum().backward()


@pytest.mark.parametrize("form", FORMS)
def test_zero_query_gives_the_mean(form):
    block, history, x = make(PYRAMID_2D, widths=(6, 6, 6, 6))
    nn.init.zeros_(block.query)
    block.form = form
    values = [
        F.max_pool2d(history[0], 2), history[1], F.interpolate(history[2], scale_factor=2, mode="bilinear"),
        history[3], x,
    ]  # fmt: skip
    torch.testing.assert_close(block(history, x), sum(values) / 5)


@pytest.mark.parametrize("form", FORMS)
def test_zero_query_trains_and_its_scale_waits(form):
    block, history, x = make()
    nn.init.zeros_(block.query)
    block.form = form
    (block(history, x) * random(*x.shape, seed=7)).sum().backward()
    assert block.query.grad.abs().max() > 0.1
    assert block.scale.grad.abs().max() == 0


def test_large_query_picks_one_entry():
    """The softmax over the entries is per pixel and follows the sign of query . value."""
    block = CrossStageAttentionResidual(2, (2,)).double()
    block.query.data = torch.tensor([100.0, 0.0]).double()
    x, entry = random(1, 2, 3, 3, seed=1), random(1, 2, 3, 3, seed=2)

    def direction(value):
        return value[:, :1] / value.norm(dim=1, keepdim=True)

    out = block([entry], x)
    clear = (direction(entry) - direction(x)).abs() > 0.3
    expected = torch.where(direction(entry) > direction(x), entry, x)
    assert clear.any()
    torch.testing.assert_close(out[clear.expand_as(out)], expected[clear.expand_as(out)])


def test_no_history_passes_on_and_has_no_parameters():
    block = CrossStageAttentionResidual(4, ())
    x = random(1, 4, 3, 3)
    assert block([], x) is x
    assert not list(block.parameters())


@pytest.mark.parametrize("align_corners", [False, True])
def test_newest_entry_of_the_u_net_s_history_is_x(align_corners):
    """Down by max pooling, up by interpolation: the aligned predecessor is x, so it alone changes nothing."""
    block = CrossStageAttentionResidual(4, (4,), align_corners=align_corners, query_init="xavier").double()
    e = random(2, 4, 8, 12).requires_grad_()
    for x in (
        F.max_pool2d(e, 2),
        F.interpolate(e, scale_factor=2, mode="bilinear", align_corners=align_corners),
    ):
        out = block([e], x)
        assert (out - x).abs().max() < 1e-15
        (gradient,) = torch.autograd.grad((out * random(*out.shape, seed=3)).sum(), block.query)
        assert gradient.abs().max() < 1e-14


@pytest.mark.parametrize(
    ("size", "pooled"),
    [((16, 24), [(8, 12), (4, 6), (2, 3)]), ((17, 23), [(9, 12), (5, 6)]), ((12, 12), [(6, 6), (4, 4)])],
)
def test_history_pools_once_and_as_one_adaptive_pooling(size, pooled):
    e = random(2, 3, *size).requires_grad_()
    history = FeatureHistory([e])
    assert history.pooled(0, size) is e
    for small in pooled:
        first = history.pooled(0, small)
        direct = F.adaptive_max_pool2d(e, small)
        assert torch.equal(first, direct)
        assert history.pooled(0, small) is first
        weight = random(*direct.shape, seed=5)
        (ours,) = torch.autograd.grad(first, e, weight, retain_graph=True)
        (theirs,) = torch.autograd.grad(direct, e, weight)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 3, 4, 5, 6)])
def test_channels_last_changes_the_layout_only(shape):
    x = random(*shape)
    for given in (x, x.transpose(-1, -2)):
        result = channels_last(given)
        assert torch.equal(result, given)
        assert result.movedim(1, -1).is_contiguous()
    assert channels_last(result) is result


@pytest.mark.parametrize("form", FORMS)
def test_layout_of_the_host_comes_back(form):
    block, history, x = make()
    block.form = form
    assert block(history, x).is_contiguous()
    rearranged = block([channels_last(h) for h in history], channels_last(x))
    torch.testing.assert_close(rearranged, block(history, x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_values_of_300_in_half_precision(form, dtype):
    """300^2 overflows float16: the reciprocal RMS would be 0 and the entry's logit silently 0."""
    block = CrossStageAttentionResidual(8, (8, 8), query_init="kaiming")
    block.form = form
    history = [300 * random(1, 8, 6, 6, seed=n, dtype=torch.float32).sign() for n in range(2)]
    x = random(1, 8, 6, 6, seed=5, dtype=torch.float32)
    exact = block(history, x)
    close = block([h.to(dtype) for h in history], x.to(dtype))
    assert close.dtype == dtype
    assert (exact - (sum(history) + x) / 3).abs().max() > 30  # what zero logits would give is far off
    assert (close.float() - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_with_gradients(form, dtype):
    block, history, x = make(dtype=torch.float32)
    exact, exact_gradients = output_and_gradients(block, history, x, "plain")
    with torch.autocast("cpu", dtype=dtype):
        close, gradients = output_and_gradients(block, history, x, form)
    assert close.dtype == torch.float32
    for gradient, expected in zip((close, *gradients), (exact, *exact_gradients), strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("backend", ["aot_eager"])
@pytest.mark.parametrize("sizes", [PYRAMID_2D, ODD_3D], ids=str)
def test_default_form_compiles_in_one_graph_with_its_backward(sizes, backend):
    block, history, x = make(sizes)
    torch.compiler.reset()
    compiled = torch.compile(block, fullgraph=True, backend=backend)
    expected, expected_gradients = output_and_gradients(block, history, x, "streaming")
    inputs = [t.clone().requires_grad_() for t in (x, *history)]
    out = compiled(inputs[1:], inputs[0])
    gradients = torch.autograd.grad(out, [*inputs, *block.parameters()], random(*out.shape, seed=7))
    torch.testing.assert_close(out, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


AFTER_2_6 = pytest.mark.skipif(
    not hasattr(torch.compiler, "is_exporting"),
    reason="torch 2.6 cannot tell export from compile, so that both see the list form, and counts its inner products",
)


@AFTER_2_6
def test_compiled_graph_holds_the_operator():
    block, history, x = make()
    graphs = []

    def keep(module, _):
        graphs.append(str(module.graph))
        return module.forward

    torch.compiler.reset()
    torch.compile(block, fullgraph=True, backend=keep)(history, x)
    assert len(graphs) == 1
    assert "nnunet_attn" in graphs[0]


def test_export_sees_ordinary_operations():
    block, history, x = make()
    program = torch.export.export(block, (history, x))
    assert "nnunet_attn" not in str(program.graph)
    torch.testing.assert_close(program.module()(history, x), block(history, x))


class Reader(nn.Module):
    """A block as a network: one image stands for the history and x."""

    def __init__(self, form):
        super().__init__()
        self.block = CrossStageAttentionResidual(16, (8, 16, 16, 8, 16))
        self.block.form = form
        self.entries = nn.ModuleList(
            nn.Conv2d(1, c, 3, s, 1) for c, s in zip((8, 16, 16, 8, 16, 16), (1, 2, 4, 8, 4, 2), strict=True)
        )

    def forward(self, image):
        *history, x = (conv(image) for conv in self.entries)
        return self.block(history, x)


def test_streaming_keeps_little():
    image = random(1, 1, 32, 32, dtype=torch.float32)
    kept = {form: saved_bytes(Reader(form), image) for form in FORMS}
    assert 3 * kept["streaming"] < kept["list"] < kept["plain"]


@AFTER_2_6
def test_counted_products_are_those_of_the_projections():
    """Per pixel of the smaller map; and the plain form, which enlarges first, pays more."""
    projections = (8 * 16 * 16**2 + 8 * 16 * 4**2) / 1e9
    convolutions = {form: gmacs(Reader(form), (32, 32), 1) for form in FORMS}
    reader = Reader("streaming")
    reader.block = CrossStageAttentionResidual(16, ())
    reader.forward = lambda image: [conv(image) for conv in reader.entries]
    host = gmacs(reader, (32, 32), 1)
    assert convolutions["streaming"] - host == pytest.approx(projections, rel=1e-9)
    assert convolutions["list"] - host == pytest.approx(projections, rel=1e-9)
    assert convolutions["plain"] - host == pytest.approx(2 * 8 * 16 * 16**2 / 1e9, rel=1e-9)


def test_query_initialisations():
    """Standard deviation of the logits of unit-RMS values is std(query) * sqrt(C)."""
    torch.manual_seed(0)
    std = {
        init: CrossStageAttentionResidual(4096, (4096,), query_init=init).query.std().item()
        for init in ("zero", "random", "kaiming", "xavier")
    }
    assert std["zero"] == 0
    assert std["random"] == pytest.approx(0.02, rel=0.05)
    assert std["kaiming"] == pytest.approx(math.sqrt(2), rel=0.05)
    assert std["xavier"] == pytest.approx(math.sqrt(2 / 4097), rel=0.05)
    assert CrossStageAttentionResidual(4096, (1,), query_init="random", query_std=0.5).query.std() > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_init": "ones"}, "query_init must be one of zero, random, kaiming, xavier, got 'ones'"),
        ({"form": "fast"}, "form must be one of streaming, list, plain, got 'fast'"),
        ({"dim": 1}, "dim must be 2 or 3, got 1"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CrossStageAttentionResidual(4, (4,), **options)


@pytest.mark.parametrize("widths", [(4, 6), (4, 6, 8, 5), (6, 4, 8, 6)])
def test_a_history_that_does_not_fit_is_refused(widths):
    block, _, x = make()
    history = [random(2, w, 8, 12) for w in widths]
    with pytest.raises(ValueError, match=r"made for 6 channels and a history of \[4, 6, 8, 6\], got 6 and"):
        block(history, x)


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 7, 9), (3, 4)), ((1, 2, 5, 6, 11), (5, 4, 3))])
def test_max_by_axis_is_adaptive_pooling(shape, size):
    feature = torch.randn(shape)
    adaptive = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool3d
    assert torch.equal(max_by_axis(feature, size), adaptive(feature, size))
