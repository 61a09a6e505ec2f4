"""The output of ``nnunet-attn maps``: figures, volumes, tables, and one page that shows all of them."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_attn.errors import UserError
from nnunet_attn.export.description import check_exportable, describe
from nnunet_attn.export.export import OPSET
from nnunet_attn.export.predict import find_cases, write_volume
from nnunet_attn.files import complete_folder
from nnunet_attn.maps.figure import draw_case
from nnunet_attn.maps.tables import COLUMNS, means_of, numbers_of, regions_of
from nnunet_attn.maps.volume import CaseMaps, from_preprocessed, map_case
from nnunet_attn.report.document import Block, Heading, Picture, Table, Text, to_html
from nnunet_attn.report.tables import cell_number
from nnunet_attn.training.trained_model import TrainedModel, read_model

NOTE = (
    "The prediction and its maps are made without mirroring, so that a map belongs to a single forward pass. Borders "
    "are those of the prediction, one voxel wide within slices. Weights of attention say what a layer reads, not what "
    "the decision depends on."
)
FINER = "weight of finer entries"
SUBTRACTED_IN = ("background", "inside", "border")  # regions of all classes together


def class_names(model: TrainedModel) -> dict[int, str]:
    """Foreground labels by value; for regions, the labels that they consist of."""
    names: dict[int, str] = {}
    for name, value in model.dataset_json["labels"].items():
        for part in value if isinstance(value, list) else [value]:
            names.setdefault(int(part), name if not isinstance(value, list) else f"label {part}")
            if not isinstance(value, list):
                names[int(part)] = name
    return {value: name for value, name in names.items() if value != 0}


def nifti_geometry(geometry: Mapping) -> dict:
    """The geometry for writing a map with ITK; pictures get voxel size 1.

    Nibabel's axes point right, anterior and superior (RAS), those of ITK left, posterior and superior (LPS).
    """
    if "affine" in geometry:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry["affine"]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        direction = affine[:3, :3] / spacing
        return {"spacing": spacing.tolist(), "origin": affine[:3, 3].tolist(), "direction": direction.ravel().tolist()}
    if "spacing" not in geometry:
        return {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": tuple(np.eye(3).ravel())}
    return dict(geometry)


def file_name(layer: str, name: str) -> str:
    return re.sub(r"[^\w.#-]+", "_", f"{layer}__{name}").strip("_") + ".nii.gz"


def write_case(case: str, found: CaseMaps, model: TrainedModel, content: dict, folder: Path, volumes: bool) -> list:
    """Write the volumes of one case and return its table rows. Maps are resampled one by one, to save memory."""
    covered = from_preprocessed(found.covered.astype(np.float32), found.back, content) > 0.5
    regions = regions_of(found.labels, class_names(model), covered)
    rows = list(numbers_of(case, found))
    geometry = nifti_geometry(found.geometry)
    if volumes:
        (folder / case).mkdir()
        write_volume(found.labels, folder / case / "prediction.nii.gz", geometry)
    everything = {("", "uncertainty"): found.uncertainty, **found.pixel}
    for key, values in everything.items():
        whole = from_preprocessed(values, found.back, content)
        rows += means_of(case, key, whole, regions)
        if volumes:
            write_volume(whole, folder / case / file_name(*key), geometry)
    return rows


def mean_over_voxels(rows: Sequence[tuple], layer: str, name: str, regions: Collection[str]) -> float | None:
    """Mean of a map over the voxels of some regions in all cases; None if there are none."""
    part = [(row[4], row[5]) for row in rows if row[1:3] == (layer, name) and row[3] in regions]
    voxels = sum(n for n, _ in part)
    return sum(n * v for n, v in part) / voxels if voxels else None


def border_table(rows: Sequence[tuple]) -> list[Block]:
    """Share of the weights on finer entries, by layer and region, to check the paper's claim about borders."""
    found = [row for row in rows if row[2] == FINER]
    if not any(row[5] for row in found):
        return []
    regions = list(dict.fromkeys(row[3] for row in found))
    layers = [layer for layer in dict.fromkeys(row[1] for row in found) if any(r[5] for r in found if r[1] == layer)]
    body = [
        [layer, *(cell_number(mean_over_voxels(found, layer, FINER, [region]), 3) for region in regions)]
        for layer in layers
    ]
    caption = "Share of the weights on entries of higher resolution than the layer's own, mean over voxels of all cases"
    text = (
        "XAttnRes claims that borders read high-resolution features: then the columns of borders hold larger numbers "
        "than those of insides and background."
    )
    return [Heading("What borders read"), Text(text), Table(["layer", *regions], body, caption)]


