"""Does it learn? The quickstart's training of any trainers, 2D or 3D, on its phantom:

  python scripts/learn_phantom.py -o FOLDER -c 3d_fullres nnUNetTrainerStockAdamW nnUNetTrainerDiffCA

Schedule, seed and score are those of ``nnunet-attn quickstart``, the phantom is finer; one thread. Each training adds a
row to FOLDER/learned.csv: mean Dice over the held-out cases, which compares nothing, but shows that a network learns.
With --no-zero-start the added parts of networks on nnU-Net's plans begin with the weights that they are drawn with.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch

from nnunet_attn.cli.quickstart_job import Job
from nnunet_attn.training.in_process import nnunet_in_process


class Learning(Job):
    """The quickstart with other trainers, on slices of 96 x 96, and with the rates of the recipes."""

    size, pixel = 96, 1.925

    def __init__(self, folder: Path, options: argparse.Namespace):
        super().__init__(folder, options)
        self.configuration = options.configuration
        self.names = [f"{name}_{options.epochs}epochs_{options.iterations}iterations" for name in options.trainers]

    def make(self, name: str, *, resume: bool) -> Any:
        trainer = super().make(name, resume=resume)
        if self.options.no_zero_start:
            type(trainer).network_kwargs = {**vars(type(trainer)).get("network_kwargs", {}), "zero_start": False}
        return trainer

    def steps(self) -> None:
        self.data()
        self.plan()
        for name in self.names:
            torch.set_num_threads(1)
            started = time.process_time()
            self.train(name)
            self.predict(name)
            self.write(name, time.process_time() - started)

    def write(self, name: str, seconds: float) -> None:
        scores = self.score_of(name)
        record = self.model(name) / "fold_0" / "nnunet_attn_run.json"
        epochs = json.loads(record.read_text(encoding="utf-8"))["sessions"][-1]["epoch_seconds"]
        row = {
            "configuration": self.configuration,
            "trainer": name,
            "zero_start": not self.options.no_zero_start,
            "seed": self.options.seed,
            **{f"dice_{key}": f"{value:.4f}" for key, value in scores.items()},
            "cpu_seconds": round(seconds),
            "epochs": len(epochs),
        }
        path = self.folder / "learned.csv"
        new = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="+", metavar="TRAINER", help="without a schedule")
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="one a configuration, start and seed")
    parser.add_argument("-c", dest="configuration", default="2d", help="default: 2d")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--no-zero-start", action="store_true")
    options = parser.parse_args()
    options.source, options.device, options.quick = None, "cpu", False
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with nnunet_in_process(options.folder.resolve(), processes=1):
        Learning(options.folder.resolve(), options).steps()


if __name__ == "__main__":
    main()
