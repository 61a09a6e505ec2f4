"""Time of HD95 against medpy's: a small and a large organ in CT-sized volumes, one thread, CPU time, best of rounds.

python scripts/benchmark_hd95.py [-o hd95.csv] [--rounds 3]
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from medpy.metric.binary import hd95 as medpy_hd95

from nnunet_attn.scoring.metrics import hd95

SPACING = (3.0, 0.8, 0.8)
# name: shape, then centre and radii of prediction and reference
CASES = {
    "small organ 100x512x512": ((100, 512, 512), ((50, 250, 250), (10, 20, 25)), ((52, 255, 247), (11, 19, 27))),
    "liver-sized organ 100x256x256": ((100, 256, 256), ((50, 125, 125), (30, 55, 60)), ((52, 129, 122), (31, 53, 61))),
    "slice 512x512": ((512, 512), ((250, 250), (80, 100)), ((258, 245), (85, 92))),
}


def ellipsoid(shape: tuple, centre: tuple, radii: tuple) -> np.ndarray:
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)) <= 1


def seconds(function: Callable, *arguments: object) -> tuple[float, float]:
    start = time.process_time()
    value = function(*arguments)
    return time.process_time() - start, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write as well")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    rows = []
    for name, (shape, *masks) in CASES.items():
        prediction, reference = (ellipsoid(shape, *mask) for mask in masks)
        spacing = SPACING[: len(shape)]
        times = {hd95: [], medpy_hd95: []}
        for _ in range(options.rounds):
            for function in times:
                times[function].append(seconds(function, prediction, reference, spacing))
        (ours, value), (theirs, expected) = (min(times[f]) for f in (hd95, medpy_hd95))
        rows.append({
            "case": name, "ours_ms": round(1000 * ours, 2), "medpy_ms": round(1000 * theirs, 2),
            "ratio": round(theirs / ours, 1), "hd95": value, "difference": abs(value - expected),
        })  # fmt: skip
        print(rows[-1], flush=True)
    if options.output:
        with options.output.open("w", newline="", encoding="utf-8") as file:
            packages = ", ".join(f"{name} {version(name)}" for name in ("nnunet-attn", "medpy", "numpy", "scipy"))
            file.write(f"# {' '.join(sys.argv)}; {packages}\n")
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
