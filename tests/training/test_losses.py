import pytest
import torch
from torch import nn

from nnunet_attn.training.losses import CheckedLoss, check_outputs


def maps(*sizes: int) -> list[torch.Tensor]:
    return [torch.zeros(1, 2, n, n) for n in sizes]


@pytest.mark.parametrize(
    ("output", "target"),
    [
        pytest.param(maps(8), maps(8, 4), id="too few"),
        pytest.param(maps(8, 4, 2), maps(8, 4), id="too many"),
        pytest.param(maps(8, 2), maps(8, 4), id="wrong scale"),
        pytest.param(maps(8)[0], maps(8), id="tensor for a list"),
        pytest.param(maps(8), maps(8)[0], id="list for a tensor"),
        pytest.param(maps(4)[0], maps(8)[0], id="wrong size"),
    ],
)
def test_what_does_not_fit_is_refused(output, target):
    with pytest.raises(ValueError, match=r"the network returned \d map\(s\) of size"):
        check_outputs(output, target)


def test_what_fits_passes():
    check_outputs(maps(8, 4), maps(8, 4))
    check_outputs(maps(8)[0], maps(8)[0])


class Count(nn.Module):
    calls = 0

    def forward(self, output, target):
        self.calls += 1
        return torch.zeros(())


def test_checked_loss_checks_first_and_passes_on():
    inner = Count()
    loss = CheckedLoss(inner)
    with pytest.raises(ValueError, match="map"):
        loss(maps(8), maps(8, 4))
    assert inner.calls == 0
    loss(maps(8, 4), maps(8, 4))
    loss(maps(8), maps(8, 4))  # only the first call costs the check
    assert inner.calls == 2
