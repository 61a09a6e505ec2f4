"""What a network costs: parameters, multiply-accumulates, time of a step, memory."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def use_plain_path(network: nn.Module, switches: Sequence[str] = ("implementation",)) -> nn.Module:
    """Switch every block with several formulations to the literal one, whose products a counter sees.

    Args:
        network: Changed, and returned.
        switches: Attributes of blocks to switch. XAttnRes, whose counted products are those of its default, has "form".
    """
    for module in network.modules():
        if not any(base.__module__.startswith("nnunet_attn.") for base in type(module).__mro__):
            continue  # another package's attribute of the name
        for switch in switches:
            if hasattr(module, switch):
                setattr(module, switch, "plain")
    return network


def gmacs(network: nn.Module, image_size: Sequence[int], channels: int) -> float:
    """1e9 multiply-accumulates of one forward pass of one image: FlopCounterMode / 2, on the plain path.

    Elementwise products are not counted. ``network`` should live on the device "meta", where this costs nothing; it is
    left in evaluation mode and on the plain path.
    """
    use_plain_path(network.eval())
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, channels, *image_size, device=device))
    return counter.get_total_flops() / 2e9


def saved_bytes(network: nn.Module, image: torch.Tensor) -> int:
    """Bytes that one training forward pass keeps for backward, parameters and the image left out, storages once.

    On the device "meta" nothing is computed and nothing allocated.
    """
    # storages on "meta" have no address; the objects themselves are told apart
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers(), image)}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network.train()(image)  # its graph keeps the tensors alive while they are counted
    del output
    return sum(kept.values())


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    image: torch.Tensor,
) -> None:
    """Forward, a mean-square loss over all maps, backward, optimiser step; fp16 autocast where ``scaler`` is given."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(image.device.type, torch.float16, enabled=scaler is not None):
        output = network(image)
        maps = output if isinstance(output, (list, tuple)) else [output]
        loss = sum(m.float().square().mean() for m in maps)
    if scaler is None:
        loss.backward()
        optimizer.step()
        return
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Wall time on the GPU; on the CPU the process's CPU time, which other programs disturb less."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        function()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started
    started = time.process_time()
    function()
    return time.process_time() - started


@dataclass(frozen=True)
class Measured:
    """Seconds of the best round of training steps and of inference; bytes of the GPU's peak (NaN on the CPU)."""

    training: float
    inference: float
    peak_memory: float


def measure(networks: Sequence[nn.Module], image: torch.Tensor, rounds: int) -> list[Measured]:
    """Time ``rounds`` training steps and inference passes of each network, after one of each to warm up.

    Networks take turns, so that a machine that becomes slower does so for all of them. The GPU's peak of allocated
    memory is that of a training step, with all networks there; for the CPU see ``peak_rss``.
    """
    device = image.device
    gpu = device.type == "cuda"
    scaler = torch.amp.GradScaler() if gpu else None
    optimizers = [torch.optim.SGD(network.parameters(), 1e-4, momentum=0.99) for network in networks]
    training: list[list[float]] = [[] for _ in networks]
    inference: list[list[float]] = [[] for _ in networks]
    peaks = [math.nan] * len(networks)
    for _ in range(rounds + 1):
        for n, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
            network.train()
            if gpu:
                torch.cuda.reset_peak_memory_stats(device)
            training[n].append(seconds_of(partial(training_step, network, optimizer, scaler, image), device))
            if gpu:
                peaks[n] = torch.cuda.max_memory_allocated(device)
            network.eval()
            with torch.no_grad(), torch.autocast(device.type, torch.float16, enabled=gpu):
                inference[n].append(seconds_of(partial(network, image), device))
    return [Measured(min(t[1:]), min(i[1:]), p) for t, i, p in zip(training, inference, peaks, strict=True)]


def memory_of_process(field_name: str) -> int:
    """Bytes of a field of this process's /proc status: VmRSS, or VmHWM, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field_name):
            return int(line.split()[1]) * 1024
    raise KeyError(field_name)


def peak_rss(make_network: Callable[[], nn.Module], shape: Sequence[int]) -> float:
    """Bytes that one training step needs on top of the built model; NaN where /proc does not tell (not Linux).

    Run it in a new process: otherwise memory that an earlier step freed would be used again and not be counted.
    """
    network, image = make_network(), torch.randn(*shape)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.99)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
        before = memory_of_process("VmRSS")
    except OSError:
        return math.nan
    training_step(network, optimizer, None, image)
    return memory_of_process("VmHWM") - before
