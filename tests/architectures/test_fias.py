"""FIAS as a whole: sizes, options, the maps for the mutation loss, precision, compilation."""

import pytest
import torch

from nnunet_attn.architectures.fias import FIAS


@pytest.fixture(scope="module")
def network() -> FIAS:
    torch.manual_seed(0)
    return FIAS(1, 3).eval()


@pytest.mark.parametrize("size", [(40, 56), (45, 61), (48, 320), (256, 224), (1, 1)], ids=str)
def test_any_size(network, size):
    with torch.no_grad():
        logits = network(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size)
    assert torch.isfinite(logits).all()


def test_shape_at_512():
    with torch.device("meta"):
        assert FIAS(1, 3).eval()(torch.empty(1, 1, 512, 512)).shape == (1, 3, 512, 512)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 35_619_183),
        ({"out_norm": True}, 35_619_183 + 2 * (72 + 144 + 288 + 576)),
        ({"mca_gate": False}, 35_619_183 - 166_608 - 41_832 - 11_704 - 4_712),
        ({"sr_ratio": 2}, 35_619_183),
        ({"dropout": 0.0, "drop_path": 0.0}, 35_619_183),
        ({"dmk": False, "fusion": "sum", "mixatt": False}, None),
    ],
    ids=str,
)
def test_options(options, parameters):
    torch.manual_seed(0)
    net = FIAS(1, 9, **options)
    assert parameters in (None, sum(p.numel() for p in net.parameters()))
    net(torch.randn(2, 1, 45, 61)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def test_input_channels_change_the_stems_only():
    one, four = FIAS(1, 2).state_dict(), FIAS(4, 2).state_dict()
    changed = {k for k in one if one[k].shape != four[k].shape}
    assert changed == {"encoder.patch_embed.proj.0.weight", "dmk.stem.conv.weight"}


def test_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        FIAS(1, 2, fusion="max")


def test_prediction_is_the_sum_of_the_three_maps(network):
    """And they come finest first, checked by what each head alone changes."""
    x, sizes = torch.randn(1, 1, 40, 56), []
    hooks = [
        head.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[2:])))
        for head in network.decoder.seg_layers
    ]
    network.decoder.deep_supervision = True
    try:
        with torch.no_grad():
            aggregate, *maps = network(x)
            torch.testing.assert_close(aggregate, sum(maps))
            assert sizes == [(3, 4), (5, 7), (10, 14)]
            for head, index in zip(network.decoder.seg_layers, (2, 1, 0), strict=True):  # coarsest head first
                head.bias += 1
                changed = network(x)[1:]
                head.bias -= 1
                for i in range(3):
                    torch.testing.assert_close(changed[i], maps[i] + (i == index))
    finally:
        network.decoder.deep_supervision = False
        for hook in hooks:
            hook.remove()


def test_block_1_has_no_predecessor_and_the_others_do():
    widths = [
        (b.convs[0].conv.in_channels, b.convs[0].conv.out_channels, b.out.out_channels)
        for b in FIAS(1, 2).decoder.blocks
    ]
    assert widths == [(576, 576, 288), (576, 288, 144), (288, 144, 72), (144, 72, 72)]


def test_forward_is_the_figure(network):
    """Transformer before DMK in each fusion; in the decoder the upsampled map before the fused one."""
    x = torch.randn(1, 1, 45, 61)
    with torch.no_grad():
        pairs = zip(network.fusions, network.encoder(x), network.dmk(x), strict=True)
        fused4, fused8, fused16, fused32 = [fuse(f1, f2) for fuse, f1, f2 in pairs]
        block1, block2, block3, block4 = network.decoder.blocks

        def with_skip(p, skip):
            up = torch.nn.functional.interpolate(p, size=skip.shape[2:], mode="bilinear", align_corners=False)
            return torch.cat((up, skip), dim=1)

        p1 = block1(fused32)
        p2 = block2(with_skip(p1, fused16))
        p3 = block3(with_skip(p2, fused8))
        p4 = block4(with_skip(p3, fused4))
        up = torch.nn.Upsample((45, 61), mode="bilinear")
        expected = sum(up(head(p)) for head, p in zip(network.decoder.seg_layers, (p2, p3, p4), strict=True))
        torch.testing.assert_close(network(x), expected)


def test_training_compiles_in_one_graph_and_draws_anew():
    torch.manual_seed(0)
    net = FIAS(1, 2, dropout=0.0, drop_path=0.0, deep_supervision=True)  # only Monte Carlo attention draws
    x = torch.randn(2, 1, 40, 56)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.0
    with torch.no_grad():
        outputs = [compiled(x)[0] for _ in range(4)]
        assert any(not torch.allclose(outputs[0], o, atol=1e-6) for o in outputs[1:])
        torch.manual_seed(3)
        once = compiled(x)
        torch.manual_seed(3)
        eager = net(x)
    assert len(once) == 4
    for a, b in zip(once, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_at_the_scale_of_trained_weights(dtype):
    """Linear weights three times the initial ones, for maps up to about 50: no worse than rounding the weights is."""
    torch.manual_seed(0)
    net = FIAS(1, 3).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(3)
        x = 5 * torch.randn(1, 1, 48, 64)
        exact = [net(x), *net.encoder(x)]
        with torch.autocast("cpu", dtype=dtype):
            close = [net(x), *net.encoder(x)]
        for parameter in net.parameters():
            parameter.copy_(parameter.to(dtype))
        rounded = [net(x.to(dtype).float()), *net.encoder(x.to(dtype).float())]
    assert max(tap.abs().max() for tap in exact[1:]) > 40
    for e, c, r in zip(exact, close, rounded, strict=True):
        error = (c.float() - e).norm()
        assert error < 4 * (r - e).norm()
        assert error < 32 * torch.finfo(dtype).eps * e.norm()
