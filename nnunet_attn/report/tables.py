"""The tables of a comparison's report."""

import pandas as pd

from nnunet_attn.comparison.compare import Comparison
from nnunet_attn.comparison.paired import MEAN, TESTED, voxel_counts
from nnunet_attn.comparison.results import NOT_RECORDED
from nnunet_attn.report.document import Block, Folded, Heading, Items, Table, Text
from nnunet_attn.report.figures import short_names
from nnunet_attn.report.published import PROTOCOL, find_published
from nnunet_attn.scoring.metrics import METRICS


def _digits(metric: str) -> int:
    return 2 if metric.startswith("HD95") else 4


def _number(value: float | None, digits: int = 4, sign: str = "") -> str:
    return "–" if value is None or pd.isna(value) else f"{value:{sign}.{digits}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _title(metric: str, unit: str) -> str:
    return {"HD95": f"HD95 ({unit})", "HD95_voxel": "HD95 (voxels)"}.get(metric, metric)


def _recorded(value: object, digits: int | None = None) -> str:
    if value is None:
        return NOT_RECORDED
    return str(value) if digits is None else f"{value:.{digits}f}"


class Tables:
    """Turns the numbers of a comparison into blocks of a document; rows go by the short names of the figures."""

    def __init__(self, comparison: Comparison):
        self.comparison = comparison
        self.unit = comparison.gathered.unit
        present = set(comparison.summary[comparison.summary["mean"].notna()].metric)
        self.metrics = [metric for metric in METRICS if metric in present]
        self.short = short_names(comparison.rows)
        self.baseline = self.short[comparison.rows[0]]

    def overview(self) -> Table:
        """The rows' names here and in nnU-Net's folders."""
        rows = []
        for model in self.comparison.models:
            folds = f"{len(model.complete)} of {len(model.folds)}"
            rows.append([self.short[model.name], model.trainer, model.plans_name, folds])
        return Table(["row", "trainer", "plans", "complete folds"], rows, left=4)

    def _summary(self, row: str, name: str, metric: str) -> pd.Series:
        s = self.comparison.summary
        return s[(s.row == row) & (s["class"] == name) & (s.metric == metric)].iloc[0]

    def results(self) -> list[Block]:
        c = self.comparison

        def cell(row: str, name: str, metric: str) -> str:
            s, d = self._summary(row, name, metric), _digits(metric)
            return f"{_number(s['mean'], d)} ± {_number(s.sd, d)}"

        overall = [[self.short[row], *(cell(row, MEAN, m) for m in self.metrics)] for row in c.rows]
        blocks: list[Block] = [
            Heading("Results"),
            Table(["", *(_title(m, self.unit) for m in self.metrics)], overall,
                  f"{c.classes[MEAN].capitalize()}: mean ± standard deviation over cases"),
        ]  # fmt: skip
        if len(c.classes) > 1:
            per_class = [[self.short[row], *(cell(row, name, "Dice") for name in c.classes)] for row in c.rows]
            caption = "Dice by class: mean ± standard deviation over cases"
            blocks.append(Table(["", *c.classes.values()], per_class, caption))
        dice, *others = (self._details(metric) for metric in self.metrics)
        return [*blocks, dice, Folded("The other metrics by class", others)]

    def _details(self, metric: str) -> Table:
        """Mean, interval, spread and median of one metric, by class and row."""
        c, d, rows = self.comparison, _digits(metric), []
        for name, title in c.classes.items():
            for row in c.rows:
                s = self._summary(row, name, metric)
                interval = f"{_number(s.low, d)} to {_number(s.high, d)}"
                numbers = [_number(s["mean"], d), interval, _number(s.sd, d), _number(s["median"], d)]
                rows.append([title, self.short[row], *numbers, str(s.cases), *self._counts(row, name)])
        header = ["class", "row", "mean", "95 % interval", "sd", "median", "cases", "missed", "invented"]
        return Table(header, rows, f"{_title(metric, self.unit)} in detail", left=2)

    def _counts(self, row: str, name: str) -> list[str]:
        """Cases in which a class was missed altogether, and in which it was predicted but absent."""
        if name == MEAN and len(self.comparison.classes) > 1:
            return ["", ""]
        name = name if name != MEAN else next(iter(self.comparison.labels.values))
        wide = voxel_counts(self.comparison.table, row, name)
        missed = int(((wide.n_pred == 0) & (wide.n_ref > 0)).sum())
        invented = int(((wide.n_pred > 0) & (wide.n_ref == 0)).sum())
        return [str(missed), str(invented)]

    def differences(self) -> list[Block]:
        c = self.comparison
        header = ["class", "row", "difference", "95 % interval", "better / equal / worse", "p", "p (Holm)", "patients"]
        order = {name: i for i, name in enumerate([MEAN, *(name for name in c.classes if name != MEAN)])}

        def table(metric: str) -> Table:
            d, rows = _digits(metric), []
            shown = c.differences[c.differences.metric == metric]
            for r in sorted(shown.to_dict("records"), key=lambda r: order[r["class"]]):
                interval = f"{_number(r['low'], d, '+')} to {_number(r['high'], d, '+')}"
                record = f"{r['wins']} / {r['ties']} / {r['losses']}"
                mean = _number(r["mean"], d, "+")
                title = c.classes[r["class"]] + (" (tested)" if r["primary"] else "")
                rows.append(
                    [
                        title,
                        self.short[r["row"]],
                        mean,
                        interval,
                        record,
                        _p(r["p"]),
                        _p(r["p_holm"]),
                        str(r["patients"]),
                    ]
                )
            return Table(header, rows, f"{_title(metric, self.unit)}: row minus {self.baseline}", left=2)

        dropped = c.differences[(c.differences.metric == "Dice") & (c.differences.only_in_one > 0)]
        notes = [
            f"{self.short[r['row']]}, {c.classes[r['class']]}: {r['only_in_one']} cases have a value in "
            "one of both rows only (a class absent from the reference and predicted by one) and are left out."
            for r in dropped.to_dict("records")
        ]
        return [
            Heading("Paired differences to the baseline"),
            Text(
                "Tested is the mean Dice over classes. All other p-values are exploratory and support no claim; their "
                "correction covers all of them together."
                if len(c.classes) > 1
                else "Tested is the mean Dice. All other p-values are exploratory and support no claim."
            ),
            table("Dice"),
            *([Items(notes)] if notes else []),
            Folded("The other metrics", [table(m) for m in TESTED[1:] if m in self.metrics]),
        ]

    def worst(self, cases: pd.DataFrame, *, baseline: bool) -> Table:
        """The worst cases of a row, beside the baseline unless it is the baseline."""
        lines = [
            [r.case, _number(r.dice), _number(r.baseline), _number(r.difference, sign="+")] for r in cases.itertuples()
        ]
        header = ["case", "mean Dice", self.baseline, "difference"]
        return Table(header[:2], [line[:2] for line in lines]) if baseline else Table(header, lines)

    def _by_row(self, lines: dict[str, list[str]]) -> Table:
        """A table with a column for each row of the comparison, since there are more facts than trainers."""
        return Table(["", *self.short.values()], [[title, *values] for title, values in lines.items()])

    def costs(self) -> list[Block]:
        facts = [self.comparison.facts[row] for row in self.comparison.rows]
        lines = {
            "parameters (M)": [_number(f.parameters and f.parameters / 1e6, 2) for f in facts],
            "GMACs": [_number(f.gmacs, 2) for f in facts],
            "seconds per epoch": [_recorded(f.epoch_seconds, 2) for f in facts],
            "hours, all folds": [_recorded(f.hours, 2) for f in facts],
            "peak GPU memory (GiB)": [_recorded(f.peak_allocated, 2) for f in facts],
            "reserved (GiB)": [_recorded(f.peak_reserved, 2) for f in facts],
            "GPU": [f.environment["GPU"] for f in facts],
        }
        problems = [
            f"{row}: parameters and GMACs not counted ({self.comparison.facts[row].cost_problem})."
            for row in self.comparison.rows
            if self.comparison.facts[row].cost_problem
        ]
        note = (
            "GMACs: 1e9 multiply-accumulates of one forward pass at the plans' patch (torch's FlopCounterMode / 2, "
            "attention products included). Epoch time: median of the logs. Stock trainers do not record memory."
        )
        return [Heading("Cost"), self._by_row(lines), Text(note), *([Items(problems)] if problems else [])]

    def training(self) -> list[Block]:
        c = self.comparison
        facts = [c.facts[row] for row in c.rows]
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
        for model in c.models:
            found = find_published(model.trainer, c.dataset)
            if found is not None:
                ours = self._summary(model.name, MEAN, "Dice")["mean"]
                hd95 = "–" if found.hd95 is None else f"{found.hd95:.2f}"
                rows.append([self.short[model.name], _number(100 * ours, 2), f"{found.dice:.2f}", hd95, found.source])
        if not rows:
            return [Heading("Published numbers"), Text("The papers print none for these trainers on this dataset.")]
        header = ["", "here: Dice (%)", "paper: Dice (%)", "paper: HD95", "paper"]
        return [Heading("Published numbers"), Text(PROTOCOL), Table(header, rows)]
