"""The contract that every network keeps, over the whole catalogue."""

import random
import re

import numpy as np
import pytest
import torch
from small_networks import BY_INDUCTOR, build, image, several_heads, small

from nnunet_attn import trainers
from nnunet_attn.catalog import ENTRIES, FAMILIES
from nnunet_attn.complexity import gmacs

NETWORKS = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.trainer)
VARIANTS = pytest.mark.parametrize(
    ("entry", "trainer"), [pytest.param(e, t, id=t) for e in ENTRIES for t in e.trainers]
)


@VARIANTS
def test_parameters_and_gmacs_are_the_catalogue_s(entry, trainer):
    with torch.device("meta"):
        network = build(entry, trainer, channels=entry.input_channels, classes=entry.num_classes)
    assert sum(p.numel() for p in network.parameters()) == entry.trainers[trainer].parameters
    counted = gmacs(network, entry.image_size, entry.input_channels)
    assert counted == pytest.approx(entry.trainers[trainer].gmacs, abs=0.006)


@VARIANTS
def test_every_trainer_names_its_entry_s_network(entry, trainer):
    cls = getattr(trainers, trainer)
    assert cls.__name__ == trainer
    assert (cls.network, cls.dimensions) == (entry.network, entry.dimensions)


@NETWORKS
def test_catalogue_and_trainer_have_the_same_ablations(entry):
    described = FAMILIES[entry.family].ablations
    assert list(entry.ablation_costs) == list(getattr(trainers, entry.trainer).ablations)
    assert set(entry.ablation_costs) <= set(described)
    assert all(described.values())


@NETWORKS
def test_logits_have_the_image_s_size(entry):
    network = build(entry).eval()
    with torch.no_grad():
        logits = network(image(entry))
    assert logits.shape == (2, 3, *small(entry).size)
    assert torch.isfinite(logits).all()


@NETWORKS
def test_eval_is_deterministic_and_samples_are_independent(entry):
    network = build(entry).eval()
    x = image(entry)
    before = torch.get_rng_state()
    with torch.no_grad():
        both = network(x)
        again = network(x)
        alone = network(x[:1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(both, again)
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


@NETWORKS
def test_every_parameter_gets_a_gradient(entry):
    torch.manual_seed(0)
    network = build(entry, **({"deep_supervision": True} if several_heads(entry) else {})).train()
    outputs = network(image(entry))
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    loss = sum((o * torch.randn(o.shape, generator=torch.Generator().manual_seed(1))).sum() for o in outputs)
    loss.backward()
    free, wrong = [re.compile(pattern) for pattern in small(entry).gradient_free], []
    for name, parameter in network.named_parameters():
        excepted = any(pattern.fullmatch(name) for pattern in free)
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif parameter.grad is None or not torch.isfinite(parameter.grad).all():
            wrong.append(name)
        elif not excepted and not parameter.grad.abs().max() > 0:
            wrong.append(f"{name} (zero)")
    assert not wrong


@NETWORKS
def test_state_dict_does_not_depend_on_deep_supervision(entry):
    without = build(entry)
    if not several_heads(entry):
        with pytest.raises(ValueError, match="nnUNetTrainerNoDeepSupervision"):
            build(entry, deep_supervision=True)
        return
    with_supervision = build(entry, deep_supervision=True)
    assert {k: v.shape for k, v in without.state_dict().items()} == {
        k: v.shape for k, v in with_supervision.state_dict().items()
    }
    without.load_state_dict(with_supervision.state_dict())
    without.eval()
    with_supervision.eval()
    x = image(entry)
    with torch.no_grad():
        maps = with_supervision(x)
        torch.testing.assert_close(maps[0], without(x))
        with_supervision.decoder.deep_supervision = False
        assert isinstance(with_supervision(x), torch.Tensor)


@NETWORKS
def test_heads_are_where_nnunet_looks_for_them(entry):
    network = build(entry)
    assert hasattr(network.decoder, "deep_supervision")
    heads = [name for name in network.state_dict() if ".seg_layers." in name]
    assert heads
    others = {name: p.shape for name, p in network.state_dict().items() if name not in heads}
    assert others == {n: p.shape for n, p in build(entry, classes=5).state_dict().items() if n not in heads}


# EMCAD is within XAttnResEMCAD; the large hosts compile what the small ones do
LONG = {f"nnUNetTrainer{name}" for name in ("EMCAD", "DualCADoubleUNet", "DualCAMultiResUNet", "DualCAR2UNet")}


@pytest.mark.parametrize("entry", [
    pytest.param(e, id=e.trainer, marks=[pytest.mark.slow] * (e.trainer in LONG))
    for e in ENTRIES if e.trainer not in BY_INDUCTOR
])  # fmt: skip
def test_compiles_in_one_graph(entry):
    torch.manual_seed(0)
    network = build(entry, **small(entry).arguments).eval()
    x = image(entry)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)
    network.train()
    outputs = compiled(x)
    (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@NETWORKS
def test_autocast_is_close_to_float32(entry, dtype):
    torch.manual_seed(0)
    network = build(entry).eval()
    x = image(entry)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", dtype=dtype):
            close = network(x).float()
    assert torch.isfinite(close).all()
    assert (close - exact).norm() / exact.norm() < 0.15


@NETWORKS
def test_building_changes_nothing_global(entry):
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = (torch.get_default_dtype(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    build(entry)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert settings == (torch.get_default_dtype(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
