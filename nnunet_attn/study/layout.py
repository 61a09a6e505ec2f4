"""The folders of a study: nnU-Net's three, and the study's own."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.study.papers import PAPERS
from nnunet_attn.study.schema import DatasetChoice, Study

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SPLITS_ASIDE = ".splits_final.json.aside"  # where splits_final.json lies while plans are made


@dataclass(frozen=True)
class Layout:
    """Folders of a study.

    Attributes:
        folder: The study's own folder: markers, logs, predictions, report, and by default nnU-Net's three folders.
        raw, preprocessed, results: nnU-Net's.
    """

    folder: Path
    raw: Path
    preprocessed: Path
    results: Path

    def marker(self, job: str) -> Path:
        return self.folder / "done" / f"{job}.json"

    def state(self, job: str) -> Path:
        return self.folder / "state" / f"{job}.json"

    def log(self, job: str) -> Path:
        return self.folder / "logs" / f"{job}.log"

    def lock(self, job: str) -> Path:
        """The lock file of a job; that of a fold is in the results folder, where every study that trains it looks."""
        kind, _, rest = job.partition("/")
        if kind == "train":
            model, _, fold = rest.rpartition("/")
            return self.results / model / f".{fold}.lock"
        if kind == "predict":
            return self.folder / "locks" / f"{job}.lock"
        return self.preprocessed / f".{rest.partition('/')[0]}.lock"

    def environment(self) -> dict[str, str]:
        """nnU-Net's variables."""
        return dict(zip(VARIABLES, map(str, (self.raw, self.preprocessed, self.results)), strict=True))


def find_layout(study: Study, folder: Path | None) -> Layout:
    """The folders of a study.

    Args:
        study: The study.
        folder: Its own folder; by default one of the study's name beside the file, or, for a study of this package,
            where the command runs.

    Raises:
        UserError: ``folders: environment``, and one of nnU-Net's variables is not set.
    """
    beside = Path.cwd() if study.file.parent == PAPERS else study.file.parent
    folder = (folder or beside / study.name).resolve()
    if not study.environment:
        return Layout(folder, *(folder / name for name in VARIABLES))
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise study.document.error(
            ("folders",), f"folders: environment needs nnU-Net's variables; {', '.join(missing)} not set"
        )
    return Layout(folder, *(Path(os.environ[name]).resolve() for name in VARIABLES))


def dataset_name(study: Study, layout: Layout, choice: DatasetChoice) -> str:
    """Name of a dataset's folder, such as Dataset027_ACDC.

    Raises:
        UserError: it is in none of nnU-Net's folders and the study does not convert it, or its number occurs twice.
    """
    number = choice.dataset if isinstance(choice.dataset, int) else int(choice.dataset[7:10])
    pattern = re.compile(rf"Dataset{number:03d}_\w[\w-]*")
    roots = (layout.raw, layout.preprocessed, layout.results)
    found = sorted({p.name for root in roots for p in root.glob(f"Dataset{number:03d}_*") if pattern.fullmatch(p.name)})
    wanted = choice.dataset if isinstance(choice.dataset, str) else None
    if wanted is None and choice.convert is not None:
        wanted = f"Dataset{number:03d}_{choice.convert.name}"
    place = (*choice.place, "dataset")
    if len(found) > 1 or (found and wanted and found != [wanted]):
        expected = f", expected {wanted}" if wanted else ""
        raise study.document.error(place, f"number {number} belongs to {', '.join(found)}{expected}; nnU-Net allows "
                                   "each number only once")  # fmt: skip
    if found or (choice.convert is not None and wanted):
        return wanted or found[0]
    raise study.document.error(place, f"dataset {choice.dataset} is not in {layout.raw}; put it there, or say how it "
                               "is made with convert: {converter: ..., source: ...}")  # fmt: skip


def read_splits(study: Study, layout: Layout, choice: DatasetChoice, name: str) -> list[dict] | None:
    """The folds of a dataset, from nnU-Net's split file, else the study's, else the converter's; None if there is none.

    Raises:
        UserError: the file is not a split file, or nnU-Net has another one than the study asks for.
    """
    import json

    def read(path: Path) -> list[dict]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content = content["splits_final"] if isinstance(content, dict) else content
            folds = [{part: sorted(fold[part]) for part in ("train", "val")} for fold in content]
        except OSError as error:
            raise study.document.error((*choice.place, "splits"), f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise study.document.error((*choice.place, "splits"), f"{path} is not a split file of nnU-Net: a list of "
                                       "{train: [...], val: [...]}") from error  # fmt: skip
        if not folds:
            raise study.document.error((*choice.place, "splits"), f"{path} has no fold")
        return folds

    aside, present = (layout.preprocessed / name / file for file in (SPLITS_ASIDE, "splits_final.json"))
    if aside.is_file():
        present = aside
    wanted = read(choice.splits) if choice.splits is not None else None
    if present.is_file():
        folds = read(present)
        if wanted is not None and folds != wanted:
            raise study.document.error(
                (*choice.place, "splits"),
                f"{present} holds other folds than {choice.splits}; nnU-Net would keep using them. Leave splits out, "
                "or use another folder for the study",
            )
        return folds
    converted = layout.raw / name / "splits_final.json"
    if wanted is None and converted.is_file():
        return read(converted)
    return wanted


def check_folder(layout: Layout) -> None:
    """Raise if the path of the study's folder is a file.

    Raises:
        UserError: there is a file of that name.
    """
    if layout.folder.exists() and not layout.folder.is_dir():
        raise UserError(f"{layout.folder} is not a folder; give the study's folder with --folder")
