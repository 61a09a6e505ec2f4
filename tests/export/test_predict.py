"""``predict.py`` step by step beside nnU-Net's own predictor, the network being the same torch module in both."""

import argparse
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image
from torch import nn

from nnunet_attn.export import predict
from nnunet_attn.export.description import check_exportable, describe
from nnunet_attn.training.trained_model import TrainedModel

LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}
INTENSITIES = {"mean": 20.0, "std": 35.0, "percentile_00_5": -60.0, "percentile_99_5": 110.0}


class TorchSession:
    """A session of onnxruntime that runs a torch network."""

    def __init__(self, network: nn.Module):
        self.network = network

    def run(self, _, feed):
        with torch.inference_mode():
            return [self.network(torch.from_numpy(feed["image"])).numpy()]


def make_plans(patch, spacing, schemes, masks, transpose, reader) -> dict:
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "x",
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": patch,
        "spacing": spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": masks,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling | {"order": 3},
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
    }
    return {
        "dataset_name": "Dataset999_Made",
        "plans_name": "Plans",
        "configurations": {"c": configuration},
        "transpose_forward": transpose,
        "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "image_reader_writer": reader,
        "foreground_intensity_properties_per_channel": {str(c): INTENSITIES for c in range(len(schemes))},
    }


def make_model(folder: Path, labels=LABELS, *, folds=1, mirror=(0, 1), ending=".nii.gz", **plan) -> TrainedModel:
    """A model of random convolutions, whose checkpoints are empty files, for ``describe``."""
    plans = make_plans(**plan)
    channels = len(plan["schemes"])
    dataset_json = {
        "channel_names": {str(c): f"c{c}" for c in range(channels)},
        "labels": labels,
        "file_ending": ending,
    }
    if any(isinstance(label, list) for label in labels.values()):
        dataset_json["regions_class_order"] = [1, 2, 3]
    for fold in range(folds):
        path = folder / f"fold_{fold}" / "checkpoint_final.pth"
        path.parent.mkdir(parents=True)
        path.touch()
    dim = len(plan["patch"])
    networks = {str(fold): make_network(dim, channels, 3) for fold in range(folds)}
    weights = {fold: network.state_dict() for fold, network in networks.items()}
    return TrainedModel(folder, "checkpoint_final.pth", plans, dataset_json, weights, "none", "c", mirror)


def make_network(dim: int, channels: int, outputs: int) -> nn.Module:
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dim]
    return nn.Sequential(
        convolution(channels, 4, 3, padding=1), nn.LeakyReLU(), convolution(4, outputs, 3, padding=1)
    ).eval()


def nnunet_predictor(model: TrainedModel) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    network = make_network(len(model.configuration_manager.patch_size), len(model.channels), 3)
    plans = PlansManager(deepcopy(model.plans))
    predictor.manual_initialization(
        network, plans, plans.get_configuration("c"), list(model.folds.values()), model.dataset_json, "t",
        model.mirror_axes,
    )  # fmt: skip
    return predictor


def sessions(model: TrainedModel) -> list[TorchSession]:
    result = []
    for weights in model.folds.values():
        network = make_network(len(model.configuration_manager.patch_size), len(model.channels), 3)
        network.load_state_dict(weights)
        result.append(TorchSession(network))
    return result


