"""``nnunet-attn maps`` on models of random weights: figure, volumes on the image's grid, numbers, page."""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from untrained import untrained

from nnunet_attn.catalog import ENTRIES
from nnunet_attn.cli.main import main
from nnunet_attn.export import predict
from nnunet_attn.export.description import describe
from nnunet_attn.maps.command import border_table, lambda_table, nifti_geometry, read_rows
from nnunet_attn.maps.tables import COLUMNS, regions_of
from nnunet_attn.maps.volume import map_case
from nnunet_attn.training.trained_model import read_model

LIGHT = ("nnUNetTrainerXAttnResUNet",)
ALL_2D = [e.trainer if e.trainer in LIGHT else pytest.param(e.trainer, marks=pytest.mark.slow) for e in ENTRIES]


def rows_of(folder: Path) -> list[dict]:
    with (folder / "maps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("trainer", ALL_2D)
def test_2d(trainer, images_2d, tmp_path):
    data = images_2d.copy(tmp_path / "data")
    model, output = untrained(data, trainer), tmp_path / "maps"
    assert main(["maps", str(model), str(data.raw / "imagesTs"), "-o", str(output)]) == 0
    with Image.open(output / "test00.png") as figure:
        assert min(figure.size) > 300
        assert np.asarray(figure.convert("L")).std() > 10
    page = (output / "maps.html").read_text()
    assert page.count("<img") == 1
    rows = rows_of(output)
    assert {row["case"] for row in rows} == {"test00"}
    assert all(np.isfinite(float(row["mean"])) for row in rows)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "test00" / "prediction.nii.gz")))
    assert labels.shape == (1, 40, 56)
    volumes = list((output / "test00").glob("*__*.nii.gz"))
    assert bool(volumes) is any(row["layer"] and row["region"] for row in rows)
    for path in volumes:
        assert sitk.ReadImage(str(path)).GetSize() == (56, 40, 1)


def test_3d(volumes_3d, tmp_path, capsys):
    data = volumes_3d.copy(tmp_path / "data")
    model, output = untrained(data, "nnUNetTrainerXAttnRes"), tmp_path / "maps"
    image = data.raw / "imagesTs" / "test00_0000.nii.gz"
    command = ["maps", str(model), str(image), "-o", str(output)]
    assert main([*command, "--layers", "x_dec.*", "--point", "3", "4", "5"]) == 0
    original = sitk.ReadImage(str(image))
    weights = 0
    for path in (output / "test00").glob("x_dec.1__weight_of_*.nii.gz"):
        volume = sitk.ReadImage(str(path))
        assert volume.GetSize() == original.GetSize()
        assert volume.GetSpacing() == original.GetSpacing()
        if "finer" not in path.name:
            weights = weights + sitk.GetArrayFromImage(volume)
    assert np.abs(weights - 1).max() < 5e-3  # float16
    assert "What borders read" in (output / "maps.html").read_text()

    assert main(command) == 1  # it is there
    assert main([*command, "--overwrite", "--layers", "encoder.*"]) == 1
    assert "no layer matches encoder.*; the layers are x_enc.1" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--point", "99", "4", "5"]) == 1
    assert "voxel (99, 4, 5) (x, y, z) lies outside" in capsys.readouterr().err
    assert (output / "maps.html").is_file()  # what was there stays
    for inputs in (model, model.parent, image.parent):
        assert main(["maps", str(model), str(image.parent), "-o", str(inputs), "--overwrite"]) == 1
        assert f"lies in {inputs}, which the output would replace" in capsys.readouterr().err
    assert image.is_file()

    plans = (model / "plans.json").read_text()
    (model / "plans.json").write_text(plans.replace("resample_data_or_seg_to_shape", "resample_torch_fornnunet"))
    assert main([*command, "--overwrite"]) == 1
    assert "is not supported by nnunet-attn maps: its plans resample by" in capsys.readouterr().err

    stock = untrained(data, "nnUNetTrainer")
    assert main(["maps", str(stock), str(image), "-o", str(tmp_path / "stock")]) == 1
    assert "has no attention to show" in capsys.readouterr().err
    assert not (tmp_path / "stock").exists()


