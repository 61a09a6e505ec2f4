"""Scores of the learning rates that were tried, as one table: python collect_rates.py RESULTS_DATASET -o rates.csv

RESULTS_DATASET is the dataset's folder in nnUNet_results. One line a trainer, case and class; unfinished trainings are
left out and named.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

NAMES = {"1": "RV", "2": "MYO", "3": "LV"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for model in sorted(options.results.glob("nnUNetTrainer*")):
        trainer = model.name.split("__")[0]
        summary, record = (model / "fold_0" / name for name in ("validation/summary.json", "nnunet_attn_run.json"))
        if not summary.is_file():
            print(f"not finished: {trainer}")
            continue
        content = json.loads(record.read_text(encoding="utf-8"))
        seconds = sum(s for session in content["sessions"] for s in session["epoch_seconds"])
        for case in json.loads(summary.read_text(encoding="utf-8"))["metric_per_case"]:
            name = Path(case["prediction_file"]).name.split(".")[0]
            rows += [
                {
                    "trainer": trainer,
                    "initial_lr": content["recipe"]["initial_lr"],
                    "case": name,
                    "class": NAMES[label],
                    "dice": round(metrics["Dice"], 5),
                    "seconds": round(seconds),
                }
                for label, metrics in case["metrics"].items()
            ]
    table = pd.DataFrame(rows)
    table.to_csv(options.output, index=False)
    print(table.groupby(["trainer", "class"]).dice.mean().unstack().assign(mean=lambda t: t.mean(axis=1)).round(3))


if __name__ == "__main__":
    main()
