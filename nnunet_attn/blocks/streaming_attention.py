"""Cross-stage attention as one operator of PyTorch whose backward pass keeps little and rebuilds the rest."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from nnunet_attn.blocks.feature_history import enlarge, enlarge_adjoint
from nnunet_attn.blocks.layout import channels_last, layout_of
from nnunet_attn.blocks.precision import full_precision


def _multiply(matrix: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(c, C), (B, C, *size) -> (B, c, *size). ``matmul`` would round otherwise where a gradient is wanted."""
    return torch.bmm(matrix.expand(len(value), -1, -1), value.flatten(2)).unflatten(2, value.shape[2:])


def reciprocal_rms(value: torch.Tensor, eps: float) -> torch.Tensor:
    """(B, C, *size) -> (B, 1, *size)."""
    if value.is_contiguous():  # a norm over far-apart numbers is ten times slower than their squares' sum
        square = value.square().sum(1, keepdim=True)
    else:
        square = torch.linalg.vector_norm(value.movedim(1, -1), dim=-1).square().unsqueeze(1)
    return (square / value.shape[1] + eps).rsqrt()


def dot(value: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """``query . value`` per pixel; (B, C, *size) -> (B, 1, *size)."""
    if value.is_contiguous():
        return _multiply(query[None], value)
    return torch.matmul(value.movedim(1, -1), query).unsqueeze(1)


def weighted_sum(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Over all pixels; (B, C, *size) and (B, 1, *size) -> (C)."""
    if value.is_contiguous():
        return torch.stack([v @ w for v, w in zip(value.flatten(2), weight.flatten(1), strict=True)]).sum(0)
    return weight.flatten() @ value.movedim(1, -1).flatten(0, -2)


def _rows(feature: torch.Tensor) -> torch.Tensor:
    """A view of either memory layout as rows of channels, which products take as it is; (B, C, *size) -> (B, P, C)."""
    return feature.flatten(2).transpose(1, 2) if feature.is_contiguous() else feature.movedim(1, -1).flatten(1, -2)


def _entry(source: torch.Tensor, matrix: torch.Tensor | None, size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """The source after its 1x1 convolution, a product; nothing where there is no matrix.

    What is still to be enlarged to ``size`` gets its channels side by side, which is much faster to enlarge; the rest
    stays as it lies in memory, since on a CPU a map costs less to sum over than to turn around.
    """
    stays = source.is_contiguous() and source.shape[2:] == tuple(size)
    if matrix is None:
        return (source if stays else channels_last(source)).to(dtype)
    source = source.to(matrix.dtype)
    if stays:
        return _multiply(matrix, source).to(dtype)
    return torch.matmul(_rows(source), matrix.T).unflatten(1, source.shape[2:]).movedim(-1, 1).to(dtype)


def _project_backward(
    gradient: torch.Tensor, source: torch.Tensor, matrix: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of ``source``, in its memory layout, and of ``matrix``."""
    rows = _rows(gradient.to(matrix.dtype))
    gmatrix = torch.matmul(rows.transpose(1, 2), _rows(source.to(matrix.dtype))).sum(0)
    if source.is_contiguous():
        return torch.matmul(matrix.T, rows.transpose(1, 2)).view(source.shape).to(source.dtype), gmatrix
    return torch.matmul(rows, matrix).unflatten(1, source.shape[2:]).movedim(-1, 1).to(source.dtype), gmatrix


def _pairs(
    sources: Sequence[torch.Tensor], matrices: Sequence[torch.Tensor], channels: int
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Each source with its matrix; None where its width is ``channels``. Operators take no lists with None in them."""
    remaining = iter(matrices)
    return [(source, None if source.shape[1] == channels else next(remaining)) for source in sources]


@torch.library.custom_op(  # schemas are written out, since torch 2.6 cannot read them off list[torch.Tensor]
    "nnunet_attn::cross_stage_attention",
    mutates_args=(),
    schema="(Tensor x, Tensor query, Tensor[] sources, Tensor[] matrices, float eps, bool align_corners)"
    " -> (Tensor, Tensor, Tensor)",
)
def streaming_attention(
    x: torch.Tensor,
    query: torch.Tensor,
    sources: list[torch.Tensor],
    matrices: list[torch.Tensor],
    eps: float,
    align_corners: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``list_attention`` that keeps its inputs and two maps per entry, and rebuilds each value when going back.

    With ``go`` the output's gradient, ``a`` the weights, ``l`` the logits and ``r`` the reciprocal RMS,

        gl_n = a_n (<go, V_n> - sum_m a_m <go, V_m>)
        gV_n = a_n go + gl_n r_n query - gl_n l_n r_n^2 V_n / C          gquery = sum_n,p gl_n r_n V_n

    and on through interpolation and projection, which are computed again. Products with the query commute with the
    interpolation and are made before it, forward and backward. Both passes are operators of PyTorch, so that
    ``torch.compile`` takes them as they are.

    Args:
        x: (B, C, *S).
        query: (C), folded with the scale, in the precision to compute in.
        sources: (B, C_k, *s), s not larger than S.
        matrices: (C, C_k) for each source with C_k other than C.

    Returns:
        The output, the logits and the reciprocal RMS; (B, C, *S) and twice (K + 1, B, 1, *S).
    """
    with full_precision(x.device):
        all_logits, all_rms = [], []
        running: dict[torch.memory_format, tuple] = {}  # mean and logarithm of the sum, of each memory layout
        for source, matrix in _pairs((x, *sources), matrices, x.shape[1]):
            entry = _entry(source, matrix, x.shape[2:], query.dtype)
            value = enlarge(entry, x.shape[2:], align_corners)
            rms = reciprocal_rms(value, eps)
            logit = enlarge(dot(entry, query), x.shape[2:], align_corners) * rms
            layout = layout_of(value)
            if layout in running:
                mean, log_sum, step = running[layout]
                mean, log_sum = step(mean, value, torch.sigmoid(logit - log_sum)), torch.logaddexp(log_sum, logit)
                running[layout] = mean, log_sum, torch.Tensor.lerp_
            else:
                running[layout] = value, logit, torch.lerp  # not in place: it may be an input
            all_logits.append(logit)
            all_rms.append(rms)
        (out, log_sum, _), *others = running.values()
        for mean, other_sum, _ in others:
            mean = mean.contiguous(memory_format=layout_of(out))
            out = torch.lerp(out, mean, torch.sigmoid(other_sum - log_sum))
        out = out.to(x.dtype).contiguous(memory_format=layout_of(x))
        out = out if sources else out.clone()  # an operator's output must not be its input
        return out, torch.stack(all_logits), torch.stack(all_rms)


@streaming_attention.register_fake
def _(x: Any, query: Any, sources: Any, matrices: Any, eps: float, align_corners: bool) -> tuple:
    logits = x.new_empty(len(sources) + 1, x.shape[0], 1, *x.shape[2:], dtype=query.dtype)
    return torch.empty_like(x, memory_format=layout_of(x)), logits, torch.empty_like(logits)


@torch.library.custom_op(
    "nnunet_attn::cross_stage_attention_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor query, Tensor logits, Tensor rms, Tensor[] sources, Tensor[] matrices, "
    "bool align_corners) -> (Tensor, Tensor, Tensor[], Tensor[])",
)
def streaming_attention_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    query: torch.Tensor,
    logits: torch.Tensor,
    rms: torch.Tensor,
    sources: list[torch.Tensor],
    matrices: list[torch.Tensor],
    align_corners: bool,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Gradients of ``x``, the query, the sources and the matrices."""
    size, channels = x.shape[2:], x.shape[1]
    with full_precision(x.device):
        pairs = _pairs((x, *sources), matrices, channels)
        entries: list[Any] = [_entry(source, matrix, size, query.dtype) for source, matrix in pairs]
        gradient = gradient.to(query.dtype)
        in_layout: dict[torch.memory_format, torch.Tensor] = {}

        def value_and_go(entry: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """The entry at full size, and the output's gradient in the same memory layout."""
            value = enlarge(entry, size, align_corners)
            layout = layout_of(value)
            if layout not in in_layout:
                in_layout[layout] = (
                    gradient.contiguous() if layout == torch.contiguous_format else channels_last(gradient)
                )
            return value, in_layout[layout]

        def dot_with_go(entry: torch.Tensor) -> torch.Tensor:
            value, go = value_and_go(entry)
            return (value * go if value is entry else value.mul_(go)).sum(1, keepdim=True)

        weights = logits.softmax(0)
        dots = torch.stack([dot_with_go(entry) for entry in entries])
        glogits = weights * (dots - (weights * dots).sum(0))

        gquery, gsources, gmatrices = torch.zeros_like(query), [], []
        for n, (source, matrix) in enumerate(pairs):
            value, go = value_and_go(entries[n])
            direction = glogits[n] * rms[n]
            factor = direction * rms[n] * logits[n] / -channels
            gvalue = value * factor if value is entries[n] else value.mul_(factor)
            gvalue.addcmul_(weights[n], go)
            gsource = enlarge_adjoint(gvalue, source.shape[2:], align_corners)
            del value, gvalue
            direction = enlarge_adjoint(direction, source.shape[2:], align_corners)
            gsource.addcmul_(direction, query.view(-1, *[1] * len(size)))
            gquery += weighted_sum(entries[n], direction)
            entries[n] = None  # free it: this is where memory peaks
            if matrix is not None:
                gsource, gmatrix = _project_backward(gsource, source, matrix)
                gmatrices.append(gmatrix)
            gsources.append(gsource.to(source.dtype).contiguous(memory_format=layout_of(source)))
        gx, *gsources = gsources
    return gx, gquery, gsources, gmatrices


@streaming_attention_backward.register_fake
def _(
    gradient: Any, x: Any, query: Any, logits: Any, rms: Any, sources: Any, matrices: Any, align_corners: bool
) -> tuple:
    gx, *gsources = (torch.empty_like(t, memory_format=layout_of(t)) for t in (x, *sources))
    return gx, torch.empty_like(query), gsources, [t.new_empty(t.shape) for t in matrices]


def _no_second_derivative(ctx: Any, *_: Any) -> None:
    raise RuntimeError("streaming cross-stage attention has no second derivative; set the blocks' form to 'list'")


streaming_attention_backward.register_autograd(_no_second_derivative)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    x, query, sources, matrices, _, ctx.align_corners = inputs
    ctx.save_for_backward(x, query, *output[1:], *sources, *matrices)
    ctx.count = len(sources)


def _backward(ctx: Any, gradient: torch.Tensor, _glogits: Any, _grms: Any) -> tuple:
    x, query, logits, rms, *rest = ctx.saved_tensors
    gradients = streaming_attention_backward(
        gradient, x, query, logits, rms, rest[: ctx.count], rest[ctx.count :], ctx.align_corners
    )
    return *gradients, None, None


streaming_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.nnunet_attn.cross_stage_attention)
def _(x: Any, query: Any, sources: Any, matrices: Any, *_: Any, **__: Any) -> int:
    """Of the projections, the operator's only products that counters of FLOPs count; arguments are shapes."""
    narrow = [source for source in sources if source[1] != x[1]]
    return sum(2 * math.prod(source) * matrix[0] for source, matrix in zip(narrow, matrices, strict=True))
