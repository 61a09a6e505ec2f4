"""Trained models through ``nnunet-attn export``, and ``predict.py`` in a process that cannot import torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from untrained import untrained

from nnunet_attn.catalog import ENTRIES, STOCK_TRAINERS
from nnunet_attn.cli.main import main
from nnunet_attn.training.in_process import predict

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ALL_2D = ("nnUNetTrainer", *STOCK_TRAINERS, *(entry.trainer for entry in ENTRIES))
ALL_3D = ("nnUNetTrainer", *(entry.trainer for entry in ENTRIES if 3 in entry.dimensions))


def some(names, light):
    return [name if name in light else pytest.param(name, marks=pytest.mark.slow) for name in names]


def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing torch, nnU-Net or this package fails."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(exist_ok=True)
    for name in ("torch", "nnunetv2", "nnunet_attn", "skimage", "tqdm"):
        (hidden / f"{name}.py").write_text(f"raise ImportError('{name} is hidden')\n")
    return {**os.environ, "PYTHONPATH": str(hidden)}


def run_predict(export: Path, tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, export / "predict.py", "--threads", "1", "--disable_progress_bar", *arguments]
    return subprocess.run(
        [str(part) for part in command], env=without_torch(tmp_path), capture_output=True, text=True, check=False
    )


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path)) if path.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def exported_and_compared(data, trainer: str, tmp_path: Path) -> Path:
    model, export = untrained(data, trainer), tmp_path / "export"
    assert main(["export", str(model), "-o", str(export)]) == 0
    content = json.loads((export / "model.json").read_text())
    assert content["self_check"]["0"] < 1e-5
    images = data.raw / "imagesTs"
    done = run_predict(export, tmp_path, "-i", images, "-o", tmp_path / "ours", "--tile-batch", 2)
    assert done.returncode == 0, done.stderr
    predict(model, images, tmp_path / "theirs")
    (ours,) = (tmp_path / "ours").iterdir()
    labels, expected = read(ours), read(tmp_path / "theirs" / ours.name)
    assert labels.shape == expected.shape
    # random weights leave many voxels undecided, a trained model few
    assert (labels == expected).mean() > 0.999
    return export


@pytest.mark.parametrize("trainer", some(ALL_2D, ("nnUNetTrainer", "nnUNetTrainerDualCA")))
def test_2d(trainer, images_2d, tmp_path):
    exported_and_compared(images_2d.copy(tmp_path / "data"), trainer, tmp_path)


@pytest.mark.parametrize("trainer", some(ALL_3D, ("nnUNetTrainerXAttnRes",)))
def test_3d(trainer, volumes_3d, tmp_path):
    exported_and_compared(volumes_3d.copy(tmp_path / "data"), trainer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "source"), [("nnUNetTrainer", "images_2d"), ("nnUNetTrainerXAttnRes", "volumes_3d")]
)
def test_residual_encoder(trainer, source, tmp_path, request):
    """On plans as those of nnU-Net's ResEnc presets."""
    data = request.getfixturevalue(source).copy(tmp_path / "data")
    file = data.preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            architecture = configuration["architecture"]
            architecture["network_class_name"] = architecture["network_class_name"].replace(
                "PlainConv", "ResidualEncoder"
            )
            arguments = architecture["arch_kwargs"]
            arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    file.write_text(json.dumps(plans))
    exported_and_compared(data, trainer, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerFIAS"])
def test_regions(trainer, regions_2d, tmp_path):
    export = exported_and_compared(regions_2d.copy(tmp_path / "data"), trainer, tmp_path)
    assert json.loads((export / "model.json").read_text())["regions_class_order"] == [1, 2]


def test_refusals(images_2d, tmp_path, capsys):
    """One line each, and nothing is written."""
    data = images_2d.copy(tmp_path / "data")
    model, export = untrained(data, "nnUNetTrainer"), tmp_path / "export"
    plans = json.loads((model / "plans.json").read_text())

    def refused(*more: str) -> str:
        assert main(["export", str(model), "-o", str(export), *more]) == 1
        assert not export.exists()
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("nnunet-attn export: error: ")
        return message

    def changed(**entries) -> None:
        configuration = plans["configurations"]["2d"] | entries
        content = plans | {"configurations": plans["configurations"] | {"2d": configuration}}
        (model / "plans.json").write_text(json.dumps(content))

    changed(previous_stage="3d_lowres")
    assert "cascade on 3d_lowres" in refused()
    changed(resampling_fn_probabilities="resample_torch_fornnunet")
    assert "resample by resample_torch_fornnunet" in refused()
    changed(normalization_schemes=["MyNormalization"] * 3)
    assert "unknown normalisation MyNormalization" in refused()
    changed(preprocessor_name="MyPreprocessor")
    assert "MyPreprocessor" in refused()
    changed()
    for parent in (model, model.parent):
        assert main(["export", str(model), "-o", str(parent), "--overwrite"]) == 1
        assert f"lies in {parent}, which the output would replace" in capsys.readouterr().err
    check = ["export", str(model), "--check", str(model), str(data.raw / "imagesTr")]
    assert main([*check, "-f", "0", "-chk", "checkpoint_best.pth", "--overwrite"]) == 1
    assert "leave out -f -chk --overwrite" in capsys.readouterr().err
    assert "fold_3/checkpoint_final.pth is missing" in refused("-f", "3")
    assert "there is checkpoint_final.pth, give it by -chk" in refused("-f", "0", "-chk", "checkpoint_best.pth")
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"cut")
    assert "is no checkpoint of nnU-Net's" in refused()
    (model / "plans.json").unlink()
    assert "TRAINER__PLANS__CONFIGURATION" in refused()


