"""On plans with an input size, a paper's epoch is a pass over the training slices."""

import json
import math
from pathlib import Path

import pytest
import torch

from nnunet_attn.cli.main import main
from nnunet_attn.report.paper_differences import paper_differences
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process
from nnunet_attn.training.paper_schedule import rescaled


@pytest.fixture
def with_input_size(images_2d, tmp_path):
    """Eight pictures whose plans say that they have an input size; a fold trains on five of them."""
    data = images_2d.copy(tmp_path)
    path = data.preprocessed / "nnUNetPlans.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input_size": 32}))
    cases = [f"case{i:02d}" for i in range(8)]
    (data.preprocessed / "splits_final.json").write_text(json.dumps([{"train": cases[:5], "val": cases[5:]}]))
    with nnunet_in_process(data.root):
        yield data


def start(data, trainer: str, fold=0):
    run = make_trainer(data.dataset_id, "2d", trainer, fold=fold)
    run.configuration_manager.configuration["batch_size"] = 2
    run.initialize()
    return run


@pytest.mark.parametrize(
    ("trainer", "epochs", "iterations"),
    [
        ("nnUNetTrainerDCAUNet_paper", 400, math.ceil(5 / 2)),
        ("nnUNetTrainerXAttnResUNet_paper", 300, 3),
        ("nnUNetTrainerXAttnResUNet_paperPictures", 200, 3),
        ("nnUNetTrainerDualCAUNet_paper", 200, 3),
        ("nnUNetTrainerFIAS_paper", 1000, 250),
        ("nnUNetTrainerDCAUNet", 1000, 250),
        ("nnUNetTrainerDCAUNet_paper_7epochs", 7, 250),
        ("nnUNetTrainerDCAUNet_paper_2epochs_4iterations", 2, 4),
    ],
)
def test_epochs_are_passes(with_input_size, trainer, epochs, iterations):
    run = start(with_input_size, trainer)
    assert (run.num_epochs, run.num_iterations_per_epoch) == (epochs, iterations)
    (log,) = Path(run.output_folder).glob("training_log_*.txt")
    assert ("5 training slices, batch 2" in log.read_text()) == (iterations == 3)


def test_other_plans_keep_250(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        run = start(data, "nnUNetTrainerDCAUNet_paper")
    assert run.num_iterations_per_epoch == 250


def test_a_missing_split_file_is_refused(with_input_size):
    (with_input_size.preprocessed / "splits_final.json").unlink()
    with pytest.raises(ValueError, match=r"splits_final.json is missing; nnunet-attn plan --input-size copies"):
        start(with_input_size, "nnUNetTrainerDCAUNet_paper")


def test_three_scales_are_three_steps(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        run = make_trainer(data.dataset_id, "2d", "nnUNetTrainerXAttnResUNet_paperPictures_1epoch_1iterations")
        run.initialize()
    sizes, steps = [], []
    run.network.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    run.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    largest = []
    run.optimizer.register_step_pre_hook(
        lambda o, *_: largest.append(max(float(p.grad.abs().max()) for g in o.param_groups for p in g["params"]
                                         if p.grad is not None))
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    batch = {"data": torch.randn(2, 3, 128, 128, generator=generator), "target": torch.zeros(2, 1, 128, 128)}
    assert run.train_step(batch)["loss"].shape == ()
    assert (sizes, len(steps)) == ([(96, 96), (128, 128), (160, 160)], 3)
    assert max(largest) <= 0.5


def test_sizes_are_the_released_code_s():
    batch = {"data": torch.zeros(1, 3, 352, 352), "target": [torch.zeros(1, 1, 352, 352), torch.zeros(1, 1, 176, 176)]}
    sizes = [rescaled(batch, scale) for scale in (0.75, 1.0, 1.25)]
    assert [tuple(b["data"].shape[2:]) for b in sizes] == [(256, 256), (352, 352), (448, 448)]
    assert [tuple(b["target"][1].shape[2:]) for b in sizes] == [(128, 128), (176, 176), (224, 224)]


@pytest.mark.parametrize("stride", [32, 64, 128])
def test_sizes_suit_a_network_of_the_plans_with_more_halvings(stride):
    batch = {"data": torch.zeros(1, 3, 640, 640), "target": torch.zeros(1, 1, 640, 640)}
    for scale in (0.75, 1.25):
        height, width = rescaled(batch, scale, (stride, 32))["data"].shape[2:]
        assert width == scale * 640
        assert height % stride == 0
        assert abs(height - width) <= stride / 2


def test_labels_stay_labels():
    target = torch.randint(0, 3, (1, 1, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.int16)
    new = rescaled({"data": torch.zeros(1, 1, 64, 64), "target": target}, 1.5)["target"]
    assert (new.dtype, tuple(new.shape)) == (torch.int16, (1, 1, 96, 96))
    assert set(new.unique().tolist()) == {0, 1, 2}


def test_scales_are_for_2d(volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path)
    with nnunet_in_process(data.root), pytest.raises(ValueError, match="several scales, in 2D only"):
        make_trainer(data.dataset_id, "3d_fullres", "nnUNetTrainerXAttnRes_paperPictures")


def test_info_lists_what_differs(capsys):
    assert main(["info", "nnUNetTrainerXAttnResUNet_paperPictures_2epochs"]) == 0
    out = capsys.readouterr().out
    for text in paper_differences("nnUNetTrainerXAttnResUNet_paperPictures"):
        assert f"- {text}" in out
    assert paper_differences("nnUNetTrainerDCAUNet") == []
    assert any("no number of epochs" in text for text in paper_differences("nnUNetTrainerFIAS_paper_run2"))
