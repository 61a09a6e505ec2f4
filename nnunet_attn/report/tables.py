"""The tables of a comparison's report."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from nnunet_attn.comparison.compare import Comparison
from nnunet_attn.comparison.paired import TESTED, can_show, overall, p_text, summary_titles
from nnunet_attn.comparison.results import NOT_RECORDED
from nnunet_attn.comparison.scores import CASE_MEAN, MEAN
from nnunet_attn.report.document import Block, Folded, Heading, Items, Table, Text
from nnunet_attn.report.figures import case_titles, short_names
from nnunet_attn.report.paper_differences import paper_differences
from nnunet_attn.report.published import PROTOCOL, cells_of, find_published
from nnunet_attn.scoring.cases import VOXEL
from nnunet_attn.scoring.groups import INDEPENDENT
from nnunet_attn.scoring.metrics import DISTANCES, METRICS
from nnunet_attn.trainer_names import describe_trainer


def _digits(metric: str) -> int:
    return 2 if metric in DISTANCES else 4


def cell_number(value: float | None, digits: int = 4, sign: str = "") -> str:
    """A number as text for a table cell; a dash if it is missing."""
    return "–" if value is None or pd.isna(value) else f"{value:{sign}.{digits}f}"


def with_interval(mean: float | None, low: float | None, high: float | None, digits: int = 4, sign: str = "+") -> str:
    """A mean with its interval for one cell."""
    numbers = [cell_number(value, digits, sign) for value in (mean, low, high)]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def best_cells(values: Sequence[Sequence[str]], metrics: Sequence[str | None]) -> frozenset[tuple[int, int]]:
    """Line and column of the best of each column as printed, with ties; columns count from 1, after the names.

    Args:
        values: Cells of the lines, which begin with a number.
        metrics: Metric of each column; None, or one of which neither more nor less is better, has no best.
    """
    best = set()
    for j, metric in enumerate(metrics):
        numbers = [float(found[0]) if (found := re.match(r"-?\d+\.?\d*", line[j])) else np.nan for line in values]
        if metric not in TESTED or np.isnan(numbers).all():
            continue
        wanted = np.nanmin(numbers) if metric in DISTANCES else np.nanmax(numbers)
        best |= {(i, j + 1) for i, number in enumerate(numbers) if number == wanted}
    return frozenset(best) if len(values) > 1 else frozenset()


def metric_title(metric: str, unit: str) -> str:
    """A metric's name with its unit, if it is a distance."""
    return {"HD95": f"HD95 ({unit})", "ASSD": f"ASSD ({unit})", "HD95_voxel": "HD95 (voxels)"}.get(metric, metric)


def _recorded(value: object, digits: int | None = None) -> str:
    if value is None:
        return NOT_RECORDED
    return str(value) if digits is None else f"{value:.{digits}f}"


def _per_repeat(mask: np.ndarray) -> str:
    """Number of cases where a mask (repeats, cases) is true, averaged over repeats."""
    return f"{mask.sum() / len(mask):.3g}" if len(mask) > 1 else str(int(mask.sum()))