def test_a_model_that_does_not_agree_is_not_left_behind(images_2d, tmp_path, capsys, monkeypatch):
    from nnunet_attn.export import export as module

    def write_another(network, shape, path):
        path.write_bytes(b"")

    monkeypatch.setattr(module, "write_onnx", write_another)
    monkeypatch.setattr(module, "disagreement", lambda *_: float("nan"))
    model = untrained(images_2d.copy(tmp_path / "data"), "nnUNetTrainer")
    assert main(["export", str(model), "-o", str(tmp_path / "export")]) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not [p for p in tmp_path.iterdir() if "export" in p.name]


@pytest.mark.slow
def test_ensemble_check_and_bad_cases(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path / "data")
    model, export, images = untrained(data, "nnUNetTrainer", folds=(0, 1)), tmp_path / "export", data.raw / "imagesTr"
    assert main(["export", str(model), "-o", str(export)]) == 0
    assert {p.name for p in export.iterdir()} == {
        "fold_0.onnx", "fold_1.onnx", "model.json", "predict.py", "requirements.txt",
    }  # fmt: skip

    assert main(["export", str(model), "--check", str(export), str(images)]) in (
        0,
        1,
    )  # random weights may be undecided
    assert "all cases: " in capsys.readouterr().out

    grey, broken = images / "grey_0000.png", images / "broken_0000.png"
    Image.new("L", (20, 20)).save(grey)
    broken.write_bytes(b"no picture")
    done = run_predict(export, tmp_path, "-i", images, "-o", tmp_path / "out", "-f", "1")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any("grey: the model takes 3 channel(s) (R, G, B), but grey_0000.png hold 1" in line for line in lines)
    assert any(line.startswith("broken: ") and "cannot be read" in line for line in lines)
    assert lines[-1] == "predict.py: error: 2 of 10 cases were not predicted"
    assert len(list((tmp_path / "out").glob("case*.png"))) == 8

    (model / "fold_1" / "checkpoint_final.pth").write_bytes(b"another")
    assert main(["export", str(model), "--check", str(export), str(images)]) == 1
    assert "checkpoint" in capsys.readouterr().err
