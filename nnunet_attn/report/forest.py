"""Figures over datasets: forest plots of differences, and quality against cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from nnunet_attn.comparison.over_datasets import RANKED, Side
from nnunet_attn.report.figures import GREY, row_colours, save_figure, short_names


def forest_plot(sides: Sequence[Side], rows: Sequence[str], folder: Path, *, twins: bool = False) -> Path | None:
    """Forest plot: a difference with its interval for each row and dataset; filled marks are significant.

    Args:
        sides: The datasets.
        rows: The baseline first.
        folder: Where to draw.
        twins: Draw each network minus its twin without attention, instead of each row minus the baseline.
    """
    lines = []
    for side in sides:
        if twins:
            found, key = side.twins, "network"
        else:
            found, key = side.differences[side.differences.primary.astype(bool)], "row"
        lines += [(d[key], side.name, d) for d in found.to_dict("records")]
    order = {row: i for i, row in enumerate(rows)}
    lines.sort(key=lambda line: order[line[0]])
    if not lines:
        return None
    colours, names = row_colours(rows), short_names(rows)
    figure = Figure(figsize=(7.2, 0.8 + 0.24 * len(lines)))
    axes = figure.subplots()
    labels = []
    for y, (row, dataset, d) in enumerate(lines):
        known = pd.notna(d["low"])
        error = [[max(0, d["mean"] - d["low"])], [max(0, d["high"] - d["mean"])]] if known else None
        filled = colours[row] if d["significant"] else "white"
        axes.errorbar(d["mean"], y, xerr=error, fmt="D", color=colours[row], mfc=filled, markersize=4.5, capsize=2.5)
        labels.append(f"{names[row]}, {dataset}" if len(sides) > 1 else names[row])
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(lines)), labels)
    what = "itself without attention" if twins else names[rows[0]]
    axes.set(xlabel=f"Dice minus that of {what} (filled: significant)", ylim=(len(lines) - 0.5, -0.5))
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    return save_figure(figure, folder, "twins" if twins else "differences")[0]


def cost_plot(sides: Sequence[Side], rows: Sequence[str], folder: Path) -> Path | None:
    """Mean Dice against epoch time, one panel for each dataset."""
    shown = [side for side in sides if side.cost.epoch_seconds.notna().sum() >= 2]
    if not shown:
        return None
    colours, names = row_colours(rows), short_names(rows)
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.8 * columns + 0.4, 2.5 * lines))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, side in zip(panels, shown, strict=False):
        dice = side.results[side.results.metric == RANKED].set_index("row")
        for c in side.cost.itertuples():
            if pd.notna(c.epoch_seconds):
                axes.plot(c.epoch_seconds, dice.loc[c.row]["mean"], "o", color=colours[c.row], label=names[c.row])
        axes.set(title=side.name, xlabel="seconds per epoch", ylabel="mean Dice")
        axes.set_xlim(left=0)
        axes.grid(color="#dddddd", linewidth=0.6)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    place: dict[str, Any] = dict(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(4, len(handles)))
    figure.legend(list(handles.values()), list(handles), fontsize=8, frameon=False, **place)
    figure.tight_layout()
    return save_figure(figure, folder, "dice_against_time")[0]