class Tables:
    """Make the tables of a comparison; rows have the same short names as in the figures."""

    def __init__(self, comparison: Comparison):
        self.comparison = comparison
        self.unit = comparison.gathered.unit
        present = set(comparison.summary[comparison.summary["mean"].notna()].metric)
        doubled = {"HD95_voxel"} if self.unit == VOXEL else set()
        self.metrics = [metric for metric in METRICS if metric in present - doubled]
        self.names = comparison.names
        self.titles = summary_titles(comparison.scores)
        self.overall = overall(comparison.scores)
        self.short = short_names(self.names)
        self.baseline = self.short[self.names[0]]

    def overview(self) -> Table:
        """What the short names stand for: names in nnU-Net's folders, and their meaning."""
        rows = []
        for row in self.comparison.rows:
            folds = "; ".join(f"{len(run.complete)} of {len(run.folds)}" for run in row.runs)
            plans, meaning = row.model.plans_name, describe_trainer(row.trainer)
            rows.append([self.short[row.name], row.trainer, meaning, plans, folds, str(len(row.runs))])
        return Table(["row", "trainer", "what it is", "plans", "complete folds", "repeats"], rows, left=5)

    def summary(self, row: str, name: str, metric: str) -> pd.Series:
        s = self.comparison.summary
        return s[(s.row == row) & (s["class"] == name) & (s.metric == metric)].iloc[0]

    def results(self) -> list[Block]:
        c = self.comparison

        def cell(row: str, name: str, metric: str) -> str:
            s, d = self.summary(row, name, metric), _digits(metric)
            return f"{cell_number(s['mean'], d)} ± {cell_number(s.sd, d)}"

        def mean(row: str, metric: str) -> str:
            s = self.summary(row, self.overall, metric)
            return with_interval(s["mean"], s.low, s.high, _digits(metric), "")

        lines = [[self.short[row], *(mean(row, m) for m in self.metrics)] for row in self.names]
        caption = f"{self.overall_title()} [95 % interval]; bold: best mean"
        bold = best_cells([line[1:] for line in lines], self.metrics)
        header = ["", *(metric_title(m, self.unit) for m in self.metrics)]
        blocks: list[Block] = [Heading("Results"), Table(header, lines, caption, bold=bold)]
        if len(c.scores.classes) > 1:
            blocks.append(self._by_class(cell))
        if any(len(row.runs) > 1 for row in c.rows):
            blocks.append(self._repeats())
        dice, *others = (self._details(metric) for metric in self.metrics)
        return [*blocks, dice, Folded("The other metrics by class", others)]

    def _by_class(self, cell: Callable[[str, str, str], str]) -> Table:
        shown = {name: title for name, title in self.titles.items() if name != MEAN}
        per_class = [[self.short[row], *(cell(row, name, "Dice") for name in shown)] for row in self.names]
        bold = best_cells([line[1:] for line in per_class], ["Dice"] * len(shown))
        caption = "Dice: mean ± standard deviation over cases; bold: best mean"
        return Table(["", *shown.values()], per_class, caption, bold=bold)

    def overall_title(self) -> str:
        title = self.titles[self.overall]
        return title[:1].upper() + title[1:]

    def _repeats(self) -> Table:
        """Standard deviation of each row's mean between repeats."""
        lines = []
        for row in self.comparison.rows:
            spread = (self.summary(row.name, self.overall, m).run_sd for m in self.metrics)
            numbers = [cell_number(sd, _digits(m)) for sd, m in zip(spread, self.metrics, strict=True)]
            lines.append([self.short[row.name], str(len(row.runs)), *numbers])
        header = ["", "repeats", *(metric_title(m, self.unit) for m in self.metrics)]
        caption = f"{self.overall_title()}: standard deviation between repeats of the same training"
        return Table(header, lines, caption)

    def _details(self, metric: str) -> Table:
        """Mean, interval, spread and median of one metric, by class and row."""
        d, rows = _digits(metric), []
        for name, title in self.titles.items():
            for row in self.names:
                s = self.summary(row, name, metric)
                interval = f"{cell_number(s.low, d)} to {cell_number(s.high, d)}"
                numbers = [cell_number(s["mean"], d), interval, cell_number(s.sd, d), cell_number(s["median"], d)]
                rows.append([title, self.short[row], *numbers, str(s.cases), *self._counts(row, name)])
        header = ["class", "row", "mean", "95 % interval", "sd", "median", "cases", "missed", "invented"]
        return Table(header, rows, f"{metric_title(metric, self.unit)} in detail", left=2)

    def _counts(self, row: str, name: str) -> list[str]:
        """Numbers of cases in which a class was missed completely, and in which it was predicted but absent."""
        scores = self.comparison.scores
        if name in (MEAN, CASE_MEAN) and len(scores.classes) > 1:
            return ["", ""]
        name = name if name != CASE_MEAN else scores.classes[0]
        predicted, present = scores.of(row, name, "n_pred") > 0, scores.of(row, name, "n_ref") > 0
        return [_per_repeat(~predicted & present), _per_repeat(predicted & ~present)]

    def differences(self) -> list[Block]:
        c = self.comparison
        number = c.groups.plural if c.groups.known else INDEPENDENT
        header = ["class", "row", "difference", "95 % interval", "better / equal / worse", number, "p", "p (Holm)"]
        titles = case_titles(c.scores)
        order = {name: i for i, name in enumerate([CASE_MEAN, *c.scores.classes])}

        def table(metric: str) -> Table:
            d, rows = _digits(metric), []
            shown = c.differences[c.differences.metric == metric]
            for r in sorted(shown.to_dict("records"), key=lambda r: order[r["class"]]):
                interval = f"{cell_number(r['low'], d, '+')} to {cell_number(r['high'], d, '+')}"
                record = f"{r['wins']} / {r['ties']} / {r['losses']}"
                mean = cell_number(r["mean"], d, "+")
                title = titles[r["class"]] + (" (tested)" if r["primary"] else "")
                if can_show(r):
                    p = [p_text(r["p"]), p_text(r["p_holm"])]
                else:
                    p = ["–", f"≥ {r['smallest_p']:.2g}" if r["smallest_p"] < 1 else "–"]
                rows.append([title, self.short[r["row"]], mean, interval, record, str(r["groups"]), *p])
            return Table(header, rows, f"{metric_title(metric, self.unit)}: row minus {self.baseline}", left=2)

        dropped = c.differences[(c.differences.metric == "Dice") & (c.differences.only_in_one > 0)]
        notes = [
            f"{self.short[r['row']]}, {titles[r['class']]}: {r['only_in_one']} cases have a value in "
            "only one of the two rows (a class absent from the reference and predicted by one) and are left out."
            for r in dropped.to_dict("records")
        ]
        return [
            Heading("Paired differences to the baseline"),
            Text(
                ("" if c.groups.known else f"{c.groups.counted()}: intervals and p-values are valid only if they are. ")
                + "Tested is the mean Dice per case. All other p-values are exploratory; their "
                "correction covers all of them together. ≥ stands before the smallest p that so few could reach: "
                "these data cannot show significance."
            ),
            table("Dice"),
            *([Items(notes)] if notes else []),
            Folded("The other metrics", [table(m) for m in TESTED[1:] if m in self.metrics]),
        ]

    def typical(self, cases: pd.DataFrame, *, baseline: bool) -> Table:
        """The worst, median and best case of a row, beside the baseline unless it is the baseline."""
        lines = [
            [r.which, r.case, *map(cell_number, (r.dice, r.baseline)), cell_number(r.difference, sign="+")]
            for r in cases.itertuples()
        ]
        header, shown = ["", "case", "Dice per case", self.baseline, "difference"], 3 if baseline else 5
        return Table(header[:shown], [line[:shown] for line in lines], left=2)

    def _by_row(self, lines: dict[str, list[str]]) -> Table:
        """A table with one column per row of the comparison."""
        return Table(["", *self.short.values()], [[title, *values] for title, values in lines.items()])

    def costs(self) -> list[Block]:
        facts = [self.comparison.facts[row] for row in self.names]
        lines = {
            "parameters (M)": [cell_number(f.parameters and f.parameters / 1e6, 2) for f in facts],
            "GMACs": [cell_number(f.gmacs, 2) for f in facts],
            "seconds per epoch": [_recorded(f.epoch_seconds, 2) for f in facts],
            "hours of these trainings": [_recorded(f.hours, 2) for f in facts],
            "trainings": [str(f.trainings) for f in facts],
            "peak GPU memory (GiB)": [_recorded(f.peak_allocated, 2) for f in facts],
            "reserved (GiB)": [_recorded(f.peak_reserved, 2) for f in facts],
            "GPU": [f.environment["GPU"] for f in facts],
        }
        problems = [
            f"{row}: parameters and GMACs were not counted ({self.comparison.facts[row].cost_problem})."
            for row in self.names
            if self.comparison.facts[row].cost_problem
        ]
        note = (
            "GMACs: 1e9 multiply-accumulates of one forward pass at the plans' patch (torch's FlopCounterMode / 2, "
            "attention products included). Epoch time: median of the logs; hours: their sum over the folds whose "
            f"scores are compared{self._left_out()}. Stock trainers do not record memory."
        )
        return [Heading("Cost"), self._by_row(lines), Text(note), *([Items(problems)] if problems else [])]

    def _left_out(self) -> str:
        """Names rows with complete folds that are not counted because another row lacks them."""
        counted = {row.name: self.comparison.facts[row.name].trainings for row in self.comparison.rows}
        more = [
            f"{self.short[row.name]} {len(run_folds) - counted[row.name]}"
            for row in self.comparison.rows
            if len(run_folds := [fold for run in row.runs for fold in run.complete]) > counted[row.name]
        ]
        return f" (left out because not every row has them: {', '.join(more)})" if more else ""

    def training(self) -> list[Block]:
        c = self.comparison
        facts = [c.facts[row] for row in self.names]
        schedules = [f"{f.schedule[0]} x {f.schedule[1]}" if f.schedule else NOT_RECORDED for f in facts]
        lines = {"epochs x iterations": schedules}
        lines |= {title: [_recorded(f.plans[title]) for f in facts] for title in facts[0].plans}
        lines |= {title: [f.recipe[title] for f in facts] for title in facts[0].recipe}
        lines["encoder weights"] = [f.pretrained for f in facts]
        lines["mirrored axes at prediction"] = [_recorded(f.mirroring) for f in facts]
        environment = {title: [f.environment[title] for f in facts] for title in facts[0].environment}
        folded = Folded("Software and hardware", [self._by_row(environment)])
        return [Heading("Schedule and recipe"), self._by_row(lines), folded]

    def paper_numbers(self) -> list[Block]:
        c, rows = self.comparison, []
        for row in c.rows:
            found = find_published(row.trainer, c.dataset)
            if found is not None:
                ours = self.summary(row.name, self.overall, "Dice")["mean"]
                hd95 = "–" if found.hd95 is None else f"{found.hd95:.2f}"
                rows.append([self.short[row.name], found.source, cell_number(100 * ours, 2), f"{found.dice:.2f}", hd95])
        if not rows:
            return [
                Heading("Published numbers"),
                Text("The papers print no results for these trainers on this dataset."),
            ]
        header = ["", "paper", "here: Dice (%)", "paper: Dice (%)", "paper: HD95 (DCAU-Net's: HD)"]
        blocks: list[Block] = [Heading("Published numbers"), Text(PROTOCOL), Table(header, rows, left=2)]
        cells = dict.fromkeys(cell for row in c.rows for cell in cells_of(row.trainer, c.dataset))
        lines = [[x.row, f"{x.paper}, {x.table}", f"{x.metric} {x.group}".strip(), x.value] for x in cells]
        if lines:
            table = Table(["method", "paper", "metric", "value"], lines, left=3)
            blocks.append(Folded("All that the papers' tables print on this dataset", [table]))
        differing = dict.fromkeys(text for row in c.rows for text in paper_differences(row.trainer))
        if differing:
            blocks += [Heading("What still differs from the papers' training", 3), Items([*differing])]
        return blocks
