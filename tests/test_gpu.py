"""What a GPU is asked: training through nnU-Net's own trainer, equal forms of every block, data-parallel training.

``pytest -m gpu tests/test_gpu.py`` runs every network on a CUDA device compiled, in float16, with a GradScaler, as
nnU-Net trains there. The default run calls the same functions with ``device="cpu"``, so that they are known to work.
"""

import pytest
import torch
from small_networks import build, image, small
from test_ddp import check_replicas

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.complexity import use_plain_path
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
CPU = pytest.param("cpu", id="cpu")
CUDA = pytest.param("cuda", id="cuda", marks=ON_GPU)
# networks whose blocks have several forms, among them all blocks that have
SEVERAL_FORMS = ("nnUNetTrainerDCAUNet", "nnUNetTrainerDualCAUNet", "nnUNetTrainerXAttnResUNet")


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


def forward_and_gradients(network: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = network(x)
    weights = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(logits.square().mean(), weights, allow_unused=True)
    return logits.detach(), torch.cat([g.flatten() for g in gradients if g is not None])


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-2)], ids=str)
@pytest.mark.parametrize("trainer", SEVERAL_FORMS)
def test_forms_are_equal(trainer, dtype, tolerance, device):
    """The default form and the formulas as they are written; in float32 with the device's fused kernels."""
    entry = next(e for e in ENTRIES if e.trainer == trainer)
    torch.manual_seed(0)
    network = build(entry, **small(entry).arguments).to(device, dtype).eval()
    x = image(entry).to(device, dtype)
    with torch.backends.cudnn.flags(allow_tf32=False):
        default = forward_and_gradients(network, x)
        plain = forward_and_gradients(use_plain_path(network, ("implementation", "form")), x)
    for wanted, found in zip(plain, default, strict=True):
        assert (found - wanted).norm() <= tolerance * wanted.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.trainer)
def test_networks_are_on_the_gpu_what_they_are_on_the_cpu(entry):
    torch.manual_seed(0)
    network, x = build(entry).double().eval(), image(entry).double()
    here = forward_and_gradients(network, x)
    there = forward_and_gradients(network.cuda(), x.cuda())
    for wanted, found in zip(here, there, strict=True):
        assert (found.cpu() - wanted).norm() <= 1e-8 * wanted.norm()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_replicas_on_two_gpus_stay_the_same():
    """The steps of ``test_ddp.py``, which the default run takes on the CPU."""
    check_replicas("cuda", [entry.trainer for entry in ENTRIES])
