"""GlaS: 165 H&E pictures of colon tissue, with numbered gland instances; every numbered gland is foreground.

85 pictures are for training; the challenge's two test sets, A with 60 and B with 20, become test cases. Grade.csv,
which comes with the pictures, names the patient of each, and folds never divide a patient. (The challenge's test sets
share patients with its training set; the conversion counts them.)

Reference: Sirinukunwattana et al., Gland segmentation in colon histology images: the GlaS challenge contest, Medical
Image Analysis 35, 2017, arXiv:1603.00275.
"""

import csv
import re
import sys
from collections.abc import Sequence
from functools import partial

from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_parts
from nnunet_attn.dataset_conversion.masks import read_instances
from nnunet_attn.dataset_conversion.pairing import index, is_picture, pair
from nnunet_attn.dataset_conversion.pictures import SUFFIX, encode_pair
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

_NAME = r"(?P<id>(train|testA|testB)[\s_-]*\d+)"
_ANNO = r"[\s_-]anno(tation)?"


def discover(files: list[File]) -> Found:
    pictures = [file for file in files if is_picture(file)]
    missing: dict[str, Sequence[File]] = {}
    annotations = [file for file in pictures if re.search(_ANNO + r"\.", file.basename, re.IGNORECASE)]
    images = index([file for file in pictures if file not in annotations], _NAME + SUFFIX, "testA_57.bmp")
    masks = index(annotations, _NAME + _ANNO + SUFFIX, "testA_57_anno.bmp")
    images, masks = ({_canonical(key): file for key, file in found.items()} for found in (images, masks))
    pairs = pair(images, masks, missing, "annotation")
    tables = [file for file in files if plain(file.stem) == "grade" and file.basename.lower().endswith(".csv")]
    if len(tables) > 1:
        raise UserError(f"SOURCE holds {tables[0]} and {tables[1]}; keep one of them")
    patients = _patients(tables[0]) if tables else {}
    notes = [] if tables else ["Grade.csv is not in SOURCE: patients are unknown, and folds may divide a patient"]
    if tables and (unknown := sorted(pairs.keys() - patients.keys())):
        raise UserError(f"{tables[0]} names no patient for {unknown[0]}")
    return Found(
        "original: pictures and annotations in one folder",
        [
            Case(key, (image,), (mask,), patients.get(key, key), "train" if key.startswith("train") else "test")
            for key, (image, mask) in sorted(pairs.items())
        ],
        notes,
        kind="patient" if tables else None,
        missing=missing,
        used=tables,
    )


def _canonical(key: str) -> str:
    match = re.fullmatch(r"(train|test[ab])[\s_-]*(\d+)", key, re.IGNORECASE)
    assert match is not None  # ``index`` took the key from such a name
    part, number = match.groups()
    return f"{part[:-1].lower()}{part[-1].upper() if part.lower() != 'train' else 'n'}_{int(number)}"


def _patients(table: File) -> dict[str, str]:
    """Patient of each picture; the table's column names start with spaces."""
    rows = csv.DictReader(table.read().decode("utf-8-sig", errors="replace").splitlines(), skipinitialspace=True)
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    if not {"name", "patient id"} <= names.keys():
        raise UserError(
            f"{table} should have the columns 'name' and 'patient ID', and has {', '.join(names) or 'none'}"
        )
    patients = {}
    for row in rows:
        name, patient = ((row[names[key]] or "").strip() for key in ("name", "patient id"))
        if re.fullmatch(_NAME, name, re.IGNORECASE) and patient:
            patients[_canonical(name)] = f"patient{patient}"
    return patients


CONVERTER = Converter(
    key="glas",
    channels=("R", "G", "B"),
    labels=("gland",),
    file_ending=".png",
    discover=discover,
    encode=partial(encode_pair, read=read_instances),
    splits={"official": split_by_parts(train=(85,), test=(80,))},
)
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("glas"))
