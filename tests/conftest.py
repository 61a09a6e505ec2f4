"""Small datasets, preprocessed by nnU-Net once per test process, and a folder of nnU-Net's for each test."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("nnUNet_def_n_proc", "2")  # nnU-Net reads it when it is imported first
os.environ["PYTHONSAFEPATH"] = "1"  # processes of the tests import what is installed, not the folder they start in
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads weights

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

# tests are of what is installed: "python -m pytest" would put this folder, where no trainers are mapped, before it
sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parents[1]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture
def without_progress_figure(monkeypatch):
    """nnU-Net draws a figure of 16 million pixels after every epoch, here an empty file; test_stock_commands has it."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    def draw(self, output_folder):
        Path(output_folder, "progress.png").touch()

    monkeypatch.setattr(LocalLogger, "plot_progress_png", draw)


def ellipse(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A label map with an ellipsoid of label 1 and a core of label 2 somewhere in it."""
    centre = [rng.uniform(0.4, 0.6) * n for n in shape]
    radius = [rng.uniform(0.25, 0.35) * n for n in shape]
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
    return ((distance < 1).astype(np.uint8) + (distance < 0.3)).astype(np.uint8)


@dataclass(frozen=True)
class SmallDataset:
    """A planned and preprocessed dataset in a folder of nnU-Net's; ``copy`` gives a test its own results folder."""

    root: Path
    dataset_id: int
    name: str
    configuration: str

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.name

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.name

    def copy(self, folder: Path) -> "SmallDataset":
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        return SmallDataset(folder, self.dataset_id, self.name, self.configuration)


def write_dataset(
    raw: Path, name: str, *, cases: int, channels: list[str], labels: dict, write, ending: str, **more: object
) -> None:
    """Write a raw dataset; ``write(images, labels, case, rng)`` writes one case.

    ``more`` goes into dataset.json.
    """
    rng = np.random.default_rng(0)
    folder = raw / name
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for i in range(cases):
        write(folder / "imagesTr", folder / "labelsTr", f"case{i:02d}", rng)
    write(folder / "imagesTs", folder / "labelsTs", "test00", rng)
    content = {
        "channel_names": {str(i): c for i, c in enumerate(channels)},
        "labels": labels,
        "numTraining": cases,
        "file_ending": ending,
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write_png(images: Path, labels: Path, case: str, rng: np.random.Generator) -> None:
    label = ellipse((40, 56), rng)
    image = np.clip(60 + 70 * label[..., None] + rng.normal(0, 10, (*label.shape, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(images / f"{case}_0000.png")
    Image.fromarray(label).save(labels / f"{case}.png")


def write_png_with_ignore(images: Path, labels: Path, case: str, rng: np.random.Generator) -> None:
    write_png(images, labels, case, rng)
    label = np.array(Image.open(labels / f"{case}.png"))
    label[:4] = 3
    Image.fromarray(label).save(labels / f"{case}.png")


def write_nifti(images: Path, labels: Path, case: str, rng: np.random.Generator) -> None:
    label = ellipse((16, 32, 40), rng)
    for array, path in (
        (label * 70 + rng.normal(0, 10, label.shape), images / f"{case}_0000.nii.gz"),
        (label, labels / f"{case}.nii.gz"),
    ):
        image = sitk.GetImageFromArray(array.astype(np.float32 if path.parent == images else np.uint8))
        image.SetSpacing((1.0, 1.0, 1.0))
        sitk.WriteImage(image, str(path))


def make_small_dataset(root: Path, dataset_id: int, name: str, configuration: str, **dataset) -> SmallDataset:
    from nnunet_attn.training.in_process import nnunet_in_process, plan_and_preprocess

    with nnunet_in_process(root):
        write_dataset(root / "nnUNet_raw", name, **dataset)
        plan_and_preprocess(dataset_id, (configuration,), shrink=True)
    return SmallDataset(root, dataset_id, name, configuration)


LABELS = {"background": 0, "ring": 1, "core": 2}


@pytest.fixture(scope="session")
def images_2d(tmp_path_factory) -> SmallDataset:
    """Eight RGB images of 40x56."""
    return make_small_dataset(
        tmp_path_factory.mktemp("images_2d"), 901, "Dataset901_Images", "2d",
        cases=8, channels=["R", "G", "B"], labels=LABELS, write=write_png, ending=".png",
    )  # fmt: skip


@pytest.fixture(scope="session")
def regions_2d(tmp_path_factory) -> SmallDataset:
    """The same images with regions and an ignore label."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    return make_small_dataset(
        tmp_path_factory.mktemp("regions_2d"), 902, "Dataset902_Regions", "2d", cases=8,
        channels=["R", "G", "B"], labels=labels, write=write_png_with_ignore, ending=".png",
        regions_class_order=[1, 2],
    )  # fmt: skip


@pytest.fixture(scope="session")
def volumes_3d(tmp_path_factory) -> SmallDataset:
    """Six volumes of 16x32x40."""
    return make_small_dataset(
        tmp_path_factory.mktemp("volumes_3d"), 903, "Dataset903_Volumes", "3d_fullres",
        cases=6, channels=["MR"], labels=LABELS, write=write_nifti, ending=".nii.gz",
    )  # fmt: skip
