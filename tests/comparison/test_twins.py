"""Which trainers count as the same network without its attention."""

import pytest

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.lookup import find_written
from nnunet_attn.trainer_names import twin_names

PREFIX = "nnUNetTrainer"


@pytest.mark.parametrize(
    ("trainer", "twins"),
    [
        ("DCAUNet", ["DCAUNet_noAttention"]),
        ("DCAUNet_paper_20epochs_run3", ["DCAUNet_noAttention_paper_20epochs"]),
        ("DualCA_lr1e3_20epochs",
         ["DualCA_noAttention_lr1e3_20epochs", "DualCA_noDCA_lr1e3_20epochs", "StockAdamW_lr1e3_20epochs"]),
        ("DualCA_SGD", ["DualCA_noAttention_SGD", "DualCA_noDCA_SGD"]),
        ("DualCAUNet", ["DualCAUNet_noAttention", "DualCAUNet_noDCA"]),
        ("XAttnRes", ["XAttnRes_noAttention", "XAttnRes_skipOnly", "StockAdamW"]),
        ("XAttnResEMCAD", ["XAttnResEMCAD_noAttention", "XAttnResEMCAD_skipOnly"]),
        ("FIAS_noDMK", []),
        ("XAttnRes_skipOnly", []),
        ("StockAdamW", []),
        ("", []),
        ("_20epochs", []),
        ("OfSomebody", []),
    ],
)  # fmt: skip
def test_twins(trainer, twins):
    assert twin_names(PREFIX + trainer) == [PREFIX + twin for twin in twins]


def test_twins_that_are_there_have_other_parameters():
    """An ablation that counts as a twin is smaller than its network, so that something went."""
    for entry in ENTRIES:
        for name in twin_names(entry.trainer):
            if find_written(name) and name in entry.trainers:
                assert entry.trainers[name].parameters < entry.cost.parameters
