"""The pictures and numbers of docs/maps_gallery.md: maps of networks trained on the quickstart's phantom.

  python scripts/map_gallery.py -o FOLDER

Trains in FOLDER what is not trained there yet (as scripts/learn_phantom.py does, one thread, minutes for each), runs
``nnunet-attn maps`` on the first held-out case, and writes docs/_static/maps/TRAINER.jpg and
scripts/results/maps_phantom.csv.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from learn_phantom import Learning

from nnunet_attn.maps.command import FINER, write_maps
from nnunet_attn.training.in_process import nnunet_in_process

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "_static" / "maps"
NUMBERS = ROOT / "scripts" / "results" / "maps_phantom.csv"
TRAINERS = (
    "nnUNetTrainerDCAUNet",
    "nnUNetTrainerXAttnResUNet",
    "nnUNetTrainerDualCAUNet",
    "nnUNetTrainerEMCAD",
    "nnUNetTrainerFIAS",
)
LAYERS = {"nnUNetTrainerXAttnResUNet": ["x_dec.*"]}  # drawn; of the others the last layer of each kind
KEPT = ("lambda", "removed", "negative", FINER)  # numbers that the page shows
WIDTH = 1100  # of a picture, in pixels


def draw(model: Path, image: Path, name: str) -> list[dict[str, str]]:
    """Write the picture of one model; returns its numbers."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "maps"
        write_maps(model, [image], folder, layers=LAYERS.get(name), volumes=False)
        with Image.open(folder / f"{image.name.removesuffix('_0000.nii.gz')}.png") as picture:
            small = picture.convert("RGB").resize((WIDTH, picture.height * WIDTH // picture.width), Image.LANCZOS)
        PICTURES.mkdir(exist_ok=True)
        small.save(PICTURES / f"{name}.jpg", quality=82, optimize=True)
        with (folder / "maps.csv").open(encoding="utf-8", newline="") as file:
            return [{"trainer": name} | row for row in csv.DictReader(file) if row["map"] in KEPT]


def write(rows: list[dict[str, str]]) -> None:
    """Write the numbers; those of trainers that were not run now stay."""
    new = {row["trainer"] for row in rows}
    if NUMBERS.is_file():
        with NUMBERS.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["trainer"] not in new] + rows
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", dest="folder", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("trainers", nargs="*", default=TRAINERS, metavar="TRAINER", help="default: one of each paper")
    options = parser.parse_args()
    settings = {"configuration": "2d", "seed": 0, "epochs": 10, "iterations": 20, "no_zero_start": False}
    settings |= {"source": None, "quick": False, "device": "cpu", "trainers": options.trainers}
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with nnunet_in_process(options.folder.resolve(), processes=1):
        job = Learning(options.folder.resolve(), argparse.Namespace(**settings))
        job.data()
        job.plan()
        for name in job.names:
            job.train(name)
            image = job.raw / "imagesTs" / f"{job.cases()[0]}_0000.nii.gz"
            rows += draw(job.model(name), image, name.partition("_")[0])
    write(rows)


if __name__ == "__main__":
    main()
