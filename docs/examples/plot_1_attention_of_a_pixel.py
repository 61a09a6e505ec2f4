"""Where a pixel looks: the attention of DCAU-Net
==============================================

Differential cross attention subtracts two softmax maps. The keys are means of windows, so the attention of one pixel
is a small picture, one number per window, and it may be negative.

The network here is untrained: the point is what the numbers are and how to get at them, not what they show.
"""

# %%
# An image: one slice of the phantom that the quickstart trains on.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import SimpleITK as sitk
import torch

from nnunet_attn.architectures import DCAUNet
from nnunet_attn.blocks import DifferentialCrossAttention
from nnunet_attn.dataset_conversion.phantom import write_patient

folder = Path(tempfile.mkdtemp()) / "patient001"
write_patient(folder, seed=1)
volume = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "patient001_frame01.nii.gz"))).astype("float32")
image = torch.from_numpy(volume[len(volume) // 2])
image = (image - image.mean()) / image.std()
print(tuple(image.shape))

# %%
# A network, and a hook that catches queries and keys in the first block.

torch.manual_seed(0)
net = DCAUNet(1, 4).eval()
block = next(m for m in net.modules() if isinstance(m, DifferentialCrossAttention))
caught = {}
block.query.register_forward_hook(lambda module, inputs, output: caught.update(q=output))
block.key.register_forward_hook(lambda module, inputs, output: caught.update(k=output))
with torch.no_grad():
    logits = net(image[None, None])
    difference = block.attention_lambda()
print(tuple(logits.shape), "lambda", round(difference.item(), 3))

# %%
# The two maps of head 0, and their difference (Eq. 3 and 4). Each has a row per pixel and a column per window.

width = block.width
q1, q2 = caught["q"][0, :, :width], caught["q"][0, :, width : 2 * width]
k1, k2 = caught["k"][0, :, :width], caught["k"][0, :, width : 2 * width]
a1 = (q1 @ k1.T / width**0.5).softmax(1)
a2 = (q2 @ k2.T / width**0.5).softmax(1)
attention = a1 - difference * a2

side = image.shape[0] // 4  # the first stage works at a quarter of the size
pixel = (side // 2, side // 2)
row = pixel[0] * side + pixel[1]
grid = block.key_grid(caught["k"], (side, side))

figure, axes = plt.subplots(1, 4, figsize=(10, 2.8))
axes[0].imshow(image, cmap="gray")
axes[0].plot(4 * pixel[1], 4 * pixel[0], "r+", markersize=12)
axes[0].set_title("the pixel that asks")
for ax, weights, title in zip(axes[1:], (a1, a2, attention), ("$A_1$", "$A_2$", r"$A_1 - \lambda A_2$"), strict=True):
    shown = ax.imshow(weights[row].reshape(grid), cmap="RdBu_r" if "lambda" in title else "viridis")
    ax.set_title(title)
    figure.colorbar(shown, ax=ax, shrink=0.7)
for ax in axes:
    ax.axis("off")
figure.tight_layout()
plt.show()

# %%
# Each softmax map sums to 1, the difference to :math:`1 - \lambda`.

print(a1[row].sum().item(), attention[row].sum().item(), 1 - difference.item())
