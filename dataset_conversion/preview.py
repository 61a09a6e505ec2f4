"""A contact sheet: up to 16 cases with the outlines of their labels, to check a conversion at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from nnunet_attn.dataset_conversion.case_work import Result
from nnunet_attn.dataset_conversion.summary import results_size

MOST, COLUMNS, TILE, LINE = 16, 4, 256, 14
COLOURS = (
    (0, 255, 0), (255, 64, 64), (64, 160, 255), (255, 220, 0), (255, 0, 255), (0, 255, 255), (255, 140, 0),
    (170, 110, 255), (255, 255, 255), (0, 160, 80), (255, 160, 200), (150, 150, 0), (120, 200, 160),
)  # fmt: skip


def choose(results: Sequence[Result], most: int = MOST) -> list[tuple[Result, str]]:
    """Cases to show, with remarks: smallest and largest structure, an empty case, and others spread over sizes."""
    structures = sorted(
        (count, result.case.name, value)
        for result in results
        for value, count in result.pixels.items()
        if value and count
    )
    by_name = {result.case.name: result for result in results}
    chosen = {}
    if structures:
        chosen[structures[0][1]] = "smallest structure"
        chosen.setdefault(structures[-1][1], "largest structure")
    for result in results:
        if result.label is not None and not any(result.pixels.get(value) for value in result.pixels if value):
            chosen.setdefault(result.case.name, "no structure")
            break
    rest = [name for name in dict.fromkeys(name for _, name, _ in structures) if name not in chosen]
    rest += [name for name in by_name if name not in chosen and name not in rest]
    free = min(most - len(chosen), len(rest))
    chosen |= {rest[int(i * len(rest) / free)]: "" for i in range(free)}
    return [(by_name[name], remark) for name, remark in chosen.items()]


def write_preview(folder: Path, results: Sequence[Result], labels: Mapping[str, int]) -> None:
    """Write ``preview.png`` into the dataset's folder, with the labels' names in their colours."""
    shown = choose(results)
    if not shown:
        return
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    height = TILE + 2 * LINE
    legend = LINE * -(-sum(value > 0 for value in labels.values()) // columns)
    sheet = Image.new("RGB", (columns * (TILE + 4), rows * (height + 4) + legend), (32, 32, 32))
    draw = ImageDraw.Draw(sheet)
    for i, (name, value) in enumerate((name, value) for name, value in labels.items() if value):
        place = ((i % columns) * (TILE + 4) + 2, rows * (height + 4) + LINE * (i // columns))
        draw.text(place, _fit(name), COLOURS[(value - 1) % len(COLOURS)])
    for i, (result, remark) in enumerate(shown):
        x, y = (i % columns) * (TILE + 4), (i // columns) * (height + 4)
        tile = _tile(folder, result)
        sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
        draw.text((x + 2, y + TILE), _fit(result.case.name), (255, 255, 255))
        facts = [results_size(result.shape), result.case.part, remark]
        draw.text((x + 2, y + TILE + LINE), _fit(", ".join(filter(None, facts))), (170, 170, 170))
    sheet.save(folder / "preview.png")


def _fit(text: str) -> str:
    return text if len(text) <= 40 else text[:18] + "..." + text[-19:]


def _tile(folder: Path, result: Result) -> Image.Image:
    image, label = _slice(folder, result)
    scale = TILE / max(image.size)
    size = max(1, round(image.size[0] * scale)), max(1, round(image.size[1] * scale))
    tile = np.array(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    if label is None:
        return Image.fromarray(tile)
    for value in np.unique(label[label > 0]):
        mask = Image.fromarray((label == value) * np.uint8(255))
        small = np.asarray(mask.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST))
        inside = small > 127
        if not inside.any():  # a structure smaller than a pixel of the sheet
            rows, columns = np.nonzero(label == value)
            inside = np.zeros_like(inside)
            places = [
                (at * scale).astype(int).clip(max=n - 1) for at, n in zip((rows, columns), inside.shape, strict=True)
            ]
            inside[tuple(places)] = True
        outline = ndimage.binary_dilation(inside) & ~inside
        tile[outline] = COLOURS[(int(value) - 1) % len(COLOURS)]
    return Image.fromarray(tile)


def _slice(folder: Path, result: Result) -> tuple[Image.Image, np.ndarray | None]:
    """A picture and its labels; of a volume, the slice with most foreground."""
    if result.image.endswith(".png"):
        with Image.open(folder / result.image) as picture:
            picture.load()
            image = _grey(np.asarray(picture)) if picture.mode.startswith("I") else picture
        image = image if image.mode == "RGB" else image.convert("RGB")
        label = None if result.label is None else np.asarray(Image.open(folder / result.label))
        return image, label
    array = np.asanyarray(nib.Nifti1Image.from_filename(folder / result.image).dataobj)
    array = array.reshape(*array.shape[:3])
    depth, label = array.shape[-1] // 2, None
    if result.label is not None:
        labels = np.asanyarray(nib.Nifti1Image.from_filename(folder / result.label).dataobj).reshape(array.shape)
        depth = int((labels > 0).sum((0, 1)).argmax()) if (labels > 0).any() else depth
        label = labels[..., depth].T.astype(np.int64)
    return _grey(array[..., depth].T), label


def _grey(array: np.ndarray) -> Image.Image:
    low, high = np.percentile(array, (1, 99))
    scaled = np.clip((array - low) / max(high - low, 1e-9), 0, 1) * 255
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
