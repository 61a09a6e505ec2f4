"""``--input-size``: nnU-Net itself brings every slice to the size; nothing else of a case changes."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from PIL import Image

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import acdc, clinicdb
from nnunet_attn.errors import UserError
from nnunet_attn.training.in_process import nnunet_in_process, plan_and_preprocess

from .conftest import DIRECTION, ORIGIN, SPACING, write_acdc_patient, write_volume


@pytest.fixture
def patients(tmp_path):
    """Two patients of different sizes, one of them with thin slices."""
    root = tmp_path / "download" / "training"
    write_acdc_patient(root, 1, size=(3, 36, 40))
    write_acdc_patient(root, 2, size=(4, 60, 50))
    return root.parent


def test_volumes_by_their_spacing(patients, nnunet_folders):
    plain = acdc.convert(patients, 27, num_folds=2)
    folder = acdc.convert(patients, 28, num_folds=2, input_size=64)
    assert folder.name == "Dataset028_ACDC64"
    content = json.loads((folder / "dataset.json").read_text())
    assert content["input_size"] == 64
    assert content["channel_names"] == {"0": "rescale_to_0_1"}
    manifest = json.loads((folder / "manifest.json").read_text())["cases"]
    for name, size in (("patient001_frame04", (40, 36, 3)), ("patient002_frame12", (50, 60, 4))):
        for path in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"):
            ours, theirs = (sitk.ReadImage(str(place / path)) for place in (folder, plain))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
            spacing = ours.GetSpacing()
            np.testing.assert_allclose(spacing, (64 / size[0], 64 / size[1], SPACING[2]), rtol=1e-6)
            np.testing.assert_allclose(ours.GetOrigin(), ORIGIN, atol=1e-5)
            np.testing.assert_allclose(ours.GetDirection(), DIRECTION, atol=1e-6)
            assert tuple(compute_new_shape(size[:2], spacing[:2], (1, 1))) == (64, 64)
        np.testing.assert_allclose(manifest[name]["spacing"], SPACING, rtol=1e-6)
        assert manifest[name]["original_size"] == list(size)


def test_slices_are_never_cut_across_another_axis(tmp_path, nnunet_folders):
    """nnU-Net takes the axis with the largest spacing for that of the slices."""
    write_acdc_patient(tmp_path / "training", 1, size=(3, 12, 10))
    for file in (tmp_path / "training" / "patient001").glob("*.nii.gz"):
        write_volume(file, sitk.GetArrayFromImage(sitk.ReadImage(str(file))), spacing=(1.0, 1.0, 1.0))
    folder = acdc.convert(tmp_path, 27, num_folds=0, input_size=32)
    spacing = sitk.ReadImage(str(folder / "imagesTr" / "patient001_frame04_0000.nii.gz")).GetSpacing()
    np.testing.assert_allclose(spacing, (3.2, 32 / 12, 3.2), rtol=1e-6)


def test_slices_along_another_axis_are_refused(tmp_path, nnunet_folders):
    write_acdc_patient(tmp_path / "training", 1, size=(30, 12, 10))
    files = sorted((tmp_path / "training" / "patient001").glob("*.nii.gz"))
    for spacing, axis in (((1.0, 8.0, 1.0), 1), ((1.6, 1.0, 1.0), 0)):
        for file in files:
            write_volume(file, sitk.GetArrayFromImage(sitk.ReadImage(str(file))), spacing=spacing)
        with pytest.raises(UserError, match=rf"patient001_frame04\.nii\.gz .*slices seem to lie along axis {axis}"):
            acdc.convert(tmp_path, 27, num_folds=0, input_size=32)
    for file in files:
        write_volume(file, sitk.GetArrayFromImage(sitk.ReadImage(str(file))), spacing=(1.8, 1.8, 1.0))
    acdc.convert(tmp_path, 27, num_folds=0, input_size=32)


def test_grey_pictures_are_normalised_by_their_range(tmp_path, nnunet_folders):
    """nnU-Net refuses values above 255 where a channel is called rgb_to_0_1."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for case in range(2):
        deep = rng.integers(0, 60000, (40, 48), np.uint16)
        Image.fromarray(deep).save(tmp_path / "images" / f"{case}.png")
        Image.fromarray((deep > 30000).astype(np.uint8)).save(tmp_path / "masks" / f"{case}.png")
    sources = [str(tmp_path / kind) for kind in ("images", "masks")]
    command = ["convert", "pictures", *sources, "40", "--num-folds", "0", "--processes", "1"]
    assert main([*command, "--input-size", "64", "--name", "Deep"]) == 0
    content = json.loads((nnunet_folders / "Dataset040_Deep" / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "rescale_to_0_1"}


def test_ct_is_clipped(make_source, nnunet_folders):
    from nnunet_attn.dataset_conversion import synapse

    source, cases = make_source("synapse")
    folder = synapse.convert(source, 29, input_size=32, num_folds=0)
    for name, case in list(cases.items())[:2]:
        part = "Ts" if case.part == "test" else "Tr"
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"images{part}" / f"{name}_0000.nii.gz")))
        np.testing.assert_array_equal(image, np.clip(case.image, -125, 275))


