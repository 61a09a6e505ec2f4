"""Data-parallel training: every parameter gets its gradient in a step, and the replicas stay the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from small_networks import build, image, small
from torch.nn.parallel import DistributedDataParallel

from nnunet_attn import trainers
from nnunet_attn.catalog import ENTRIES


def steps(rank: int, port: int, names: list[str], device: str = "cpu") -> None:
    """One of two processes: a step on its own data; raises if the replicas differ afterwards, or a gradient is missing.

    The second forward pass is for what DDP raises at its start, where a parameter had no gradient in the step before.
    """
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    place = torch.device(device, rank) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=rank, world_size=2)
    for name in names:
        entry = next(e for e in ENTRIES if name in e.trainers)
        torch.manual_seed(0)
        shallow = small(entry).arguments | {"deep_supervision": getattr(trainers, name).deep_supervision}
        network = build(entry, name, **shallow).to(place)
        parallel = DistributedDataParallel(network, device_ids=[rank] if device == "cuda" else None)
        optimizer = torch.optim.SGD(parallel.parameters(), 1e-3)
        torch.manual_seed(rank)
        x = torch.randn_like(image(entry)).to(place)
        output = parallel(x)
        maps = output if isinstance(output, (list, tuple)) else [output]
        sum(m.square().mean() for m in maps).backward()
        optimizer.step()
        parallel(x)
        ours = torch.cat([p.detach().flatten() for p in network.parameters()])
        first = ours.clone()
        dist.broadcast(first, 0)
        assert torch.equal(ours, first), f"{name}: the replicas differ"
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([e.trainer for e in ENTRIES], id="networks"),
        pytest.param(
            [n for e in ENTRIES for n in e.trainers if n != e.trainer], id="ablations", marks=pytest.mark.slow
        ),
    ],
)
def test_replicas_stay_the_same(names):
    check_replicas("cpu", names)


def check_replicas(device: str, names: list[str]) -> None:
    """Two processes, each with a replica on its own device."""
    command = [sys.executable, __file__, device, str(free_port()), *names]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    processes = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True, env=env) for rank in (0, 1)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


if __name__ == "__main__":
    steps(int(sys.argv[-1]), int(sys.argv[2]), sys.argv[3:-1], sys.argv[1])
