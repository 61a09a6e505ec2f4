"""Cross-stage attention residuals (XAttnRes): per pixel, a stage attends over what all earlier stages produced."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from nnunet_attn.blocks.feature_history import FeatureHistory, enlarge, is_exporting, max_pool, smaller
from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.precision import autocast_dtype, cast, full_precision
from nnunet_attn.blocks.recording import Maps, note
from nnunet_attn.blocks.streaming_attention import streaming_attention

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
QUERY_INITS = ("zero", "random", "kaiming", "xavier")
FORMS = ("streaming", "list", "plain")


def plain_attention(
    history: Sequence[torch.Tensor],
    x: torch.Tensor,
    query: torch.Tensor,
    scale: torch.Tensor,
    projections: Iterable[nn.Module],
    *,
    eps: float,
    align_corners: bool,
) -> torch.Tensor:
    """Equations 4 to 8 one after the other: resize, project, stack, normalise, softmax, sum."""
    size = x.shape[2:]
    aligned = []
    for feature, projection in zip(history, projections, strict=True):
        pooled = max_pool(feature, smaller(feature.shape[2:], size))
        resized = enlarge(pooled, size, align_corners)
        aligned.append(projection(resized))  # eq. 4
    with full_precision(x.device):
        values = torch.stack([v.to(torch.promote_types(x.dtype, torch.float32)) for v in (*aligned, x)])  # eq. 5
        shape = (-1, *[1] * len(size))
        keys = values * (values.square().mean(2, keepdim=True) + eps).rsqrt() * scale.view(shape)
        logits = (query.view(shape) * keys).sum(2, keepdim=True)  # eq. 6
        weights = logits.softmax(0)  # eq. 7
        return (weights * values).sum(0).to(x.dtype)  # eq. 8


def normalised_logit(value: torch.Tensor, query: torch.Tensor, eps: float) -> torch.Tensor:
    """``query . RMSNorm(value)`` per pixel; (B, C, *size) -> (B, 1, *size)."""
    value = value.movedim(1, -1)
    rms = (torch.linalg.vector_norm(value, dim=-1).square() / value.shape[-1] + eps).rsqrt()
    return (torch.matmul(value, query) * rms).unsqueeze(1)


def list_attention(
    sources: Iterable[torch.Tensor],
    x: torch.Tensor,
    query: torch.Tensor,
    projections: Iterable[nn.Module],
    *,
    eps: float,
    align_corners: bool,
) -> torch.Tensor:
    """The same entry by entry with an online softmax, in ordinary operations; ``query`` is folded with the scale.

    With ``z`` the log of the sum of exponentials so far, a further value ``v`` with logit ``l`` has the weight
    ``sigmoid(l - z)`` in the running mean.
    """
    projected = [projection(source) for source, projection in zip(sources, projections, strict=True)]
    with full_precision(x.device):
        dtype = torch.promote_types(x.dtype, torch.float32)
        mean = x.to(dtype)
        log_sum = normalised_logit(mean, query, eps)
        for entry in projected:
            value = enlarge(entry.to(dtype), x.shape[2:], align_corners)
            logit = normalised_logit(value, query, eps)
            mean = torch.lerp(mean, value, torch.sigmoid(logit - log_sum))
            log_sum = torch.logaddexp(log_sum, logit)
        return mean.to(x.dtype)


class CrossStageAttentionResidual(nn.Module):
    """One reading of the history pool: ``(history, x) -> `` a weighted mean of ``x`` and all entries, per pixel.

        V_k = project_k(resize(h_k)) for k = 1..K;  V_0 = x                                            (eq. 4, 5)
        l_n = <w, g * V_n / rms(V_n)>,  rms(V) = sqrt(mean_c V^2 + eps)                                 (eq. 6)
        out = sum_n softmax_n(l)_n V_n                                                                  (eq. 7, 8)

    with one query ``w`` and one scale ``g`` of C numbers, no temperature. Resizing is adaptive max pooling where the
    entry is larger and linear interpolation where it is smaller; the projection is a 1x1 convolution without bias, or
    nothing where the widths match. At ``w = 0`` the output is the mean of all values.

    Three forms give the same result:

    * ``plain`` follows the equations; the reference for the tests.
    * ``list`` takes one entry at a time. It projects before enlarging, which is exact (a 1x1 convolution acts on
      channels, an interpolation on pixels) and keeps the projection at the lower of the two resolutions, folds ``w``
      and ``g`` into one vector, and replaces the stack of values by an online softmax.
    * ``streaming`` (default) adds a backward pass of its own that keeps ``x``, the pooled entries and two numbers per
      pixel and entry. It is one operator under ``torch.compile``, too: measured on a CPU with inductor (nnU-Net's
      network for 128 x 128, batch 2) a training step took 1.03 s with it and 0.94 s with ``list``, and kept 176 MiB
      against 258 MiB. Only ``torch.export`` sees ``list`` in its place; with torch 2.6, which
      cannot tell the two apart, ``torch.compile`` as well.

    Norm, logits, softmax and mean are computed in float32 at least: in float16 the square of 300 is infinite and its
    entry would silently get logit 0.

    Args:
        channels: Width C of ``x`` and of the output.
        history_channels: Widths of the entries, in the order of the history. Without any, the block has no parameters
            and passes ``x`` on: in the first stage, and where a host runs without XAttnRes.
        dim: 2 or 3.
        query_init: "zero"; "random": normal with ``query_std``; "kaiming" or "xavier": uniform, see below.
        query_std: Standard deviation of the "random" query.
        align_corners: As the host's own interpolation.
        form: "streaming", "list" or "plain".

    Shape: history of (B, C_k, *S_k), x (B, C, *S) -> (B, C, *S)

    >>> from nnunet_attn.blocks import CrossStageAttentionResidual
    >>> history = [torch.randn(2, 32, 56, 56), torch.randn(2, 64, 28, 28)]
    >>> CrossStageAttentionResidual(64, (32, 64))(history, torch.randn(2, 64, 28, 28)).shape
    torch.Size([2, 64, 28, 28])

    Raises:
        ValueError: unknown option, or a history that does not fit ``history_channels``.

    Reference: Liu, Xu, Chen, "XAttnRes: Cross-Stage Attention Residuals for Medical Image Segmentation",
    arXiv:2604.03297, Sec. 3.2, Eq. (3)-(8).

    Choices of ours, where the paper is silent: eps 1e-6; no bias in the projections; for "kaiming" and "xavier", which
    need a matrix, the query is one of shape (C, 1), so that Kaiming's bound is sqrt(6), the "large initial logits" of
    Table 5; standard deviation 0.02 of the random query.
    """

    def __init__(
        self,
        channels: int,
        history_channels: Sequence[int],
        *,
        dim: int = 2,
        query_init: str = "zero",
        query_std: float = 0.02,
        align_corners: bool = False,
        eps: float = 1e-6,
        form: str = "streaming",
    ):
        super().__init__()
        check_option("query_init", query_init, QUERY_INITS)
        check_option("form", form, FORMS)
        if dim not in CONV:
            raise ValueError(f"dim must be 2 or 3, got {dim}")
        self.channels, self.history_channels = channels, tuple(history_channels)
        self.dim, self.align_corners, self.eps, self.form = dim, align_corners, eps, form
        if not self.history_channels:
            return
        # a parameter, not a convolution: nnU-Net initialises convolutions anew and would undo the zero
        self.query = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels))
        self.projections = nn.ModuleList(
            nn.Identity() if width == channels else CONV[dim](width, channels, 1, bias=False)
            for width in history_channels
        )
        if query_init == "random":
            nn.init.normal_(self.query, std=query_std)
        elif query_init == "kaiming":
            nn.init.kaiming_uniform_(self.query.data.view(channels, 1))
        elif query_init == "xavier":
            nn.init.xavier_uniform_(self.query.data.view(channels, 1))

    def forward(self, history: FeatureHistory | Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        if not self.history_channels:
            return x
        if not isinstance(history, FeatureHistory):
            history = FeatureHistory(history)
        widths = tuple(feature.shape[1] for feature in history.features)
        if (widths, x.shape[1]) != (self.history_channels, self.channels):
            raise ValueError(
                f"made for {self.channels} channels and a history of {list(self.history_channels)}, "
                f"got {x.shape[1]} and {list(widths)}"
            )
        dimensions = {feature.ndim - 2 for feature in (x, *history.features)}
        if dimensions != {self.dim}:
            raise ValueError(
                f"made for {self.dim}D maps, got x of {tuple(x.shape)} and a history of "
                f"{[tuple(feature.shape) for feature in history.features]}"
            )
        options: dict[str, Any] = {"eps": self.eps, "align_corners": self.align_corners}
        if self.form == "plain":
            return plain_attention(history.features, x, self.query, self.scale, self.projections, **options)
        size = tuple(x.shape[2:])
        sources = [history.pooled(k, smaller(f.shape[2:], size)) for k, f in enumerate(history.features)]
        query = cast(self.query * self.scale, torch.promote_types(x.dtype, torch.float32))
        if self.form == "list" or is_exporting():
            return list_attention(sources, x, query, self.projections, **options)
        dtype = autocast_dtype(x.device) or x.dtype
        matrices = [p.weight.flatten(1).to(dtype) for p in self.projections if not isinstance(p, nn.Identity)]
        out, logits, _ = streaming_attention(x, query, sources, matrices, **options)
        note(self, lambda point: self.attention_maps(logits, history.features))
        return out

    def attention_maps(self, logits: torch.Tensor, history: Sequence[torch.Tensor]) -> Maps:
        """Weight of each entry, (B, *S); their entropy over its maximum; the weight on finer entries, if any."""
        weights = logits.softmax(0).squeeze(2)  # (K + 1, B, *S), x first
        size = weights.shape[2:]
        names = ["x", *(f"h{k} ({'x'.join(map(str, f.shape[2:]))})" for k, f in enumerate(history, start=1))]
        entropy = -(weights * weights.clamp_min(1e-30).log()).sum(0) / math.log(len(weights))
        finer = [math.prod(f.shape[2:]) > math.prod(size) for f in history]
        pixel = {f"weight of {name}": weight for name, weight in zip(names, weights, strict=True)}
        pixel["entropy"] = entropy
        if any(finer):
            pixel["weight of finer entries"] = weights[1:][torch.tensor(finer, device=weights.device)].sum(0)
        return Maps(pixel=pixel)
