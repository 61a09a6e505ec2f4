"""EMCAD: counts, stem, padding, maps, names of published weights."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.architectures.emcad import EMCAD
from nnunet_attn.architectures.encoders import pvt_v2_b2, pvt_v2_names


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("channels", "classes", "count"), [(3, 1, 26_764_411), (1, 1, 26_764_411), (3, 9, 26_772_635)])
def test_published_counts(channels, classes, count):
    with torch.device("meta"):
        network = EMCAD(channels, classes)
    assert parameters(network) == count
    assert parameters(network.encoder) == 24_849_856
    assert parameters(network.decoder) == 1_913_515 + 1_028 * classes
    assert parameters(network.stem) == 12


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stem_serves_one_channel_only(channels):
    network = EMCAD(channels, 2)
    assert all(p.requires_grad == (channels == 1) for p in network.stem.parameters())
    x = torch.randn(2, channels, 32, 32)
    before = network.eval()(x)
    nn.init.constant_(network.stem[0].bias, 3.0)
    assert torch.equal(network(x), before) == (channels != 1)


def test_drop_path_of_the_original():
    rates = [m.drop_prob for m in pvt_v2_b2().modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.1)
    assert rates == sorted(rates)
    assert not any(type(m).__name__ == "DropPath" for m in pvt_v2_b2(drop_path_rate=0.0).modules())


def test_padding_is_zeros_below_and_to_the_right():
    network = EMCAD(3, 2, deep_supervision=True).eval()
    x = torch.randn(2, 3, 40, 56)
    padded = F.pad(x, (0, 8, 0, 24))
    assert padded.shape[2:] == (64, 64)
    with torch.no_grad():
        for ours, whole in zip(network(x), network(padded), strict=True):
            assert torch.equal(ours, whole[..., :40, :56])


def test_maps_are_the_heads_enlarged_finest_first():
    network = EMCAD(3, 2, deep_supervision=True).eval()
    stages = {}
    for n, head in enumerate(network.decoder.seg_layers):
        head.register_forward_hook(lambda _module, _inputs, out, n=n: stages.__setitem__(n, out))
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 64, 96))
    assert [tuple(stages[n].shape[2:]) for n in range(4)] == [(2, 3), (4, 6), (8, 12), (16, 24)]
    for n, factor in enumerate((32, 16, 8, 4)):
        enlarged = F.interpolate(stages[n], scale_factor=factor, mode="bilinear", align_corners=False)
        torch.testing.assert_close(maps[3 - n], enlarged)


def test_decoder_starts_as_in_the_original_and_heads_as_torch_does():
    torch.manual_seed(0)
    decoder = EMCAD(3, 2).decoder
    convolutions = [m for name, m in decoder.named_modules() if isinstance(m, nn.Conv2d) and "seg_layers" not in name]
    weights = torch.cat([m.weight.flatten() for m in convolutions])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(m.bias.abs().max() == 0 for m in convolutions if m.bias is not None)
    head = decoder.seg_layers[-1].weight
    assert 0.1 < head.abs().max() <= 1 / 8  # uniform within 1 / sqrt(64)


def released_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's names of the classifier's weights -> those of PVTv2's own release."""
    renamed = {}
    for name, tensor in weights.items():
        name = re.sub(r"^patch_embed\.", "patch_embed1.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}.", name)
        name = re.sub(r"^stages\.(\d)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", name)
        name = re.sub(r"^stages\.(\d)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", name)
        renamed[name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")] = tensor
    return renamed


def test_names_of_both_releases_are_understood():
    classifier, encoder = timm.create_model("pvt_v2_b2"), pvt_v2_b2()
    weights = classifier.state_dict()
    released = released_names(weights)
    assert "patch_embed1.proj.weight" in released
    assert "block4.2.mlp.dwconv.dwconv.weight" in released
    for names in (weights, released, encoder.state_dict()):
        assert pvt_v2_names(names).keys() == encoder.state_dict().keys()
    encoder.load_state_dict(pvt_v2_names(released))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x)[-1], classifier.eval().forward_features(x))


def test_unknown_names_are_kept_for_the_loader_to_refuse():
    assert "strange" in pvt_v2_names({"strange": torch.zeros(1)})
