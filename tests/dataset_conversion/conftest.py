"""Small sources in the layouts of the datasets."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attn.errors import UserError

SPACING, ORIGIN = (1.37, 1.41, 9.5), (-12.5, 30.25, 7.0)
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def write_volume(path: Path, array: np.ndarray, spacing=SPACING, origin=ORIGIN, direction=DIRECTION) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def write_acdc_patient(folder: Path, number: int, *, size: tuple[int, int, int] = (3, 12, 10)) -> None:
    """One patient; the ED frame is not the first in the order of names."""
    rng = np.random.default_rng(number)
    patient = f"patient{number:03d}"
    (folder / patient).mkdir(parents=True)
    (folder / patient / "Info.cfg").write_text("ED: 12\nES: 4\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\n")
    for frame in (4, 12):
        stem = folder / patient / f"{patient}_frame{frame:02d}"
        write_volume(stem.with_suffix(".nii.gz"), rng.integers(0, 900, size, dtype=np.int16))
        write_volume(Path(f"{stem}_gt.nii.gz"), rng.integers(0, 4, size, dtype=np.uint8))


@pytest.fixture(scope="session")
def _acdc_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("acdc") / "database"
    for number in range(1, 8):
        write_acdc_patient(root / "training", number)
    write_acdc_patient(root / "testing", 101)
    (root / "training" / "patient001" / "patient001_4d.nii.gz").write_bytes(b"never read")
    (root / "training" / ".DS_Store").write_bytes(b"junk")
    (root / "MANDATORY_CITATION.md").write_text("cite us")
    return root


@pytest.fixture
def acdc_source(_acdc_tree, tmp_path) -> Path:
    """Seven training patients and a test patient in ACDC's original layout, to be changed at will."""
    return Path(shutil.copytree(_acdc_tree, tmp_path / "source" / "database"))


@pytest.fixture
def add_acdc_patient() -> Callable[[Path, int], None]:
    return write_acdc_patient


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch) -> Path:
    """Empty folders of nnU-Net's with its variables set; the raw one is returned."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / "nnunet" / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    return tmp_path / "nnunet" / "nnUNet_raw"


@pytest.fixture
def refused(nnunet_folders) -> Callable[..., str]:
    """Call a conversion that must fail with one line that matches, and leave nothing behind; returns the line."""

    def check(match: str, convert: Callable, *args, **options) -> str:
        with pytest.raises(UserError, match=match) as caught:
            convert(*args, **options)
        assert "\n" not in str(caught.value)
        assert list(nnunet_folders.iterdir()) == []
        return str(caught.value)

    return check