def lambda_table(rows: Sequence[tuple]) -> list[Block]:
    """Lambda, and how much the subtraction removes, by layer, to check the paper's claim about noise."""
    values = {row[1]: row[5] for row in rows if row[2] == "lambda"}
    if not values:
        return []
    regions = {row[3] for row in rows}
    kinds = [[region for region in regions if region.split()[-1:] == [kind]] for kind in SUBTRACTED_IN]
    columns = [("removed", regions), *(("removed", kind) for kind in kinds), ("negative", regions)]
    body = [
        [layer, cell_number(value, 3), *(cell_number(mean_over_voxels(rows, layer, *column), 3) for column in columns)]
        for layer, value in values.items()
    ]
    text = (
        "Removed: the share of the first softmax map that the subtraction takes, sum of min(A1, lambda A2); if it is "
        "noise that is subtracted, the background loses another share than the classes. Negative: what the subtraction "
        "takes beyond, sum of max(lambda A2 - A1, 0). Means over voxels of all cases and over heads."
    )
    header = ["layer", "lambda", "removed", *(f"removed, {region}" for region in SUBTRACTED_IN), "negative"]
    return [Heading("What the subtraction removes"), Text(text), Table(header, body)]


def read_rows(path: Path) -> list[tuple]:
    """The rows of a ``maps.csv``."""
    with path.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return [(*row[:4], int(row[4]) if row[4] else "", float(row[5])) for row in rows]


def drawn_layers(found: CaseMaps, patterns: Sequence[str] | None) -> list[str] | None:
    """The layers that match a pattern; None if there are no patterns.

    Raises:
        UserError: no layer matches.
    """
    if patterns is None:
        return None
    layers = [layer for layer in found.marked if any(fnmatch(layer, pattern) for pattern in patterns)]
    if not layers:
        raise UserError(f"no layer matches {' '.join(patterns)}; the layers are {', '.join(found.marked)}")
    return layers


def write_maps(
    model_folder: Path,
    images: Sequence[Path],
    output: Path,
    *,
    fold: str | None = None,
    checkpoint: str = "checkpoint_final.pth",
    point: Sequence[int] | None = None,
    slice_index: int | None = None,
    layers: Sequence[str] | None = None,
    volumes: bool = True,
    overwrite: bool = False,
) -> None:
    """Write the folder ``output``, which appears once it is complete. See ``nnunet-attn maps --help``.

    Raises:
        UserError: the model or an image cannot be read, or the network has no attention.
    """
    absent = [str(path) for path in images if not path.exists()]
    if absent:
        raise UserError(f"no such file or folder: {', '.join(absent)}")
    model = read_model(model_folder, [fold] if fold else None, checkpoint)
    check_exportable(model, "is not supported by nnunet-attn maps")
    content = describe(model, {}, OPSET)
    network = model.network(next(iter(model.folds)))
    try:
        cases = find_cases(images, content["file_ending"])
    except SystemExit as error:
        raise UserError(str(error).removeprefix("predict.py: error: ")) from error
    inputs = [model_folder, *images, *(file for files in cases.values() for file in files)]
    with complete_folder(output, overwrite=overwrite, inputs=inputs) as folder:
        rows: list[tuple] = []
        pictures: list[Block] = []
        for case, files in tqdm(cases.items(), desc="cases", disable=None):
            found = map_case(network, files, content, point=point, slice_index=slice_index)
            draw_case(case, found, folder / f"{case}.png", drawn_layers(found, layers))
            rows += write_case(case, found, model, content, folder, volumes)
            pictures.append(Picture(Path(f"{case}.png"), f"{case}: the last layer of each kind", wide=True))
        with (folder / "maps.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        title = f"Attention of {model_folder.name}, fold {next(iter(model.folds))}"
        blocks: list[Block] = [Text(NOTE), *border_table(rows), *lambda_table(rows), Heading("Cases"), *pictures]
        (folder / "maps.html").write_text(to_html(title, blocks, folder), encoding="utf-8")
