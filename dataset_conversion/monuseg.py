"""MoNuSeg: H&E tiles of 1000x1000 from several organs, with outlines of all nuclei; nucleus is 1.

The training set was released with 30 tiles and is distributed with 37 today; the challenge's 14 test tiles become test
cases. Outlines are Aperio XML: Annotation/Regions/Region/Vertices/Vertex with X and Y. Whole numbers are taken
as centres of pixels, as scikit-image does (our choice; the other convention shifts outlines by half a pixel). Outlines
are cut at the tile's edge, and touching nuclei merge. Tiles of a patient (the first three parts of a TCGA name) stay
together.

Reference: Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology,
IEEE TMI 36(7), 2017; Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39(5), 2020.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from skimage.draw import polygon

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_parts
from nnunet_attn.dataset_conversion.pairing import MASKS, index, is_picture, pair
from nnunet_attn.dataset_conversion.pictures import encode_with_label, open_picture
from nnunet_attn.dataset_conversion.sources import Content, File, plain
from nnunet_attn.errors import UserError

_ID = r"(?P<id>TCGA-[\w-]+)"
# patients of the challenge's 14 test tiles, used if no folder name says which part a tile is of
TEST_PATIENTS = (
    "TCGA-2Z-A9J9", "TCGA-44-2665", "TCGA-69-7764", "TCGA-A6-6782", "TCGA-AC-A2FO", "TCGA-AO-A0J2", "TCGA-CU-A0YN",
    "TCGA-EJ-A46H", "TCGA-FG-A4MU", "TCGA-GL-6846", "TCGA-HC-7209", "TCGA-HT-8564", "TCGA-IZ-8196", "TCGA-ZF-A9R5",
)  # fmt: skip


def discover(files: list[File]) -> Found:
    tiles: list[File] = []
    outlines: list[File] = []
    unneeded: list[File] = []
    missing: dict[str, Sequence[File]] = {}
    notes: list[str] = []
    for file in files:
        suffix = PurePosixPath(file.name).suffix.lower()
        if suffix == ".xml":
            outlines.append(file)
        elif is_picture(file) or suffix in (".mat", ".npy"):
            in_masks = plain(file.folders[-1]) in MASKS | {"binarymask", "boundarie", "colormask"}
            (unneeded if in_masks or suffix not in (".tif", ".tiff", ".png") else tiles).append(file)
    cases = []
    for part in ("train", "test", None):
        images, outlined = ([f for f in found if _part(f) == part] for found in (tiles, outlines))
        pairs = pair(
            index(images, _ID + r"\.(tiff?|png)", "TCGA-18-5592-01Z-00-DX1.tif"),
            index(outlined, _ID + r"\.xml", "TCGA-18-5592-01Z-00-DX1.xml"),
            missing,
            "outline file",
        )
        for key, (image, outline) in sorted(pairs.items()):
            patient = key[:12].upper()
            listed = "test" if patient in TEST_PATIENTS else "train"
            cases.append(Case(key.upper(), (image,), (outline,), patient, part or listed))
        if part is None and pairs:
            notes.append(
                "no folder name says which part the tiles belong to; the challenge's list of test tiles was used"
            )
    drawn = _of_tiles(unneeded, [*tiles, *outlines])
    return Found(
        "tiles and outlines in two folders, or in one",
        cases,
        notes,
        kind="patient",
        missing=missing,
        unneeded={"masks drawn from the outlines": drawn},
    )


def _of_tiles(files: list[File], tiles: list[File]) -> list[File]:
    """Masks of the tiles that were drawn from the outlines. Other pictures are refused later, by ``Converter``."""
    names = tuple(tile.stem.upper() for tile in tiles)
    return [file for file in files if file.stem.upper().startswith(names)]


def _part(file: File) -> str | None:
    """The part (train or test) by the nearest folder that names it, last the source's own name."""
    for folder in reversed(file.folders):
        name = plain(folder).removeprefix("monuseg").removeprefix("2018")
        if re.fullmatch(r"(train|training)(data|set|ing|image)*", name):
            return "train"
        if re.fullmatch(r"(test|testing)(data|set|image)*", name):
            return "test"
    return None


def rasterise(content: Content, shape: tuple[int, int]) -> tuple[np.ndarray, Counter[str]]:
    """Outlines as a label map of ``shape``.

    Raises:
        UserError: The file is not an Aperio XML file with outlines, or an outline lies outside the tile.
    """
    try:
        regions = ElementTree.fromstring(content.data).findall(".//Regions/Region")
    except ElementTree.ParseError as error:
        raise UserError(f"{content} is not a complete XML file ({error}); download it again") from error
    if not regions:
        raise UserError(f"{content} holds no outlines (Annotation/Regions/Region)")
    label = np.zeros(shape, np.uint8)
    counts: Counter[str] = Counter()
    for region in regions:
        name = region.get("Id", "?")
        try:
            points = np.array([(float(v.attrib["Y"]), float(v.attrib["X"])) for v in region.iter("Vertex")])
        except (KeyError, ValueError) as error:
            raise UserError(f"{content}: a vertex of region {name} has no numbers X and Y ({error})") from error
        if region.get("NegativeROA", "0") != "0":
            raise UserError(f"{content}: region {name} is a hole (NegativeROA), which this dataset does not have")
        if len(points) < 3:
            counts["outlines of fewer than three points, left out"] += 1
            continue
        if not np.isfinite(points).all() or (points.max(0) < 0).any() or (points.min(0) > np.array(shape) - 1).any():
            raise UserError(f"{content}: region {name} lies outside the tile of {shape[1]}x{shape[0]}; the wrong file?")
        label[polygon(points[:, 0], points[:, 1], shape)] = 1
    return label, counts


def encode(images: tuple[Content, ...], labels: tuple[Content, ...]) -> Encoded:
    width, height = open_picture(images[0]).size
    label, counts = rasterise(labels[0], (height, width))
    return encode_with_label(images[0], label, labels[0], counts)


CONVERTER = Converter(
    key="monuseg",
    channels=("R", "G", "B"),
    labels=("nucleus",),
    file_ending=".png",
    discover=discover,
    encode=encode,
    splits={"official": split_by_parts(train=(30, 37), test=(14,))},
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("monuseg"))
