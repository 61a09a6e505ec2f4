"""The encoder's names, scales and weights from a file."""

import argparse

import pytest
import torch
import torch.nn.functional as F

from nnunet_attn.architectures.dilateformer import DilateFormer
from nnunet_attn.architectures.fias import FIAS
from nnunet_attn.training.pretrained import load_encoder

IGNORED = FIAS.ignored_pretrained_keys


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    """A state dict as a classifier's checkpoint has it: the encoder for RGB, a norm and a head."""
    torch.manual_seed(0)
    weights = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in DilateFormer(3).state_dict().items()}
    head = {"norm.weight": (576,), "norm.bias": (576,), "head.weight": (1000, 576), "head.bias": (1000,)}
    return weights | {k: torch.randn(shape) for k, shape in head.items()}


def written(weights, path, *, wrap="model", prefix="", **more):
    content = {prefix + k: v for k, v in weights.items()}
    torch.save({wrap: content, **more} if wrap else content, path)
    return path


def expected_names() -> set[str]:
    """The released names, written out."""
    names = {f"patch_embed.proj.{i}.weight" for i in (0, 3, 6, 9)}
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names |= {f"patch_embed.proj.{i}.{s}" for i in (1, 4, 7) for s in statistics}
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in range(depth):
            for part in ("pos_embed", "norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                names |= {f"stages.{stage}.blocks.{block}.{part}.{s}" for s in ("weight", "bias")}
        if stage < 3:
            names |= {f"stages.{stage}.downsample.proj.0.{s}" for s in ("weight", "bias")}
            names |= {f"stages.{stage}.downsample.proj.1.{s}" for s in statistics}
    return names


def test_names_and_count_are_the_released_ones():
    encoder = DilateFormer(3)
    shapes = {k: tuple(v.shape) for k, v in encoder.state_dict().items()}
    assert shapes.keys() == expected_names()
    assert shapes["stages.1.blocks.0.attn.qkv.weight"] == (432, 144, 1, 1)
    assert shapes["stages.2.blocks.5.attn.qkv.weight"] == (864, 288)
    assert sum(p.numel() for p in encoder.parameters()) == 16_660_592  # 17,238,744 less norm and head


@pytest.mark.parametrize("size", [(64, 96), (45, 61)], ids=str)
def test_four_scales_rounded_up(size):
    with torch.no_grad():
        taps = DilateFormer(1).eval()(torch.randn(1, 1, *size))
    for i, (tap, width) in enumerate(zip(taps, (72, 144, 288, 576), strict=True)):
        assert tap.shape == (1, width, *(-(-n // 2 ** (i + 2)) for n in size))


def test_taps_leave_before_downsampling():
    torch.manual_seed(0)
    encoder, x = DilateFormer(1).eval(), torch.randn(1, 1, 40, 56)
    with torch.no_grad():
        taps = encoder(x)
        y = encoder.patch_embed(x)
        for stage, tap in zip(encoder.stages, taps, strict=True):
            for block in stage.blocks:
                y = y + F.conv2d(y, block.pos_embed.weight, block.pos_embed.bias, padding=1, groups=y.shape[1])
                tokens = y.permute(0, 2, 3, 1)
                tokens = tokens + block.attn(F.layer_norm(tokens, y.shape[1:2], eps=1e-6))
                hidden = F.gelu(block.mlp.fc1(F.layer_norm(tokens, y.shape[1:2], eps=1e-6)))
                y = (tokens + block.mlp.fc2(hidden)).permute(0, 3, 1, 2)
            torch.testing.assert_close(tap, y)
            y = stage.downsample(y)


@pytest.mark.parametrize(
    ("wrap", "prefix", "more"),
    [
        ("model", "", {"args": argparse.Namespace(lr=1e-3), "epoch": 299}),
        ("model_ema", "module.", {}),
        ("state_dict", "module.", {}),
        (None, "", {}),
    ],
    ids=["model", "model_ema", "state_dict", "bare"],
)
def test_released_layouts_load_by_name(released, tmp_path, wrap, prefix, more):
    encoder = DilateFormer(3)
    report = load_encoder(encoder, written(released, tmp_path / "w.pth", wrap=wrap, prefix=prefix, **more), IGNORED)
    assert report.startswith(f"{len(expected_names())} tensors of DilateFormer loaded from w.pth")
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, released[name]), name


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_stem_is_adapted_to_the_channels(released, tmp_path, channels):
    encoder = FIAS(channels, 2).encoder
    load_encoder(encoder, written(released, tmp_path / "w.pth"), IGNORED)
    rgb, stem = released["patch_embed.proj.0.weight"], encoder.patch_embed.proj[0].weight
    if channels == 1:
        expected = rgb.sum(1, keepdim=True)
    else:
        expected = torch.stack([rgb[:, c % 3] for c in range(channels)], dim=1) * (3 / channels)
    torch.testing.assert_close(stem.detach(), expected)
    assert torch.equal(encoder.stages[3].blocks[1].mlp.fc2.weight, released["stages.3.blocks.1.mlp.fc2.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stages.2.blocks.5.norm1.bias"), "missing stages.2.blocks.5.norm1.bias"),
        (lambda w: w.update({"stages.2.blocks.6.norm1.bias": torch.zeros(1)}), "unknown stages.2.blocks.6.norm1.bias"),
        (lambda w: w.update({"normalise.weight": torch.zeros(1)}), "unknown normalise.weight"),
        (lambda w: w.update({"stages.0.blocks.0.attn.proj.bias": torch.zeros(96)}), r"is \(96,\), expected \(72,\)"),
    ],
    ids=["missing", "unknown", "like-a-norm", "shape"],
)
def test_anything_else_is_an_error_and_changes_nothing(released, tmp_path, change, message):
    weights = dict(released)
    change(weights)
    encoder = DilateFormer(3)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_encoder(encoder, written(weights, tmp_path / "w.pth"), IGNORED)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
