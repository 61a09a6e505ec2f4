"""Write the README's generated tables from the catalogue and from the CSV files in scripts/results.

python scripts/make_tables.py          rewrites README.md
python scripts/make_tables.py --check  only says whether it is current (exit code 1 if not)
"""

import csv
import re
import sys
from pathlib import Path

from nnunet_attn.catalog import ENTRIES, FAMILIES
from nnunet_attn.dataset_conversion.catalog import DATASETS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "scripts" / "results"


def networks() -> str:
    """All networks: trainer, paper, cost, ablations."""
    lines = [
        "| trainer | network | paper | parameters | GMACs | at | in the paper | source |",
        "|---|---|---|---:|---:|---|---|---|",
    ]
    for entry in ENTRIES:
        family = FAMILIES[entry.family]
        module, _, cls = entry.network.rpartition(".")
        cost, paper = f"{entry.cost.parameters:,} | {entry.cost.gmacs:.2f}", entry.paper_cost or "-"
        size = f"{entry.input_channels}x" + "x".join(map(str, entry.image_size)) + f", {entry.num_classes} cl."
        lines.append(
            f"| `{entry.trainer}` | [{cls}]({module.replace('.', '/')}.py) | {family.paper} "
            f"| {cost} | {size} | {paper} | {family.source} |"
        )
    return "\n".join(lines)


def ablations() -> str:
    """The ablations of each network, with their parameters."""
    lines = ["| trainer | ablations (parameters) |", "|---|---|"]
    for entry in ENTRIES:
        listed = ", ".join(f"`_{name}` ({cost.parameters / 1e6:.3f} M)" for name, cost in entry.ablations.items())
        lines.append(f"| `{entry.trainer}` | {listed or '-'} |")
    return "\n".join(lines)


def cost() -> str:
    """Measured cost beside stock nnU-Net, one table per CSV, with the command that made it."""
    blocks = []
    for path in sorted(RESULTS.glob("cost_*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        facts = [line.removeprefix("# ") for line in lines if line.startswith("#")]
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
        table = ["| network | parameters | GMACs | training step | inference | kept for backward | peak memory |",
                 "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
        for row in rows:
            ratios = (row[key] for key in ("training_ratio", "inference_ratio", "saved_ratio", "peak_ratio"))
            table.append(
                f"| `{row['network']}` | {int(row['parameters']):,} | {row['gmacs']} | "
                + " | ".join(f"{float(ratio):.2f}" for ratio in ratios)
                + " |"
            )
        made = f"Made by `{facts[0]}` ([CSV](scripts/results/{path.name}); {'; '.join(facts[1:])})."
        blocks.append("\n".join([*table, "", made]))
    return "\n\n".join(blocks) or "Nothing measured yet."


def datasets() -> str:
    """What can be converted: where to get it, its licence, what is complete, the command, official splits."""
    lines = ["| dataset, page | access, licence | complete download | command |", "|---|---|---|---|"]
    for key, dataset in DATASETS.items():
        lines.append(
            f"| [{dataset.title}]({dataset.page}) | {dataset.access}; {dataset.licence} | {dataset.contents} "
            f"| `{dataset.command(key)}` |"
        )
    lines += ["", "| dataset | `--split` | what it is |", "|---|---|---|"]
    for key, dataset in DATASETS.items():
        lines += [f"| {key} | `{name}` | {text} |" for name, text in dataset.splits.items()]
    return "\n".join(lines)


def renewed(text: str) -> str:
    """``text`` with the content between ``<!-- begin:NAME -->`` and ``<!-- end:NAME -->`` made anew."""
    for make in (networks, ablations, datasets, cost):
        name = make.__name__
        pattern = rf"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)"
        text, found = re.subn(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"README.md: expected the marks of {name} once, found {found} times")
    return text


if __name__ == "__main__":
    before = README.read_text(encoding="utf-8")
    after = renewed(before)
    if "--check" in sys.argv:
        sys.exit("README.md is not current; run python scripts/make_tables.py" if before != after else 0)
    README.write_text(after, encoding="utf-8")
