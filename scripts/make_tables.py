"""Write the generated tables of README and documentation, from the catalogue and the CSV files in scripts/results.

python scripts/make_tables.py          rewrites README.md and docs/**/*.md
python scripts/make_tables.py --check  only says whether they are current (exit code 1 if not)
"""

import csv
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnunet_attn.catalog import ENTRIES, FAMILIES, Entry
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.report.document import Table, markdown_of
from nnunet_attn.report.tables import Tables
from nnunet_attn.report.verdict import OWN, verdict_table
from nnunet_attn.study.reporting import beside, comparison_of, make_tasks, open_study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "results"
EVIDENCE = ROOT / "results" / "evidence" / "acdc_small"
STUDIES = ROOT / "nnunet_attn" / "study" / "papers"


def families() -> str:
    """One line per paper, for the README."""
    lines = ["| network | paper | trainers | 2D, 3D | source |", "|---|---|---|---|---|"]
    for key, family in FAMILIES.items():
        entries = [entry for entry in ENTRIES if entry.family == key]
        if not entries:
            continue
        names = ", ".join(f"`{entry.trainer}`" for entry in entries)
        dimensions = " and ".join(f"{d}D" for d in sorted({d for entry in entries for d in entry.dimensions}))
        page = f"docs/papers/{key}.md"
        lines.append(f"| [{family.title}]({page}) | {family.paper} | {names} | {dimensions} | {family.source} |")
    return "\n".join(lines)


