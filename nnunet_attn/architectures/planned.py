"""What the networks on nnU-Net's plans share: the host run stage by stage, its grids, and the memory of added parts."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from nnunet_attn.blocks.recompute import everything_kept


def cumulative_strides(strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Stride of each stage against the image."""
    return list(accumulate((tuple(s) for s in strides), lambda a, b: tuple(x * y for x, y in zip(a, b, strict=True))))


def most_heads(channels: int, most: int) -> int:
    """The largest number of heads, ``most`` or fewer, that divides the width."""
    return max(heads for heads in range(1, max(1, most) + 1) if channels % heads == 0)


@dataclass(frozen=True)
class Stage:
    """A stage of the host's encoder, and of the decoder on the same grid.

    Attributes:
        channels: Width.
        stride: Against the image, an axis.
        step: Against the stage before, an axis.
        convolved: Whether the host's kernels reach beyond a voxel, an axis; false for the thick axis of early stages.
    """

    channels: int
    stride: tuple[int, ...]
    step: tuple[int, ...]
    convolved: tuple[bool, ...]

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Voxels an axis for an image of this size."""
        return tuple(-(-n // s) for n, s in zip(size, self.stride, strict=True))

    def extent(self, side: int) -> tuple[int, ...]:
        """``side`` on the axes that are convolved, 1 on the others: windows, kernels and neighbourhoods."""
        return tuple(side if along else 1 for along in self.convolved)


def stages_of(encoder: nn.Module) -> list[Stage]:
    """The stages of an encoder of nnU-Net's."""
    strides = [tuple(stride) for stride in encoder.strides]
    kernels = [tuple(kernel) for kernel in encoder.kernel_sizes]
    return [
        Stage(channels, stride, step, tuple(side > 1 for side in kernel))
        for channels, stride, step, kernel in zip(
            encoder.output_channels, cumulative_strides(strides), strides, kernels, strict=True
        )
    ]


def coarse_levels(stages: Sequence[Stage], patch_size: Sequence[int], max_tokens: int, min_stride: int) -> list[int]:
    """The stages of stride ``min_stride`` or more, on any axis, with at most ``max_tokens`` voxels; always the last.

    Raises:
        ValueError: the patch has another number of axes than the host, or the last stage has more tokens.
    """
    if len(patch_size) != len(stages[0].stride):
        raise ValueError(f"the network has {len(stages[0].stride)} axes, got a patch size of {[*patch_size]}")
    tokens = [math.prod(stage.grid(patch_size)) for stage in stages]
    if tokens[-1] > max_tokens:
        raise ValueError(
            f"the last stage has {tokens[-1]} tokens for a patch of {[*patch_size]}, more than max_tokens "
            f"{max_tokens}; use plans with more stages"
        )
    last = len(stages) - 1
    return [n for n, s in enumerate(stages) if tokens[n] <= max_tokens and (max(s.stride) >= min_stride or n == last)]


def host_norm(encoder: nn.Module) -> Callable[[int], nn.Module] | None:
    """Makes the host's norm from a width; None if it has none."""
    return None if encoder.norm_op is None else partial(encoder.norm_op, **(encoder.norm_op_kwargs or {}))


def host_act(encoder: nn.Module) -> Callable[[], nn.Module] | None:
    """Makes the host's activation; None if it has none."""
    return None if encoder.nonlin is None else partial(encoder.nonlin, **(encoder.nonlin_kwargs or {}))


def narrow_decoder(network: nn.Module, levels: Sequence[int], *, nonlin_first: bool) -> None:
    """Build the decoder's stages on these levels of the encoder again, for C input channels instead of 2 C."""
    encoder, decoder = network.encoder, network.decoder
    for level in levels:
        n = len(decoder.stages) - 1 - level
        width = encoder.output_channels[level]
        decoder.stages[n] = StackedConvBlocks(
            len(decoder.stages[n].convs), encoder.conv_op, width, width, encoder.kernel_sizes[level], 1,
            encoder.conv_bias, encoder.norm_op, encoder.norm_op_kwargs, encoder.dropout_op, encoder.dropout_op_kwargs,
            encoder.nonlin, encoder.nonlin_kwargs, nonlin_first,
        )  # fmt: skip


Mixin: Any = object  # to mypy: with whatever the class's other base has


class OnPlans(Mixin):
    """Runs the U-Net of nnU-Net that follows in the class's bases stage by stage, with three places for more.

    A network overrides ``encode``, ``join`` (what stands for the concatenation with the skip) and ``finish`` (after a
    stage of the decoder), and lists in ``added_parts`` what these run. Deep supervision and heads are nnU-Net's.
    """

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        stem = getattr(self.encoder, "stem", None)
        return x if stem is None else stem(x)

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The skips, finest first, and the last stage's output."""
        return self.encoder(x)

    def join(self, level: int, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return torch.cat((up, skip), 1)

    def finish(self, level: int, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        *skips, x = self.encode(x)
        decoder, outputs = self.decoder, []
        for n, (up, stage, head) in enumerate(
            zip(decoder.transpconvs, decoder.stages, decoder.seg_layers, strict=True)
        ):
            level = len(skips) - 1 - n
            x = self.finish(level, stage(self.join(level, up(x), skips[level])))
            if decoder.deep_supervision or level == 0:
                outputs.append(head(x))
        return outputs[::-1] if decoder.deep_supervision else outputs[0]

    def added_parts(self) -> list[tuple[int, nn.Module, int]]:
        """Level, module and number of maps that it takes, of everything that the host does not have."""
        raise NotImplementedError

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> np.int64:
        """nnU-Net's measure of memory, values in all feature maps: the host's, and what the added parts keep.

        nnU-Net counts one map per convolution where training keeps two (before and after the norm), hence half of the
        values that autograd keeps; and all that the largest part computes again in the backward pass.
        """
        stages = stages_of(self.encoder)
        parts = [
            (module, [(1, stages[level].channels, *stages[level].grid(input_size))] * maps)
            for level, module, maps in self.added_parts()
        ]
        kept = sum(kept_values(module, shapes) for module, shapes in parts)
        again = max((kept_values(module, shapes, recompute=False) for module, shapes in parts), default=0)
        return super().compute_conv_feature_map_size(input_size) + np.int64((kept + again) // 2)


def kept_values(module: nn.Module, shapes: Sequence[Sequence[int]], *, recompute: bool = True) -> int:
    """Numbers that one training forward pass of ``module`` keeps for backward; nothing is computed or allocated.

    Args:
        module: On any device, "meta" included.
        shapes: Of the inputs.
        recompute: Whether parts that ``recomputed`` computes again are counted by their inputs alone.
    """
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes() // tensor.element_size()
        alive.append(tensor)
        return tensor

    with FakeTensorMode(), nullcontext() if recompute else everything_kept():
        state = {
            name: torch.empty(t.shape, dtype=t.dtype, requires_grad=t.requires_grad)
            for name, t in (*module.named_parameters(), *module.named_buffers())
        }
        own = {tensor.untyped_storage()._cdata for tensor in state.values()}
        inputs = [torch.empty(tuple(shape), requires_grad=True) for shape in shapes]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = functional_call(module, state, tuple(inputs))
        del output
    return sum(kept.values())
