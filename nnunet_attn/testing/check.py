"""``check_network``: somebody's network against all that nnU-Net asks of one."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from nnunet_attn.testing import checks
from nnunet_attn.testing.report import (
    FAIL,
    LEFT_OUT,
    NOTE,
    OK,
    CheckFailed,
    CheckLeftOut,
    CheckNoted,
    Finding,
    NetworkReport,
)
from nnunet_attn.testing.subject import Subject, is_trainer, name_of, settings_kept

CHECKS: dict[str, checks.Check] = {
    "construction": checks.construction,
    "global state": checks.global_state,
    "output shape": checks.output_shape,
    "size dependence": checks.size_dependence,
    "logits": checks.logits,
    "order of heads": checks.order_of_heads,
    "sizes of heads": checks.sizes_of_heads,
    "deep supervision flag": checks.flags,
    "gradients": checks.gradients,
    "input unchanged": checks.input_unchanged,
    "python-side state": checks.python_side_state,
    "evaluation": checks.evaluation,
    "pickling": checks.pickling,
    "half precision": checks.half_precision,
    "compilation": checks.compilation,
    "export": checks.export,
    "names": checks.names,
    "memory": checks.memory,
}
NEEDED = ("construction", "output shape")  # after a failure of one of them the rest would only repeat it


def run_check(check: checks.Check, name: str, subject: Subject) -> Finding:
    """One check, with everything that the network may have changed put back."""
    try:
        with settings_kept():
            return Finding(name, subject.dims, OK, check(subject) or "")
    except CheckNoted as noted:
        return Finding(name, subject.dims, NOTE, noted.cause, noted.remedy)
    except CheckFailed as failed:
        return Finding(name, subject.dims, FAIL, failed.cause, failed.remedy)
    except CheckLeftOut as left_out:
        return Finding(name, subject.dims, LEFT_OUT, str(left_out))
    except Exception as error:  # the network's own code, which may fail in any way
        remedy = "The network raised this in the check; the other findings may say why."
        return Finding(name, subject.dims, FAIL, checks.reason(error), remedy)


def check_network(factory: Callable[..., nn.Module] | type[Any], dims: Sequence[int] = (2, 3)) -> NetworkReport:
    """Run nnU-Net's contract on a network, on the CPU; print the result for a table with cause and remedy of failures.

    Each check makes the network anew for small patches that nnU-Net plans, 64x64 and 40x56, 32x32x32 and 12x40x32
    (slices three times as thick), with 2 input channels, 3 classes and batches of 2.

    Args:
        factory: A trainer class, whose ``build_network_architecture`` is called; or the network's class, or a function,
            called as ``factory(input_channels, num_classes, deep_supervision=...)``. Further arguments get the plan's
            values where the factory has parameters of these names: ``patch_size``, ``dims`` or ``spatial_dims`` (2 or
            3), and those of nnU-Net's networks (``n_stages``, ``features_per_stage``, ``strides``, ``kernel_sizes``,
            ``conv_op`` ...). A network with one head has no ``deep_supervision``, or raises a ``ValueError`` for it.
        dims: Numbers of spatial axes to check; of a trainer, those of its ``dimensions``.

    Raises:
        ValueError: ``dims`` holds something other than 2 and 3, or nothing that the trainer takes.
    """
    if not dims or not set(dims) <= {2, 3}:
        raise ValueError(f"dims are 2, 3 or both, got {dims!r}")
    taken = getattr(factory, "dimensions", (2, 3)) if is_trainer(factory) else (2, 3)
    checked = [d for d in dims if d in taken]
    if not checked:
        raise ValueError(f"{name_of(factory)} takes {' and '.join(f'{d}D' for d in taken)} images, got dims {dims!r}")
    findings: list[Finding] = []
    for d in checked:
        subject, reason = Subject(factory, d), ""
        for name, check in CHECKS.items():
            if reason:
                findings.append(Finding(name, d, LEFT_OUT, reason))
                continue
            findings.append(run_check(check, name, subject))
            if name in NEEDED and findings[-1].status == FAIL:
                reason = f"left out after {name}"
    return NetworkReport(name_of(factory), tuple(findings))


def assert_network(factory: Callable[..., nn.Module] | type[Any], dims: Sequence[int] = (2, 3)) -> None:
    """``check_network`` as a test: an ``AssertionError`` with the whole table if a check fails.

    def test_my_network():
        assert_network(MyNetwork)
    """
    report = check_network(factory, dims)
    if not report.ok:
        raise AssertionError(f"\n{report}")
