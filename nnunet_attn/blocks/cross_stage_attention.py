"""Cross-stage attention residuals (XAttnRes): per pixel, a stage attends over what all earlier stages produced."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import register_flop_formula

from nnunet_attn.blocks.options import check_option
from nnunet_attn.blocks.precision import full_precision

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
QUERY_INITS = ("zero", "random", "kaiming", "xavier")
FORMS = ("streaming", "list", "plain")


def channels_last(feature: torch.Tensor) -> torch.Tensor:
    """``feature`` with its channels side by side in memory: pooling, resizing and 1x1 products then run along them.

    On a CPU that is five to fifteen times faster. Samples are transposed one by one there, because PyTorch has a
    blocked (fast) transposition for matrices only.
    """
    layout = torch.channels_last if feature.ndim == 4 else torch.channels_last_3d
    if feature.device.type != "cpu" or feature.is_contiguous(memory_format=layout):
        return feature.contiguous(memory_format=layout)
    result = torch.empty_like(feature, memory_format=layout)
    for source, target in zip(feature.flatten(2), result.movedim(1, -1).flatten(1, -2), strict=True):
        target.copy_(source.T)
    return result


def _layout(feature: torch.Tensor) -> torch.memory_format:
    """The layout to hand ``feature``'s successor or gradient back in."""
    if feature.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if feature.ndim == 4 else torch.channels_last_3d


class _MaxPool(torch.autograd.Function):
    """Adaptive max pooling that keeps the positions of the maxima for the backward pass and not its input."""

    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        pooled, positions = _max_pool(channels_last(feature), size, return_indices=True)
        ctx.save_for_backward(positions.to(torch.int32))
        ctx.shape, ctx.layout = feature.shape, _layout(feature)
        return pooled

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (positions,) = ctx.saved_tensors
        batch, channels, *size = ctx.shape
        result = gradient.new_zeros(batch, math.prod(size), channels)
        rows = [t.movedim(1, -1).reshape(batch, -1, channels) for t in (positions.long(), gradient)]
        result.scatter_add_(1, *rows)
        return result.view(batch, *size, channels).movedim(-1, 1).contiguous(memory_format=ctx.layout), None


