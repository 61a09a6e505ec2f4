import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_attn import trainers
from nnunet_attn.architectures.planned import kept_values
from nnunet_attn.cli.main import main
from nnunet_attn.cli.plan import NETWORKS
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process
from nnunet_attn.training.planner import FixedShapePlanner

pytestmark = pytest.mark.usefixtures("without_progress_figure")


@pytest.mark.parametrize(
    "network", ["MixAtt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("DiffCA", "DualCA", "XAttnRes"))]
)
def test_plan_then_the_stock_trainer(network, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", str(data.dataset_id), "--network", network, "-gpu_memory_target", "0.2"]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == str(data.preprocessed / f"{network}Plans.json")
        assert out[1].endswith("data nnUNetPlans_2d")
        assert out[2:] == [f"nnUNetv2_train 901 2d 0 -p {network}Plans"]
        for trainer in ("nnUNetTrainer", f"nnUNetTrainer{network}"):
            run = make_trainer(data.dataset_id, "2d", f"{trainer}_1epoch_1iterations", plans=f"{network}Plans")
            run.run_training()
            assert type(run.network).__name__ == f"{network}PlainConvUNet"


FIXED = [name for name, entry in NETWORKS.items() if entry.dimensions == (2,)]


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=[] if name == "XAttnResUNet" else [pytest.mark.slow]) for name in FIXED]
)
def test_networks_of_fixed_shape_get_patch_and_batch_by_their_own_memory(network, volumes_3d, tmp_path, capsys):
    data = volumes_3d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", data.name, "--network", network, "-gpu_memory_target", "0.05"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == f"nnUNetv2_train 903 2d 0 -p {network}Plans -tr nnUNetTrainer{network}"
    plans = json.loads((data.preprocessed / f"{network}Plans.json").read_text())
    assert list(plans["configurations"]) == ["2d"]
    assert plans["configurations"]["2d"]["data_identifier"] == "nnUNetPlans_2d"


