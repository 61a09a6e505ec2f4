"""nnU-Net's cascade with the plan-driven trainers: low resolution, then full resolution with its segmentation."""

import pydoc

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_attn import trainers
from nnunet_attn.training.in_process import nnunet_in_process
from nnunet_attn.training.planner import PlainPlanner

pytestmark = pytest.mark.usefixtures("without_progress_figure")

PLANS = "CascadePlans"


def train(data, configuration: str, trainer: str):
    from nnunetv2.run.run_training import get_trainer_from_args

    name = f"{trainer}_1epoch_2iterations"
    run = get_trainer_from_args(str(data.dataset_id), configuration, "all", name, PLANS, device=torch.device("cpu"))
    run.run_training()
    run.inference_allowed_mirroring_axes = None
    run.perform_actual_validation()
    return run


def predict(run, images, output, previous=None) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(run.output_folder_base, ("all",), "checkpoint_final.pth")
    predictor.predict_from_files_sequential(
        str(images), str(output), folder_with_segs_from_prev_stage=str(previous) if previous else None
    )


@pytest.mark.parametrize(
    "trainer",
    [
        pytest.param("nnUNetTrainerDiffCA", marks=pytest.mark.slow),
        "nnUNetTrainerDualCA",
        pytest.param("nnUNetTrainerMixAtt", marks=pytest.mark.slow),
        pytest.param("nnUNetTrainerXAttnRes", marks=pytest.mark.slow),
    ],
)
def test_cascade(trainer, volumes_3d, tmp_path):
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    data = volumes_3d.copy(tmp_path / "data")
    with nnunet_in_process(data.root):
        network = pydoc.locate(getattr(trainers, trainer).networks["PlainConvUNet"])
        planner = PlainPlanner(data.dataset_id, network, plans_name=PLANS, gpu_memory_target_in_gb=0.005)
        planner.UNet_base_num_features = 8
        planner.lowres_creation_threshold = 0.9  # of the volume; 0.25 needs larger data
        planner.plan_experiment()
        preprocess([data.dataset_id], PLANS, ("3d_lowres",), (1,))
        low = train(data, "3d_lowres", trainer)
        channels = [low.network.encoder.stages[0][0].convs[0].conv.in_channels]
        predict(low, data.raw / "imagesTs", tmp_path / "low")

        full = train(data, "3d_cascade_fullres", trainer)
        channels.append(full.network.encoder.stages[0][0].convs[0].conv.in_channels)
        predict(full, data.raw / "imagesTs", tmp_path / "full", tmp_path / "low")
    assert channels == [1, 3]  # the image, then with one map for each of the two foreground classes
    assert full.is_cascaded
    for folder in ("low", "full"):
        predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / folder / "test00.nii.gz")))
        assert predicted.shape == (16, 32, 40)
        assert set(np.unique(predicted)) <= {0, 1, 2}