def write_volume(path: Path, shape, spacing, rng, *, direction=None) -> None:
    """Smooth blobs with an empty frame around them."""
    array = np.zeros(shape, np.float32)
    inner = tuple(slice(n // 6, n - n // 5) for n in shape)
    values = rng.normal(size=array[inner].shape).cumsum(-1).cumsum(-2)
    array[inner] = 150 * values / np.abs(values).max()
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((3.0, -7.0, 11.0)[: len(spacing)])
    if direction:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


ITK = {"reader": "SimpleITKIO", "transpose": [0, 1, 2]}
Z, CT = "ZScoreNormalization", "CTNormalization"
FLIPPED = (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
CASES = {
    "2d_anisotropic": (
        {"patch": [24, 20], "spacing": [1.3, 1.3], "schemes": [Z], "masks": [False], **ITK},
        {"shape": (5, 40, 33), "spacing": (1.0, 1.1, 8.0), "direction": FLIPPED},
        {},
    ),
    "2d_image": (
        {"patch": [24, 20], "spacing": [1.3, 1.3], "schemes": [Z], "masks": [False], **ITK},
        {"shape": (40, 33), "spacing": (1.0, 1.1)},
        {},
    ),
    "3d_ct_two_channels": (
        {"patch": [8, 16, 16], "spacing": [2.0, 1.2, 1.2], "schemes": [CT, Z], "masks": [False, True], **ITK},
        {"shape": (9, 30, 34), "spacing": (1.0, 1.0, 2.5)},
        {"mirror": (0, 1, 2), "folds": 2},
    ),
    "3d_separate_axis_regions": (
        {"patch": [4, 16, 16], "spacing": [5.0, 1.0, 1.0], "schemes": [Z], "masks": [True], **ITK},
        {"shape": (7, 30, 28), "spacing": (0.8, 0.8, 6.0)},
        {"labels": REGIONS, "folds": 3, "mirror": (1, 2)},
    ),
    "3d_transposed_no_mirroring": (
        {"patch": [4, 16, 16], "spacing": [5.0, 1.0, 1.0], "schemes": ["RescaleTo01Normalization"], "masks": [False],
         "reader": "SimpleITKIO", "transpose": [2, 0, 1]},
        {"shape": (30, 28, 7), "spacing": (6.0, 0.8, 0.8)},
        {"mirror": None},
    ),
    "3d_smaller_than_the_patch": (
        {"patch": [16, 24, 24], "spacing": [1.0, 1.0, 1.0], "schemes": ["NoNormalization"], "masks": [False], **ITK},
        {"shape": (11, 13, 40), "spacing": (1.0, 1.0, 1.0)},
        {},
    ),
    "3d_reoriented": (
        {"patch": [8, 16, 16], "spacing": [1.2, 1.2, 1.2], "schemes": [Z], "masks": [False],
         "reader": "SimpleITKIOWithReorient", "transpose": [0, 1, 2]},
        {"shape": (12, 20, 22), "spacing": (1.0, 1.0, 1.0), "direction": FLIPPED},
        {},
    ),
    "3d_nibabel": (
        {"patch": [8, 16, 16], "spacing": [1.2, 1.2, 1.2], "schemes": [Z], "masks": [False],
         "reader": "NibabelIO", "transpose": [0, 1, 2]},
        {"shape": (12, 20, 22), "spacing": (1.0, 0.9, 1.3), "direction": FLIPPED},
        {"ending": ".nii"},
    ),
}  # fmt: skip


def options(folder: Path, **changed) -> argparse.Namespace:
    given = predict.make_parser().parse_args(["-i", str(folder), "-o", str(folder / "out"), "--disable_progress_bar"])
    return argparse.Namespace(**vars(given) | changed)


def labels_of(path: Path) -> np.ndarray:
    return np.array(Image.open(path)) if path.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def both(model: TrainedModel, images: Path, tmp_path: Path, **changed) -> tuple[Path, Path]:
    """Predictions of all cases by ``predict.py`` and by nnU-Net."""
    description = json.loads(json.dumps(describe(model, {}, 18)))
    check_exportable(model)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    cases = predict.find_cases([images], description["file_ending"])
    given = options(tmp_path, **changed)
    for case, files in cases.items():
        target = ours / f"{case}{description['file_ending']}"
        predict.predict_case(files, target, sessions(model), description, given, lambda done, count: None)
    nnunet_predictor(model).predict_from_files_sequential(
        [[str(f) for f in files] for files in cases.values()], [str(theirs / case) for case in cases]
    )
    return ours, theirs


@pytest.mark.parametrize("name", CASES)
def test_labels_are_nnunets(name, tmp_path):
    plan, volume, more = CASES[name]
    rng = np.random.default_rng(0)
    model = make_model(tmp_path / "model", **plan, **more)
    images = tmp_path / "images"
    images.mkdir()
    ending = more.get("ending", ".nii.gz")
    for channel in range(len(plan["schemes"])):
        write_volume(images / f"case_{channel:04d}{ending}", rng=rng, **volume)
    ours, theirs = both(model, images, tmp_path, tile_batch=3)
    first, second = (sitk.ReadImage(str(folder / f"case{ending}")) for folder in (ours, theirs))
    assert len(np.unique(labels_of(ours / f"case{ending}"))) > 1
    assert np.array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    assert first.GetPixelID() == second.GetPixelID()
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(first, geometry)(), getattr(second, geometry)(), atol=1e-6)
    assert not [f for f in ours.iterdir() if "partial" in f.name]


def test_pictures(tmp_path):
    model = make_model(
        tmp_path / "model", ending=".png", patch=[24, 24], spacing=[1.0, 1.0], schemes=["RGBTo01Normalization"] * 3,
        masks=[False] * 3, transpose=[0, 1, 2], reader="NaturalImage2DIO",
    )  # fmt: skip
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)).save(images / "a_0000.png")
    ours, theirs = both(model, images, tmp_path)
    assert np.array_equal(labels_of(ours / "a.png"), labels_of(theirs / "a.png"))


