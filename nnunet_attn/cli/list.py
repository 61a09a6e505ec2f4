"""List the trainers: network, paper, parameters, GMACs, ablations.

Every name also takes, in this order, a recipe (_SGD: stock nnU-Net's optimiser and schedule; _paper: the paper's) and
a schedule (_<N>epochs[_<M>iterations]), for example nnUNetTrainerDCAUNet_SGD_100epochs. GMACs are 1e9
multiply-accumulates of one forward pass at the size shown.
"""

import argparse
import json

HELP = "list the trainers, with parameters and GMACs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects, one per trainer and ablation")
    parser.add_argument("--ablations", action="store_true", help="show what each ablation tests")


def rows() -> list[dict]:
    """One object per trainer and ablation of the catalogue."""
    from nnunet_attn.catalog import ENTRIES, FAMILIES, SGD

    return [
        {
            "trainer": trainer,
            "network": entry.network,
            "family": FAMILIES[entry.family].title,
            "paper": FAMILIES[entry.family].paper,
            "source": FAMILIES[entry.family].source,
            "ablation_of": None if trainer == entry.trainer else entry.trainer,
            "tests": FAMILIES[entry.family].describe(trainer[len(entry.trainer) + 1 :]),
            "parameters": cost.parameters,
            "gmacs": cost.gmacs,
            "input_channels": entry.input_channels,
            "num_classes": entry.num_classes,
            "image_size": list(entry.image_size),
            "dimensions": list(entry.dimensions),
            "paper_cost": entry.paper_cost,
            "recipes": {"SGD": SGD} | FAMILIES[entry.family].paper_recipes,
            "options": list(entry.options),
        }
        for entry in ENTRIES
        for trainer, cost in entry.trainers.items()
    ]


def run(options: argparse.Namespace) -> None:
    from nnunet_attn.catalog import ENTRIES, FAMILIES, SGD, STOCK_TRAINERS

    listed = rows()
    if options.json:
        print(json.dumps(listed, indent=2))
        return
    shown = [row for row in listed if options.ablations or row["ablation_of"] is None]
    width = max((len(row["trainer"]) for row in shown), default=0)
    print(f"{'trainer':{width}}  {'parameters':>11}  {'GMACs':>7}  {'at':<14}  paper")
    for row in shown:
        size = f"{row['input_channels']}x" + "x".join(map(str, row["image_size"]))
        paper = f"{row['family']} ({row['paper']})"
        cost = f"{row['parameters']:>11,}  {row['gmacs']:>7.2f}"
        print(f"{row['trainer']:{width}}  {cost}  {size:<14}  {row['tests'] or paper}")
        if row["ablation_of"] is None and not options.ablations:
            ablations = next(entry.ablations for entry in ENTRIES if entry.trainer == row["trainer"])
            print("".join(f"  _{name}" for name in ablations) or "  (no ablations)")
    print(f"\nStock nnU-Net's network under our recipe: {', '.join(STOCK_TRAINERS)}")
    print(f"\nRecipes, as suffixes:\n  _SGD: {SGD}")
    for family in FAMILIES.values():
        for suffix, meaning in family.paper_recipes.items():
            print(f"  _{suffix} ({family.title}): {meaning}")
