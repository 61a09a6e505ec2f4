"""Figures of a comparison, as SVG and PNG: scores of cases, paired differences, Dice against cost, learning curves."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nnunet_attn.comparison.curves import learning_curves
from nnunet_attn.comparison.facts import Facts
from nnunet_attn.comparison.paired import overall
from nnunet_attn.comparison.rows import Row
from nnunet_attn.comparison.scores import CASE_MEAN, Scores
from nnunet_attn.scoring.groups import INDEPENDENT
from nnunet_attn.scoring.intervals import group_sums

GREY = "#555555"
# Of the rows: told apart by colour-blind readers by lightness and marker, with a contrast to white of 3 and more.
COLOURS = ("#0072B2", "#D55E00", "#00805F", "#A8487F", "#7A5C00", "#5B3A8E", "#1C7C8C")
MARKERS = "osD^vP*X"
DOTS = 2000  # of a figure; more become one picture within the SVG, which would be tens of megabytes otherwise
STYLE: Any = {
    "svg.hashsalt": "nnunet_attn", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": GREY, "axes.titlesize": 9,
}  # fmt: skip
SCHEDULE = re.compile(r"_\d+epochs?(_\d+iterations)?$")
COSTS = (
    ("epoch_seconds", "seconds per epoch (median)", 1),
    ("gmacs", "GMACs per patch", 1),
    ("parameters", "million parameters", 1e-6),
)


def short_names(rows: Sequence[str]) -> dict[str, str]:
    """Short names of rows: without the prefix nnUNetTrainer, and without a schedule and plans that all rows share."""
    trainers = [row.partition(":") for row in rows]
    schedules = {found[0] if (found := SCHEDULE.search(trainer)) else "" for trainer, _, _ in trainers}
    names = []
    for trainer, _, plans in trainers:
        name = trainer.removeprefix("nnUNetTrainer")
        name = SCHEDULE.sub("", name) if len(schedules) == 1 else name
        name = f"stock{name}" if not name or name.startswith("_") else name
        plans = "" if len({plans for _, _, plans in trainers}) == 1 else plans
        names.append(name + (f" ({plans.removeprefix('nnUNet').removesuffix('Plans')})" if plans else ""))
    unique = names if len(set(names)) == len(names) else rows
    return dict(zip(rows, unique, strict=True))


def with_short_names(text: str, short: Mapping[str, str]) -> str:
    """A text in which the rows are called by their short names."""
    longest_first = sorted(short, key=len, reverse=True)
    return re.sub(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w|:\w)", lambda m: short[m[1]], text)


def row_colours(rows: Sequence[str]) -> dict[str, str]:
    return {row: GREY if i == 0 else COLOURS[(i - 1) % len(COLOURS)] for i, row in enumerate(rows)}


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None}, bbox_inches="tight")
    figure.savefig(paths[1], dpi=150, bbox_inches="tight")
    return paths


def row_markers(rows: Sequence[str]) -> dict[str, str]:
    return {row: MARKERS[i % len(MARKERS)] for i, row in enumerate(rows)}


def _jitter(count: int, width: float) -> np.ndarray:
    """Horizontal offsets that keep points from covering each other; the same in every run."""
    return (np.arange(count) * 0.618034 % 1 - 0.5) * width


def case_titles(scores: Scores) -> dict[str, str]:
    """The classes and their mean, with titles; if there is a single class, only the mean, under the class's name."""
    if len(scores.classes) == 1:
        return {CASE_MEAN: scores.classes[0]}
    return {name: name for name in scores.classes} | {CASE_MEAN: "mean per case"}


def box_plot(scores: Scores, folder: Path) -> list[Path]:
    """Dice of every case, by class and row, as dots and box plots (quartiles; whiskers to 1.5 IQR)."""
    rows, classes = scores.rows, case_titles(scores)
    colours, names = row_colours(rows), short_names(rows)
    many = scores.index.size * len(rows) * len(classes) > DOTS
    figure = Figure(figsize=(max(5.0, 0.5 + (0.3 + 0.35 * len(rows)) * len(classes)), 3.6))
    axes = figure.subplots()
    for j, row in enumerate(rows):
        for i, name in enumerate(classes):
            values = scores.over_repeats(row, name, "Dice")
            values = values[~np.isnan(values)]
            position = i + (j - (len(rows) - 1) / 2) * 0.8 / len(rows)
            if len(values):
                axes.boxplot(
                    values, positions=[position], widths=0.55 / len(rows), showfliers=False, manage_ticks=False,
                    boxprops=dict(color=colours[row]), whiskerprops=dict(color=colours[row]),
                    capprops=dict(color=colours[row]), medianprops=dict(color="black"),
                )  # fmt: skip
                offsets = position + _jitter(len(values), 0.4 / len(rows))
                axes.scatter(offsets, values, s=5, color=colours[row], alpha=0.5, linewidths=0, rasterized=many)
        axes.plot([], [], "s", color=colours[row], label=names[row])
    axes.set_xticks(range(len(classes)), [textwrap.fill(title, 12) for title in classes.values()])
    axes.set(ylabel="Dice", xlim=(-0.6, len(classes) - 0.4))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.15), ncols=min(3, len(rows)))
    return save_figure(figure, folder, "dice_by_case")


