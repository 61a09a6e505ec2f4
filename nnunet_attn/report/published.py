"""Results printed in the papers. They are shown beside ours, but never compared with them.

``NUMBERS`` are those of our trainers. ``published.csv`` holds every number of the papers' result tables, also of other
methods; of Dual Cross-Attention only what its abstract prints, since its tables were not at hand.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nnunet_attn.catalog import FAMILIES
from nnunet_attn.trainer_names import parse_trainer_name

PROTOCOL = (
    "Another protocol: the paper's own train/test split, images resized to its input size, and, as far as its code is "
    "known, the scoring of the TransUNet family, which ignores voxel spacing (its mm are voxels), gives an absent "
    "class that is predicted Dice 1 and HD95 0, and a missed one 0 and 0; rarely a spread over seeds. The two columns "
    "cannot be compared."
)


@dataclass(frozen=True)
class Published:
    """Mean Dice (in %) and HD95 that a paper prints for one of our trainers; None if it prints none."""

    trainer: str
    dataset: str
    dice: float
    hd95: float | None
    source: str


NUMBERS = (
    Published(
        "nnUNetTrainerDCAUNet",
        "Synapse",
        81.25,
        17.63,
        "arXiv:2603.09530, Table III, no pretraining (83.29 and 15.14 with)",
    ),
    Published("nnUNetTrainerDCAUNet", "ACDC", 92.11, None, "arXiv:2603.09530, Table II, pretrained encoder"),
    Published("nnUNetTrainerDCAUNet_standardAttention", "Synapse", 80.79, 19.35, "arXiv:2603.09530, Table IV"),
    Published("nnUNetTrainerDCAUNet_lambda05", "Synapse", 81.18, 19.10, "arXiv:2603.09530, Table IV"),
    Published("nnUNetTrainerDCAUNet_lambda08", "Synapse", 81.03, 17.94, "arXiv:2603.09530, Table IV"),
    Published("nnUNetTrainerDCAUNet_concatFusion", "Synapse", 79.76, 20.50, "arXiv:2603.09530, Table V"),
    Published("nnUNetTrainerDCAUNet_noSpatialAttention", "Synapse", 79.63, 23.19, "arXiv:2603.09530, Table V"),
    Published("nnUNetTrainerDCAUNet_noChannelAttention", "Synapse", 80.83, 21.56, "arXiv:2603.09530, Table V"),
    Published("nnUNetTrainerXAttnResUNet", "Synapse", 76.40, 26.71, "arXiv:2604.03297, Table 1"),
    Published("nnUNetTrainerXAttnResUNet_skipOnly", "Synapse", 76.25, 26.93, "arXiv:2604.03297, Table 3"),
    Published("nnUNetTrainerXAttnResUNet_noSkip", "Synapse", 72.70, 31.44, "arXiv:2604.03297, Table 3"),
    Published("nnUNetTrainerXAttnResUNet_replace", "Synapse", 76.31, 26.95, "arXiv:2604.03297, Table 3"),
    Published("nnUNetTrainerXAttnResUNet", "ColonDB", 86.22, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResUNet", "ClinicDB", 92.35, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResUNet", "ISIC2017", 82.25, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResEMCAD", "Synapse", 83.75, 15.58, "arXiv:2604.03297, Table 1, pretrained encoder"),
    Published("nnUNetTrainerXAttnResEMCAD", "ColonDB", 92.40, None, "arXiv:2604.03297, Table 2, pretrained encoder"),
    Published("nnUNetTrainerXAttnResEMCAD", "ClinicDB", 95.32, None, "arXiv:2604.03297, Table 2, pretrained encoder"),
    Published("nnUNetTrainerXAttnResEMCAD", "ISIC2017", 86.13, None, "arXiv:2604.03297, Table 2, pretrained encoder"),
    Published(
        "nnUNetTrainerXAttnResUNet_encoderOnly",
        "Synapse",
        74.09,
        29.50,
        "arXiv:2604.03297, Table 4 (without skip connections)",
    ),
    Published(
        "nnUNetTrainerXAttnResUNet_decoderOnly",
        "Synapse",
        75.62,
        28.02,
        "arXiv:2604.03297, Table 4 (without skip connections)",
    ),
    Published("nnUNetTrainerXAttnResUNet_randomQuery", "Synapse", 75.74, 27.82, "arXiv:2604.03297, Table 5"),
    Published("nnUNetTrainerXAttnResUNet_kaimingQuery", "Synapse", 74.32, 29.20, "arXiv:2604.03297, Table 5"),
    Published("nnUNetTrainerXAttnResUNet_xavierQuery", "Synapse", 75.55, 28.07, "arXiv:2604.03297, Table 5"),
    Published("nnUNetTrainerXAttnResUNet_skipOnly", "ColonDB", 86.01, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResUNet_skipOnly", "ClinicDB", 92.13, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResUNet_skipOnly", "ISIC2017", 82.13, None, "arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerXAttnResUNet_noSkip", "ColonDB", 83.28, None, "arXiv:2604.03297, Table 3"),
    Published("nnUNetTrainerXAttnResUNet_replace", "ColonDB", 86.07, None, "arXiv:2604.03297, Table 3"),
    Published(
        "nnUNetTrainerXAttnResEMCAD_skipOnly", "Synapse", 83.63, 15.68, "arXiv:2604.03297, Table 1, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_noSkip", "Synapse", 75.47, 28.97, "arXiv:2604.03297, Table 3, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_replace", "Synapse", 83.45, 15.73, "arXiv:2604.03297, Table 3, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_skipOnly", "ColonDB", 92.31, None, "arXiv:2604.03297, Table 2, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_skipOnly", "ClinicDB", 95.21, None, "arXiv:2604.03297, Table 2, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_skipOnly", "ISIC2017", 85.95, None, "arXiv:2604.03297, Table 2, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_noSkip", "ColonDB", 89.81, None, "arXiv:2604.03297, Table 3, pretrained encoder"
    ),
    Published(
        "nnUNetTrainerXAttnResEMCAD_replace", "ColonDB", 92.28, None, "arXiv:2604.03297, Table 3, pretrained encoder"
    ),
    Published("nnUNetTrainerEMCAD", "Synapse", 83.63, 15.68, "as printed in arXiv:2604.03297, Table 1"),
    Published("nnUNetTrainerEMCAD", "ColonDB", 92.31, None, "as printed in arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerEMCAD", "ClinicDB", 95.21, None, "as printed in arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerEMCAD", "ISIC2017", 85.95, None, "as printed in arXiv:2604.03297, Table 2"),
    Published("nnUNetTrainerFIAS", "Synapse", 87.81, 8.75, "arXiv:2411.10881, Table 1 (its text says 89.06 and 7.75)"),
    Published("nnUNetTrainerFIAS", "ACDC", 93.27, None, "arXiv:2411.10881, Table 2"),
    Published("nnUNetTrainerFIAS_noDMK", "Synapse", 86.53, 11.47, "arXiv:2411.10881, Table 3 (its text says ACDC)"),
    Published("nnUNetTrainerFIAS_sumFusion", "Synapse", 84.89, 14.22, "arXiv:2411.10881, Table 3 (its text says ACDC)"),
    Published("nnUNetTrainerFIAS_noMixAtt", "Synapse", 82.68, 19.73, "arXiv:2411.10881, Table 3 (its text says ACDC)"),
)


@dataclass(frozen=True)
class Cell:
    """One number of a paper's result table, as printed: Dice and IoU in %, distances as the paper has them.

    ``group`` is the class (organ), empty for the mean of classes.
    """

    paper: str
    table: str
    row: str
    dataset: str
    metric: str
    group: str
    value: str


@lru_cache(maxsize=1)
def all_cells() -> Sequence[Cell]:
    """Every number of the papers' tables, in their order."""
    with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Cell(*line) for line in list(csv.reader(file))[1:])


def cells_of(trainer: str, dataset: str) -> list[Cell]:
    """The result tables of the trainer's paper on a dataset that carries the name."""
    parsed = parse_trainer_name(trainer)
    paper = FAMILIES[parsed.family].paper if parsed is not None and parsed.family in FAMILIES else None
    name = dataset.lower().replace("_", "").replace("-", "")
    return [cell for cell in all_cells() if cell.paper == paper and cell.dataset.split(" ")[0].lower() in name]


def find_published(trainer: str, dataset: str) -> Published | None:
    """The paper's numbers for a trainer (recipe and schedule suffixes removed) on a dataset of that name."""
    parsed = parse_trainer_name(trainer)
    stem = parsed.base if parsed else trainer
    name = dataset.lower().replace("_", "").replace("-", "")
    return next((n for n in NUMBERS if n.trainer == stem and n.dataset.lower() in name), None)
