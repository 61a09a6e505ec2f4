"""The report of a study over its datasets: verdicts, scores, differences, ranks, twins, cost, links."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib
import pandas as pd

from nnunet_attn.comparison.over_datasets import RANKED, Side, mean_ranks
from nnunet_attn.comparison.paired import can_show, p_text
from nnunet_attn.files import write_json
from nnunet_attn.report.document import Block, Folded, Heading, Items, Links, Picture, Table, Text, to_html, to_markdown
from nnunet_attn.report.figures import STYLE
from nnunet_attn.report.forest import cost_plot, forest_plot
from nnunet_attn.report.latex import latex_tables
from nnunet_attn.report.report import PACKAGES, command
from nnunet_attn.report.tables import cell_number, metric_title
from nnunet_attn.scoring.metrics import DISTANCES

SHOWN = ("Dice", "HD95", "ASSD")  # metrics with a table of rows and datasets, where they were computed
METHOD = """
The mean of classes is nnU-Net's foreground_mean, over the folds that are complete in every row of the dataset, and over
all repeats. Intervals: 95 %, Student's t over groups of cases (patients, videos), with the variance
between repeats.

Differences are paired differences of the mean Dice (or other metric) per case. p: Wilcoxon's signed-rank test over
groups; Holm's correction over the rows of each dataset. A difference is called significant if p is below 0.05 and the
interval does not contain 0; where folds disagree more than their groups explain (Alexander and Govern's test), each
fold alone, or the mean over folds, must show it as well (95 % intervals without 0). No test is made over
datasets: there are too few, and they are not drawn at random.

A network and its twin without attention are compared with the same test, corrected over all such pairs of the dataset.

Ranks are by mean Dice of the validation (1 is best), over the datasets that have all rows. They do not show how large
differences are.
"""


def counted(number: int, what: str) -> str:
    """A number with its noun, in the plural if needed."""
    return f"{number} {what}{'s' * (number != 1)}"


def counted_datasets(sides: Sequence[Side]) -> str:
    """The number of datasets with a result; a test set belongs to its dataset."""
    tests = sum(side.test for side in sides)
    return counted(len(sides) - tests, "dataset") + (f", {counted(tests, 'test set')}" if tests else "")


def matrix_tables(sides: Sequence[Side], rows: Sequence[str]) -> list[Table]:
    """One table per metric, with rows and datasets: mean, and difference to the baseline with interval and p."""
    present = {metric for side in sides for metric in side.results[side.results["mean"].notna()].metric}
    tables = []
    for metric in (m for m in SHOWN if m in present):
        digits = 2 if metric in DISTANCES else 4
        unit = "/".join(sorted({side.unit for side in sides if side.unit}))
        lines = [[row, *(_cell(side, row, metric, digits) for side in sides)] for row in rows]
        tested = ", p (Holm); * significant" if metric == RANKED else ""
        caption = f"{metric_title(metric, unit)}: mean; difference to {rows[0]} [95 % interval]{tested}"
        tables.append(Table(["", *(side.name for side in sides)], lines, caption))
    return tables


def _cell(side: Side, row: str, metric: str, digits: int) -> str:
    r = side.results[(side.results.row == row) & (side.results.metric == metric)]
    if r.empty:
        return "not complete" if side.results[side.results.row == row].empty else "–"
    text = cell_number(r.iloc[0]["mean"], digits)
    d = side.differences[(side.differences.row == row) & (side.differences.metric == metric)]
    if d.empty:
        return text
    d = d.iloc[0]
    interval = f"{cell_number(d.low, digits, '+')} to {cell_number(d.high, digits, '+')}"
    star = "*" if d.significant else ""
    shown = p_text(d.p_holm) if can_show(d) else f"≥ {d.smallest_p:.2g}" if d.smallest_p < 1 else ""
    p = f", p {shown}" if d.primary and shown else ""
    return f"{text}; {cell_number(d['mean'], digits, '+')}{star} [{interval}]{p}"


def verdict_texts(sides: Sequence[Side], rows: Sequence[str]) -> list[str]:
    """One sentence for each row except the baseline."""
    texts = []
    for row in rows[1:]:
        better: list[str] = []
        worse: list[str] = []
        none: list[str] = []
        blind: list[str] = []
        weak: list[str] = []
        for side in sides:
            d = side.differences[(side.differences.row == row) & side.differences.primary]
            if d.empty:
                continue
            d = d.iloc[0]
            kind = (better if d["mean"] > 0 else worse) if d.significant else none
            kind = kind if side.groups_known and can_show(d) else blind
            kind.append(f"{side.name} ({d['mean']:+.4f}{', folds disagree' if d.folds_disagree else ''})")
            weak += [f"{name} on {side.name}" for name in (row, rows[0]) if name in side.unlearned]
        if not (better or worse or none or blind):
            texts.append(f"{row}: nothing complete to compare.")
            continue
        parts = [f"significantly {word} Dice than {rows[0]} on {', '.join(names)}"
                 for word, names in (("higher", better), ("lower", worse)) if names]  # fmt: skip
        parts += [f"no significant difference on {', '.join(none)}"] if none else []
        if blind:
            parts.append(
                f"no difference can be shown on {', '.join(blind)}, where groups of cases are too few, or unknown"
            )
        text = f"{row}: {'; '.join(parts)}."
        if weak:
            text += f" Poorly learned, so differences say little: {', '.join(weak)}."
        texts.append(text)
    return texts


def twin_table(sides: Sequence[Side]) -> Table | None:
    """Does the attention matter? Each network minus its twin without attention, on each dataset."""
    lines = []
    for side in sides:
        for t in side.twins.to_dict("records"):
            said = "yes" if t["significant"] else "not shown" if t["possible"] else "cannot be shown"
            if t["folds_disagree"] and t["possible"]:
                said += ", though folds disagree" if t["significant"] else ", folds disagree"
            said = f"learned poorly: {t['unlearned']} ({said})" if t["unlearned"] else said
            interval = f"{cell_number(t['low'], 4, '+')} to {cell_number(t['high'], 4, '+')}"
            numbers = [
                cell_number(t["mean"], 4, "+"),
                interval,
                p_text(t["p_holm"]) if t["possible"] else "–",
                str(t["groups"]),
            ]
            lines.append([t["network"], t["without"], side.name, *numbers, said])
    header = [
        "network",
        "without its attention",
        "dataset",
        "difference",
        "95 % interval",
        "p (Holm)",
        "groups",
        "effect",
    ]
    return Table(header, lines, "Dice per case: with attention minus without", left=3) if lines else None


def rank_table(ranks: pd.DataFrame) -> Table:
    """Mean rank, best and worst rank over datasets."""
    lines = [
        [r.row, cell_number(r.mean, 2), f"{cell_number(r.best, 1)} to {cell_number(r.worst, 1)}", str(r.datasets)]
        for r in ranks.itertuples()
    ]
    return Table(["", "mean rank", "best to worst", "datasets"], lines, "Ranks by mean Dice; 1 is best")


def cost_table(sides: Sequence[Side], rows: Sequence[str]) -> Table:
    """Seconds per epoch and hours per training."""

    def cell(side: Side, row: str) -> str:
        found = side.cost[side.cost.row == row]
        if found.empty:
            return "–"
        seconds, hours = found.iloc[0].epoch_seconds, found.iloc[0].hours
        return f"{cell_number(seconds, 2)} s; {cell_number(hours, 2)} h"

    lines = [[row, *(cell(side, row) for side in sides)] for row in rows]
    return Table(["", *(side.name for side in sides)], lines, "Median seconds per epoch; hours of a whole training")


def repeat_table(sides: Sequence[Side], rows: Sequence[str]) -> Table | None:
    """Standard deviation between repeats."""
    dice = {side.name: side.results[side.results.metric == RANKED].set_index("row") for side in sides}

    def cell(side: Side, row: str) -> str:
        table = dice[side.name]
        if row not in table.index or table.loc[row].repeats < 2:
            return "–"
        return f"{cell_number(table.loc[row].run_sd, 4)} ({int(table.loc[row].repeats)})"

    lines = [[row, *(cell(side, row) for side in sides)] for row in rows]
    if not any(cell != "–" for line in lines for cell in line[1:]):
        return None
    caption = "Mean Dice: standard deviation between repeats of the same training (number of repeats)"
    return Table(["", *(side.name for side in sides)], lines, caption)


def write_over_datasets(
    title: str,
    sides: Sequence[Side],
    rows: Sequence[str],
    pages: Mapping[str, str],
    notes: Sequence[str],
    folder: Path,
    curves: Sequence[tuple[str, Path]] = (),
) -> list[str]:
    """Fill ``folder`` with the report; returns the verdicts.

    Args:
        title: Title of the page.
        sides: The datasets.
        rows: All rows, the baseline first.
        pages: Path of each dataset's own report, relative to ``folder``.
        notes: Remarks, such as trainings that are missing.
        curves: Figure of the learning curves of each dataset, already drawn.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    verdicts, ranks = verdict_texts(sides, rows), mean_ranks(sides, rows)
    matrix, twins, repeats = matrix_tables(sides, rows), twin_table(sides), repeat_table(sides, rows)
    costs, ranking = cost_table(sides, rows), rank_table(ranks)
    with matplotlib.rc_context(STYLE):
        forest = forest_plot(sides, rows, folder / "figures")
        against = cost_plot(sides, rows, folder / "figures")
        twin_forest = forest_plot(sides, rows, folder / "figures", twins=True) if twins else None
    blocks: list[Block] = [
        Text(f"{counted_datasets(sides)}, {len(rows)} rows. Baseline: {rows[0]}."),
        *(Text(text, emphasis=True) for text in verdicts),
        *_if(notes, Heading("What is missing"), Items(list(notes))),
        Heading("Results"),
        *matrix,
        *_picture(forest, folder, "Paired difference in Dice to the baseline with 95 % interval, by dataset"),
        ranking,
        Heading("Does the attention matter?"),
        *(
            [twins]
            if twins
            else [Text("This study has no row that is another row without its attention (_noAttention).")]
        ),
        *_picture(
            twin_forest,
            folder,
            ("Each network minus its twin without attention: difference in Dice with 95 % interval"),
        ),
        *([] if repeats is None else _if(True, Heading("Spread between repeats"), repeats)),
        Heading("Cost"),
        costs,
        *_picture(against, folder, "Mean Dice against seconds per epoch"),
        *_if(curves, Heading("Learning curves")),
        *(
            Folded(name, [Picture(path.relative_to(folder), f"Learning curves, {name}", wide=True)])
            for name, path in curves
        ),
        Heading("Datasets"),
        Links([(path, f"{name}: report") for name, path in pages.items()]),
        *(Folded(f"What to doubt on {side.name}", [Items(side.flags)]) for side in sides),
        Heading("How the numbers are computed"),
        Items([" ".join(paragraph.split()) for paragraph in METHOD.strip().split("\n\n")]),
        Heading("Provenance"),
        Text(f"Command: {' '.join(command())}"),
        Text(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
    ]
    tables = [*matrix, *([twins] if twins else []), ranking, *([repeats] if repeats else []), costs]
    (folder / "tables.tex").write_text(latex_tables(tables), encoding="utf-8")
    for name, part in (("results", "results"), ("differences", "differences"), ("twins", "twins"), ("cost", "cost")):
        frames = [getattr(side, part).assign(dataset=side.name) for side in sides]
        pd.concat(frames, ignore_index=True).to_csv(folder / f"{name}.csv", index=False)
    ranks.to_csv(folder / "ranks.csv", index=False)
    write_json(folder / "study.json", {
        "format": 1, "command": command(), "rows": list(rows), "datasets": [side.name for side in sides],
        "verdicts": verdicts, "notes": list(notes),
    })  # fmt: skip
    (folder / "report.md").write_text(to_markdown(title, blocks), encoding="utf-8")
    (folder / "report.html").write_text(to_html(title, blocks, folder), encoding="utf-8")
    return verdicts


def _picture(path: Path | None, folder: Path, words: str) -> list[Block]:
    return [Picture(path.relative_to(folder), words, wide=True)] if path is not None else []


def _if(wanted: object, *blocks: Block) -> Sequence[Block]:
    return blocks if wanted else ()