def networks() -> str:
    """All networks: trainer, paper, cost."""
    lines = [
        "| trainer | network | paper | parameters | GMACs | at | in the paper |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for entry in ENTRIES:
        family = FAMILIES[entry.family]
        cls = entry.network.rpartition(".")[2]
        cost, paper = f"{entry.cost.parameters:,} | {entry.cost.gmacs:.2f}", entry.paper_cost or "-"
        lines.append(
            f"| `{entry.trainer}` | {{py:class}}`~nnunet_attn.architectures.{cls}` "
            f"| [{family.paper}](papers/{entry.family}.md) | {cost} | {place(entry)} | {paper} |"
        )
    return "\n".join(lines)


def libraries() -> str:
    """The networks of libraries: trainer, paper, library, cost."""
    lines = ["| trainer | paper | 2D, 3D | network | parameters | GMACs | at |", "|---|---|---|---|---:|---:|---|"]
    for entry in LIBRARY_ENTRIES:
        dimensions = " and ".join(f"{d}D" for d in entry.dimensions)
        lines.append(
            f"| `{entry.trainer}` | {entry.about.paper} | {dimensions} | `{entry.network}` "
            f"| {entry.cost.parameters:,} | {entry.cost.gmacs:.2f} | {place(entry)} |"
        )
    return "\n".join(lines)


def place(entry: Entry) -> str:
    """The input that an entry's counts hold for."""
    return f"{entry.input_channels}x" + "x".join(map(str, entry.image_size)) + f", {entry.num_classes} cl."


def family(key: str) -> str:
    """Counts of a paper's networks, and its ablations with what each tests."""
    entries = [entry for entry in ENTRIES if entry.family == key]
    lines = ["| trainer | parameters | GMACs | at | in the paper |", "|---|---:|---:|---|---|"]
    for entry in entries:
        counts = f"{entry.cost.parameters:,} | {entry.cost.gmacs:.2f}"
        lines.append(f"| `{entry.trainer}` | {counts} | {place(entry)} | {entry.paper_cost or '-'} |")
    tested: dict[str, list[str]] = {}
    for entry in entries:
        for name in entry.ablations:
            tested.setdefault(name, []).append(entry.trainer)
    if tested:
        lines += ["", "| ablation | what it tests | of |", "|---|---|---|"]
    for name, trainers in tested.items():
        everywhere = "all" if len(trainers) == len(entries) else ", ".join(f"`{trainer}`" for trainer in trainers)
        lines.append(f"| `_{name}` | {FAMILIES[key].describe(name)} | {everywhere} |")
    return "\n".join(lines)


def ablations() -> str:
    """The ablations of each network, with their parameters."""
    lines = ["| trainer | ablations (parameters) |", "|---|---|"]
    for entry in ENTRIES:
        listed = ", ".join(f"`_{name}` ({cost.parameters / 1e6:.3f} M)" for name, cost in entry.ablations.items())
        lines.append(f"| `{entry.trainer}` | {listed or '-'} |")
    return "\n".join(lines)


def cost(files: str = "cost_cpu_*.csv") -> str:
    """Measured cost beside stock nnU-Net, one table per CSV, with the command that made it."""
    blocks = []
    for path in sorted(RESULTS.glob(files)):
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
        made = f"Made by `{facts[0]}` ({{download}}`CSV <../scripts/results/{path.name}>`; {'; '.join(facts[1:])})."
        blocks.append("\n".join([*table, "", made]))
    return "\n\n".join(blocks) or "Nothing measured yet."


def planned() -> str:
    """The networks on nnU-Net's plans: counts and ablations."""
    lines = ["| trainer | parameters | GMACs | at | ablations (parameters) |", "|---|---:|---:|---|---|"]
    for entry in ENTRIES:
        if 3 in entry.dimensions:
            listed = ", ".join(f"`_{name}` ({cost.parameters / 1e6:.2f} M)" for name, cost in entry.ablations.items())
            counts = f"{entry.cost.parameters:,} | {entry.cost.gmacs:.2f} | {place(entry)}"
            lines.append(f"| `{entry.trainer}` | {counts} | {listed} |")
    return "\n".join(lines)


def learned() -> str:
    """Mean Dice on the phantom's held-out cases."""
    lines = [
        "| configuration | trainer | zero start | mean Dice | RV | MYO | LV |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    with (RESULTS / "learned_phantom.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            scores = " | ".join(f"{float(row[f'dice_{key}']):.3f}" for key in ("mean", "RV", "MYO", "LV"))
            start = "yes" if row["zero_start"] == "True" else "no"
            lines.append(f"| {row['configuration']} | `{row['trainer']}` | {start} | {scores} |")
    return "\n".join(lines)


def memory() -> str:
    """nnU-Net's count and what training keeps, as ratios to nnU-Net's network on the same plans."""
    lines = ["| patch | trainer | kept / count | count, ratio | kept, ratio |", "|---|---|---:|---:|---:|"]
    with (RESULTS / "memory.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["patch"] in ("256x224", "64x96x96") and row["count"]:
                values = " | ".join(row[key] for key in ("kept_per_count", "count_ratio", "kept_ratio"))
                lines.append(f"| {row['patch']} | `{row['trainer']}` | {values} |")
    return "\n".join(lines)


def map_numbers(trainer: str) -> dict[str, list[dict[str, str]]]:
    """The numbers of a trained phantom model's maps by layer."""
    layers: dict[str, list[dict[str, str]]] = {}
    with (RESULTS / "maps_phantom.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["trainer"] == trainer:
                layers.setdefault(row["layer"], []).append(row)
    return layers


def maps_lambda() -> str:
    """Lambda of DCAU-Net's layers, and what the subtraction removes, of the trained phantom model."""
    lines = ["| layer | lambda | removed | negative |", "|---|---:|---:|---:|"]
    for layer, rows in map_numbers("nnUNetTrainerDCAUNet").items():
        value = next(float(row["mean"]) for row in rows if row["map"] == "lambda")
        cells = []
        for name in ("removed", "negative"):
            part = [(int(row["voxels"]), float(row["mean"])) for row in rows if row["map"] == name]
            cells.append(f"{sum(n * mean for n, mean in part) / sum(n for n, _ in part):.3f}")
        lines.append(f"| `{layer}` | {value:.3f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def maps_borders() -> str:
    """Weight on finer entries of the history by region, of the trained XAttnRes phantom model."""
    layers = map_numbers("nnUNetTrainerXAttnResUNet")
    layers = {layer: rows for layer, rows in layers.items() if any(float(row["mean"]) for row in rows)}
    regions = list(dict.fromkeys(row["region"] for rows in layers.values() for row in rows))
    lines = [f"| layer | {' | '.join(regions)} |", f"|---|{'---:|' * len(regions)}"]
    for layer, rows in layers.items():
        means = {row["region"]: float(row["mean"]) for row in rows}
        lines.append(f"| `{layer}` | {' | '.join(f'{means[region]:.3f}' for region in regions)} |")
    return "\n".join(lines)


def papers_cost() -> str:
    """Size and estimated GPU hours of the studies of the papers' tables."""
    lines = ["| study | of | input, batch | rows | steps a row | GPU hours, estimated |", "|---|---|---|---|---|---:|"]
    with (RESULTS / "papers_gpu_hours.csv").open(encoding="utf-8") as file:
        estimated = list(csv.DictReader(file))
    for study in dict.fromkeys(row["study"] for row in estimated):
        rows = [row for row in estimated if row["study"] == study]
        inputs = "; ".join(dict.fromkeys(f"{row['input']}, {row['batch']}" for row in rows))
        iterations = sorted({int(row["iterations"]) for row in rows})
        steps = f"{rows[0]['epochs']} x {' to '.join(map(str, dict.fromkeys((iterations[0], iterations[-1]))))}"
        data = len({row["dataset"] for row in rows})
        count = f"{len({row['row'] for row in rows})}" + (f" on {data} datasets" if data > 1 else "")
        hours = sum(float(row["hours"]) for row in rows)
        about = (STUDIES / f"{study}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        about = about.rpartition(" (")[0]  # without the paper's number
        lines.append(f"| `{study}` | {about} | {inputs} | {count} | {steps} | {hours:.1f} |")
    return "\n".join(lines)


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


def evidence() -> str:
    """The first study on real images: the rows that have the baseline's folds, for the README."""
    chosen = beside(open_study(EVIDENCE, None), "nnUNetTrainer_lr1e1")
    assert chosen is not None
    (task,), _ = make_tasks(chosen, ROOT, None)
    table = verdict_table(Tables(comparison_of(replace(task, options=task.options | {"surface": False}))))
    shown = [j for j, name in enumerate(table.header) if name not in {"verdict", "p (Holm)", OWN}]
    cut = Table([table.header[j] for j in shown], [[row[j] for j in shown] for row in table.rows])
    return markdown_of([cut])


TABLES = {make.__name__: make for make in (
    families, networks, libraries, ablations, datasets, cost, planned, learned, memory, papers_cost, maps_lambda,
    maps_borders, evidence,
)}  # fmt: skip
TABLES["cost_planned"] = partial(cost, "cost_planned_*.csv")
TABLES |= {f"family:{key}": partial(family, key) for key in FAMILIES}


def renewed(text: str) -> str:
    """``text`` with the content between ``<!-- begin:NAME -->`` and ``<!-- end:NAME -->`` made anew."""

    def table(found: re.Match) -> str:
        if found["name"] not in TABLES:
            raise SystemExit(f"no table is called {found['name']}; there are {', '.join(TABLES)}")
        return f"{found['begin']}{TABLES[found['name']]()}\n{found['end']}"

    pattern = r"(?P<begin><!-- begin:(?P<name>\S+) -->\n).*?(?P<end><!-- end:(?P=name) -->)"
    return re.sub(pattern, table, text, flags=re.DOTALL)


def pages() -> list[Path]:
    """README and the documentation's pages."""
    built = ("generated", "gallery")
    written = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(path for path in written if not set(built) & set(path.parts))]


def main() -> None:
    stale = []
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if before != after:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)}: not current; run python scripts/make_tables.py")


if __name__ == "__main__":
    main()
