"""``record_attention`` records what a network's attention looks at while the network runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from nnunet_attn.blocks.recording import Maps, Point, listening


@contextmanager
def record_attention(network: nn.Module, point: Sequence[float] | None = None) -> Iterator[dict[str, list[Maps]]]:
    """Context manager that records the maps of every attention block of ``network`` that runs.

    The network's outputs stay the same bit by bit. A compiled network runs as before but records nothing, so pass the
    uncompiled one.

    >>> from nnunet_attn.architectures import XAttnResUNet
    >>> from nnunet_attn.maps import record_attention
    >>> net = XAttnResUNet(1, 2).eval()
    >>> with torch.no_grad(), record_attention(net) as maps:
    ...     logits = net(torch.randn(1, 1, 32, 32))
    >>> sorted(maps)[0], tuple(maps["x_dec.0"][0].pixel["entropy"].shape)
    ('x_dec.0', (1, 4, 4))

    Args:
        network: The network, not compiled.
        point: The marked position whose attention is recorded, as a fraction of each spatial axis; None: the centre.

    Yields:
        The maps by the block's name in the network, one for each call. A block that did not run has no entry.
    """
    names = {module: name for name, module in network.named_modules()}
    dimensions = max((len(p.shape) - 2 for p in network.parameters()), default=2)
    marked: Point = tuple(point) if point is not None else (0.5,) * min(max(dimensions, 2), 3)
    maps: dict[str, list[Maps]] = {}

    def listen(block: nn.Module, make: Callable[[Point], Maps]) -> None:
        if block in names:
            maps.setdefault(names[block], []).append(make(marked))

    with listening(listen):
        yield maps
