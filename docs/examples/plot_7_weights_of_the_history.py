"""Which stages a stage reads: the weights of XAttnRes
===================================================

Before each stage XAttnRes takes a weighted mean over the outputs of all stages so far. At the start of a training the
query is zero and all weights are equal; here the queries are drawn at random to show how the weights are computed and
read.
"""

# %%

import matplotlib.pyplot as plt
import torch

from nnunet_attn.architectures import XAttnResUNet
from nnunet_attn.blocks import CrossStageAttentionResidual

torch.manual_seed(0)
image = torch.randn(1, 1, 96, 96)


def mean_weights(net):
    """For each reading of the history, the mean weight of each entry; the stage's own input comes last."""
    result = []

    def catch(block, inputs):
        history, x = inputs
        features = history.features
        values = []
        for feature, project in zip(features, block.projections, strict=True):
            smaller = [min(a, b) for a, b in zip(feature.shape[2:], x.shape[2:], strict=True)]
            pooled = torch.nn.functional.adaptive_max_pool2d(feature, smaller)
            values.append(
                torch.nn.functional.interpolate(project(pooled), size=x.shape[2:], mode="bilinear", align_corners=True)
            )
        stacked = torch.stack([*values, x])  # Eq. 4, 5
        rms = (stacked.square().mean(2, keepdim=True) + block.eps).sqrt()
        logits = (block.query.view(-1, 1, 1) * block.scale.view(-1, 1, 1) * stacked / rms).sum(2)  # Eq. 6
        result.append(logits.softmax(0).mean((1, 2, 3)))  # Eq. 7

    hooks = [
        m.register_forward_pre_hook(catch)
        for m in net.modules()
        if isinstance(m, CrossStageAttentionResidual) and m.history_channels
    ]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return result


# %%
# Nine stages: five of the encoder and four of the decoder. The first stage has no history.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
for ax, init in zip(axes, ("zero", "xavier"), strict=True):
    weights = mean_weights(XAttnResUNet(1, 2, query_init=init).eval())
    picture = torch.full((len(weights), max(map(len, weights))), float("nan"))
    for row, w in enumerate(weights):
        picture[row, : len(w)] = w
    shown = ax.imshow(picture, cmap="viridis", vmin=0, vmax=0.6)
    names = ["e2", "e3", "e4", "e5", "d4", "d3", "d2", "d1"]
    ax.set(
        yticks=range(len(weights)),
        yticklabels=names,
        xlabel="entry of the history; the last is the input",
        ylabel="stage that reads",
        title=f'query_init="{init}"',
    )
    figure.colorbar(shown, ax=ax, shrink=0.8)
figure.tight_layout()
plt.show()

# %%
# With the query at zero each row is constant, 1 / (K + 1): the network starts from plain means.

print([round(w.max().item(), 3) for w in mean_weights(XAttnResUNet(1, 2).eval())])
