"""Each of ten deliberately broken networks is called what it is, and a sound one passes."""

import random

import pytest
import torch
from torch import nn

from nnunet_attn.testing import assert_network, check_network
from nnunet_attn.testing.check import CHECKS


class Sound(nn.Module):
    """A small U-Net that follows the plan's strides, 2D and 3D; the broken ones change one thing."""

    def __init__(self, input_channels, num_classes, *, strides, dims, deep_supervision=False):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.Conv3d)[dims - 2], (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2]
        up = (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2]
        strides = [tuple(stride) for stride in strides]
        self.stages, width = nn.ModuleList(), 4
        for stride in strides:
            self.stages.append(
                nn.Sequential(
                    conv(input_channels, width, 3, stride, 1, bias=False), norm(width, affine=True), nn.GELU()
                )
            )
            input_channels = width
        self.decoder = nn.Module()
        self.decoder.deep_supervision = deep_supervision
        self.decoder.ups = nn.ModuleList([up(width, width, stride, stride) for stride in strides[:0:-1]])
        self.decoder.seg_layers = nn.ModuleList([conv(width, num_classes, 1) for _ in strides[1:]])

    def forward(self, x):
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        maps = []
        for up, head, skip in zip(self.decoder.ups, self.decoder.seg_layers, skips[-2::-1], strict=True):
            x = up(x) + skip
            maps.append(head(x))
        return maps[::-1] if self.decoder.deep_supervision else maps[-1]


class HeadOrderSwapped(Sound):
    def forward(self, x):
        maps = super().forward(x)
        return maps[::-1] if isinstance(maps, list) else maps


class SoftmaxInside(Sound):
    def forward(self, x):
        maps = super().forward(x)
        return [m.softmax(1) for m in maps] if isinstance(maps, list) else maps.softmax(1)


class SizeDependentParameters(Sound):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.position = nn.Parameter(torch.zeros(64, 64))

    def forward(self, x):
        return super().forward(x + self.position)


class GlobalSeed(Sound):
    def __init__(self, *args, **kwargs):
        torch.manual_seed(42)
        super().__init__(*args, **kwargs)


class InPlaceOnInput(Sound):
    def forward(self, x):
        return super().forward(x.clamp_(-3, 3))


class PythonSideState(Sound):
    average = 1.0

    def forward(self, x):
        if self.training:
            self.average = 0.9 * self.average
        return super().forward(x * self.average)


class UnusedParameter(Sound):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.forgotten = nn.Linear(4, 4)


class NaNInHalfPrecision(Sound):
    def forward(self, x):
        large = 300 * torch.einsum("bc...,cd->bd...", x, torch.eye(2)).square().square()
        return super().forward(x * (large / (large + 1)))


class GraphBreak(Sound):
    def forward(self, x):
        if x.mean().item() > 1e9:
            x = x / 2
        return super().forward(x)


class WrongStrides(Sound):
    def __init__(self, *args, strides, dims, **kwargs):
        super().__init__(*args, strides=[(1,) * dims, (4,) * dims, (2,) * dims], dims=dims, **kwargs)


@pytest.mark.parametrize(
    ("network", "failed", "told"),
    [
        (HeadOrderSwapped, ("order of heads",), "8x8, 16x16, 32x32, 64x64"),
        (SoftmaxInside, ("logits",), "softmax"),
        (SizeDependentParameters, ("size dependence",), "takes 64x64, but not 40x56"),
        (GlobalSeed, ("global state",), "torch's seed"),
        (InPlaceOnInput, ("input unchanged",), "changes the image"),
        (PythonSideState, ("python-side state",), "a forward pass changes average"),
        (UnusedParameter, ("gradients",), "no gradient reaches forgotten.weight, forgotten.bias"),
        (NaNInHalfPrecision, ("half precision",), "not finite"),
        (GraphBreak, ("compilation", "export"), "does not compile in one graph"),
        (WrongStrides, ("sizes of heads",), "nnU-Net's targets 64x64, 32x32, 16x16, 8x8"),
    ],
)
def test_a_broken_network_is_called_what_it_is(network, failed, told, monkeypatch):
    if "compilation" not in failed:  # a second each, which the sound network and the graph break cover
        for slow in ("compilation", "export", "memory"):
            monkeypatch.delitem(CHECKS, slow)
    report = check_network(network, dims=(2,))
    assert set(report.failed) == set(failed)
    assert not report.ok
    findings = [f for f in report.findings if f.status == "FAIL"]
    assert any(told in f.cause for f in findings)
    assert all(f.remedy in str(report) for f in findings)


def test_a_sound_network_passes_and_leaves_nothing_behind():
    random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), torch.get_rng_state()
    report = check_network(Sound)
    assert report.ok, str(report)
    assert {f.dims for f in report.findings} == {2, 3}
    assert {f.status for f in report.findings} == {"ok"}
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_as_a_test_it_raises_with_the_table():
    with pytest.raises(AssertionError, match=r"(?s)construction +FAIL.*FAIL construction, 2D: cannot be made"):
        assert_network(lambda input_channels, num_classes: nn.Conv2d(1, 1, "three"), dims=(2,))
