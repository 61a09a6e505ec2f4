"""Tables and figures of the page on evidence, made by the study's own report from results/evidence, at each build."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nnunet_attn.comparison.scores import CASE_MEAN, MEAN
from nnunet_attn.errors import UserError
from nnunet_attn.maps.command import border_table, lambda_table, read_rows
from nnunet_attn.report.document import Block, Table, Text, markdown_of
from nnunet_attn.report.figures import short_names
from nnunet_attn.report.tables import Tables, cell_number, with_interval
from nnunet_attn.report.verdict import verdict_table
from nnunet_attn.study.matrix import Matrix
from nnunet_attn.study.reporting import (
    beside,
    comparison_of,
    complete_folds,
    make_tasks,
    open_study,
    write_study_report,
)

RESULTS = Path(__file__).parents[1] / "results" / "evidence"
SECTIONS = ("Results", "Does the attention matter?", "Cost", "Learning curves", "What is missing")


def write(folder: Path) -> None:
    """For each archive in results/evidence, NAME.md to include, and the folder NAME with the whole report.

    Args:
        folder: Folder of the pages' generated parts.
    """
    for archive in sorted(path.parent for path in RESULTS.glob("*/study.yaml")):
        report = folder / archive.name
        shutil.rmtree(report, ignore_errors=True)
        report.mkdir(parents=True)
        matrix = open_study(archive, None)
        try:
            write_study_report(matrix, report, folds=None, processes=1)
            text = part_of_page(report, archive.name)
            text += same_recipe(matrix) + each_training(matrix)
        except UserError as error:
            text = f"*{str(error).replace(str(archive), archive.name)}*\n"
        (folder / f"{archive.name}.md").write_text(text, encoding="utf-8")
        (folder / f"{archive.name}_maps.md").write_text(maps(archive), encoding="utf-8")


def same_recipe(matrix: Matrix) -> str:
    """The verdict table with the stock network under our recipe as the baseline, of the rows that have all its folds.

    Empty without that row.
    """
    chosen = beside(matrix, "StockAdamW")
    tasks, _ = make_tasks(chosen, Path(), None) if chosen else ([], [])
    if not tasks:
        return ""
    comparisons = [comparison_of(task) for task in tasks]
    text = (
        f"The rows that have the same folds ({', '.join(comparisons[0].used)}), beside the stock network under our "
        "recipe (AdamW), which tells network from recipe:"
    )
    tables = [verdict_table(Tables(comparison)) for comparison in comparisons]
    body = markdown_of([Text(text), *(replace(table, caption="") for table in tables)])
    return f"\n### Beside the stock network under our recipe\n\n{body}\n"


def each_training(matrix: Matrix) -> str:
    """The mean Dice (nnU-Net's foreground_mean) of every finished training, repeats beside their first training."""
    titles = {1: "", 2: ", again"}
    lines: dict[str, dict[tuple[str, int], float]] = {}
    for model in dict.fromkeys(job.model for job in matrix.trainings if job.model is not None):
        for name, fold in complete_folds(matrix, model).items():
            dice = pd.DataFrame({case: {c: s["Dice"] for c, s in of.items()} for case, of in fold.cases.items()})
            row = matrix.study.rows[model.row].text
            lines.setdefault(row, {})[name, model.repeat] = float(dice.mean(axis=1).mean())
    columns = sorted({key for line in lines.values() for key in line})
    header = ["", *(f"fold {name}{titles.get(run, f', run {run}')}" for name, run in columns)]
    names = short_names(list(lines))
    rows = [[names[row], *(cell_number(line.get(key), 3) for key in columns)] for row, line in lines.items()]
    text = Text("Mean Dice of each finished training. A difference between networks has to beat the spread of repeats.")
    return f"\n### Every training\n\n{markdown_of([text, Table(header, rows)])}\n"


def maps(archive: Path) -> str:
    """The tables of ``nnunet-attn maps``, from maps/TRAINER.csv of an archive."""
    text = ""
    for path in sorted((archive / "maps").glob("*.csv")):
        rows = read_rows(path)
        cases = len({row[0] for row in rows})
        blocks = [Text(f"{path.stem}, {cases} validated cases."), *border_table(rows), *lambda_table(rows)]
        text += markdown_of(blocks).replace("\n## ", "\n### ") + "\n\n"
    return text


def part_of_page(report: Path, name: str) -> str:
    """The sections of a report that the page shows, with Dice by class in front."""
    page = (report / "report.md").read_text(encoding="utf-8")
    parts = re.split(r"^## ", page, flags=re.MULTILINE)
    verdicts = [line for line in parts[0].splitlines() if line.startswith("**")]
    chosen = [f"### {part}" for title in SECTIONS for part in parts if part.startswith(f"{title}\n")]
    text = "\n\n".join([*verdicts, by_class(report), *chosen])
    text = re.sub(r"^### Dataset.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\((?!http)([^)]*\.svg)\)", rf"](generated/evidence/{name}/\1)", text)
    pages = (f"{path.parent.name}/report.html" for path in sorted(report.glob("*/report.html")))
    links = ", ".join(f"{{download}}`{page} <generated/evidence/{name}/{page}>`" for page in pages)
    return f"{text}\n\nThe whole report, with the other metrics and what to doubt: {links}\n"


def by_class(report: Path) -> str:
    """Dice of each class, with its interval, of every dataset of a report."""
    blocks: list[Block] = []
    for path in sorted(report.glob("*/summary.csv")):
        table = pd.read_csv(path)
        table = table[(table.metric == "Dice") & ~table["class"].isin([MEAN, CASE_MEAN])]
        classes = list(table["class"].unique())
        if not classes:  # a single one, whose mean is among the results
            continue
        rows = [
            [name, *(with_interval(s["mean"], s.low, s.high, 3, "") for _, s in table[table.row == row].iterrows())]
            for row, name in short_names(list(table.row.unique())).items()
        ]
        caption = f"Dice by class, mean [95 % interval], {path.parent.name.partition('__')[0]}"
        blocks.append(Table(["", *classes], rows, caption))
    return markdown_of(blocks)
