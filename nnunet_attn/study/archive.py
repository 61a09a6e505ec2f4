"""``study archive``: copy the small files of a study that its report needs; no checkpoints, images or predictions.

Paths in nnU-Net's three folders are written from those folders on (``nnUNet_results/Dataset...``), so that an archive
can be published without the names of a machine's folders.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from nnunet_attn.files import write_json
from nnunet_attn.study.layout import Layout
from nnunet_attn.study.markers import read_done
from nnunet_attn.study.matrix import Matrix
from nnunet_attn.study.outputs import SCORES
from nnunet_attn.study.reporting import CHANGED_FILE, STUDY_FILE, changed_since
from nnunet_attn.study.study_file import GROUP_FILES

OF_DATASET = {"raw": ("dataset.json", "manifest.json"), "preprocessed": ("dataset.json", "splits_final.json")}
OF_MODEL = ("plans.json", "dataset.json", "dataset_fingerprint.json")
SUMMARY = "validation/summary.json"
OF_FOLD = (
    "debug.json",
    "nnunet_attn_run.json",
    SCORES,
    str(Path(SCORES).with_suffix(".json")),
    SUMMARY,
)
LOGS = "training_log_*.txt"


def archived_files(matrix: Matrix) -> Iterable[tuple[Path, str]]:
    """The files to archive, with their paths in the archive; of trainings that have been validated."""
    layout: Layout = matrix.layout
    for name in matrix.names:
        for part, files in OF_DATASET.items():
            root = getattr(layout, part)
            for file in files:
                yield root / name / file, f"nnUNet_{part}/{name}/{file}"
        for path in sorted((layout.preprocessed / name).glob("*.json")):
            if path.name not in OF_DATASET["preprocessed"]:
                yield path, f"nnUNet_preprocessed/{name}/{path.name}"
    for job in matrix.trainings:
        fold = layout.results / job.id.partition("/")[2]
        if not (fold / SUMMARY).is_file():
            continue
        place = f"nnUNet_results/{job.id.partition('/')[2]}"
        for file in OF_MODEL:
            yield fold.parent / file, f"{place.rpartition('/')[0]}/{file}"
        for file in (*OF_FOLD, *(path.name for path in fold.glob(LOGS))):
            yield fold / file, f"{place}/{file}"


def write_archive(matrix: Matrix, folder: Path) -> int:
    """Copy the files into an empty folder; returns their number. Files that do not exist yet are left out."""
    shutil.copyfile(matrix.study.file, folder / STUDY_FILE)
    groups = str(matrix.study.report.get("groups", ""))
    if groups.lower().endswith(GROUP_FILES):
        shutil.copyfile(groups, folder / f"groups{Path(groups).suffix.lower()}")
    changed = changed_since(matrix, read_done(matrix))
    if changed:
        write_json(folder / CHANGED_FILE, changed)
    count = 1
    for source, place in archived_files(matrix):
        target = folder / place
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_from_folders_on(source.read_bytes(), matrix.layout))
            count += 1
    return count


def _from_folders_on(content: bytes, layout: Layout) -> bytes:
    for part in ("raw", "preprocessed", "results"):
        content = content.replace(f"{getattr(layout, part)}{os.sep}".encode(), f"nnUNet_{part}/".encode())
    return content
