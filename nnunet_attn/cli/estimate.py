"""Memory and time of a training on this machine, from plans: before anything is started.

Memory: of the network on the device "meta", the bytes that one forward pass keeps for backward, which are counted and
not allocated. ``SAVED`` and ``PARAMETERS`` were fitted to 17 networks of an earlier run of the benchmark; the formula
gives 0.72 to 1.06 of the memory that scripts/results/cost_cpu_*.csv has for 21. Time: one step with a single sample, in
3D of a small part of the patch, scaled by voxels and batch; what loads the data is not counted.
"""

import contextlib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAVED, PARAMETERS = 1.29, 0.73  # fitted, see above
BASE = 0.7 * 2**30  # of a process with nnU-Net and torch, before the network
USABLE = 0.8  # of the memory that is free; the rest is for the workers that load data
MEASURED_VOXELS = 32**3  # of a step that is timed in 3D
VALIDATION_STEPS, VALIDATION_COST = 50, 1 / 3  # nnU-Net's, and a forward pass's share of a step


@dataclass(frozen=True)
class Estimate:
    """One configuration. Memory in bytes; ``batch_that_fits`` is 0 where not even one sample does.

    Attributes:
        seconds: Of an epoch on this device; None where ``problem`` says why it was not measured.
    """

    configuration: str
    patch: list[int]
    batch: int
    parameters: int
    memory: float
    available: float
    batch_that_fits: int
    seconds: float | None
    problem: str = ""

    @property
    def fits(self) -> bool:
        return self.memory <= USABLE * self.available


def available_memory(device: str) -> float:
    """Bytes that are free: of the GPU, or of this machine's memory."""
    import torch

    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def build(trainer: str, plans: dict, dataset: dict, configuration: str, device: str) -> tuple[Any, Any, int]:
    """The network as it is trained, its configuration, and its number of input channels."""
    import inspect

    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_attn.errors import UserError

    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    channels = determine_num_input_channels(manager, settings, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            make = recursive_find_trainer_class_by_name(trainer).build_network_architecture
        except RuntimeError as error:
            raise UserError(f"nnU-Net finds no trainer {trainer}; see nnunet-attn list") from error
        with torch.device(device):
            if "plans_manager" in inspect.signature(make).parameters:
                return make(manager, settings, channels, heads, True), settings, channels
            architecture = (
                settings.network_arch_class_name,
                settings.network_arch_init_kwargs,
                settings.network_arch_init_kwargs_req_import,
            )
            return make(*architecture, channels, heads, True), settings, channels


def seconds_of_a_step(network: Any, patch: list[int], strides: list[int], channels: int, device: str) -> float:
    """Wall time of one training step on one sample of ``patch``, from a part of it in 3D."""
    import time

    import torch

    from nnunet_attn.complexity import training_step

    part = list(patch)
    while len(part) == 3 and math.prod(part) > MEASURED_VOXELS:
        possible = [i for i in range(3) if part[i] // 2 >= 2 * strides[i] and part[i] // 2 % strides[i] == 0]
        if not possible:
            break
        axis = max(possible, key=lambda i: part[i])
        part[axis] //= 2
    image = torch.randn(1, channels, *part, device=device)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.99)
    scaler = torch.amp.GradScaler() if device == "cuda" else None
    seconds = []
    for _ in range(2):  # the first warms up
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        training_step(network, optimizer, scaler, image)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds) * math.prod(patch) / math.prod(part)


def estimate(trainer: str, plans: dict, dataset: dict, configuration: str, device: str, iterations: int) -> Estimate:
    """Memory and time of one configuration of the plans.

    Args:
        trainer: Its network and optimiser are taken.
        plans, dataset: nnU-Net's plans and dataset.json.
        configuration: Of the plans.
        device: "cpu" or "cuda".
        iterations: Training iterations of an epoch.
    """
    import torch

    from nnunet_attn.complexity import saved_bytes

    network, settings, channels = build(trainer, plans, dataset, configuration, "meta")
    patch, batch = [int(n) for n in settings.patch_size], int(settings.batch_size)
    of_sample = saved_bytes(network, torch.empty(1, channels, *patch, device="meta"))
    count = sum(p.numel() for p in network.parameters())
    half = 0.5 if device == "cuda" else 1.0  # autocast keeps half precision
    fixed = BASE + 4 * count * (2 + PARAMETERS)  # weights, and AdamW's second moments on top of what was fitted
    each = SAVED * of_sample * half
    available = available_memory(device)
    seconds, problem = None, ""
    if fixed + each > USABLE * available:
        problem = "not even one sample fits"
    else:
        strides = settings.network_arch_init_kwargs.get("strides", [[1] * len(patch)])
        total = [math.prod(s[i] if isinstance(s, (list, tuple)) else s for s in strides) for i in range(len(patch))]
        try:
            real, _, _ = build(trainer, plans, dataset, configuration, device)
            step = seconds_of_a_step(real, patch, total, channels, device)
            seconds = step * batch * (iterations + VALIDATION_STEPS * VALIDATION_COST)
        except (RuntimeError, ValueError) as error:
            problem = f"time not measured: {str(error).splitlines()[0]}"
    most = max(0, int((USABLE * available - fixed) // each))
    return Estimate(configuration, patch, batch, count, fixed + batch * each, available, most, seconds, problem)


def duration(seconds: float) -> str:
    """In the unit that one reads."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def advice(found: Estimate, dataset: str, plans: str, spacing: Sequence[float], inherits: str | None = None) -> str:
    """The command that writes plans which fit; with a smaller patch, for a second look, where no batch of two does."""
    from nnunet_attn.training.changed_plans import fitting_patch

    if found.batch_that_fits >= 2:
        what = f"--batch-size {found.batch_that_fits}"
    else:
        edges = fitting_patch(spacing, [max(8, n // 2) for n in found.patch])
        what = f"--patch-size {' '.join(map(str, edges))} --batch-size 2"
    return (
        f"nnunet-attn plan {dataset} --from {plans} -overwrite_plans_name {plans}Small "
        f"-c {inherits or found.configuration} {what}"
    )
