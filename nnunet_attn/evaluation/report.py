"""A comparison as one folder: self-contained report.html, report.md, CSV tables, comparison.json, figures, overlays."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from nnunet_attn.errors import UserError
from nnunet_attn.evaluation.compare import Comparison
from nnunet_attn.evaluation.document import Block, Folded, Heading, Items, Picture, Table, Text, to_html, to_markdown
from nnunet_attn.evaluation.figures import draw_figures
from nnunet_attn.evaluation.folders import image_files
from nnunet_attn.evaluation.metrics import METRICS
from nnunet_attn.evaluation.overlay import overlay
from nnunet_attn.evaluation.paired import MEAN, TESTED, worst_cases
from nnunet_attn.evaluation.published import PROTOCOL, find_published
from nnunet_attn.evaluation.results import NOT_RECORDED
from nnunet_attn.files import write_json

PACKAGES = ("nnunet-attn", "nnunetv2", "torch", "numpy", "scipy", "pandas", "SimpleITK", "matplotlib")
WORST = 3  # cases per row in the pictures
METHOD = """
Dice and IoU: {source}. A class absent from reference and prediction has no value and is left out.

HD95: 95th percentile of both directed border distances pooled (medpy's definition; other tools take the larger of two
percentiles, another number). A class that only prediction or reference has counts as the image's diagonal.

NSD: share of both borders' voxels within {tolerance} of the other border, unweighted.

Mean of classes: per case over the classes that have a value, then over cases. nnU-Net's foreground_mean takes the
other order; both agree when every case has every class.

Intervals: BCa bootstrap of the mean over cases, patients resampled with all their cases.

