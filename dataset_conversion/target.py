"""The dataset's folder in nnU-Net's raw folder: its path, conflicts with existing data, and its stored records."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_attn.errors import UserError


def target_folder(
    name: str, dataset_id: int, raw_folder: Path | None, preprocessed_folder: Path | None
) -> tuple[Path, Path | None]:
    """The dataset's folder, and nnU-Net's preprocessed folder if it is known.

    Raises:
        UserError: ``nnUNet_raw`` is not set, or number or name is not valid for nnU-Net.
    """
    if not 1 <= dataset_id <= 999:
        raise UserError(f"DATASET_ID must be between 1 and 999, got {dataset_id}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"--name may hold letters, digits, - and _ only, got {name!r}")
    results: str | None = None
    if raw_folder is None:
        if not os.environ.get("nnUNet_raw"):
            raise UserError(
                "the environment variable nnUNet_raw is not set; set it to nnU-Net's folder of raw datasets"
            )
        raw_folder = Path(os.environ["nnUNet_raw"])
        if preprocessed_folder is None and os.environ.get("nnUNet_preprocessed"):
            preprocessed_folder = Path(os.environ["nnUNet_preprocessed"])
        results = os.environ.get("nnUNet_results")
    target = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    for folder in [str(f) for f in (raw_folder, preprocessed_folder, results) if f]:
        for other in sorted(Path(folder).glob(f"Dataset{dataset_id:03d}*")):
            if other.name != target.name:
                raise UserError(
                    f"{other} already has the number {dataset_id}, which nnU-Net allows only once; "
                    f"choose another DATASET_ID, or give --name {other.name[11:]}"
                )
    return target, Path(preprocessed_folder) if preprocessed_folder else None


def refuse_other_folds(path: Path, folds: list[dict[str, list[str]]]) -> None:
    if not path.is_file():
        return
    try:
        older = [{part: sorted(fold[part]) for part in ("train", "val")} for fold in json.loads(path.read_text())]
    except (ValueError, KeyError, TypeError):
        older = None
    if older != folds:
        raise UserError(
            f"{path} holds other folds than this conversion, and nnU-Net would keep using them. "
            f"Remove that file's folder, or choose another DATASET_ID"
        )


def read_record(folder: Path) -> dict:
    """The record of the conversion in dataset.json.

    Raises:
        UserError: There is no complete conversion.
    """
    try:
        return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["conversion"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} was not converted by this package ({error})") from error


def read_manifest(folder: Path) -> dict:
    """The checksums of a conversion, case by case.

    Raises:
        UserError: The manifest is missing or damaged.
    """
    path = folder / "manifest.json"
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        for case in cases.values():
            len(case["inputs"]), case["outputs"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); convert again with --overwrite") from error
    return cases


@contextmanager
def one_line(target: Path, *, kept: str = "; nothing was kept") -> Iterator[None]:
    """Turn errors of the operating system into one line.

    Raises:
        UserError: A file could not be read or written, or a disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = Path(error.filename).parent if error.filename else target
            raise UserError(f"no space left for {target}{kept}; {where} is full: free some and start again") from error
        raise UserError(f"{error}{kept}") from error