def _max_pool(feature: torch.Tensor, size: Sequence[int], return_indices: bool = False) -> Any:
    """Adaptive max pooling; the faster ordinary one, which then is the same, where the sizes divide."""
    ratio = [a // b for a, b in zip(feature.shape[2:], size, strict=True)]
    if all(r * b == a for r, a, b in zip(ratio, feature.shape[2:], size, strict=True)):
        pool: Callable = F.max_pool2d if len(size) == 2 else F.max_pool3d
        return pool(feature, ratio, return_indices=return_indices)
    adaptive: Callable = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool3d
    return adaptive(feature, tuple(size), return_indices=return_indices)


def _enlarge(feature: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Bilinear or trilinear interpolation to ``size``."""
    if feature.shape[2:] == tuple(size):
        return feature
    return F.interpolate(
        feature, size=tuple(size), mode="bilinear" if len(size) == 2 else "trilinear", align_corners=align_corners
    )


def _enlarge_adjoint(gradient: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Gradient of ``_enlarge``'s input of spatial ``size``."""
    if gradient.shape[2:] == tuple(size):
        return gradient
    aten = torch.ops.aten
    backward = aten.upsample_bilinear2d_backward if len(size) == 2 else aten.upsample_trilinear3d_backward
    return backward(gradient, gradient.shape[2:], [*gradient.shape[:2], *size], align_corners)


def _smaller(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(x, y) for x, y in zip(a, b, strict=True))


class FeatureHistory:
    """The history pool: outputs of the stages so far, in causal order (eq. 3).

    An entry is pooled to a size once, however many stages read it, and from the smallest of its pooled versions that
    gives the same result: a maximum of maxima is the maximum, as long as all sizes divide one another.

    Shape: features (B, C_k, *S_k), each stage with sizes and channels of its own.

    >>> from nnunet_attn.blocks import FeatureHistory
    >>> history = FeatureHistory([torch.randn(2, 32, 56, 56)])
    >>> history.pooled(0, (28, 28)).shape
    torch.Size([2, 32, 28, 28])
    """

    def __init__(self, features: Iterable[torch.Tensor] = ()):
        self.features: list[torch.Tensor] = []
        self._pooled: list[dict[tuple[int, ...], torch.Tensor]] = []
        for feature in features:
            self.append(feature)

    def append(self, feature: torch.Tensor) -> None:
        """Add the output of a stage."""
        self.features.append(feature)
        self._pooled.append({tuple(feature.shape[2:]): feature})

    def __len__(self) -> int:
        return len(self.features)

    def pooled(self, index: int, size: tuple[int, ...]) -> torch.Tensor:
        """Entry ``index``, max-pooled along the axes where it is larger than ``size``; it must not be smaller."""
        versions = self._pooled[index]
        own = tuple(self.features[index].shape[2:])
        if size not in versions:

            def divides(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
                return all(a % b == 0 for a, b in zip(large, small, strict=True))

            chain = [s for s in versions if divides(size, s) and divides(s, own)]
            source = versions[min(chain, key=math.prod, default=own)]
            versions[size] = _max_pool(source, size) if torch.compiler.is_compiling() else _MaxPool.apply(source, size)
        return versions[size]


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
        smaller = _smaller(feature.shape[2:], size)
        resized = _enlarge(_max_pool(feature, smaller), size, align_corners)
        aligned.append(projection(resized))  # eq. 4
    with full_precision(x.device):
        values = torch.stack([v.to(torch.promote_types(x.dtype, torch.float32)) for v in (*aligned, x)])  # eq. 5
        shape = (-1, *[1] * len(size))
        keys = values * (values.square().mean(2, keepdim=True) + eps).rsqrt() * scale.view(shape)
        logits = (query.view(shape) * keys).sum(2, keepdim=True)  # eq. 6
        weights = logits.softmax(0)  # eq. 7
        return (weights * values).sum(0).to(x.dtype)  # eq. 8


def _logit(value: torch.Tensor, query: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """``query . RMSNorm(value)`` per pixel, and the reciprocal RMS; (B, C, *size) -> two of (B, 1, *size)."""
    rows = value.movedim(1, -1)
    norm = torch.linalg.vector_norm(rows, dim=-1)
    rms = (norm.square() / rows.shape[-1] + eps).rsqrt()
    return (torch.matmul(rows, query) * rms).unsqueeze(1), rms.unsqueeze(1)


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
        log_sum, _ = _logit(mean, query, eps)
        for entry in projected:
            value = _enlarge(entry.to(dtype), x.shape[2:], align_corners)
            logit, _ = _logit(value, query, eps)
            mean = torch.lerp(mean, value, torch.sigmoid(logit - log_sum))
            log_sum = torch.logaddexp(log_sum, logit)
        return mean.to(x.dtype)


def _project(source: torch.Tensor, matrix: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """The 1x1 convolution as a product over channels that lie side by side; nothing where there is no matrix."""
    source = channels_last(source)
    if matrix is None:
        return source.to(dtype)
    return F.linear(source.to(matrix.dtype).movedim(1, -1), matrix).movedim(-1, 1).to(dtype)


def _pairs(
    sources: Sequence[torch.Tensor], matrices: Sequence[torch.Tensor], channels: int
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Each source with its matrix; None where its width is ``channels``. Operators take no lists with None in them."""
    remaining = iter(matrices)
    return [(source, None if source.shape[1] == channels else next(remaining)) for source in sources]


@torch.library.custom_op("nnunet_attn::cross_stage_attention", mutates_args=())
def _streaming_attention(
    x: torch.Tensor,
    query: torch.Tensor,
    sources: Sequence[torch.Tensor],
    matrices: Sequence[torch.Tensor],
    eps: float,
    align_corners: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``list_attention`` that keeps its inputs and two maps per entry, and rebuilds each value when going back.

    With ``go`` the output's gradient, ``a`` the weights, ``l`` the logits and ``r`` the reciprocal RMS,

        gl_n = a_n (<go, V_n> - sum_m a_m <go, V_m>)
        gV_n = a_n go + gl_n r_n query - gl_n l_n r_n^2 V_n / C          gquery = sum_n,p gl_n r_n V_n

    and on through interpolation and projection, which are computed again. Both passes are operators of PyTorch, so
    that ``torch.compile`` takes them as they are.

    Args:
        x: (B, C, *S).
        query: (C), folded with the scale, in the precision to compute in.
        sources: (B, C_k, *s), s not larger than S.
        matrices: (C, C_k) for each source with C_k other than C.

    Returns:
        The output, the logits and the reciprocal RMS; (B, C, *S) and twice (K + 1, B, 1, *S).
    """
    with full_precision(x.device):
        mean = channels_last(x).to(query.dtype)
        log_sum, rms = _logit(mean, query, eps)
        all_logits, all_rms = [log_sum], [rms]
        step: Callable = torch.lerp
        for source, matrix in _pairs(sources, matrices, x.shape[1]):
            value = _enlarge(_project(source, matrix, query.dtype), x.shape[2:], align_corners)
            logit, rms = _logit(value, query, eps)
            mean = step(mean, value, torch.sigmoid(logit - log_sum))
            log_sum, step = torch.logaddexp(log_sum, logit), torch.Tensor.lerp_
            all_logits.append(logit)
            all_rms.append(rms)
        out = mean.to(x.dtype).contiguous(memory_format=_layout(x))
        return out, torch.stack(all_logits), torch.stack(all_rms)


@_streaming_attention.register_fake
def _(x: Any, query: Any, sources: Any, matrices: Any, eps: float, align_corners: bool) -> tuple:
    logits = x.new_empty(len(sources) + 1, x.shape[0], 1, *x.shape[2:], dtype=query.dtype)
    return torch.empty_like(x), logits, torch.empty_like(logits)


@torch.library.custom_op("nnunet_attn::cross_stage_attention_backward", mutates_args=())
def _streaming_attention_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    query: torch.Tensor,
    logits: torch.Tensor,
    rms: torch.Tensor,
    sources: Sequence[torch.Tensor],
    matrices: Sequence[torch.Tensor],
    align_corners: bool,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Gradients of ``x``, the query, the sources and the matrices."""
    size, channels = x.shape[2:], x.shape[1]
    with full_precision(x.device):
        go = channels_last(gradient).to(query.dtype)
        pairs = _pairs((x, *sources), matrices, channels)
        entries: list[Any] = [_project(source, matrix, query.dtype) for source, matrix in pairs]
        weights = logits.softmax(0)
        values = (_enlarge(entry, size, align_corners) for entry in entries)
        dots = torch.stack([(go * value).sum(1, keepdim=True) for value in values])
        glogits = weights * (dots - (weights * dots).sum(0))

        gquery, gsources, gmatrices = torch.zeros_like(query), [], []
        for n, (source, matrix) in enumerate(pairs):
            value = _enlarge(entries[n], size, align_corners)
            direction = glogits[n] * rms[n]
            gvalue = weights[n] * go
            gvalue.addcmul_(direction, query.view(-1, *[1] * len(size)))
            gvalue.addcmul_(direction * rms[n] * logits[n] / -channels, value)
            gquery += direction.flatten() @ value.movedim(1, -1).flatten(0, -2)
            entries[n] = None  # free it: this is where memory peaks
            del value
            gsource = _enlarge_adjoint(gvalue, source.shape[2:], align_corners)
            if matrix is not None:
                rows, inputs = (t.to(matrix.dtype).movedim(1, -1) for t in (gsource, channels_last(source)))
                gmatrices.append(rows.flatten(0, -2).T @ inputs.flatten(0, -2))
                gsource = (rows @ matrix).movedim(-1, 1)
            gsources.append(gsource.to(source.dtype).contiguous(memory_format=_layout(source)))
        gx, *gsources = gsources
    return gx, gquery, gsources, gmatrices


@_streaming_attention_backward.register_fake
def _(
    gradient: Any, x: Any, query: Any, logits: Any, rms: Any, sources: Any, matrices: Any, align_corners: bool
) -> tuple:
    gsources, gmatrices = [[torch.empty_like(t) for t in ts] for ts in (sources, matrices)]
    return torch.empty_like(x), torch.empty_like(query), gsources, gmatrices


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    x, query, sources, matrices, _, ctx.align_corners = inputs
    ctx.save_for_backward(x, query, *output[1:], *sources, *matrices)
    ctx.count = len(sources)


def _backward(ctx: Any, gradient: torch.Tensor, _glogits: Any, _grms: Any) -> tuple:
    x, query, logits, rms, *rest = ctx.saved_tensors
    gradients = _streaming_attention_backward(
        gradient, x, query, logits, rms, rest[: ctx.count], rest[ctx.count :], ctx.align_corners
    )
    return *gradients, None, None


_streaming_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.nnunet_attn.cross_stage_attention)
def _(x: Any, query: Any, sources: Any, matrices: Any, *_: Any, **__: Any) -> int:
    """Of the projections, the operator's only products that counters of FLOPs count; arguments are shapes."""
    narrow = [source for source in sources if source[1] != x[1]]
    return sum(2 * math.prod(source) * matrix[0] for source, matrix in zip(narrow, matrices, strict=True))


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
      pixel and entry; under ``torch.compile``, which plans recomputation itself, ``list`` takes its place.

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
        sources = [history.pooled(k, _smaller(f.shape[2:], size)) for k, f in enumerate(history.features)]
        query = (self.query * self.scale).to(torch.promote_types(x.dtype, torch.float32))
        if self.form == "list" or torch.compiler.is_exporting():
            return list_attention(sources, x, query, self.projections, **options)
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        matrices = [p.weight.flatten(1).to(dtype) for p in self.projections if not isinstance(p, nn.Identity)]
        return _streaming_attention(x, query, sources, matrices, **options)[0]