def test_preprocessing_is_bit_equal(tmp_path):
    plan, volume, _ = CASES["3d_separate_axis_regions"]
    model = make_model(tmp_path / "model", **plan)
    write_volume(tmp_path / "case_0000.nii.gz", rng=np.random.default_rng(1), **volume)
    description = describe(model, {}, 18)
    data, spacing, _ = predict.read_case([tmp_path / "case_0000.nii.gz"], description)
    found, _ = predict.preprocess(data, spacing, description)
    preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
    expected, _, _ = preprocessor.run_case(
        [str(tmp_path / "case_0000.nii.gz")], None, model.plans_manager, model.configuration_manager, model.dataset_json
    )
    assert np.array_equal(found, expected)


def test_regions_overwrite_in_order():
    logits = np.full((3, 1, 1, 4), -1, np.float16)
    logits[0, ..., :3] = logits[1, ..., 1:3] = logits[2, ..., 2] = 1
    back = {"cropped": (1, 1, 4), "whole": (1, 1, 4), "box": (slice(None),) * 3, "spacings": [[1, 1, 1], [1, 1, 1]]}
    model = {
        "resampling": {"logits": {"order": 1, "force_separate_z": None}},
        "regions_class_order": [2, 1, 3],
        "highest_label": 3,
        "transpose_backward": [0, 1, 2],
    }
    assert predict.segment(logits, back, model).tolist() == [[[2, 1, 3, 0]]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["case_0000.nii.gz", "case_0001.nii.gz", "case_0002.nii.gz"], "the model takes 2 channel(s) (c0, c1)"),
        (["case_0000.nii.gz"], "the model takes 2 channel(s)"),
        (["case_0000.nii.gz", "broken"], "cannot be read"),
        (["case_0000.nii.gz", "small"], "different shapes"),
    ],
)
def test_bad_cases_are_named(names, message, tmp_path):
    plan, volume, _ = CASES["3d_ct_two_channels"]
    model = json.loads(json.dumps(describe(make_model(tmp_path / "model", **plan), {}, 18)))
    rng = np.random.default_rng(0)
    files = []
    for name in names:
        files.append(tmp_path / (name if name.startswith("case") else "case_0001.nii.gz"))
        if name == "broken":
            files[-1].write_bytes(b"no image")
        else:
            write_volume(files[-1], rng=rng, **volume | ({"shape": (4, 4, 4)} if name == "small" else {}))
    with pytest.raises(predict.CaseError, match="(?s)" + message.replace("(", r"\(").replace(")", r"\)")) as error:
        predict.read_case(files, model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("case.nii.gz", "must be CASE_0000.nii.gz"), ("case_0000.png", "no files that end in .nii.gz")],
)
def test_bad_names_are_refused(name, message, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(SystemExit, match=message):
        predict.find_cases([tmp_path], ".nii.gz")


def test_runs_without_torch_and_nnunet(tmp_path):
    """Neither is imported, even for --help and reading; the script stands alone."""
    (tmp_path / "predict.py").write_text(Path(predict.__file__).read_text())
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(['torch', 'nnunetv2', 'nnunet_attn', 'skimage', 'tqdm']))\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport predict\npredict.main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "CASE_0000.nii.gz" in done.stdout
