"""A block in your own U-Net
=========================

The blocks are plain modules: a list of skips goes in, a list of the same shapes comes out. Here Dual Cross-Attention
is put into a U-Net of forty lines, which learns to segment the phantom for a few seconds, with and without it.

So short a training compares nothing. It shows how the block is used, and that gradients flow.
"""

# %%
# The data: slices of four phantom patients.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import nn

from nnunet_attn.blocks import DualCrossAttention
from nnunet_attn.dataset_conversion.phantom import write_patient


def read(path):
    """An image or label volume as a tensor."""
    return torch.from_numpy(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype("float32"))


images, labels = [], []
root = Path(tempfile.mkdtemp())
for number in range(1, 5):
    name = f"patient{number:03d}"
    write_patient(root / name, seed=number)
    volume = read(root / name / f"{name}_frame01.nii.gz")
    images.append((volume - volume.mean()) / volume.std())
    labels.append(read(root / name / f"{name}_frame01_gt.nii.gz").long())
images, labels = torch.cat(images)[:, None], torch.cat(labels)
print(tuple(images.shape), labels.unique().tolist())

# %%
# A U-Net with a place for a plug between encoder and decoder.


def convolutions(before, after):
    """Two convolutions with batch norm and ReLU."""
    layers = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SmallUNet(nn.Module):
    """Three skips, one bottleneck."""

    def __init__(self, plug=None, widths=(8, 16, 32, 64)):
        super().__init__()
        self.encoder = nn.ModuleList(convolutions(a, b) for a, b in zip((1, *widths), widths, strict=False))
        self.decoder = nn.ModuleList(convolutions(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.plug = plug or nn.Identity()
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x):
        skips = []
        for stage in self.encoder:
            x = stage(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        *skips, x = skips
        skips = self.plug(skips)  # a list goes in, a list of the same shapes comes out
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="bilinear"), skip], dim=1))
        return self.head(x)


# %%
# Tokens of 8 x 8 pixels: the first skip is pooled by 8, the second by 4, the third by 2, so all meet on one grid.


def train(plug, steps=60):
    """Losses of a short training."""
    torch.manual_seed(0)
    net = SmallUNet(plug() if plug else None)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(images), (4,))
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return net, losses


def attention():
    """The plug."""
    return DualCrossAttention((8, 16, 32), pool=[(8, 8), (4, 4), (2, 2)])


runs = {"without": train(None), "with DualCrossAttention": train(attention)}
figure, axes = plt.subplots(1, 3, figsize=(10, 3))
for name, (net, losses) in runs.items():
    parameters = sum(p.numel() for p in net.parameters())
    axes[0].plot(losses, label=f"{name} ({parameters:,})")
axes[0].set(xlabel="step", ylabel="cross-entropy")
axes[0].legend(fontsize=7)
net = runs["with DualCrossAttention"][0].eval()
with torch.no_grad():
    predicted = net(images[4:5]).argmax(1)[0]
for ax, picture, title in zip(axes[1:], (labels[4], predicted), ("reference", "prediction"), strict=True):
    ax.imshow(images[4, 0], cmap="gray")
    ax.imshow(picture, cmap="viridis", alpha=(picture > 0) * 0.6)
    ax.set_title(title)
    ax.axis("off")
figure.tight_layout()
plt.show()