def test_pictures_and_their_masks(tmp_path, nnunet_folders):
    source = tmp_path / "ClinicDB"
    for kind, mode in (("Original", "RGB"), ("Ground Truth", "L")):
        (source / kind).mkdir(parents=True)
        for frame in (1, 30, 60, 70, 80):
            rng = np.random.default_rng(frame)
            pixels = np.kron(rng.integers(0, 2, (4, 6), np.uint8) * 255, np.ones((12, 12), np.uint8))
            Image.fromarray(pixels).convert(mode).save(source / kind / f"{frame}.png")
    folder = clinicdb.convert(source, 31, input_size=64)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == dict.fromkeys("012", "rgb_to_0_1")
    manifest = json.loads((folder / "manifest.json").read_text())["cases"]
    for name, case in manifest.items():
        assert case["original_size"] == [72, 48]
        number = int(name[-3:])
        image, mask = (Image.open(source / kind / f"{number}.png") for kind in ("Original", "Ground Truth"))
        ours = np.array(Image.open(folder / "imagesTr" / f"{name}_0000.png"))
        np.testing.assert_array_equal(ours, np.array(image.resize((64, 64), Image.Resampling.BILINEAR)))
        rows, columns = ((np.arange(64) + 0.5) * n / 64 for n in (48, 72))  # nearest, by pixel centres
        expected = (np.array(mask) > 127)[rows.astype(int)][:, columns.astype(int)]
        np.testing.assert_array_equal(np.array(Image.open(folder / "labelsTr" / f"{name}.png")), expected)
        original = Image.open(folder / "labelsTr_original" / f"{name}.png")
        np.testing.assert_array_equal(np.array(original), np.array(mask) > 127)
        assert f"labelsTr_original/{name}.png" in case["outputs"]
    assert clinicdb.CONVERTER.verify(source, 31, input_size=64) == 5


def refused(capsys, *words) -> str:
    assert main([str(word) for word in words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_bad_input(patients, tmp_path, nnunet_folders, capsys):
    for size in ("100", "0"):
        error = refused(capsys, "convert", "acdc", patients, 27, "--input-size", size)
        assert "must be a multiple of 32" in error
    folder = acdc.convert(patients, 27, num_folds=2, input_size=64)
    error = refused(capsys, "convert", "acdc", folder, 28, "--input-size", 224)
    assert f"{folder} is converted already" in error
    assert "exists" in refused(capsys, "convert", "acdc", patients, 27, "--num-folds", 2, "--input-size", 64)
    pictures = tmp_path / "pictures"
    for kind in ("images", "masks"):
        (pictures / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((31, 40), np.uint8)).save(pictures / kind / "a.png")
    error = refused(
        capsys, "convert", "pictures", pictures / "images", pictures / "masks", 40, "--num-folds", 0,
        "--input-size", 224, "--processes", 1,
    )  # fmt: skip
    assert "a.png is 40x31 pixels; --input-size needs at least 32" in error


def test_plans_and_preprocessing(patients, tmp_path, capsys):
    with nnunet_in_process(tmp_path):
        acdc.convert(patients, 27, num_folds=2, input_size=64)
        plan_and_preprocess(27, ("2d",))
        preprocessed = tmp_path / "nnUNet_preprocessed" / "Dataset027_ACDC64"
        command = ["plan", "27", "--input-size", "64", "--batch-size", "3"]
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "2d: patch 64x64, batch 3, data Input64Batch3_2d (to preprocess)" in out
        plans = json.loads((preprocessed / "Input64Batch3.json").read_text())
        assert plans["input_size"] == 64
        assert plans["configurations"]["2d"]["spacing"] == [1, 1]
        assert plans["configurations"]["2d"]["normalization_schemes"] == ["RescaleTo01Normalization"]
        assert len(json.loads((preprocessed / "splits_final.json").read_text())) == 2

        from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        preprocess([27], "Input64Batch3", ("2d",), num_processes=[1])
        data = preprocessed / "Input64Batch3_2d"
        dataset = infer_dataset_class(str(data))(str(data))
        assert {dataset.load_case(name)[0].shape for name in dataset.identifiers} == {(1, 3, 64, 64), (1, 4, 64, 64)}

        capsys.readouterr()
        assert "the patch is 64 64" in refused(capsys, *command, "--patch-size", 96, 96)
        assert "converted with --input-size 64; for plans of 96" in refused(
            capsys, "plan", 27, "--input-size", 96, "--batch-size", 3
        )
        assert "needs --batch-size" in refused(capsys, "plan", 27, "--input-size", 64)
        assert "patch and spacing stay" in refused(
            capsys, "plan", 27, "--from", "Input64Batch3", "-overwrite_plans_name", "B", "--patch-size", 32, 32
        )
        assert main(["plan", "27", "--from", "Input64Batch3", "-overwrite_plans_name", "B", "--batch-size", "2"]) == 0
        assert json.loads((preprocessed / "B.json").read_text())["input_size"] == 64
        raw = tmp_path / "nnUNet_raw" / preprocessed.name / "dataset.json"
        raw.write_text(json.dumps(json.loads(raw.read_text()) | {"input_size": 352}))  # 352 / 2^6 is no whole number
        assert main(["plan", "27", "--input-size", "352", "--batch-size", "16"]) == 0
        plans = json.loads((preprocessed / "Input352Batch16.json").read_text())["configurations"]["2d"]
        assert (plans["patch_size"], len(plans["architecture"]["arch_kwargs"]["strides"])) == ([352, 352], 6)
        raw.write_text(json.dumps(json.loads(raw.read_text()) | {"input_size": 64}))
        capsys.readouterr()
        for place in (preprocessed, tmp_path / "nnUNet_raw" / preprocessed.name):
            (place / "splits_final.json").unlink()
        assert "splits_final.json is missing" in refused(capsys, *command)
