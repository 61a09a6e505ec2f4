"""Estimate the GPU hours of the papers' studies: python scripts/estimate_papers.py

Writes scripts/results/papers_gpu_hours.csv, one line for each row of a study on each dataset:

    steps      epochs x ceil(training slices / batch), or the recipe's own epochs x iterations
    training   training time of the network over that of stock nnU-Net's, as measured in cost_cpu_2d.csv (one run, same
               input, CPU); of ablations: that of the whole network, which is never less; of libraries' networks, which
               were not measured: their multiply-accumulates over stock nnU-Net's
    hours      steps x batch x pixels x training x GMACs of stock nnU-Net per pixel x 3 / RATE

Multi-scale recipes take one step for each scale. RATE is an assumption: no GPU was measured for this table.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from nnunet_attn import trainers
from nnunet_attn.lookup import find_entry
from nnunet_attn.recipe import Recipe
from nnunet_attn.study.papers import paper_studies
from nnunet_attn.study.study_file import read_study
from nnunet_attn.trainer_names import parse_trainer_name
from nnunet_attn.training.base import merged

RESULTS = Path(__file__).with_name("results")
OUTPUT = RESULTS / "papers_gpu_hours.csv"
COLUMNS = ("study", "dataset", "row", "input", "batch", "epochs", "iterations", "training", "hours")
RATE = 10_000  # GMAC/s that stock nnU-Net's 2D network sustains in half precision
BACKWARD = 3  # a training step is a forward pass and a backward one of twice its cost
SLICES = {  # for training
    "synapse": 2211,  # of the 18 volumes
    "acdc": 1304,  # of split A's 70 patients
    "clinicdb": 490,
    "colondb": 304,
    "isic2017": 2000,
    "kvasir": 800,
    "glas": 85,
    "monuseg": 24,
}


def measured() -> tuple[dict[str, float], float]:
    """Training time of each network over stock nnU-Net's, and stock nnU-Net's GMACs per pixel."""
    lines = (RESULTS / "cost_cpu_2d.csv").read_text(encoding="utf-8").splitlines()
    rows = {row["network"]: row for row in csv.DictReader(line for line in lines if not line.startswith("#"))}
    pixels = 256 * 224
    assert "--patch-2d 256 224" in lines[0]
    return {name: float(row["training_ratio"]) for name, row in rows.items()}, float(rows["stock"]["gmacs"]) / pixels


def estimates() -> Iterator[dict[str, object]]:
    """The lines of the CSV."""
    ratios, per_pixel = measured()
    for name, file in paper_studies().items():
        study = read_study(file)
        for choice in study.datasets:
            assert choice.convert is not None
            plans = choice.changed[choice.plans]
            assert plans.input_size is not None
            assert plans.batch is not None
            for row in study.rows:
                parsed = parse_trainer_name(row.trainer)
                assert parsed is not None
                entry = find_entry(parsed.base)
                assert entry is not None
                recipe = Recipe(**merged(getattr(trainers, row.trainer), "recipe"))
                iterations = recipe.num_iterations_per_epoch
                if recipe.passes:
                    iterations = math.ceil(SLICES[choice.convert.converter] / plans.batch)
                pixels = plans.input_size**2 * plans.batch * sum(scale**2 for scale in recipe.scales)
                steps = recipe.num_epochs * iterations
                ratio = ratios.get(entry.trainer) or entry.cost.gmacs / math.prod(entry.image_size) / per_pixel
                hours = steps * pixels * ratio * per_pixel * BACKWARD / RATE / 3600
                values = (
                    name, choice.convert.converter, row.trainer, plans.input_size, plans.batch, recipe.num_epochs,
                    iterations, f"{ratio:.2f}", f"{hours:.2f}",
                )  # fmt: skip
                yield dict(zip(COLUMNS, map(str, values), strict=True))


def main() -> None:
    with OUTPUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(estimates())


if __name__ == "__main__":
    main()