p: Wilcoxon's signed-rank test, two-sided, over patients. Holm's correction over the rows for the mean Dice, and over
all other tests together. A difference is called significant if the corrected p is below 0.05 and the interval of the
mean does not hold 0.
"""


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


class Report:
    """Turns a comparison into blocks of a document; pictures go below ``folder``."""

    def __init__(self, comparison: Comparison, folder: Path, *, published: bool = False):
        self.comparison, self.folder, self.published = comparison, folder, published
        self.unit = comparison.gathered.unit
        present = set(comparison.summary[comparison.summary["mean"].notna()].metric)
        self.metrics = [metric for metric in METRICS if metric in present]

    def blocks(self) -> list[Block]:
        c = self.comparison
        overview = (
            f"{len(c.patients)} cases of {len(set(c.patients.values()))} patients, {c.gathered.evaluated}. "
            f"Baseline: {c.rows[0]}."
        )
        return [
            Text(overview),
            *(Text(verdict.text, emphasis=True) for verdict in c.verdicts),
            Heading("What to doubt"),
            Items(c.flags),
            *self.results(),
            *self.differences(),
            *self.figures(),
            *self.costs(),
            *self.training(),
            *self.worst(),
            *(self.paper_numbers() if self.published else ()),
            *self.method(),
            *self.provenance(),
        ]

    # ---- numbers ----------------------------------------------------------------------------------------------------

    def _summary(self, row: str, name: str, metric: str) -> pd.Series:
        s = self.comparison.summary
        return s[(s.row == row) & (s["class"] == name) & (s.metric == metric)].iloc[0]

    def results(self) -> list[Block]:
        c = self.comparison

        def cell(row: str, name: str, metric: str) -> str:
            s, d = self._summary(row, name, metric), _digits(metric)
            return f"{_number(s['mean'], d)} ± {_number(s.sd, d)}"

        overall = [[row, *(cell(row, MEAN, m) for m in self.metrics)] for row in c.rows]
        blocks: list[Block] = [
            Heading("Results"),
            Table(["", *(_title(m, self.unit) for m in self.metrics)], overall,
                  f"{c.classes[MEAN].capitalize()}: mean ± standard deviation over cases"),
        ]  # fmt: skip
        if len(c.classes) > 1:
            per_class = [[row, *(cell(row, name, "Dice") for name in c.classes)] for row in c.rows]
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
                rows.append([title, row, *numbers, str(s.cases), *self._counts(row, name)])
        header = ["class", "row", "mean", "95 % interval", "sd", "median", "cases", "missed", "invented"]
        return Table(header, rows, f"{_title(metric, self.unit)} in detail", left=2)

    def _counts(self, row: str, name: str) -> list[str]:
        """Cases in which a class was missed altogether, and in which it was predicted but absent."""
        if name == MEAN and len(self.comparison.classes) > 1:
            return ["", ""]
        t = self.comparison.table
        t = t[(t.row == row) & (t["class"] == (name if name != MEAN else next(iter(self.comparison.labels))))]
        wide = t[t.metric.isin(["n_pred", "n_ref"])].pivot(index="case", columns="metric", values="value")
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
                rows.append([title, r["row"], mean, interval, record, _p(r["p"]), _p(r["p_holm"]), str(r["patients"])])
            return Table(header, rows, f"{_title(metric, self.unit)}: row minus {c.rows[0]}", left=2)

        dropped = c.differences[(c.differences.metric == "Dice") & (c.differences.only_in_one > 0)]
        notes = [
            f"{r['row']}, {c.classes[r['class']]}: {r['only_in_one']} cases have a value in one of both rows only "
            "(a class absent from the reference and predicted by one) and are left out of the pairs."
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

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def figures(self) -> list[Block]:
        c = self.comparison
        drawn = draw_figures(c.table, c.summary, c.differences, c.facts, c.rows, c.classes, self.folder / "figures")
        pictures = [Picture(path.relative_to(self.folder), words, wide=True) for path, words in drawn]
        return [Heading("Figures"), *pictures]

    def worst(self) -> list[Block]:
        c = self.comparison
        blocks: list[Block] = [Heading("Worst cases")]
        for i, row in enumerate(c.rows):
            cases = worst_cases(c.table, row, WORST)
            numbers = [
                [r.case, _number(r.dice), _number(r.baseline), _number(r.difference, sign="+")]
                for r in cases.itertuples()
            ]
            table = Table(["case", "mean Dice", c.rows[0], "difference"], numbers)
            if i == 0:
                table = Table(table.header[:2], [line[:2] for line in numbers])
            blocks += [Heading(row, 3), table, *self._overlay(list(cases["case"]), f"worst_{i}", row)]
        return blocks

    def _overlay(self, cases: Sequence[str], name: str, row: str) -> list[Block]:
        """The cases with all rows' predictions, or a line that says why there is no picture."""
        c = self.comparison
        if c.images is None:
            return [Text("No pictures: nnUNet_raw with the images is not at hand.")]
        columns = {"reference": c.gathered.references} | c.gathered.predictions
        try:
            path = overlay(
                [(image_files(c.images, case), case) for case in cases], columns,
                self.folder / "overlays" / f"{name}.png", labels=c.labels, select="disagreement", dpi=110,
            )  # fmt: skip
        except (UserError, KeyError) as error:
            return [Text(f"No pictures: {error}.")]
        return [
            Picture(path.relative_to(self.folder), f"Worst cases of {row}, slice with most disagreement", wide=True)
        ]

    # ---- cost and training ------------------------------------------------------------------------------------------

    def _by_row(self, lines: dict[str, list[str]]) -> Table:
        """A table with a column for each row of the comparison, since there are more facts than trainers."""
        return Table(["", *self.comparison.rows], [[title, *values] for title, values in lines.items()])

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
                rows.append([model.name, _number(100 * ours, 2), f"{found.dice:.2f}", hd95, found.source])
        if not rows:
            return [Heading("Published numbers"), Text("The papers print none for these trainers on this dataset.")]
        header = ["", "here: Dice (%)", "paper: Dice (%)", "paper: HD95 (voxels)", "paper"]
        return [Heading("Published numbers"), Text(PROTOCOL), Table(header, rows)]

    # ---- how it was made --------------------------------------------------------------------------------------------

    def method(self) -> list[Block]:
        c = self.comparison
        from_files = c.gathered.evaluated == "test set"
        source = "all metrics from the files" if from_files else "nnU-Net's own final validation (summary.json)"
        filled = METHOD.format(source=source, tolerance=f"{c.tolerance:g} {self.unit or 'mm'}")
        items = [" ".join(paragraph.split()) for paragraph in filled.strip().split("\n\n")]
        return [Heading("How the numbers are made"), Items(items)]

    def provenance(self) -> list[Block]:
        hashes = self.comparison.hashes
        rows = [
            [name, value or "not at hand"] for name, value in hashes.items() if isinstance(value, (str, type(None)))
        ]
        rows += [[f"plans of {name}", value] for name, value in hashes["plans"].items()]
        packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        return [
            Heading("Provenance"),
            Text(f"Command: {' '.join(command())}"),
            Text(f"Python {platform.python_version()}, {packages}"),
            Folded("SHA-256 of data, splits and plans", [Table(["", "SHA-256"], rows, left=2)]),
        ]


def command() -> list[str]:
    """The command line without the interpreter's path."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def write_report(comparison: Comparison, folder: Path, *, published: bool = False) -> None:
    """Fill ``folder`` with the report in all its forms."""
    title = f"{comparison.dataset}, {comparison.configuration}: {len(comparison.rows)} trainers compared"
    comparison.table.to_csv(folder / "cases.csv", index=False)
    comparison.summary.to_csv(folder / "summary.csv", index=False)
    comparison.differences.to_csv(folder / "differences.csv", index=False)
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    content = {"format": 1, "command": command(), "packages": packages, **comparison.to_json()}
    write_json(folder / "comparison.json", content)
    blocks = Report(comparison, folder, published=published).blocks()
    (folder / "report.md").write_text(to_markdown(title, blocks), encoding="utf-8")
    (folder / "report.html").write_text(to_html(title, blocks, folder), encoding="utf-8")
