"""The qualitative figure: one row per case; columns image, reference, and each method's prediction over the image."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_file
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.scoring.metrics import dice
from nnunet_attn.scoring.volumes import file_ending, read_image, read_labels

# Okabe and Ito's colours, which colour-blind readers can tell apart; beyond seven classes, matplotlib's tab20.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
LONGEST_SIDE = 1024  # of a drawn picture, in pixels
SELECTIONS = ("foreground", "disagreement")


@dataclass(frozen=True)
class Row:
    """What is drawn of one case: 2D arrays, how much taller than wide a pixel is, and its width in mm if known."""

    title: str
    picture: np.ndarray
    labels: list[np.ndarray]
    scores: list[float]
    aspect: float
    width_mm: float | None = None


def class_colours(labels: Mapping[str, int]) -> dict[str, tuple[float, float, float]]:
    """One colour per class, the same in every figure with the same classes."""
    palette = [to_rgb(c) for c in (COLOURS if len(labels) <= len(COLOURS) else colormaps["tab20"](range(20)))]
    return {name: palette[i % len(palette)] for i, name in enumerate(labels)}


def choose_slice(reference: np.ndarray, predictions: list[np.ndarray], axis: int, select: str) -> int:
    """Index along ``axis`` with the largest foreground, or with the most voxels where a prediction is wrong."""
    others = tuple(i for i in range(reference.ndim) if i != axis)
    counts = np.count_nonzero(reference, axis=others)
    if select == "disagreement":
        wrong = sum(np.count_nonzero(prediction != reference, axis=others) for prediction in predictions)
        counts = wrong if np.any(wrong) else counts
    return int(np.argmax(counts)) if np.any(counts) else len(counts) // 2


def _grey_levels(picture: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """One channel as RGB in [0, 1], windowed to intensities around the foreground (CT would have no contrast else)."""
    around = (slice(None),) * picture.ndim
    if foreground.any():
        bounds = [(i.min(), i.max() + 1) for i in np.nonzero(foreground)]
        around = tuple(slice(max(0, lo - (hi - lo) // 2), hi + (hi - lo) // 2) for lo, hi in bounds)
    low, high = np.percentile(picture[around], (0.5, 99.5))
    grey = np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(grey[..., None], 3, axis=-1)


def _mean_dice(prediction: np.ndarray, reference: np.ndarray, classes: Classes) -> float:
    values = [dice(np.isin(prediction, v), np.isin(reference, v)) for v in classes.values.values()]
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def _prepare(
    name: str, images: Sequence[Path], files: Sequence[Path], classes: Classes, select: str, channel: int
) -> Row:
    """Read one case; ``files`` are its label maps, the reference first."""
    image = read_image(images, upright=True)
    reference, *predictions = (read_labels(path, upright=True) for path in files)
    for path, volume in zip(files, (reference, *predictions), strict=True):
        if volume.array.shape != image.array.shape[1:]:
            raise UserError(f"{path} has shape {volume.array.shape}, but its image {image.array.shape[1:]}")
    if not 0 <= channel < len(image.array):
        raise UserError(f"{images[0]}: there is no channel {channel}; the image has {len(image.array)} channels")
    array, maps = image.array, [reference.array, *(p.array for p in predictions)]
    counted = maps if classes.ignore is None else [np.where(maps[0] == classes.ignore, 0, labels) for labels in maps]
    scores = [_mean_dice(prediction, counted[0], classes) for prediction in counted[1:]]

    title, spacing = name, image.spacing
    if array.ndim == 4:
        axis = int(np.argmax(spacing))  # across slices as they were acquired
        index = choose_slice(counted[0], counted[1:], axis, select)
        title += f"\nslice {index + 1} of {maps[0].shape[axis]}"
        array, maps = array.take(index, axis + 1), [labels.take(index, axis) for labels in maps]
        spacing = tuple(step for i, step in enumerate(spacing) if i != axis)
        if axis > 0:  # array rows run from foot to head; draw the head on top
            array, maps = array[:, ::-1], [labels[::-1] for labels in maps]

    coarser = (slice(None, None, max(1, -(-max(array.shape[1:]) // LONGEST_SIDE))),) * 2
    array, maps = array[(slice(None), *coarser)], [labels[coarser] for labels in maps]
    if array.shape[0] == 3 and len(images) == 1:
        picture = array.transpose(1, 2, 0) / max(255, array.max())
    else:
        picture = _grey_levels(array[channel].astype(np.float64), maps[0] > 0)
    width = spacing[1] * coarser[1].step if image.unit == "mm" else None
    return Row(title, picture, maps, scores, spacing[0] / spacing[1], width)


def pick_cases(
    cases: Sequence[str],
    references: Mapping[str, Path],
    predictions: Sequence[Mapping[str, Path]],
    classes: Classes,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """The worst, median and best case by Dice, the mean over classes and methods; case -> which.

    Args:
        cases: To choose from; those without any class in reference and predictions are left out.
        references, predictions: Files by case.
        classes: What is counted.
        advance: Called after each case.
    """
    scored = {}
    for case in cases:
        reference = read_labels(references[case]).array
        maps = [read_labels(files[case]).array for files in predictions]
        if classes.ignore is not None:
            reference, *maps = (np.where(reference == classes.ignore, 0, labels) for labels in (reference, *maps))
        values = [_mean_dice(labels, reference, classes) for labels in maps if labels.shape == reference.shape]
        if not all(np.isnan(values)):
            scored[case] = float(np.nanmean(values))
        advance()
    order = sorted(scored, key=lambda case: scored[case])
    places = {"best": -1, "median": (len(order) - 1) // 2, "worst": 0} if order else {}
    chosen = {order[place]: which for which, place in places.items()}
    return {case: chosen[case] for case in order if case in chosen}


def _scale_bar(axes: Axes, row: Row) -> None:
    """A bar of 1, 2 or 5 times a power of ten mm, at most a quarter of the picture wide."""
    if row.width_mm is None:
        return
    height, width = row.picture.shape[:2]
    longest = width * row.width_mm / 4
    unit = 10.0 ** np.floor(np.log10(longest))
    length = unit * max(factor for factor in (1, 2, 5) if factor * unit <= longest)
    x, y = 0.05 * width, 0.94 * height
    outline = [withStroke(linewidth=3, foreground="black")]
    axes.plot([x, x + length / row.width_mm], [y, y], color="white", linewidth=1.5, path_effects=outline)
    axes.text(x, y - 0.02 * height, f"{length:g} mm", color="white", fontsize=6, path_effects=outline[:1])


def _wrapped(name: str) -> str:
    """A trainer's name, wrapped into short lines after underscores and colons."""
    return textwrap.fill(re.sub(r"(?<=[_:])(?=\w)", " ", name), 25).replace("_ ", "_").replace(": ", ":")


