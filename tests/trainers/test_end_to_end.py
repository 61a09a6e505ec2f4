"""Every network of the catalogue through nnU-Net: train, stop, resume, validate, predict, export, install, predict."""

import json
import os
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from nnunet_attn.catalog import ENTRIES, STOCK_TRAINERS
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process, predict
from nnunet_attn.training.record import NAME as RECORD

pytestmark = pytest.mark.usefixtures("without_progress_figure")

TRAINERS_2D = [*STOCK_TRAINERS, *(entry.trainer for entry in ENTRIES)]
LIGHT = "nnUNetTrainerXAttnResUNet"
EXPORTED = (*STOCK_TRAINERS, LIGHT, "nnUNetTrainerDualCA")  # and installed again
KINDS = (*STOCK_TRAINERS, LIGHT, "nnUNetTrainerEMCAD", "nnUNetTrainerFIAS")  # each with a loss of its own
TRAINERS_3D = [*STOCK_TRAINERS, *(entry.trainer for entry in ENTRIES if 3 in entry.dimensions)]


def read(path) -> np.ndarray:
    if path.suffix == ".png":
        return np.array(Image.open(path))
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def model_folder(data, trainer: str):
    return data.root / "nnUNet_results" / data.name / f"{trainer}__nnUNetPlans__{data.configuration}"


class Killed(Exception):
    pass


def train_resume_validate_predict(data, trainer: str) -> None:
    name = f"{trainer}_2epochs_1iterations"
    with nnunet_in_process(data.root):
        stopped = make_trainer(data.dataset_id, data.configuration, name)
        start = stopped.on_epoch_start

        def killed_in_the_second_epoch() -> None:
            if stopped.current_epoch == 1:
                raise Killed
            start()

        stopped.on_epoch_start = killed_in_the_second_epoch
        with pytest.raises(Killed):
            stopped.run_training()
        fold = model_folder(data, name) / "fold_0"
        assert (fold / "checkpoint_latest.pth").is_file()
        trained = {k: v.clone() for k, v in stopped.bare_network.state_dict().items()}

        resumed = make_trainer(data.dataset_id, data.configuration, name, resume=True)
        assert resumed.current_epoch == 1
        resumed.run_training()
        resumed.perform_actual_validation()
        assert resumed.current_epoch == 2
        assert any(not torch.equal(trained[k], v) for k, v in resumed.bare_network.state_dict().items())
        record = json.loads((fold / RECORD).read_text())
        assert [s["first_epoch"] for s in record["sessions"]] == [0, 1]
        assert [len(s["epoch_seconds"]) for s in record["sessions"]] == [1, 1]
        summary = json.loads((fold / "validation" / "summary.json").read_text())
        assert summary["metric_per_case"]
        assert not [f for f in os.listdir(fold) if f.endswith(".tmp")]

        predict(model_folder(data, name), data.raw / "imagesTs", data.root / "before")
        if trainer in EXPORTED:
            export_install_predict(data, name)
    (prediction,) = (data.root / "before").glob("test00.*")
    assert read(prediction).shape == read(data.raw / "labelsTs" / prediction.name).shape
    if trainer in EXPORTED:
        assert np.array_equal(read(prediction), read(data.root / "after" / prediction.name))


def export_install_predict(data, name: str) -> None:
    """What nnU-Net does with files whose content it does not look at: the same for all networks."""
    from nnunetv2.model_sharing import model_export
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    archive = data.root / "model.zip"
    stored = SimpleNamespace(ZipFile=zipfile.ZipFile, ZIP_DEFLATED=zipfile.ZIP_STORED)
    with mock.patch.object(model_export, "zipfile", stored):  # compressing the weights is a third of the time
        model_export.export_pretrained_model(data.dataset_id, str(archive), (data.configuration,), name, folds=(0,))
    model_folder(data, name).rename(data.root / "removed")
    install_model_from_zip_file(str(archive))
    predict(model_folder(data, name), data.raw / "imagesTs", data.root / "after")


@pytest.mark.parametrize("trainer", TRAINERS_2D)
def test_2d(trainer, images_2d, tmp_path):
    train_resume_validate_predict(images_2d.copy(tmp_path), trainer)


def of_libraries(dimensions: int) -> list:
    """Trainers of networks whose extra is installed; all are slow."""
    return [
        pytest.param(
            e.trainer,
            marks=[pytest.mark.slow, pytest.mark.skipif(not find_spec(e.network.split(".")[0]), reason="no extra")],
        )
        for e in LIBRARY_ENTRIES
        if dimensions in e.dimensions
    ]


@pytest.mark.parametrize("trainer", of_libraries(2))
def test_libraries_2d(trainer, images_2d, tmp_path):
    train_resume_validate_predict(images_2d.copy(tmp_path), trainer)


@pytest.mark.parametrize("trainer", of_libraries(3))
def test_libraries_3d(trainer, volumes_3d, tmp_path):
    train_resume_validate_predict(volumes_3d.copy(tmp_path), trainer)


@pytest.mark.parametrize("trainer", [LIGHT, pytest.param("nnUNetTrainerFIAS", marks=pytest.mark.slow)])
def test_2d_slices_of_volumes(trainer, volumes_3d, tmp_path):
    """A light network stands for all: nnU-Net cuts the slices and joins their predictions."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    data = replace(volumes_3d.copy(tmp_path), configuration="2d")
    with nnunet_in_process(data.root):
        preprocess([data.dataset_id], configurations=("2d",), num_processes=(1,))
    train_resume_validate_predict(data, trainer)


@pytest.mark.parametrize("trainer", TRAINERS_3D)
def test_3d(trainer, volumes_3d, tmp_path):
    train_resume_validate_predict(volumes_3d.copy(tmp_path), trainer)


@pytest.mark.parametrize("trainer", [t if t in KINDS else pytest.param(t, marks=pytest.mark.slow) for t in TRAINERS_2D])
def test_regions_and_ignore_label(trainer, regions_2d, tmp_path):
    data = regions_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        run = make_trainer(data.dataset_id, data.configuration, f"{trainer}_1epoch_1iterations")
        run.disable_checkpointing = True
        run.run_training()
        assert run.label_manager.has_regions
        assert run.label_manager.has_ignore_label
        losses = run.logger.get_value("train_losses", step=None)
    assert len(losses) == 1
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("trainer", [e.trainer for e in ENTRIES if 3 not in e.dimensions])
def test_2d_networks_refuse_3d(trainer, volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path)
    with nnunet_in_process(data.root):
        with pytest.raises(ValueError, match="takes 2D configurations, but this one is 3D"):
            make_trainer(data.dataset_id, "3d_fullres", trainer)
        assert not (data.root / "nnUNet_results" / data.name).exists()
