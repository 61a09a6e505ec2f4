"""The figure of one case: the marked voxel, then the maps of each kind of layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_attn.blocks.recording import Maps
from nnunet_attn.files import complete_file
from nnunet_attn.maps.volume import CaseMaps

READ = "weight of "
COLUMNS = 5
INCHES = 2.1  # of a panel
Panel = tuple[str, str, Any]  # kind, title, values


def one_of_each_kind(layers: dict[str, Maps]) -> list[str]:
    """The last layer of each kind; layers are of one kind if their maps have the same names and sizes."""
    kinds = {}
    for layer, maps in layers.items():
        groups = (maps.pixel, maps.marked, maps.channel, maps.matrix)
        kinds[tuple((name, tuple(t.shape)) for group in groups for name, t in group.items())] = layer
    return [layer for layer in layers if layer in kinds.values()]


def plane_of(values: np.ndarray, index: Sequence[int]) -> np.ndarray:
    """The slice of a 3D array that contains ``index``; a 2D array unchanged."""
    return values if values.ndim == 2 else values[index[0]]


def window(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.clip((picture - low) / max(high - low, 1e-6), 0, 1)


def fitting(title: str) -> int:
    """Size of the letters of a title, smaller where a layer's name is long."""
    return 7 if max(map(len, title.splitlines())) < 30 else 6


def clean(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=fitting(title))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def cross(axes: Axes, place: Sequence[float]) -> None:
    """Mark (row, column)."""
    axes.plot(place[1], place[0], "+", color="#E69F00", markersize=8, markeredgewidth=1.5)


def draw_case(case: str, found: CaseMaps, output: Path, layers: Sequence[str] | None = None, dpi: int = 130) -> None:
    """Draw one case.

    Args:
        case: Its name.
        found: Its maps.
        output: The picture to write.
        layers: Layers to draw, each head separately; None: the last layer of each kind, averaged over heads.
        dpi: Resolution.
    """
    groups = []
    for layer in one_of_each_kind(found.marked) if layers is None else layers:
        groups.append((layer, panels_of(layer, found)))
        groups += [] if layers is None else heads_of(layer, found)
    columns = max(4, *(len(panels) for _, panels in groups))
    rows = packed(groups, columns)
    figure = Figure(figsize=(INCHES * columns, INCHES * (len(rows) + 1)), layout="constrained")
    grid = figure.subplots(len(rows) + 1, columns, squeeze=False)
    draw_head(case, found, grid[0])
    for axes, panels in zip(grid[1:], rows, strict=True):
        for place, (kind, title, values) in zip(axes, panels, strict=False):
            draw_panel(place, kind, title, values, found)
        for place in axes[len(panels) :]:
            place.axis("off")
    with complete_file(output) as temporary:
        figure.savefig(temporary, dpi=dpi)


def packed(groups: Sequence[tuple[str, list[Panel]]], columns: int) -> list[list[Panel]]:
    """Rows of panels: layers stand side by side where they fit, each with its name above its first panel."""
    rows: list[list[Panel]] = [[]]
    for layer, panels in groups:
        if len(rows[-1]) + len(panels) > columns:
            rows.append([])
        for number, (kind, title, values) in enumerate(panels):
            rows[-1].append((kind, f"{'' if number else layer}\n{title}", values))
    return rows


def draw_head(case: str, found: CaseMaps, axes: Sequence[Axes]) -> None:
    """The image, the prediction and its uncertainty, and the tile around the marked voxel."""
    picture, place = window(plane_of(found.image[0], found.point)), found.point[1:]
    decision = plane_of(found.decision, found.point)
    titles = ("{}, {} = {}".format(case, *found.plane), "prediction", "its uncertainty")
    for panel, title in zip(axes, titles, strict=False):
        panel.imshow(picture, cmap="gray")
        cross(panel, place)
        clean(panel, title)
    for number, label in enumerate(np.unique(decision[decision > 0])):
        axes[1].contour(decision == label, levels=[0.5], colors=[colormaps["tab10"](number)], linewidths=0.8)
    axes[2].imshow(plane_of(found.uncertainty, found.point), cmap="magma", vmin=0, vmax=1)
    cross(axes[2], place)
    _, inside = found.tile
    axes[3].imshow(window(plane_of(found.tile_image[0], inside)), cmap="gray")
    cross(axes[3], inside[-2:])
    clean(axes[3], "the tile around the marked voxel")
    for rest in axes[4:]:
        rest.axis("off")


