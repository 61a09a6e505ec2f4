"""List the trainers: network, paper, parameters, GMACs, ablations.

Every name also takes, in this order, a recipe (_SGD: stock nnU-Net's optimiser and schedule; _paper: the paper's), an
initial learning rate (_lr1e3: 1e-3), a schedule (_<N>epochs[_<M>iterations]) and the number of a repeat (_run2, _run3),
for example nnUNetTrainerDCAUNet_SGD_100epochs. GMACs are 1e9 multiply-accumulates of one forward pass at the size
shown. "library version": the network is another library's, which comes with an extra of this package. Trainers of other
packages stand at the end, each with its package.
"""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_attn.catalog import Entry

HELP = "list the trainers, with parameters and GMACs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a list of objects, one per trainer and ablation")
    parser.add_argument("--ablations", action="store_true", help="show what each ablation tests")


def rows() -> list[dict]:
    """One object per trainer and ablation: the catalogue's, those on networks of libraries, other packages'."""
    from nnunet_attn.catalog import ENTRIES
    from nnunet_attn.library_rows import LIBRARY_ENTRIES
    from nnunet_attn.plugins import package_of, plugins, row

    found = [row for entry in (*ENTRIES, *LIBRARY_ENTRIES) for row in rows_of(entry, "nnunet-attn")]
    for name, point in plugins().items():
        entry = row(name)
        found += rows_of(entry, package_of(point)) if entry else [row_without_entry(name, package_of(point))]
    return found


def rows_of(entry: "Entry", package: str) -> list[dict]:
    """The trainer of a row and its ablations."""
    from nnunet_attn.catalog import SGD

    family = entry.about
    return [
        {
            "trainer": trainer,
            "network": entry.network,
            "family": family.title,
            "paper": family.paper,
            "source": family.source,
            "package": package,
            "ablation_of": None if trainer == entry.trainer else entry.trainer,
            "tests": family.describe(trainer[len(entry.trainer) + 1 :]),
            "parameters": cost.parameters,
            "gmacs": cost.gmacs,
            "input_channels": entry.input_channels,
            "num_classes": entry.num_classes,
            "image_size": list(entry.image_size),
            "dimensions": list(entry.dimensions),
            "paper_cost": entry.paper_cost,
            "recipes": {"SGD": SGD} | family.paper_recipes,
            "options": list(entry.options),
        }
        for trainer, cost in entry.trainers.items()
    ]


def row_without_entry(trainer: str, package: str) -> dict:
    """A trainer of another package that gives no row: what is not known is null."""
    unknown = ("network", "paper", "ablation_of", "tests", "parameters", "gmacs", "input_channels", "num_classes")
    more = {"family": trainer, "source": package, "package": package, "image_size": [], "dimensions": []}
    return {"trainer": trainer} | dict.fromkeys(unknown) | more | {"paper_cost": "", "recipes": {}, "options": []}


def run(options: argparse.Namespace) -> None:
    from nnunet_attn.catalog import FAMILIES, SGD, STOCK_TRAINERS

    listed = rows()
    if options.json:
        print(json.dumps(listed, indent=2))
        return
    shown = [row for row in listed if options.ablations or row["ablation_of"] is None]
    width = max((len(row["trainer"]) for row in shown), default=0)
    print(f"{'trainer':{width}}  {'parameters':>11}  {'GMACs':>7}  {'at':<14}  paper")
    for row in shown:
        print(f"{row['trainer']:{width}}  {cost_text(row)}  {row['tests'] or about_text(row)}")
        if row["ablation_of"] is None and not options.ablations and row["parameters"] is not None:
            ablations = [
                r["trainer"].removeprefix(row["trainer"]) for r in listed if r["ablation_of"] == row["trainer"]
            ]
            print("".join(f"  {name}" for name in ablations) or "  (no ablations)")
    print(f"\nStock nnU-Net's network under our recipe: {', '.join(STOCK_TRAINERS)}")
    print(f"\nRecipes, as suffixes:\n  _SGD: {SGD}")
    for family in FAMILIES.values():
        for suffix, meaning in family.paper_recipes.items():
            print(f"  _{suffix} ({family.title}): {meaning}")


def cost_text(row: dict) -> str:
    """The columns of counts."""
    if row["parameters"] is None:
        return f"{'-':>11}  {'-':>7}  {'no row':<14}"
    size = f"{row['input_channels']}x" + "x".join(map(str, row["image_size"]))
    return f"{row['parameters']:>11,}  {row['gmacs']:>7.2f}  {size:<14}"


def about_text(row: dict) -> str:
    """What the network is, and whose."""
    if row["paper"] is None:
        return row["package"]
    whose = "" if row["package"] == "nnunet-attn" else f", {row['package']}"
    library = ", library version" if row["source"].startswith("library version") else ""
    return f"{row['family']} ({row['paper']}{library}{whose})"
