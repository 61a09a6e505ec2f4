"""MoNuSeg: H&E tiles of 1000x1000 from several organs, with outlines of all nuclei; nucleus is 1.

The training set was released with 30 tiles and is distributed with 37 today; the challenge's 14 test tiles become test
cases. Outlines are Aperio XML: Annotation/Regions/Region/Vertices/Vertex with X and Y. Whole numbers are taken as
centres of pixels, as scikit-image does (our choice; the other convention moves outlines by half a pixel), outlines are
cut at the tile's edge, and touching nuclei merge. Tiles of a patient (the first three parts of a TCGA name) stay
together.

Reference: Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology,
IEEE TMI 36(7), 2017; Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39(5), 2020.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import PurePosixPath

import numpy as np
from skimage.draw import polygon

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_parts
from nnunet_attn.dataset_conversion.pairing import index, pair
from nnunet_attn.dataset_conversion.pictures import encode_with_label, open_picture
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.errors import UserError


def discover(files: list[File]) -> Found:
    parts = {"train": ([], []), "test": ([], [])}
    for file in files:
        suffix = PurePosixPath(file.name).suffix.lower()
        if suffix in (".tif", ".tiff", ".xml"):
            parts[_part(file)][suffix == ".xml"].append(file)
    cases = []
    for part, (images, outlines) in parts.items():
        pairs = pair(
            index(images, r"(?P<id>TCGA-[\w-]+)\.tiff?", "TCGA-18-5592-01Z-00-DX1.tif"),
            index(outlines, r"(?P<id>TCGA-[\w-]+)\.xml", "TCGA-18-5592-01Z-00-DX1.xml"),
            "outline file",
        )
        cases += [Case(key, (i,), (o,), key[:12].upper(), part) for key, (i, o) in sorted(pairs.items())]
    return Found(
        "original: training tiles and outlines in two folders, test tiles and outlines in one", cases, kind="patient"
    )


def _part(file: File) -> str:
    """Training: ``Tissue Images`` and ``Annotations``; test: both kinds in one folder, or folders below a test's."""
    folder = PurePosixPath(file.parent)
    above = str(folder.parent).lower()
    if folder.name.lower() in ("tissue images", "annotations"):
        return "test" if "test" in above else "train"
    if "train" in file.parent.lower():
        raise UserError(
            f"{file} is neither in 'Tissue Images' nor in 'Annotations' (training) nor in a folder of test tiles"
        )
    return "test"


def rasterise(content: Content, shape: tuple[int, int]) -> tuple[np.ndarray, Counter[str]]:
    """Outlines as a label map of ``shape``.

    Raises:
        UserError: The file is no Aperio XML with outlines, or an outline lies outside the tile.
    """
    try:
        regions = ElementTree.fromstring(content.data).findall(".//Regions/Region")
    except ElementTree.ParseError as error:
        raise UserError(f"{content} is not a complete XML file ({error}); download it again") from error
    if not regions:
        raise UserError(f"{content} holds no outlines (Annotation/Regions/Region)")
    label, counts = np.zeros(shape, np.uint8), Counter()
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
    return encode_with_label(images[0], label, counts, labels[0])


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
