"""The same network in 2D and 3D
=============================

XAttnRes and Dual Cross-Attention sit on the networks that nnU-Net plans, which are 2D or 3D. Here both are built from
the same description, with the number of axes as the only difference.
"""

# %%

import matplotlib.pyplot as plt
import torch
from torch import nn

from nnunet_attn.architectures import XAttnResPlainConvUNet
from nnunet_attn.complexity import gmacs


def network(axes, mode):
    """A small network as nnU-Net would plan it."""
    return XAttnResPlainConvUNet(
        1,
        4,
        n_stages=4,
        features_per_stage=(16, 32, 64, 128),
        conv_op={2: nn.Conv2d, 3: nn.Conv3d}[axes],
        kernel_sizes=((3,) * axes,) * 4,
        strides=((1,) * axes, *((2,) * axes,) * 3),
        n_conv_per_stage=(2,) * 4,
        n_conv_per_stage_decoder=(2,) * 3,
        conv_bias=True,
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[axes],
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        mode=mode,
    ).eval()


for size in ((64, 96), (16, 64, 48)):
    x = torch.randn(1, 1, *size)
    with torch.no_grad():
        print(tuple(x.shape), "->", tuple(network(len(size), "both")(x).shape))

# %%
# With ``mode="skip"`` the network is nnU-Net's own. The price of reading the history, beside it:

rows = []
for axes, size in ((2, (256, 256)), (3, (64, 96, 96))):
    for mode in ("skip", "replace", "both"):
        with torch.device("meta"):
            net = network(axes, mode)
        count = sum(p.numel() for p in net.parameters()) / 1e6
        rows.append((axes, mode, count, gmacs(net, size, 1)))
        print(f"{axes}D {mode:8} {count:.3f} M {rows[-1][3]:7.2f} GMACs")

figure, panels = plt.subplots(1, 2, figsize=(8, 3))
for ax, axes in zip(panels, (2, 3), strict=True):
    mine = [r for r in rows if r[0] == axes]
    bars = ax.bar([r[1] for r in mine], [r[2] for r in mine], color=["#8896a5", "#4f8fcf", "#1f5fa8"])
    ax.bar_label(bars, [f"{r[3]:.1f} GMACs" for r in mine], fontsize=8)
    ax.set(title=f"{axes}D", ylabel="parameters, millions")
    ax.margins(y=0.15)
figure.tight_layout()
plt.show()
