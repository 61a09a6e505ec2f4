"""Everything of nnU-Net that our trainers override or read exists there, as we know it; a change fails by name."""

import inspect

import numpy as np
import pytest
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities import utils

METHODS = {
    "__init__": ["self", "plans", "configuration", "fold", "dataset_json", "device"],
    "initialize": ["self"],
    "build_network_architecture": [
        "plans_manager", "configuration_manager", "num_input_channels", "num_output_channels",
        "enable_deep_supervision",
    ],
    "set_deep_supervision_enabled": ["self", "enabled"],
    "configure_optimizers": ["self"],
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": ["self"],
    "do_split": ["self"],
    "load_checkpoint": ["self", "filename_or_checkpoint"],
    "on_epoch_end": ["self"],
    "on_train_start": ["self"],
    "print_to_log_file": ["self", "args", "also_print_to_console", "add_timestamp"],
    "save_checkpoint": ["self", "filename"],
    "_build_loss": ["self"],
    "_do_i_compile": ["self"],
    "_get_deep_supervision_scales": ["self"],
}  # fmt: skip
READ = [
    "batch_size", "configuration_manager", "current_epoch", "dataset_json", "device", "disable_checkpointing",
    "enable_deep_supervision", "fold", "initial_lr", "is_ddp", "local_rank", "logger", "network", "num_epochs",
    "num_iterations_per_epoch", "num_val_iterations_per_epoch", "output_folder", "preprocessed_dataset_folder_base",
    "save_every", "was_initialized", "weight_decay",
]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_method_is_as_we_know_it(name):
    assert list(inspect.signature(getattr(nnUNetTrainer, name)).parameters) == METHODS[name]


def test_attributes_that_we_read_or_set():
    source = inspect.getsource(nnUNetTrainer)
    assert not [name for name in READ if f"self.{name}" not in source]


def test_files_are_listed_by_a_pool_of_this_name():
    """Which ``nnunet_in_process`` replaces."""
    assert "with Pool(" in inspect.getsource(utils.create_lists_from_splitted_dataset_folder)


@pytest.mark.parametrize("loss", [DC_and_CE_loss, DC_and_BCE_loss])
def test_losses_have_their_weights(loss):
    assert {"weight_ce", "weight_dice"} <= set(inspect.signature(loss.__init__).parameters)
    source = inspect.getsource(loss)
    assert "self.weight_ce * " in source
    assert "self.weight_dice * " in source


def test_deep_supervision_wraps_loss():
    assert "self.loss = loss" in inspect.getsource(DeepSupervisionWrapper.__init__)


def test_transforms_that_we_change():
    transforms = nnUNetTrainer.get_training_transforms(np.array((32, 32)), (-0.5, 0.5), None, (0, 1), False).transforms
    spatial = next(t for t in transforms if isinstance(t, SpatialTransform))
    assert {"p_rotation", "rotation", "p_scaling"} <= set(vars(spatial))
    assert MirrorTransform((0, 1)).allowed_axes == (0, 1)