def _draw(axes: Axes, row: Row, drawn: np.ndarray | None, labels: Mapping[str, int], colours: dict) -> None:
    picture = row.picture
    if drawn is not None:
        picture = picture.copy()
        for name, value in labels.items():
            mask = drawn == value
            picture[mask] = 0.65 * picture[mask] + 0.35 * np.array(colours[name])
    axes.imshow(picture, interpolation="nearest", aspect=row.aspect)
    if drawn is not None:
        for name, value in labels.items():
            if np.any(drawn == value):
                outline = np.pad(drawn == value, 1).astype(float)
                extent = (-1, drawn.shape[1], -1, drawn.shape[0])  # centres of the first and last pixels
                axes.contour(outline, levels=[0.5], colors=[colours[name]], linewidths=0.9, extent=extent)
        axes.set(xlim=(-0.5, drawn.shape[1] - 0.5), ylim=(drawn.shape[0] - 0.5, -0.5))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def overlay(
    cases: Sequence[tuple[Path | Sequence[Path], str]],
    columns: Mapping[str, Path | Mapping[str, Path]],
    output: Path,
    *,
    labels: Mapping[str, int],
    classes: Classes | None = None,
    titles: Mapping[str, str] | None = None,
    select: str = "foreground",
    rows: int | None = None,
    channel: int = 0,
    dpi: int = 150,
) -> Path:
    """Draw cases as rows; image, reference and each method as columns; and the mean Dice of each prediction.

    Args:
        cases: Image and name of each case; the image is one file, or one for each channel.
        columns: Label maps by column title: a folder with files named ``NAME`` + the image's ending, or the files by
            name. The first column is the reference.
        output: Picture file; its suffix sets the format.
        labels: Name and value of the classes, drawn in this order.
        titles: Words before the names of cases.
        classes: Classes that Dice is computed on, if not the drawn ones (regions, ignore label).
        select: Which slice of a volume to draw: the one with the largest foreground, or with most wrong voxels.
        rows: Largest number of rows; if there are more cases, they are picked at even distances.
        channel: Channel to show, unless the image is a colour picture.

    Returns:
        ``output``.

    Raises:
        UserError: a file is missing or does not have its image's shape.
        ValueError: an argument is out of range.
    """
    if select not in SELECTIONS:
        raise ValueError(f"select must be one of {', '.join(SELECTIONS)}, got {select!r}")
    if not cases or not columns or not labels or (rows is not None and rows < 1):
        raise ValueError(f"nothing to draw: {len(cases)} cases, {len(columns)} columns, {len(labels)} labels, {rows=}")
    if rows is not None and rows < len(cases):
        cases = [cases[i] for i in np.linspace(0, len(cases) - 1, rows).round().astype(int)]
    classes = classes or Classes({name: (value,) for name, value in labels.items()}, None, dict(labels))
    prepared = []
    for image, name in cases:
        images = [Path(image)] if isinstance(image, (str, Path)) else [Path(path) for path in image]
        ending = file_ending(images[0])
        files = [Path(c[name]) if isinstance(c, Mapping) else Path(c) / f"{name}{ending}" for c in columns.values()]
        row = _prepare(name, images, files, classes, select, channel)
        before = (titles or {}).get(name)
        prepared.append(replace(row, title=f"{before}: {row.title}") if before else row)
    colours = class_colours(labels)

    width, heights = 2.2, [2.2 * r.picture.shape[0] * r.aspect / r.picture.shape[1] for r in prepared]
    top, bottom, left = 0.55, 0.4 + 0.25 * ((len(labels) - 1) // 6), 0.45
    size = (left + width * (1 + len(columns)), top + bottom + sum(heights) + 0.22 * len(heights))
    figure = Figure(figsize=size, dpi=dpi)
    grid = figure.add_gridspec(
        len(prepared), 1 + len(columns), height_ratios=heights, wspace=0.03, hspace=0.22 / np.mean(heights),
        left=left / size[0], right=1 - 0.05 / size[0], top=1 - top / size[1], bottom=(bottom + 0.2) / size[1],
    )  # fmt: skip
    for i, row in enumerate(prepared):
        for j, name in enumerate(("image", *columns)):
            axes = figure.add_subplot(grid[i, j])
            _draw(axes, row, row.labels[j - 1] if j else None, labels, colours)
            if i == 0:
                axes.set_title(_wrapped(name), fontsize=8)
            if j == 0:
                axes.set_ylabel(row.title, fontsize=8)
                _scale_bar(axes, row)
            if j > 1:
                axes.set_xlabel(f"Dice {row.scores[j - 2]:.3f}", fontsize=8, labelpad=2)
    handles = [Patch(facecolor=colours[name], edgecolor="#555555", linewidth=0.5, label=name) for name in labels]
    figure.legend(handles=handles, loc="lower center", ncols=6, fontsize=8, frameon=False)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with complete_file(output) as temporary:
        figure.savefig(temporary)
    return output
