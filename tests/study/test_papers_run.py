"""Two of the papers' studies from made-up downloads to the report: one of volumes, one of pictures.

What is changed is said here: the size, so that it takes minutes, the schedule, and splits that need the whole dataset.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from PIL import Image

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion.phantom import write_phantom
from nnunet_attn.study.papers import paper_studies

pytest.importorskip("snakemake")
pytestmark = pytest.mark.slow

SIZE, BATCH = 64, 4


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a study of this package, shortened, and returns its folder."""
    monkeypatch.setenv("NNUNET_ATTN_DOWNLOADS", str(tmp_path / "downloads"))

    def run(name: str, converter: str, rows: list[str], **convert: Any) -> Path:
        content = yaml.safe_load(paper_studies()[name].read_text(encoding="utf-8"))
        (dataset,) = (d for d in content["datasets"] if d["convert"]["converter"] == converter)
        changed = dataset["convert"] | {"input_size": SIZE, **convert}
        dataset["convert"] = {key: value for key, value in changed.items() if value is not None}
        dataset["plans"] = {"name": f"Input{SIZE}Batch{BATCH}", "input_size": SIZE, "batch": BATCH}
        assert set(rows) <= set(content["rows"])
        content |= {"datasets": [dataset], "rows": rows, "device": "cpu", "schedule": "2epochs_4iterations"}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        assert main(["study", "check", str(file)]) == 0
        assert main(["study", "run", str(file), "--", "--cores", "1"]) == 0
        assert main(["study", "report", str(file), "-np", "1"]) == 0
        return tmp_path / name

    return run


def page_of_the_test_set(folder: Path) -> str:
    (page,) = (folder / "report").glob("*__test/report.html")
    return page.read_text(encoding="utf-8")


def test_volumes(run, tmp_path):
    write_phantom(tmp_path / "downloads" / "ACDC", training=6, test=2)
    rows = ["nnUNetTrainerDCAUNet_noAttention_paperACDC", "nnUNetTrainerDCAUNet_paperACDC"]
    folder = run("dcaunet_acdc", "acdc", rows, split=None, num_folds=2)
    raw = folder / "nnUNet_raw" / f"Dataset827_ACDC{SIZE}"
    for row in rows:
        predicted = folder / "predict" / raw.name / f"{row}_2epochs_4iterations__Input{SIZE}Batch{BATCH}__2d"
        references = sorted((raw / "labelsTs").glob("*.nii.gz"))
        assert len(references) == 4
        for reference in references:
            truth, found = (sitk.ReadImage(str(path)) for path in (reference, predicted / reference.name))
            assert found.GetSize() == truth.GetSize() == (96, 96, 8)
            assert found.GetSpacing() == truth.GetSpacing()
    page = page_of_the_test_set(folder)
    assert "Published numbers" in page
    assert "92.11" in page
    assert "the paper does not say which epoch it scores" in page


def test_pictures(run, tmp_path):
    """Frames of eleven sequences of two sizes; the best checkpoint predicts, and masks of their own size are scored."""
    source, rng = tmp_path / "downloads" / "ClinicDB" / "CVC-ClinicDB", np.random.default_rng(0)
    frames = (1, 14, 26, 51, 68, 79, 104, 127, 152, 178, 201, 206, 400, 612)
    for part in ("Original", "Ground Truth"):
        (source / part).mkdir(parents=True)
    for frame in frames:
        height, width = (72, 96) if frame % 2 else (96, 128)
        y, x = np.mgrid[:height, :width]
        mask = (y - height / 2) ** 2 + (x - width / rng.uniform(1.6, 2.4)) ** 2 < (height / rng.uniform(3, 5)) ** 2
        picture = np.stack([np.where(mask, 200, tint) for tint in (120, 60, 50)], -1) + rng.integers(
            0, 30, (*mask.shape, 3)
        )
        Image.fromarray(picture.astype(np.uint8)).save(source / "Original" / f"{frame}.tif")
        Image.fromarray(mask * np.uint8(255)).save(source / "Ground Truth" / f"{frame}.tif")
    rows = ["nnUNetTrainerXAttnResUNet_noSkip_paperPictures", "nnUNetTrainerXAttnResUNet_paperPictures"]
    folder = run("xattnres_polyps_isic", "clinicdb", rows)
    raw = folder / "nnUNet_raw" / f"Dataset831_ClinicDB{SIZE}"
    for row in rows:
        predicted = folder / "predict" / raw.name / f"{row}_2epochs_4iterations__Input{SIZE}Batch{BATCH}__2d"
        for mask in (raw / "labelsTs").glob("*.png"):
            assert Image.open(predicted / mask.name).size == Image.open(mask).size == (SIZE, SIZE)
    originals = {Image.open(path).size for path in (raw / "labelsTs_original").glob("*.png")}
    assert originals <= {(96, 72), (128, 96)}
    logs = "".join(path.read_text() for path in (folder / "logs" / "predict").rglob("*.log"))
    assert len(re.findall(r"nnUNetv2_predict .* -chk checkpoint_best\.pth", logs)) == len(rows)
    page = page_of_the_test_set(folder)
    assert "92.35" in page
    assert "the released training normalises by ImageNet" in page