def test_prediction_is_the_one_without_mirroring(images_2d, tmp_path):
    data = images_2d.copy(tmp_path / "data")
    model = read_model(untrained(data, "nnUNetTrainerXAttnResUNet"))
    content = json.loads(json.dumps(describe(model, {}, 18)))
    network, files = model.network("0"), [data.raw / "imagesTs" / "test00_0000.png"]
    found = map_case(network, files, content, progress=False)

    class Session:
        def run(self, _, feed):
            with torch.inference_mode():
                return [network(torch.from_numpy(feed["image"])).numpy()]

    options = argparse.Namespace(step_size=0.5, disable_tta=True, tile_batch=1)
    image, spacing, _ = predict.read_case(files, content)
    preprocessed, back = predict.preprocess(image, spacing, content)
    logits = predict.predict_logits(preprocessed, [Session()], content, options, lambda done, count: None)
    assert (found.labels == predict.segment(logits, back, content)).mean() > 0.995  # sums in float32, not float16
    assert found.uncertainty.shape == found.decision.shape == preprocessed.shape[1:]
    assert found.uncertainty[found.point] == found.uncertainty.max()


def test_a_slice_needs_only_its_tiles(volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path / "data")
    model = read_model(untrained(data, "nnUNetTrainerXAttnRes"))
    content = describe(model, {}, 18)
    files = [data.raw / "imagesTs" / "test00_0000.nii.gz"]
    found = map_case(model.network("0"), files, content, slice_index=11, progress=False)
    assert found.covered[11].all()
    assert found.point[0] == 11
    assert found.plane == ("z", 11)


def test_maps_of_images_read_by_nibabel_lie_where_the_image_does(tmp_path):
    image = sitk.GetImageFromArray(np.arange(60.0).reshape(3, 4, 5))
    image.SetSpacing((0.5, 0.75, 2.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.1, -0.2, 0.3)
    image.SetDirection((np.reshape(turn.GetMatrix(), (3, 3)) @ np.diag([1.0, -1.0, 1.0])).ravel().tolist())
    sitk.WriteImage(image, tmp_path / "image.nii")
    values, _, geometry = predict.read_nifti(tmp_path / "image.nii")
    predict.write_volume(values[0], tmp_path / "map.nii.gz", nifti_geometry(geometry))
    expected, written = (sitk.ReadImage(tmp_path / name) for name in ("image.nii", "map.nii.gz"))
    for about in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, about)(), getattr(expected, about)(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(expected))
    assert nifti_geometry({})["spacing"] == (1.0, 1.0, 1.0)  # a picture


def test_regions():
    labels = np.zeros((1, 7, 7), np.uint8)
    labels[0, 1:6, 1:6] = 1
    masks = regions_of(labels, {1: "ring", 2: "absent"}, np.ones_like(labels, bool))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "background": 24, "ring inside": 9, "ring border": 16,
    }  # fmt: skip


def test_what_is_removed_is_told_for_background_and_classes(tmp_path):
    """Means weigh voxels; the regions of all classes count together; the file gives back what was written."""
    rows = [
        ("a", "x", "lambda", "", "", 0.5), ("a", "x", "removed", "background", 30, 0.2),
        ("b", "x", "removed", "background", 10, 0.4), ("a", "x", "removed", "RV inside", 4, 0.1),
        ("a", "x", "removed", "LV inside", 4, 0.3), ("a", "x", "removed", "RV border", 2, 0.5),
        ("a", "x", "negative", "background", 5, 0.1),
    ]  # fmt: skip
    with (tmp_path / "maps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    assert read_rows(tmp_path / "maps.csv") == rows
    table = lambda_table(rows)[-1]
    assert table.rows == [["x", "0.500", "0.252", "0.250", "0.200", "0.500", "0.100"]]
    assert border_table(rows) == []
