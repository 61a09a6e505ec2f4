"""What can be imported from ``nnunet_attn.blocks`` and ``.architectures`` says its shapes and shows how it is used."""

import doctest
import subprocess
import sys

import pytest
import torch
from torch import nn

from nnunet_attn import architectures, blocks
from nnunet_attn.blocks import layout

PUBLIC = [(package, name) for package in (blocks, architectures) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=[name for _, name in PUBLIC])
def test_says_shapes_and_runs_its_example(package, name):
    cls = getattr(package, name)
    assert "Shape: " in cls.__doc__
    names = {"torch": torch, "nn": nn}
    test = doctest.DocTestParser().get_doctest(cls.__doc__, names, name, None, None)
    assert len(test.examples) >= 2, "no example"
    result = doctest.DocTestRunner().run(test)
    assert result.failed == 0


def test_modules_show_what_holds():
    assert doctest.testmod(layout).failed == 0


@pytest.mark.parametrize("package", [blocks, architectures])
def test_listed_names_exist_and_others_do_not(package):
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith(package.__name__)
    with pytest.raises(AttributeError):
        package.NoSuchBlock  # noqa: B018


def test_importing_the_package_is_cheap():
    code = (
        "import time, sys; start = time.perf_counter(); import nnunet_attn; used = time.perf_counter() - start\n"
        "import nnunet_attn.blocks, nnunet_attn.architectures\n"
        "print(used < 0.01, [m for m in ('torch', 'numpy', 'nnunetv2', 'timm') if m in sys.modules])"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)}
    assert "True []\n" in outputs  # the fastest of three, on a busy machine
    assert not [out for out in outputs if not out.endswith("[]\n")]


WRONG = {
    "ChannelAttention": ((16,), [(2, 4, 6, 6)]),
    "SpatialAttention": ((), [(2, 6, 6)]),
    "ChannelSpatialFusion": ((16,), [(2, 16, 6, 6), (2, 16, 3, 3)]),
    "ConcatFusion": ((16,), [(2, 16, 6, 6), (2, 8, 6, 6)]),
    "ContextAwareFusion": ((8,), [(2, 8, 6, 6), (2, 8, 3, 3)]),
    "CrossStageAttentionResidual": ((8, (4,)), [[(2, 4, 6, 6, 6)], (2, 8, 6, 6)]),
    "DepthwiseMultiKernel": ((8, 16), [(2, 16, 6, 6)]),
    "DepthwiseMultiKernelEncoder": ((3, (16, 32)), [(2, 1, 32, 32)]),
    "DCABlock": ((8, None), [(2, 6, 6, 8)]),
    "WindowCrossAttention": ((8, 2), [(2, 8, 6, 6)]),
    "DifferentialCrossAttention": ((8, 2), [(2, 8, 6, 6)]),
    "MultiScaleDilatedAttention": ((12, 3), [(2, 12, 6, 6)]),
    "DilatedBlock": ((8, None), [(2, 6, 6, 8)]),
    "GlobalAttention": ((8, 2), [(2, 8, 6, 6)]),
    "MonteCarloAttention": ((8,), [(2, 6, 6, 8)]),
    "MixingAttention": ((8, 2), [(2, 6, 6, 8)]),
    "CAB": ((16,), [(2, 6, 6, 16)]),
    "SAB": ((), [(6, 6)]),
    "MSCB": ((16,), [(2, 6, 6, 16)]),
    "EUCB": ((16, 8), [(2, 6, 6, 16)]),
    "LGAG": ((16,), [(2, 16, 6, 6), (2, 16, 3, 3)]),
    "DualCrossAttention": (([8, 16], [(2, 2), (1, 1)]), [[(2, 8, 6, 6), (2, 8, 3, 3)]]),
    "ChannelCrossAttention": (([8, 16],), [[(2, 9, 8), (2, 9, 8)]]),
    "SpatialCrossAttention": (([8, 16],), [[(2, 9, 8), (2, 16)]]),
}


@pytest.mark.parametrize("name", WRONG)
def test_blocks_say_what_they_got(name):
    arguments, shapes = WRONG[name]
    inputs = [[torch.ones(s) for s in shape] if isinstance(shape, list) else torch.ones(shape) for shape in shapes]
    wrong = shapes[-1][-1] if isinstance(shapes[-1], list) else shapes[-1]
    if name == "CrossStageAttentionResidual":
        wrong = shapes[0][0]
    with pytest.raises(ValueError, match=", ".join(map(str, wrong))):
        getattr(blocks, name)(*arguments)(*inputs)
