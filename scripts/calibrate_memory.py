"""How the measure of ``nnunet-attn plan`` compares with what training keeps: python scripts/calibrate_memory.py

nnU-Net plans by a count of values, one for each number of each convolution's output, and calibrates it by a few
networks whose need of GPU memory was measured. Training keeps more (before and after each norm). Here, for patches that
nnU-Net plans, 2D and 3D:

* count: ``compute_conv_feature_map_size``, for one image;
* kept: numbers that autograd keeps for the backward pass of one image, shapes alone, nothing computed;
* of nnU-Net's own networks kept / count, which should be one number;
* of ours count and kept as ratios to nnU-Net's network on the same plans. Where both ratios agree, equal count is equal
  memory. Networks of fixed shape have no count of their own: for them the planner takes the ratio of kept.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_attn import trainers
from nnunet_attn.architectures.planned import kept_values
from nnunet_attn.catalog import ENTRIES
from nnunet_attn.files import complete_file
from nnunet_attn.training.base import PlanDrivenTrainer
from nnunet_attn.training.default_plans import default_configuration

PATCHES = ((160, 192), (256, 224), (512, 512), (8, 96, 96), (64, 96, 96), (96, 160, 160), (128, 128, 128))
OUTPUT = Path(__file__).parent / "results" / "memory.csv"


def measured(trainer: type, patch: tuple[int, ...]) -> tuple[int | None, int]:
    with torch.device("meta"):
        network = trainer.build_network_architecture(None, default_configuration(patch), 1, 4, True)
    count = getattr(network, "compute_conv_feature_map_size", None)
    return None if count is None else int(count(patch)), kept_values(network.train(), [(2, 1, *patch)]) // 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = []
    for patch in PATCHES:
        stock_count, stock_kept = measured(nnUNetTrainer, patch)
        for name in ("nnUNetTrainer", *(entry.trainer for entry in ENTRIES)):
            trainer = nnUNetTrainer if name == "nnUNetTrainer" else getattr(trainers, name)
            if trainer is not nnUNetTrainer and len(patch) not in trainer.dimensions:
                continue
            count, kept = measured(trainer, patch)
            own = count is not None and (trainer is nnUNetTrainer or issubclass(trainer, PlanDrivenTrainer))
            rows.append({
                "trainer": name,
                "patch": "x".join(map(str, patch)),
                "count": count if own else "",
                "kept": kept,
                "kept_per_count": f"{kept / count:.3f}" if own else "",
                "count_ratio": f"{count / stock_count:.3f}" if own else "",
                "kept_ratio": f"{kept / stock_kept:.3f}",
            })  # fmt: skip
            print(rows[-1], flush=True)
    with complete_file(options.output) as path:
        pd.DataFrame(rows).to_csv(path, index=False)


if __name__ == "__main__":
    main()
