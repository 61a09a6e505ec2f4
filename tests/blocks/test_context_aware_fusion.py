"""Context-aware fusion against its equations, and what its gates depend on."""

import pytest
import torch
import torch.nn.functional as F

from nnunet_attn.blocks.context_aware_fusion import ContextAwareFusion


@pytest.mark.parametrize("inputs", [1, 2])
def test_equals_the_formula(inputs):
    torch.manual_seed(0)
    fusion = ContextAwareFusion(4, inputs=inputs).double()
    maps = [torch.randn(2, 4, 5, 6, dtype=torch.float64) for _ in range(inputs)]
    w = dict(fusion.named_parameters())

    def pointwise(x, name):
        y = torch.einsum("bchw,oc->bohw", x, w[f"{name}.weight"][:, :, 0, 0])
        return y + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else y

    united = torch.cat(maps, dim=1)
    gathered = pointwise(united, "gather")
    pooled = torch.cat((gathered.mean((2, 3)), gathered.flatten(2).max(-1).values), dim=1)[..., None, None]
    w_channel = torch.sigmoid(pointwise(pooled, "channel_gate"))
    plane = sum(pointwise(x, f"to_plane.{i}") for i, x in enumerate(maps))
    w_spatial = torch.sigmoid(F.conv2d(plane, w["spatial_gate.weight"], w["spatial_gate.bias"], padding=3))
    torch.testing.assert_close(fusion(*maps), w_spatial * pointwise(w_channel * united, "reduce"))


def test_plane_of_one_channel_is_the_channel_mean_of_a_convolution():
    """The mean over channels of a 1x1 convolution C -> C, as Eq. (5) has it, is in the class of functions used."""
    torch.manual_seed(0)
    x, full = torch.randn(2, 4, 5, 6), torch.nn.Conv2d(4, 4, 1)
    fusion = ContextAwareFusion(4)
    fusion.to_plane[0].weight.data = full.weight.data.mean(0, keepdim=True)
    fusion.to_plane[0].bias.data = full.bias.data.mean(0, keepdim=True)
    torch.testing.assert_close(fusion.to_plane[0](x), full(x).mean(1, keepdim=True))


def test_wrong_number_of_inputs_is_refused():
    with pytest.raises(ValueError, match=r"made for 2 input\(s\), got 1"):
        ContextAwareFusion(4)(torch.zeros(1, 4, 2, 2))
