import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from medpy.metric.binary import hd95 as medpy_hd95
from PIL import Image

from nnunet_attn.errors import UserError
from nnunet_attn.scoring.evaluate import COLUMNS, evaluate, text_table, write
from nnunet_attn.scoring.folders import find_trained_model

LABELS = {"background": 0, "ring": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
SPACING = (0.8, 0.9, 3.0)  # x, y, z as in a NIfTI header


def write_nifti(path, array, spacing=SPACING, origin=(1.0, 2.0, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_dataset_json(folder, labels=LABELS, ending=".nii.gz", **more):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"labels": labels, "file_ending": ending, "channel_names": {"0": "MR"}, "numTraining": 4, **more}
    (folder / "dataset.json").write_text(json.dumps(content))


def blobs(rng, shape=(6, 14, 16)):
    """A label map with two classes."""
    array = np.zeros(shape, dtype=np.uint8)
    lo = [rng.integers(1, n // 3) for n in shape]
    array[tuple(slice(i, i + n // 2) for i, n in zip(lo, shape, strict=True))] = 1
    array[tuple(slice(i + 1, i + n // 3) for i, n in zip(lo, shape, strict=True))] = 2
    return array


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of four volumes; the third lacks class core in both, the last has it invented."""
    rng = np.random.default_rng(0)
    for i in range(4):
        reference, prediction = blobs(rng), blobs(rng)
        if i >= 2:
            reference[reference == 2] = 1
        if i == 2:
            prediction[prediction == 2] = 1
        write_nifti(tmp_path / "gt" / f"case{i}.nii.gz", reference)
        write_nifti(tmp_path / "pred" / f"case{i}.nii.gz", prediction)
    write_dataset_json(tmp_path / "pred")
    return tmp_path / "pred", tmp_path / "gt"


def nnunet_summary(predictions, references, tmp_path, classes, ending, reader, ignore=None):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder

    from nnunet_attn.training.in_process import nnunet_in_process

    with nnunet_in_process(tmp_path / "nnunet"):
        return compute_metrics_on_folder(
            str(references), str(predictions), None, reader(), ending, classes, ignore, num_processes=1
        )


def assert_same_overlap(result, theirs, keys):
    """Dice and IoU equal those of nnU-Net's own evaluation, case by case and in the means."""
    for name, key in keys.items():
        for metric in ("Dice", "IoU"):
            ours = result.table.query("`class` == @name and metric == @metric").set_index("case").value
            for case in theirs["metric_per_case"]:
                stem = case["prediction_file"].rsplit("/", 1)[1].split(".")[0]
                expected = case["metrics"][key][metric]
                assert ours[stem] == pytest.approx(math.nan if expected is None else expected, nan_ok=True)
            assert result.summary["mean"][name][metric] == pytest.approx(theirs["mean"][key][metric])
    for metric in ("Dice", "IoU"):
        assert result.summary["foreground_mean"][metric] == pytest.approx(theirs["foreground_mean"][metric])


def test_overlap_equals_nnunets_own_evaluation(folders, tmp_path):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    result = evaluate(*folders, progress=False)
    assert_same_overlap(
        result, nnunet_summary(*folders, tmp_path, [1, 2], ".nii.gz", SimpleITKIO), {"ring": 1, "core": 2}
    )
    core = result.summary["mean"]["core"]
    assert (core["cases"], core["missed"], core["invented"], core["absent"]) == (3, 0, 1, 1)
    assert math.isnan(result.table.query("case == 'case2' and `class` == 'core' and metric == 'NSD'").value.item())


def test_regions_and_ignore_label_as_in_nnunet(tmp_path):
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    rng = np.random.default_rng(1)
    for i in range(3):
        reference = blobs(rng, (30, 40))
        reference[:6] = 3
        write_png(tmp_path / "gt" / f"case{i}.png", reference)
        write_png(tmp_path / "pred" / f"case{i}.png", blobs(rng, (30, 40)))
    write_dataset_json(tmp_path / "gt", REGIONS, ".png", regions_class_order=[1, 2])
    result = evaluate(tmp_path / "pred", tmp_path / "gt", progress=False)
    theirs = nnunet_summary(
        tmp_path / "pred", tmp_path / "gt", tmp_path, [(1, 2), 2], ".png", NaturalImage2DIO, ignore=3
    )
    assert_same_overlap(result, theirs, {"whole": (1, 2), "core": 2})
    assert result.summary["unit"] == "px"

    masks = [np.array(Image.open(tmp_path / folder / "case1.png")) for folder in ("pred", "gt")]
    expected = medpy_hd95(*(np.isin(mask, (1, 2)) & (masks[1] != 3) for mask in masks))
    assert value(result, "case1", "whole", "HD95") == pytest.approx(expected)


def value(result, case, name, metric):
    return result.table.query("case == @case and `class` == @name and metric == @metric").value.item()


def test_distances_use_the_spacing_of_the_right_axis(folders):
    result = evaluate(*folders, progress=False)
    masks = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "case0.nii.gz"))) == 1 for folder in folders]
    assert value(result, "case0", "ring", "HD95") == pytest.approx(medpy_hd95(*masks, SPACING[::-1]), rel=1e-6)
    assert value(result, "case0", "ring", "HD95_voxel") == pytest.approx(medpy_hd95(*masks))
    voxel = 0.8 * 0.9 * 3.0 / 1000
    assert value(result, "case0", "ring", "ml_ref") == pytest.approx(masks[1].sum() * voxel)
    assert value(result, "case0", "ring", "ml_pred") == pytest.approx(masks[0].sum() * voxel)
    wide = evaluate(*folders, tolerance=1e3, progress=False)
    assert value(wide, "case0", "ring", "NSD") == 1
    assert value(result, "case0", "ring", "NSD") < 1


def test_transunet_protocol(folders):
    result = evaluate(*folders, protocol="transunet", progress=False)
    assert value(result, "case2", "core", "Dice") == 0  # absent from both
    assert value(result, "case3", "core", "Dice") == 1  # invented
    assert value(result, "case3", "core", "HD95_voxel") == 0
    assert result.summary["mean"]["core"]["HD95"] is None
    per_case = [value(result, f"case{i}", "core", "Dice") for i in range(4)]
    assert result.summary["mean"]["core"]["Dice"] == pytest.approx(np.mean(per_case))


def test_distances_in_voxels_whatever_spacing_the_files_state(folders):
    in_mm, in_voxels = (evaluate(*folders, voxels=voxels, progress=False) for voxels in (False, True))
    assert (in_mm.summary["unit"], in_voxels.summary["unit"]) == ("mm", "voxels")
    for i in range(4):
        found = value(in_voxels, f"case{i}", "ring", "HD95")
        assert found == pytest.approx(value(in_voxels, f"case{i}", "ring", "HD95_voxel"), nan_ok=True)
        assert value(in_voxels, f"case{i}", "ring", "Dice") == value(in_mm, f"case{i}", "ring", "Dice")
    assert in_voxels.summary["mean"]["ring"]["ASSD"] != in_mm.summary["mean"]["ring"]["ASSD"]
    assert "ml_ref" not in in_voxels.summary["mean"]["ring"]


def test_several_processes_give_the_same(folders):
    one, two = (evaluate(*folders, processes=n, progress=False).table for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_files_are_complete_and_readable_again(folders, tmp_path):
    result = evaluate(*folders, progress=False)
    table, summary = write(result, tmp_path / "out" / "metrics.csv")
    again = pd.read_csv(table, keep_default_na=True)
    assert tuple(again.columns) == COLUMNS
    assert np.allclose(again.value, result.table.value, equal_nan=True)
    stored = json.loads(summary.read_text(), parse_constant=pytest.fail)  # no NaN or Infinity, which JSON lacks
    assert stored["mean"]["ring"]["Dice"] == pytest.approx(result.summary["mean"]["ring"]["Dice"])
    assert {"protocol", "nsd_tolerance", "unit", "packages", "definitions"} <= set(stored)
    assert sorted(path.name for path in table.parent.iterdir()) == ["metrics.csv", "metrics.json"]
    lines = text_table(result.summary).splitlines()
    assert [line.split()[0] for line in lines] == ["class", "ring", "core", "mean"]


def test_label_values_without_a_dataset_json(folders):
    predictions, references = folders
    expected = evaluate(predictions, references, progress=False).summary["mean"]["ring"]
    (predictions / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"no dataset\.json beside"):
        evaluate(predictions, references, progress=False)
    assert evaluate(predictions, references, labels=[1, 2], progress=False).summary["mean"]["1"] == expected


# ---- what does not fit is refused, and named ----------------------------------------------------------------------


def test_missing_and_extra_cases_are_listed(folders):
    predictions, references = folders
    (predictions / "case1.nii.gz").unlink()
    with pytest.raises(UserError, match=r"1 of 4 cases have no prediction: case1 .*--only-predicted"):
        evaluate(predictions, references, progress=False)
    assert evaluate(predictions, references, only_predicted=True, progress=False).summary["cases"] == 3
    (references / "case3.nii.gz").unlink()
    with pytest.raises(UserError, match="1 predictions belong to no expected case: case3"):
        evaluate(predictions, references, progress=False)


def spoil(change, folder, name="case1.nii.gz"):
    path = folder / name
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    path.unlink()
    change(path, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, a: write_nifti(p, a[1:]), r"case1: .*shape \(5, 14, 16\) against \(6, 14, 16\)"),
        (lambda p, a: write_nifti(p, a, (0.8, 0.9, 2.0)), r"case1: .*spacing \(2, 0.9, 0.8\) against \(3, 0.9, 0.8\)"),
        (lambda p, a: write_nifti(p, a, origin=(1.0, 2.5, 3.0)), "case1: .*origin and direction"),
        (lambda p, a: write_nifti(p, a * 5), r"case1: the prediction holds \[5, 10\], which are not labels"),
        (lambda p, a: write_nifti(p, a + np.float32(0.5)), "case1.nii.gz is not a label map: it holds fractions"),
        (lambda p, a: write_nifti(p, a.astype(np.int16) - 1), "case1.nii.gz is not a label map: it holds negative"),
        (lambda p, a: p.write_bytes(b"\x1f\x8b no gzip"), "case1.nii.gz cannot be read"),
    ],
)
def test_spoilt_predictions_are_named(folders, change, message):
    spoil(change, folders[0])
    with pytest.raises(UserError, match=message):
        evaluate(*folders, progress=False)


def test_all_spoilt_cases_are_named_at_once(folders):
    spoil(lambda p, a: write_nifti(p, a[1:]), folders[0], "case0.nii.gz")
    spoil(lambda p, a: write_nifti(p, a * 5), folders[0], "case2.nii.gz")
    with pytest.raises(UserError, match=r"2 of 4 cases cannot be scored: case0: .*; case2: "):
        evaluate(*folders, processes=2, progress=False)


def test_whole_numbers_stored_as_floats_and_rounded_spacing_are_fine(folders):
    expected = evaluate(*folders, progress=False).table
    spoil(lambda p, a: write_nifti(p, a.astype(np.float32), (0.80001, 0.9, 3.0)), folders[0])
    pd.testing.assert_frame_equal(evaluate(*folders, progress=False).table, expected, rtol=1e-3)


def test_ignore_label_may_not_be_predicted(tmp_path):
    for folder in ("gt", "pred"):
        write_png(tmp_path / folder / "a.png", np.full((8, 8), 3, dtype=np.uint8))
    write_dataset_json(tmp_path / "gt", REGIONS, ".png", regions_class_order=[1, 2])
    with pytest.raises(UserError, match=r"a: the prediction holds \[3\]"):
        evaluate(tmp_path / "pred", tmp_path / "gt", progress=False)


def test_colour_picture_is_no_label_map(tmp_path):
    write_png(tmp_path / "gt" / "a.png", np.zeros((8, 8), dtype=np.uint8))
    write_png(tmp_path / "pred" / "a.png", np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="several channels"):
        evaluate(tmp_path / "pred", tmp_path / "gt", labels=[1], progress=False)


# ---- trained models -----------------------------------------------------------------------------------------------


@pytest.fixture
def model(folders, tmp_path, monkeypatch):
    """The four cases as validation of two folds of a trained model, in nnU-Net's folders."""
    predictions, references = folders
    name = "Dataset900_Blobs"
    folder = tmp_path / "results" / name / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for i in range(4):
        target = folder / f"fold_{i // 2}" / "validation" / f"case{i}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        (predictions / f"case{i}.nii.gz").rename(target)
    write_dataset_json(folder)
    preprocessed = tmp_path / "preprocessed" / name
    preprocessed.mkdir(parents=True)
    references.rename(preprocessed / "gt_segmentations")
    splits = [{"train": ["case2", "case3"], "val": ["case0", "case1"]}]
    splits += [{"train": ["case0", "case1"], "val": ["case2", "case3"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    return folder


def test_trained_model_is_scored_over_its_folds(model):
    result = evaluate(model, progress=False)
    assert result.summary["cases"] == 4
    assert result.summary["folds"] == ["0", "1"]
    assert set(result.table.dataset) == {"Dataset900_Blobs"}
    assert set(result.table.trainer) == {"nnUNetTrainer__nnUNetPlans__3d_fullres"}
    assert dict(zip(result.table.case, result.table.fold, strict=True))["case2"] == "1"
    only = evaluate(model, folds=["1"], progress=False)
    assert set(only.table.case) == {"case2", "case3"}
    for path in (model / "fold_1", model / "fold_1" / "validation"):
        pd.testing.assert_frame_equal(evaluate(path, progress=False).table, only.table)


def test_fold_without_all_its_cases_is_refused(model):
    (model / "fold_1" / "validation" / "case3.nii.gz").unlink()
    with pytest.raises(UserError, match="fold 1: 1 of 2 cases have no prediction: case3"):
        evaluate(model, progress=False)
    with pytest.raises(UserError, match="has no fold_4/validation"):
        evaluate(model, folds=["4"], progress=False)


def test_case_in_two_folds_is_refused(model, monkeypatch, tmp_path):
    references = tmp_path / "preprocessed" / "Dataset900_Blobs" / "gt_segmentations"
    monkeypatch.delenv("nnUNet_preprocessed")
    source = model / "fold_0" / "validation" / "case0.nii.gz"
    (model / "fold_1" / "validation" / "case0.nii.gz").write_bytes(source.read_bytes())
    with pytest.raises(UserError, match="1 cases are in the validation of several folds: case0"):
        evaluate(model, references, progress=False)
    with pytest.raises(UserError, match="no reference segmentations of Dataset900_Blobs"):
        evaluate(model, progress=False)


def test_a_dataset_that_is_linked_in_from_a_large_disk_keeps_its_name(model, tmp_path, monkeypatch):
    dataset = model.parent
    disk = tmp_path / "disk" / "data27"
    disk.parent.mkdir()
    dataset.rename(disk)
    dataset.symlink_to(disk)
    assert find_trained_model(model).dataset == dataset.name
    assert find_trained_model(model / "fold_0" / "validation").dataset == dataset.name
    monkeypatch.chdir(model)
    monkeypatch.setenv("PWD", str(model))
    assert find_trained_model(Path(".")).dataset == dataset.name
    assert evaluate(model, progress=False).table.dataset.unique().tolist() == [dataset.name]


def test_a_link_of_another_name_to_a_model_is_the_model(model, tmp_path):
    (tmp_path / "short").symlink_to(model)
    assert find_trained_model(tmp_path / "short").folder == model.resolve()
