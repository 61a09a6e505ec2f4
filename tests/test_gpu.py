"""Training steps through nnU-Net's own trainer: on a GPU compiled, in float16, with a GradScaler, as it trains there.

``pytest -m gpu tests/test_gpu.py`` runs every network on a CUDA device; the default run takes the same steps with one
small network on the CPU, so that the test itself is known to work.
"""

import pytest
import torch

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process


def losses(data, trainer: str, device: str, steps: int) -> list[float]:
    """Losses of ``steps`` training steps on one batch."""
    with nnunet_in_process(data.root):
        run = make_trainer(data.dataset_id, "2d", f"{trainer}_lr1e3_1epoch_1iterations", device=device)
        run.on_train_start()
        run.network.train()
        batch = next(run.dataloader_train)
        found = [float(run.train_step(dict(batch))["loss"]) for _ in range(steps)]
        finite = all(torch.isfinite(p).all() for p in run.network.parameters())
    assert finite
    return found


def check_falling(values: list[float]) -> None:
    assert all(value == value for value in values), values
    assert sum(values[-3:]) < sum(values[:3]), values


def test_losses_fall_on_the_cpu(images_2d, tmp_path):
    check_falling(losses(images_2d.copy(tmp_path), "nnUNetTrainerXAttnResUNet", "cpu", 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("trainer", [entry.trainer for entry in ENTRIES])
def test_losses_fall_on_the_gpu(trainer, images_2d, tmp_path, record_property, monkeypatch):
    monkeypatch.setenv("NNUNET_ATTN_PRETRAINED", "none")
    torch.compiler.reset()
    torch.cuda.reset_peak_memory_stats()
    check_falling(losses(images_2d.copy(tmp_path), trainer, "cuda", 20))
    record_property("peak_mib", torch.cuda.max_memory_allocated() / 2**20)
