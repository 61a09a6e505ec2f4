"""Find predictions, references and dataset.json, in plain folders and in nnU-Net's own layout."""

import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.scoring.volumes import ENDINGS, file_ending

DATASET = re.compile(r"Dataset\d{3}_.+")


@dataclass(frozen=True)
class TrainedModel:
    """A folder ``RESULTS/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION`` and those of its folds that a path names."""

    folder: Path
    folds: tuple[str, ...]

    @property
    def dataset(self) -> str:
        return self.folder.parent.name

    @property
    def trainer(self) -> str:
        return self.folder.name.split("__")[0]

    def validation(self, fold: str) -> Path:
        return self.folder / f"fold_{fold}" / "validation"


def folds_in(folder: Path) -> tuple[str, ...]:
    """Names of the folds in a model's folder, numbers first."""
    names = (path.name.removeprefix("fold_") for path in folder.glob("fold_*") if path.is_dir())
    return tuple(sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def seen(path: Path) -> Path:
    """The absolute path in the user's terms: symbolic links (say, to a large disk) are not resolved.

    A relative path starts at the shell's ``PWD``, if that is the working folder.
    """
    shell = os.environ.get("PWD")
    start = Path(shell) if shell and os.path.isdir(shell) and os.path.samefile(shell, os.curdir) else Path.cwd()
    return Path(os.path.normpath(start / path))


def find_trained_model(path: Path) -> TrainedModel | None:
    """The trained model that a path names by its folder, a fold, or a fold's validation; None for other folders."""
    found = _model_at(seen(path))
    if found is None or not DATASET.fullmatch(found.dataset):  # the path is a link of another name to the folder
        resolved = _model_at(path.resolve())
        return resolved if resolved is not None and DATASET.fullmatch(resolved.dataset) else found
    return found


def _model_at(path: Path) -> TrainedModel | None:
    if path.name == "validation" and path.parent.name.startswith("fold_"):
        path = path.parent
    if path.name.startswith("fold_"):
        return TrainedModel(path.parent, (path.name.removeprefix("fold_"),))
    folds = folds_in(path)
    return TrainedModel(path, folds) if folds else None


def nnunet_folder(variable: str, dataset: str) -> Path | None:
    """A dataset's folder in one of nnU-Net's three folders; None if the variable or the folder is missing."""
    root = os.environ.get(variable)
    folder = Path(root) / dataset if root else None
    return folder if folder is not None and folder.is_dir() else None


def find_references(dataset: str) -> Path:
    """Folder of the reference segmentations that nnU-Net itself validates a dataset's training cases with.

    Raises:
        UserError: there are none in nnU-Net's folders.
    """
    for variable, name in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        folder = nnunet_folder(variable, dataset)
        if folder is not None and (folder / name).is_dir():
            return folder / name
    raise UserError(
        f"no reference segmentations of {dataset}: neither nnUNet_preprocessed/{dataset}/gt_segmentations nor "
        f"nnUNet_raw/{dataset}/labelsTr was found; set nnU-Net's variables, or give the folder"
    )


def find_splits(dataset: str) -> list[dict] | None:
    """Content of nnUNet_preprocessed/DATASET/splits_final.json; None if it does not exist."""
    folder = nnunet_folder("nnUNet_preprocessed", dataset)
    path = folder / "splits_final.json" if folder is not None else None
    return json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else None


def find_dataset(identifier: str) -> str:
    """Name of a dataset's folder, from its number or name as in nnU-Net's commands.

    Raises:
        UserError: no folder or several are found.
    """
    variables = ("nnUNet_results", "nnUNet_preprocessed", "nnUNet_raw")
    roots = [Path(os.environ[name]) for name in variables if os.environ.get(name)]
    if not roots:
        raise UserError(f"none of nnU-Net's variables {', '.join(variables)} is set")
    pattern = f"Dataset{int(identifier):03d}_*" if identifier.isdigit() else identifier
    found = sorted({path.name for root in roots for path in root.glob(pattern) if path.is_dir()})
    if len(found) != 1:
        what = f"several: {', '.join(found)}" if found else "none"
        raise UserError(f"dataset {identifier}: looked for {pattern} in {', '.join(map(str, roots))} and found {what}")
    return found[0]


def find_dataset_json(*folders: Path) -> Path | None:
    """The first dataset.json in the folders or up to two levels above them."""
    candidates = (
        level / "dataset.json"
        for folder in folders
        for level in (folder, *seen(folder).parents[:2], *folder.resolve().parents[:2])
    )
    return next((path for path in candidates if path.is_file()), None)


def files_by_case(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """The label maps of a folder by case name; all must have the same file ending.

    Raises:
        UserError: the folder does not exist, holds no label map, or label maps of several endings.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    files = sorted(path for path in folder.iterdir() if file_ending(path) and not path.name.startswith("."))
    endings = {e for path in files if (e := file_ending(path))} if ending is None else {ending}
    if not endings:
        raise UserError(f"{folder} holds no label maps ({', '.join(ENDINGS)})")
    if len(endings) > 1:
        raise UserError(f"{folder} holds files of several endings ({', '.join(sorted(endings))}); give --dataset-json")
    (ending,) = endings
    cases = {path.name[: -len(ending)]: path for path in files if path.name.lower().endswith(ending)}
    if not cases:
        raise UserError(f"{folder} holds no file that ends in {ending}")
    return cases


def predicted_files(path: Path, ending: str | None = None) -> dict[str, Path]:
    """Prediction files by case, from a plain folder or from all validated folds of a trained model."""
    model = find_trained_model(path)
    if model is None:
        return files_by_case(path, ending)
    folds = [files_by_case(model.validation(fold), ending) for fold in model.folds if model.validation(fold).is_dir()]
    if not folds:
        raise UserError(f"no fold of {model.folder} has been validated")
    return {case: file for files in folds for case, file in files.items()}


def image_files(folder: Path, case: str) -> list[Path]:
    """The channel files ``CASE_0000.ext``, ``CASE_0001.ext``, ... of a case.

    Raises:
        UserError: there are none.
    """
    for ending in ENDINGS:
        channels = (folder / f"{case}_{i:04d}{ending}" for i in itertools.count())
        files = list(itertools.takewhile(Path.is_file, channels))
        if files:
            return files
    raise UserError(f"{folder} holds no image {case}_0000 with one of the endings {', '.join(ENDINGS)}")