def difference_plot(scores: Scores, differences: pd.DataFrame, folder: Path) -> list[Path]:
    """Difference in Dice to the baseline: each group as a dot, the mean over cases with its 95 % interval."""
    rows, classes = scores.rows, case_titles(scores)
    colours, names = row_colours(rows), short_names(rows)
    many = len(np.unique(scores.index)) * len(rows) * len(classes) > DOTS
    figure = Figure(figsize=(6.4, 0.9 + (0.35 + 0.3 * (len(rows) - 1)) * len(classes)))
    axes = figure.subplots()
    for j, row in enumerate(rows[1:]):
        for i, name in enumerate(classes):
            found = differences[
                (differences.row == row) & (differences["class"] == name) & (differences.metric == "Dice")
            ]
            if found.empty:
                continue
            by_case = [scores.over_repeats(r, name, "Dice") for r in (row, rows[0])]
            sums, counts = group_sums(by_case[0] - by_case[1], scores.index)
            values = sums[counts > 0] / counts[counts > 0]
            y = i + (j - (len(rows) - 2) / 2) * 0.7 / max(1, len(rows) - 1)
            height = 0.25 / max(1, len(rows) - 1)
            offsets = y + _jitter(len(values), height)
            axes.scatter(values, offsets, s=7, color=colours[row], alpha=0.45, linewidths=0, rasterized=many)
            d = found.iloc[0]
            error = [[max(0, d["mean"] - d.low)], [max(0, d.high - d["mean"])]] if pd.notna(d.low) else None
            axes.errorbar(d["mean"], y, xerr=error, fmt="D", color="black", markersize=3.5, capsize=2.5, linewidth=1)
        axes.plot([], [], "o", color=colours[row], label=f"{names[row]} minus {names[rows[0]]}")
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(classes)), [textwrap.fill(title, 14) for title in classes.values()])
    axes.set(xlabel="difference in Dice (right: better than the baseline)", ylim=(len(classes) - 0.4, -0.6))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    below = -0.55 / figure.get_size_inches()[1]
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, below), ncols=1)
    return save_figure(figure, folder, "dice_difference")


def cost_plot(scores: Scores, summary: pd.DataFrame, facts: Mapping[str, Facts], folder: Path) -> list[Path]:
    """Mean Dice with its interval against epoch time, GMACs and parameters; None if none of them is known."""
    rows = scores.rows
    known = [c for c in COSTS if sum(getattr(facts[row], c[0]) is not None for row in rows) >= 2]
    if not known:
        return []
    colours, names, markers = row_colours(rows), short_names(rows), row_markers(rows)
    dice = summary[(summary["class"] == overall(scores)) & (summary.metric == "Dice")].set_index("row")
    figure = Figure(figsize=(3.1 * len(known), 2.9))
    panels = np.atleast_1d(figure.subplots(1, len(known), sharey=True))
    for axes, (key, label, factor) in zip(panels, known, strict=True):
        for row in rows:
            cost = getattr(facts[row], key)
            if cost is None:
                continue
            d = dice.loc[row]
            error = [[max(0, d["mean"] - d.low)], [max(0, d.high - d["mean"])]] if pd.notna(d.low) else None
            axes.errorbar(
                cost * factor, d["mean"], yerr=error, fmt=markers[row], color=colours[row], capsize=2, label=names[row]
            )
        axes.set_xlabel(label)
        axes.set_xlim(0, 1.12 * factor * max(getattr(facts[row], key) or 0 for row in rows))
        axes.grid(color="#dddddd", linewidth=0.6)
    panels[0].set_ylabel("mean Dice, with 95 % interval")
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda pair: len(pair[1]))
    figure.legend(
        handles,
        labels,
        fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=min(3, len(rows)),
    )
    figure.tight_layout()
    return save_figure(figure, folder, "dice_against_cost")


def curves_plot(rows: Sequence[Row], used: Sequence[str], folder: Path) -> list[Path]:
    """Pseudo Dice and losses by epoch, from nnU-Net's logs: mean and range over folds and repeats."""
    curves = {row.name: learning_curves(row.folds(used)) for row in rows}
    if not any(len(curve.epochs) > 1 for curve in curves.values()):
        return []
    names = [row.name for row in rows]
    colours, short = row_colours(names), short_names(names)
    figure = Figure(figsize=(9.3, 2.9))
    panels = figure.subplots(1, 3)
    titles = {
        "mean_dice": "pseudo Dice",
        "val_loss": "validation loss",
        "train_loss": "training loss",
    }
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for name, curve in curves.items():
            middle, low, high = curve.of[key]
            axes.plot(curve.epochs, middle, color=colours[name], linewidth=1, label=short[name])
            axes.fill_between(curve.epochs, low, high, color=colours[name], alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", title=title)
        axes.grid(color="#dddddd", linewidth=0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    place: dict[str, Any] = dict(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(4, len(rows)))
    figure.legend(handles, labels, fontsize=8, frameon=False, **place)
    figure.tight_layout()
    return save_figure(figure, folder, "learning_curves")


def draw_figures(
    rows: Sequence[Row],
    used: Sequence[str],
    scores: Scores,
    summary: pd.DataFrame,
    differences: pd.DataFrame,
    facts: Mapping[str, Facts],
    folder: Path,
) -> list[tuple[Path, str]]:
    """Draw all figures into ``folder``; returns the path of each SVG and its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    dots = scores.groups.plural if scores.groups.known else INDEPENDENT
    with matplotlib.rc_context(STYLE):
        drawn = [
            (box_plot(scores, folder), "Dice of every case by class; black: median"),
            (
                difference_plot(scores, differences, folder),
                f"Paired difference in Dice to the baseline; dots: {dots}; diamond: mean with 95 % interval",
            ),
            (cost_plot(scores, summary, facts, folder), "Mean Dice with 95 % interval against cost"),
            (
                curves_plot(rows, used, folder),
                "Learning curves: mean over folds and repeats, and their range. The pseudo Dice is of patches",
            ),
        ]
    return [(paths[0], words) for paths, words in drawn if paths]