def test_equal_memory_means_a_smaller_batch_for_a_network_that_keeps_more(images_2d, tmp_path):
    data, batches, kept = images_2d.copy(tmp_path), {}, {}
    with nnunet_in_process(data.root):
        for name in ("nnUNetTrainerXAttnResUNet", "nnUNetTrainerDualCAUNet"):
            planner = FixedShapePlanner(data.dataset_id, getattr(trainers, name), plans_name=name)
            planner.max_dataset_covered = 1e6
            plan = planner.plan_experiment()["configurations"]["2d"]
            batches[name], patch = plan["batch_size"], plan["patch_size"]
            with torch.device("meta"):
                configuration = ConfigurationManager(plan)
                network = planner.trainer.build_network_architecture(None, configuration, 3, 3, True)
            kept[name] = kept_values(network, [(1, 3, *patch)])
    light, heavy = batches
    assert kept[heavy] > 1.5 * kept[light]
    assert batches[light] * kept[light] == pytest.approx(
        batches[heavy] * kept[heavy], rel=0.1
    )  # some is kept once a batch


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--residual"], "DCAUNet has a shape of its own and no other encoder; --residual goes with DiffCA, DualCA"),
        (["-c", "3d_fullres"], "DCAUNet is a 2D network and 3d_fullres is 3D; DiffCA, DualCA, MixAtt, XAttnRes take"),
        (["-c", "2d"], "-c goes with --from"),
        (["--batch-size", "2"], "with --network give -gpu_memory_target"),
    ],
)
def test_impossible_wishes_with_a_network(more, message, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--network", "DCAUNet", *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_residual_with_another_name_and_spacing(volumes_3d, tmp_path, capsys):
    data = volumes_3d.copy(tmp_path)
    more = ["--residual", "-overwrite_plans_name", "Mine", "-overwrite_target_spacing", "2", "1", "1"]
    with nnunet_in_process(data.root):
        assert main(["plan", data.name, "--network", "DualCA", *more]) == 0
    out = capsys.readouterr().out
    assert "(to preprocess)" in out
    assert "nnUNetv2_preprocess -d 903 -plans_name Mine -c 2d 3d_fullres" in out
    assert "ResidualEncoderUNet" in (data.preprocessed / "Mine.json").read_text()


@pytest.mark.parametrize("dataset", ["999", "Dataset999_None", "none"])
def test_missing_dataset(dataset, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", dataset, "--network", "DualCA"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet-attn plan: error: ")
    assert error.count("\n") == 1


def test_missing_fingerprint(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    (data.preprocessed / "dataset_fingerprint.json").unlink()
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--network", "DualCA"]) == 1
    assert "run nnUNetv2_plan_and_preprocess -d 901 first" in capsys.readouterr().err


def test_missing_variable(monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["plan", "1", "--network", "DualCA"]) == 1
    assert "nnUNet_raw is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("0", "positive number of GB, got 0"),
        ("nan", "got nan"),
        ("0.00001", "memory target of 1e-05 GB may be too small"),
    ],
)
def test_memory_targets_without_a_plan(target, message, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--network", "DualCA", "-gpu_memory_target", target]) == 1
    assert message in capsys.readouterr().err
    assert not (data.preprocessed / "DualCAPlans.json").exists()


@pytest.mark.parametrize("name", ["../Mine", "mine/plans", "a__b", "", "-x"])
def test_names_that_are_no_folder(name, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--network", "DualCA", f"-overwrite_plans_name={name}"]) == 1
    assert "becomes the name of a file" in capsys.readouterr().err


def changed(data, *more: str) -> int:
    with nnunet_in_process(data.root):
        return main(["plan", str(data.dataset_id), "--from", "nnUNetPlans", "-overwrite_plans_name", "Small", *more])


def test_changed_plans_preprocess_and_train(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    assert changed(data, "-overwrite_target_spacing", "2", "2", "--patch-size", "16", "24", "--batch-size", "3") == 0
    out = capsys.readouterr().out
    assert "2d: patch 16x24, batch 3, data Small_2d (to preprocess)" in out
    assert "nnUNetv2_preprocess -d 901 -plans_name Small -c 2d" in out
    plans = json.loads((data.preprocessed / "Small.json").read_text())
    configuration = plans["configurations"]["2d"]
    assert configuration["median_image_size_in_voxels"] == [20, 28]
    assert configuration["architecture"]["arch_kwargs"]["strides"] == [[1, 1], [2, 2], [2, 2]]
    assert len(configuration["architecture"]["arch_kwargs"]["n_conv_per_stage_decoder"]) == 2
    with nnunet_in_process(data.root):
        preprocess([data.dataset_id], "Small", ("2d",), num_processes=[1])
        run = make_trainer(data.dataset_id, "2d", "nnUNetTrainer_1epoch_1iterations", plans="Small")
        run.run_training()


def test_changes_without_another_spacing_keep_the_data(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    assert changed(data, "--batch-size", "1") == 0
    assert "data nnUNetPlans_2d\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--patch-size", "30", "40"], "the nearest possible are 28 x 40 and 32 x 40"),
        (["--patch-size", "4", "4"], "too small"),
        (["--patch-size", "16", "16", "16"], "2d is 2D: --patch-size takes 2 numbers, got 3"),
        (["--batch-size", "0"], "batch size must be at least 1, got 0"),
        (["-overwrite_target_spacing", "1", "0"], "spacings must be positive, got 1 0"),
        (["-overwrite_target_spacing", "1", "1", "1"], "takes 2 numbers, got 3"),
        (["-c", "3d_fullres"], "nnUNetPlans has no configuration 3d_fullres, but 2d"),
        (["-gpu_memory_target", "8"], "go with --network"),
    ],
)
def test_impossible_changes(more, message, images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    assert changed(data, *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (data.preprocessed / "Small.json").exists()


def test_data_of_another_spacing_are_never_taken_for_these(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    assert changed(data, "-overwrite_target_spacing", "2", "2") == 0
    (data.preprocessed / "Small_2d").mkdir()
    assert changed(data, "-overwrite_target_spacing", "2", "2", "--batch-size", "1") == 0
    before = (data.preprocessed / "Small.json").read_text()
    capsys.readouterr()
    assert changed(data, "-overwrite_target_spacing", "3", "3") == 1
    assert "Small_2d holds data of spacing 2.0 x 2.0; delete it, or give another" in capsys.readouterr().err
    assert (data.preprocessed / "Small.json").read_text() == before


def test_transposed_axes_and_a_whole_cascade(volumes_3d, tmp_path):
    """Spacing in the image's order, patch in that of the plans; the stages of a cascade come along."""
    data = volumes_3d.copy(tmp_path)
    file = data.preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    low = plans["configurations"]["3d_fullres"] | {"data_identifier": "low", "next_stage": "3d_cascade_fullres"}
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"] |= {"3d_lowres": low, "3d_cascade_fullres": cascade}
    file.write_text(json.dumps(plans))
    assert changed(data, "-c", "3d_fullres", "-overwrite_target_spacing", "1", "2", "3") == 0
    result = json.loads((data.preprocessed / "Small.json").read_text())
    assert set(result["configurations"]) == {"3d_fullres", "3d_lowres", "3d_cascade_fullres"}
    manager = PlansManager(result).get_configuration("3d_cascade_fullres")
    assert manager.spacing == [3.0, 1.0, 2.0]
    assert manager.data_identifier == "Small_3d_fullres"
    assert manager.previous_stage_name == "3d_lowres"
    assert PlansManager(result).get_configuration("3d_lowres").data_identifier == "low"
    assert PlansManager(result).get_configuration("3d_lowres").next_stage_names == ["3d_cascade_fullres"]


def test_changes_do_not_overwrite_other_plans(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--network", "DualCA", "-overwrite_plans_name", "Small"]) == 0
    assert changed(data, "--batch-size", "1") == 1
    assert "was not derived from nnUNetPlans and would be lost" in capsys.readouterr().err


def test_debug_plans_are_tiny_and_train(images_2d, tmp_path, capsys):
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["plan", "901", "--debug"]) == 0
        command = capsys.readouterr().out.splitlines()[-1]
        assert command == (
            "nnUNetv2_train 901 2d 0 -p nnUNetPlansDebug -tr nnUNetTrainerDCAUNet_1epochs_2iterations -device cpu"
        )
        trainer = make_trainer(901, "2d", "nnUNetTrainerDCAUNet_1epochs_1iterations", plans="nnUNetPlansDebug")
        trainer.run_training()
        assert trainer.batch_size == 2
        assert max(trainer.configuration_manager.patch_size) <= 64
        assert main(["plan", "901", "--debug", "-c", "3d_fullres"]) == 1
        assert "nnUNetPlans has no configuration 3d_fullres" in capsys.readouterr().err


def test_debug_plans_show_the_median_image_in_one_patch(volumes_3d, tmp_path, capsys):
    """Spacings in the order of the image's own axes; large axes shrink, small ones stay."""
    data = volumes_3d.copy(tmp_path)
    file = data.preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text()) | {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    sizes = {"median_image_size_in_voxels": [20.0, 320.0, 240.0], "spacing": [5.0, 1.0, 1.5]}
    plans["configurations"]["3d_fullres"] |= sizes | {"patch_size": [20, 160, 128]}
    file.write_text(json.dumps(plans))
    with nnunet_in_process(data.root):
        assert main(["plan", "903", "--debug", "-c", "3d_fullres"]) == 0
    printed = capsys.readouterr().out
    assert "3d_fullres: patch 20x32x32, batch 2, data nnUNetPlansDebug_3d_fullres (to preprocess)" in printed
    assert "nnUNetv2_preprocess -d 903 -plans_name nnUNetPlansDebug -c 3d_fullres" in printed
    small = json.loads(file.with_name("nnUNetPlansDebug.json").read_text())["configurations"]["3d_fullres"]
    assert small["spacing"] == [5.0, 10.0, 11.25]
    assert small["median_image_size_in_voxels"] == [20, 32, 32]


def test_doctor_estimates_a_dataset_and_names_plans_that_fit(images_2d, tmp_path, capsys, monkeypatch):
    import nnunet_attn.cli.estimate as estimates

    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        assert main(["doctor", "901", "--quick", "-tr", "nnUNetTrainerDCAUNet_1epochs_2iterations"]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert re.search(
            r"ok\s+2d\s+patch \S+, batch 2: about [\d.]+ GiB of .* about [\d.]+ (s|min|h) an epoch of 2 iterations",
            line,
        )

        large = ["-overwrite_plans_name", "LargePlans", "--batch-size", "4000"]
        assert main(["plan", "901", "--from", "nnUNetPlans", *large]) == 0
        capsys.readouterr()
        monkeypatch.setattr(estimates, "available_memory", lambda device: 4 * 2**30)
        assert main(["doctor", "901", "--quick", "--json", "--plans", "LargePlans"]) == 1
        failed = json.loads(capsys.readouterr().out)[-1]
        assert (failed["status"], failed["name"]) == ("FAIL", "2d")
        command = failed["text"].partition("run: nnunet-attn ")[2]
        assert main(command.split()) == 0
        capsys.readouterr()
        assert main(["doctor", "901", "--quick", "--plans", "LargePlansSmall"]) == 0
        assert main(["doctor", "901", "--quick", "--plans", "None"]) == 1
        assert "plans that are there: LargePlans, LargePlansSmall, nnUNetPlans" in capsys.readouterr().err


def test_the_formula_for_memory_gives_what_was_measured():
    """The range that the command names, over the networks of the benchmark's tables."""
    from nnunet_attn.cli.estimate import PARAMETERS, SAVED

    ratios = []
    for dimensions in ("2d", "3d"):
        table = pd.read_csv(Path(__file__).parents[2] / f"scripts/results/cost_cpu_{dimensions}.csv", comment="#")
        table = table[~table.network.str.contains("plain")]
        ratios += list((SAVED * table.saved_mib + PARAMETERS * table.parameters * 4 / 2**20) / table.peak_mib)
    assert min(ratios) == pytest.approx(0.72, abs=0.01)
    assert max(ratios) == pytest.approx(1.06, abs=0.01)


def test_a_smaller_patch_is_one_that_can_be_planned():
    from nnunet_attn.cli.estimate import Estimate, advice, duration
    from nnunet_attn.training.changed_plans import fitting_patch

    found = Estimate("3d_fullres", [10, 256, 256], 2, 1, 9e9, 1e9, 0, None)
    command = advice(found, "27", "nnUNetPlans", [10.0, 1.5, 1.5])
    assert command.endswith("-c 3d_fullres --patch-size 8 128 128 --batch-size 2")
    assert fitting_patch([10.0, 1.5, 1.5], [8, 128, 128]) == [8, 128, 128]
    assert [duration(s) for s in (59.6, 600, 90000)] == ["60 s", "10 min", "25.0 h"]