def heads_of(layer: str, found: CaseMaps) -> list[tuple[str, list[Panel]]]:
    """Panels of the single heads, ``COLUMNS`` in a row."""
    rows = []
    for name, attention in found.marked[layer].marked.items():
        kind = "signed" if attention.min() < 0 else "attention"
        heads = [(head.float().numpy(), found.marked[layer].reach) for head in attention[0]]
        panels = [(kind, f"{name}, head {i}", head) for i, head in enumerate(heads, start=1)]
        if len(panels) > 1:
            rows += [(f"{layer}, heads", panels[i : i + COLUMNS]) for i in range(0, len(panels), COLUMNS)]
    return rows


def panels_of(layer: str, found: CaseMaps) -> list[Panel]:
    """Kind, title and values of the panels of a layer, at most ``COLUMNS``."""
    maps = found.marked[layer]
    panels: list[Panel] = []
    for name, attention in maps.marked.items():
        mean = attention[0].float().mean(0).numpy()
        kind = "signed" if mean.min() < 0 else "attention"
        heads = attention.shape[1]
        panels.append((kind, f"{name}, mean of {heads} heads" if heads > 1 else name, (mean, maps.reach)))
    read = {n.removeprefix(READ): found.pixel[layer, n] for n in maps.pixel if n.startswith((f"{READ}x", f"{READ}h"))}
    if read:
        stack = np.stack([plane_of(values, found.point) for values in read.values()])
        panels.append(("read", "entry that is read most", (list(read), stack.argmax(0))))
    others = [name for name in maps.pixel if name.removeprefix(READ) not in read]
    panels += [("pixel", name, plane_of(found.pixel[layer, name], found.point)) for name in others]
    panels += [
        ("matrix", f"{name}: channels (down), channels read", m[0].float().numpy()) for name, m in maps.matrix.items()
    ]
    panels += [("channel", name, values[0].float().numpy()) for name, values in maps.channel.items()]
    if maps.numbers:
        kind, title, values = panels[-1]
        panels[-1] = (kind, f"{title}; " + ", ".join(f"{n} = {v:.2f}" for n, v in maps.numbers.items()), values)
    return panels[:COLUMNS]


def draw_panel(axes: Axes, kind: str, title: str, values: Any, found: CaseMaps) -> None:
    """Draw one panel; attention is drawn over the tile's image."""
    _, inside = found.tile
    if kind in ("attention", "signed"):
        tile = window(plane_of(found.tile_image[0], inside))
        values, reach = values
        extent = [r * n for r, n in zip(reach or [1] * len(found.padded), found.padded, strict=True)]  # in voxels
        if values.ndim == 3:  # the slice of the keys that contains the marked voxel
            values = values[min(int((inside[0] + 0.5) * len(values) / extent[0]), len(values) - 1)]
        signed, limit = kind == "signed", max(float(np.abs(values).max()), 1e-12)
        axes.imshow(tile, cmap="gray")
        axes.imshow(
            values, cmap="RdBu_r" if signed else "viridis", vmin=-limit if signed else 0, vmax=limit, alpha=0.65,
            extent=(-0.5, extent[-1] - 0.5, extent[-2] - 0.5, -0.5), interpolation="nearest",
        )  # fmt: skip
        axes.set(xlim=(-0.5, tile.shape[1] - 0.5), ylim=(tile.shape[0] - 0.5, -0.5))
        cross(axes, inside[-2:])
    elif kind == "read":
        names, most = values
        palette = ListedColormap([colormaps["tab20"](i) for i in range(len(names))])
        axes.imshow(most, cmap=palette, vmin=-0.5, vmax=len(names) - 0.5, interpolation="nearest")
        present = [i for i in range(len(names)) if (most == i).any()]
        axes.legend(
            handles=[Patch(color=palette(i), label=names[i]) for i in present], fontsize=5, loc="upper left",
            bbox_to_anchor=(1.0, 1.0), handlelength=0.8, borderpad=0.2, labelspacing=0.2, frameon=False,
        )  # fmt: skip
    elif kind == "pixel":
        shown = axes.imshow(np.asarray(values, np.float32), cmap="viridis")
        axes.figure.colorbar(shown, ax=axes, shrink=0.7).ax.tick_params(labelsize=5)
    elif kind == "matrix":
        axes.imshow(values, cmap="viridis", aspect="auto", interpolation="nearest")
    else:
        axes.plot(np.sort(values), linewidth=0.8)
        axes.set_ylim(-0.02, max(1.02, float(values.max())))
        axes.tick_params(labelsize=5)
        axes.set_title(f"{title}, sorted", fontsize=fitting(title))
        return
    clean(axes, title)
