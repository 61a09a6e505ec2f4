"""The history pool of cross-stage attention, and the pooling and resizing that bring its entries to a stage's size."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from nnunet_attn.blocks.layout import channels_last, layout_of


class _MaxPool(torch.autograd.Function):
    """Adaptive max pooling that keeps the positions of the maxima for the backward pass and not its input."""

    @staticmethod
    def forward(ctx: Any, feature: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        pooled, positions = max_pool(channels_last(feature), size, return_indices=True)
        ctx.save_for_backward(positions.to(torch.int32))
        ctx.shape, ctx.layout = feature.shape, layout_of(feature)
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


def is_exporting() -> bool:
    """Whether ``torch.export`` is tracing; torch 2.6 cannot tell it from ``torch.compile``, and then neither can we."""
    tell = getattr(torch.compiler, "is_exporting", None)
    return tell() if tell else torch.compiler.is_compiling()


def max_pool(feature: torch.Tensor, size: Sequence[int], return_indices: bool = False) -> Any:
    """Adaptive max pooling; where the sizes divide, ordinary max pooling, which gives the same and is faster."""
    ratio = [a // b for a, b in zip(feature.shape[2:], size, strict=True)]
    if all(r * b == a for r, a, b in zip(ratio, feature.shape[2:], size, strict=True)):
        pool: Callable = F.max_pool2d if len(size) == 2 else F.max_pool3d
        return pool(feature, ratio, return_indices=return_indices)
    if is_exporting():
        return max_by_axis(feature, size)  # ONNX has no adaptive pooling
    adaptive: Callable = F.adaptive_max_pool2d if len(size) == 2 else F.adaptive_max_pool3d
    return adaptive(feature, tuple(size), return_indices=return_indices)


def max_by_axis(feature: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Adaptive max pooling, one axis after the other: cell i of m is [floor(i n / m), ceil((i + 1) n / m))."""
    for axis, cells in enumerate(size, start=2):
        length = feature.shape[axis]
        starts = [i * length // cells for i in range(cells)]
        ends = [-(-(i + 1) * length // cells) for i in range(cells)]
        widest = max(end - start for start, end in zip(starts, ends, strict=True))
        taps = [[min(a + j, b - 1) for j in range(widest)] for a, b in zip(starts, ends, strict=True)]
        index = torch.tensor(taps, device=feature.device)
        feature = feature.index_select(axis, index.flatten()).unflatten(axis, index.shape).amax(axis + 1)
    return feature


def enlarge(feature: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Bilinear or trilinear interpolation to ``size``."""
    if feature.shape[2:] == tuple(size):
        return feature
    return F.interpolate(
        feature, size=tuple(size), mode="bilinear" if len(size) == 2 else "trilinear", align_corners=align_corners
    )


def enlarge_adjoint(gradient: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Gradient of ``enlarge``'s input of spatial ``size``."""
    if gradient.shape[2:] == tuple(size):
        return gradient
    aten = torch.ops.aten
    backward = aten.upsample_bilinear2d_backward if len(size) == 2 else aten.upsample_trilinear3d_backward
    return backward(gradient, gradient.shape[2:], [*gradient.shape[:2], *size], align_corners)


def smaller(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(min(x, y) for x, y in zip(a, b, strict=True))


def divides(small: Sequence[int], large: Sequence[int]) -> bool:
    return all(a % b == 0 for a, b in zip(large, small, strict=True))


class FeatureHistory:
    """The history pool: outputs of the stages so far, in causal order (eq. 3).

    An entry is pooled to a size once, however many stages read it, and from the smallest of its pooled versions that
    gives the same result: a maximum of maxima is the maximum, as long as all sizes divide one another.

    Shape: features (B, C_k, *S_k), where sizes and channels may differ from stage to stage.

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
            smallest = own
            for other in versions:  # not min(..., key=...), which dynamo does not trace where sizes are symbols
                if divides(size, other) and divides(other, own) and math.prod(other) < math.prod(smallest):
                    smallest = other
            source = versions[smallest]
            versions[size] = max_pool(source, size) if torch.compiler.is_compiling() else _MaxPool.apply(source, size)
        return versions[size]
