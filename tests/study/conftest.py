"""A small study with datasets that are there only as files of nnU-Net's, and made-up trainings in it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_attn.study.layout import Layout, find_layout
from nnunet_attn.study.markers import write_marker
from nnunet_attn.study.matrix import Job, Matrix, make_matrix
from nnunet_attn.study.states import log_facts
from nnunet_attn.study.study_file import read_study

STUDY = """\
name: short
device: cpu
datasets:
  - dataset: 901
    configuration: 2d
rows:
  - nnUNetTrainer
  - nnUNetTrainerDCAUNet
schedule: 2epochs_4iterations
"""
LOG = """\
2026-01-01 10:00:00.1: This split has 6 training and 2 validation cases.
{epochs}"""
EPOCH = """\
2026-01-01 10:00:00.2: Epoch {number}
2026-01-01 10:00:00.3: Current learning rate: 0.01
2026-01-01 10:00:00.4: train_loss -0.5
2026-01-01 10:00:00.5: val_loss -0.4
2026-01-01 10:00:00.6: Pseudo dice [np.float32(0.5), np.float32(0.7)]
2026-01-01 10:00:00.7: Epoch time: 36.0 s
"""


def add_dataset(layout: Layout, name: str, cases: int, folds: int, *, plans: str = "nnUNetPlans") -> None:
    """A planned and preprocessed dataset of empty files."""
    ids = [f"case{i:03d}" for i in range(cases)]
    dataset = {
        "channel_names": {"0": "R"}, "labels": {"background": 0, "ring": 1, "core": 2}, "numTraining": cases,
        "file_ending": ".png",
    }  # fmt: skip
    for part, suffix in (("imagesTr", "_0000.png"), ("labelsTr", ".png")):
        (layout.raw / name / part).mkdir(parents=True)
        for case in ids:
            (layout.raw / name / part / f"{case}{suffix}").write_text(f"{part} {case}")
    folder = layout.preprocessed / name
    (folder / f"{plans}_2d").mkdir(parents=True)
    for case in ids:
        (folder / f"{plans}_2d" / f"{case}.pkl").touch()
    splits = [{"train": [c for c in ids if c not in ids[i::folds]], "val": ids[i::folds]} for i in range(folds)]
    configuration = {"data_identifier": f"{plans}_2d", "spacing": [1.0, 1.0], "patch_size": [32, 32], "batch_size": 2}
    for path, content in (
        (layout.raw / name / "dataset.json", dataset), (folder / "dataset.json", dataset),
        (folder / "dataset_fingerprint.json", {"spacings": [1]}), (folder / "splits_final.json", splits),
        (folder / f"{plans}.json", {"plans_name": plans, "configurations": {"2d": configuration}}),
    ):  # fmt: skip
        path.write_text(json.dumps(content))


def own_folders(folder: Path) -> Layout:
    return Layout(folder, *(folder / f"nnUNet_{name}" for name in ("raw", "preprocessed", "results")))


def log_text(epochs: int) -> str:
    return LOG.format(epochs="".join(EPOCH.format(number=i) for i in range(epochs)))


@dataclass
class Small:
    """A study in a temporary folder."""

    file: Path
    layout: Layout

    def matrix(self, text: str | None = None) -> Matrix:
        if text is not None:
            self.file.write_text(text)
        study = read_study(self.file)
        return make_matrix(study, find_layout(study, None))

    def fold(self, job: Job | str) -> Path:
        name = job if isinstance(job, str) else job.id
        return self.layout.results / name.partition("/")[2]

    def train(self, matrix: Matrix, job: Job, *, marker: bool = True, scores: str = "case,metric,value\n") -> Path:
        """The files of a finished training, and its marker."""
        fold = self.fold(job)
        (fold / "validation").mkdir(parents=True, exist_ok=True)
        (fold / "checkpoint_final.pth").write_bytes(b"weights")
        (fold / "training_log_2026_1_1_10_00_00.txt").write_text(log_text(2))
        cases = matrix.splits[job.dataset][job.fold]["val"]
        metrics = {str(v): {"Dice": 0.5, "IoU": 0.4, "n_ref": 10, "n_pred": 9} for v in (1, 2)}
        content = {"metric_per_case": [{"prediction_file": f"/x/{case}.png", "metrics": metrics} for case in cases]}
        (fold / "validation" / "summary.json").write_text(json.dumps(content))
        (fold / "nnunet_attn_metrics.csv").write_text(scores)
        if marker:
            write_marker(matrix, job, {"log": log_facts(fold)})
        return fold


@pytest.fixture
def small(tmp_path) -> Small:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    layout = own_folders(tmp_path / "short")
    add_dataset(layout, "Dataset901_Blobs", 8, 2)
    return Small(file, layout)


def dead_process() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child
