"""Attention of several levels over one set of keys, as an operator that keeps nothing but its input (on a CPU)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from nnunet_attn.blocks.precision import full_precision

BLOCK_SIZE = 2**20  # numbers; measured: at 3,584 tokens half the time of whole maps, at 896 (one block) the same


def _parts(joint: torch.Tensor, channels: Sequence[int], heads: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Level, sample, channels of keys and channels of values of every softmax map."""
    width, first = joint.shape[2] // heads, 0
    for level, total in enumerate(channels):
        own = total // heads
        for sample in range(joint.shape[0]):
            for head in range(heads):
                start = first + head * own
                yield level, sample, slice(head * width, (head + 1) * width), slice(start, start + own)
        first += total


def _blocks(tokens: int) -> list[slice]:
    """Rows of a softmax map that are in memory at a time; larger blocks do not stay in the processor's cache."""
    rows = max(1, BLOCK_SIZE // tokens)
    return [slice(start, start + rows) for start in range(0, tokens, rows)]


def _softmax_map(keys: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, block: slice) -> torch.Tensor:
    return torch.softmax(torch.addcmul(bias, keys[block], weight) @ keys.T, dim=1)


@torch.library.custom_op(  # schemas are written out, since torch 2.6 cannot read them off all types
    "nnunet_attn::shared_key_attention",
    mutates_args=(),
    schema="(Tensor joint, Tensor weight, Tensor bias, int[] channels, int heads) -> Tensor",
)
def shared_key_attention(
    joint: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, channels: Sequence[int], heads: int
) -> torch.Tensor:
    """For each level i and head, with K the head's block of channels of ``joint`` N and V its block of level i's own::

        A = softmax((w_i K + b_i) K^T),     out = A V

    Fused kernels of PyTorch want values as wide as keys: they would multiply each map by the values of all levels, in
    five of the seven products of forward and backward pass. Here the map is as narrow as it is, and computed again in
    the backward pass. There, with ``D`` the gradient of the logits, ``T = (D + D^T) K`` serves queries and keys::

        gK = w T + b (D^T 1),     gw = K . T / 2,     gb = K^T (D^T 1),     gV = A^T gout

    A block of rows of one P x P map at a time is in memory. On a GPU the fused kernels are the better choice.

    Args:
        joint: (B, P, S), the levels' channels side by side.
        weight: (L, S), with the softmax's scale in it.
        bias: (L, S), the same.
        channels: Of each level, S together.
        heads: Blocks of channels, in the whole and in each level.

    Returns:
        (B, P, S).
    """
    with full_precision(joint.device):
        out = torch.empty_like(joint)
        for level, sample, key, own in _parts(joint, channels, heads):
            for block in _blocks(joint.shape[1]):
                a = _softmax_map(joint[sample, :, key], weight[level, key], bias[level, key], block)
                out[sample, block, own] = a @ joint[sample, :, own]
        return out


@shared_key_attention.register_fake
def _(joint: Any, weight: Any, bias: Any, channels: Any, heads: int) -> Any:
    return torch.empty_like(joint)


@torch.library.custom_op(
    "nnunet_attn::shared_key_attention_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor joint, Tensor weight, Tensor bias, int[] channels, int heads)"
    " -> (Tensor, Tensor, Tensor)",
)
def shared_key_attention_backward(
    gradient: torch.Tensor,
    joint: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    channels: Sequence[int],
    heads: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of ``joint``, ``weight`` and ``bias``."""
    with full_precision(joint.device):
        gjoint, gweight, gbias = (torch.zeros_like(t) for t in (joint, weight, bias))
        for level, sample, key, own in _parts(joint, channels, heads):
            keys, values = joint[sample, :, key], joint[sample, :, own]
            column, t = joint.new_zeros(len(keys)), torch.zeros_like(keys)
            for block in _blocks(len(keys)):
                go = gradient[sample, block, own]
                a = _softmax_map(keys, weight[level, key], bias[level, key], block)
                gjoint[sample, :, own] += a.T @ go
                d = torch.ops.aten._softmax_backward_data(go @ values.T, a, 1, a.dtype)
                column += d.sum(0)
                if len(d) == len(keys):  # a whole map: one product for both
                    t += (d + d.T) @ keys
                else:
                    t[block] += d @ keys
                    t += d.T @ keys[block]
            gjoint[sample, :, key] += torch.addcmul(torch.outer(column, bias[level, key]), t, weight[level, key])
            gweight[level, key] += (keys * t).sum(0) / 2
            gbias[level, key] += column @ keys
        return gjoint, gweight, gbias


@shared_key_attention_backward.register_fake
def _(gradient: Any, joint: Any, weight: Any, bias: Any, channels: Any, heads: int) -> tuple:
    return torch.empty_like(joint), torch.empty_like(weight), torch.empty_like(bias)


def _no_second_derivative(ctx: Any, *_: Any) -> None:
    raise RuntimeError("the spatial cross attention has no second derivative; set its implementation to 'plain'")


shared_key_attention_backward.register_autograd(_no_second_derivative)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.channels, ctx.heads = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple:
    return *shared_key_attention_backward(gradient, *ctx.saved_tensors, ctx.channels, ctx.heads), None, None


shared_key_attention.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.nnunet_attn.shared_key_attention)
def _(joint: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Of both products; arguments are shapes."""
    batch, tokens, channels = joint
    return 2 * batch * tokens * tokens * channels * (weight[0] + 1)
