import json

import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_attn.architectures.dual_cross_attention_unets import DualCAPlainConvUNet, DualCAResidualEncoderUNet
from nnunet_attn.errors import UserError
from nnunet_attn.training.in_process import nnunet_in_process
from nnunet_attn.training.planner import PlainPlanner, ResidualPlanner, use_stock_data


def plan(data, planner=PlainPlanner, network=DualCAPlainConvUNet, name="DualCAPlans", **arguments) -> dict:
    with nnunet_in_process(data.root):
        planner(data.dataset_id, network, plans_name=name, **arguments).plan_experiment()
    return load_json(data.preprocessed / f"{name}.json")


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize(
    ("planner", "network"),
    [(PlainPlanner, DualCAPlainConvUNet), (ResidualPlanner, DualCAResidualEncoderUNet)],
    ids=["plain", "residual"],
)
def test_stock_nnunet_builds_the_network_from_the_plans(planner, network, configuration, volumes_3d, tmp_path):
    plans = plan(volumes_3d.copy(tmp_path), planner, network)
    assert plans["plans_name"] == "DualCAPlans"
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    built = nnUNetTrainer.build_network_architecture(manager, chosen, 1, 3, enable_deep_supervision=True)
    assert type(built) is network
    assert built.decoder.deep_supervision
    assert chosen.network_arch_init_kwargs["patch_size"] == list(chosen.patch_size)
    assert built.skips.pool[-1] == (1,) * len(chosen.patch_size)


def test_preprocessed_data_of_the_stock_plans_are_used_again(volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path)
    same = plan(data)["configurations"]
    assert {n: c["data_identifier"] for n, c in same.items()} == {
        "2d": "nnUNetPlans_2d",
        "3d_fullres": "nnUNetPlans_3d_fullres",
    }
    other = plan(data, name="Other", overwrite_target_spacing=[2.0, 1.0, 1.0])["configurations"]
    assert other["3d_fullres"]["data_identifier"] == "Other_3d_fullres"
    (data.preprocessed / "nnUNetPlans.json").unlink()
    alone = plan(data, name="Alone")["configurations"]
    assert alone["2d"]["data_identifier"] == "Alone_2d"


@pytest.mark.parametrize(
    ("key", "value"), [("spacing", [1.0, 2.0]), ("normalization_schemes", ["CTNormalization"]), ("patch_size", [8, 8])]
)
def test_data_are_shared_by_preprocessing_alone(key, value):
    shared = {
        "image_reader_writer": "A",
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {},
    }
    theirs = {"data_identifier": "stock", "spacing": [1.0, 1.0], "normalization_schemes": ["Z"], "patch_size": [4, 4]}
    ours = theirs | {"data_identifier": "ours", key: value}
    plans = shared | {"configurations": {"2d": ours, "cascade": {"inherits_from": "2d"}}}
    use_stock_data(plans, shared | {"configurations": {"2d": theirs}})
    assert ours["data_identifier"] == ("stock" if key == "patch_size" else "ours")
    transposed = shared | {"transpose_forward": [1, 0, 2], "configurations": {"2d": dict(theirs)}}
    before = dict(ours)
    use_stock_data(plans, transposed)
    assert ours == before


def test_less_memory_means_a_smaller_patch(volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path)
    large, small = (
        plan(data, name=f"Target{number}", gpu_memory_target_in_gb=gb)["configurations"]["3d_fullres"]["patch_size"]
        for number, gb in enumerate((1.0, 0.02))
    )
    assert all(a >= b for a, b in zip(large, small, strict=True))
    assert large != small


def test_dca_counts_in_the_plan(images_2d, tmp_path):
    """With the network's own measure the batch is smaller than stock nnU-Net would plan for its network."""
    data = images_2d.copy(tmp_path)
    with nnunet_in_process(data.root):
        planner = PlainPlanner(data.dataset_id, DualCAPlainConvUNet, plans_name="DualCAPlans")
        planner.max_dataset_covered = 1e6
        with_dca = planner.plan_experiment()["configurations"]["2d"]
        planner.arguments_for = lambda arguments, patch_size: arguments | {"patch_size": patch_size, "dca": False}
        without = planner.plan_experiment()["configurations"]["2d"]
    assert with_dca["patch_size"] == without["patch_size"]
    assert with_dca["batch_size"] < without["batch_size"]


def test_plans_of_others_are_not_overwritten(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    stock = (data.preprocessed / "nnUNetPlans.json").read_bytes()
    with pytest.raises(UserError, match="was not written by this command"):
        plan(data, name="nnUNetPlans")
    assert (data.preprocessed / "nnUNetPlans.json").read_bytes() == stock


def test_configurations_that_the_user_added_stay(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    file = data.preprocessed / "DualCAPlans.json"
    plans = plan(data)
    plans["configurations"] |= {"2d_large": {"inherits_from": "2d", "batch_size": 5}}
    plans["configurations"]["2d"]["batch_size"] = 77
    file.write_text(json.dumps(plans))
    again = plan(data)["configurations"]
    assert again["2d_large"] == {"inherits_from": "2d", "batch_size": 5}
    assert again["2d"]["batch_size"] != 77
