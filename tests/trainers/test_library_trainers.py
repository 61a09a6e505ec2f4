"""Networks of other libraries as trainers: counts are the library's, wrong input is one line at construction."""

from importlib.util import find_spec

import pytest
import torch

from nnunet_attn import trainers
from nnunet_attn.architectures.library import LibraryNetwork
from nnunet_attn.complexity import gmacs
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.recipe import Recipe
from nnunet_attn.training.default_plans import default_configuration
from nnunet_attn.training.in_process import nnunet_in_process
from nnunet_attn.training.library import Library, LibraryTrainer

LIBRARIES = [
    pytest.param(entry, id=entry.trainer, marks=pytest.mark.skipif(not find_spec(entry.network.split(".")[0]),
                 reason=f"the extra {entry.file.partition('_')[0]} is not installed"))
    for entry in LIBRARY_ENTRIES
]  # fmt: skip


class nnUNetTrainerHalving(LibraryTrainer):
    library = Library("fake_library.Halving", {"width": 6}, size_divisor=4)
    dimensions = (2, 3)


class nnUNetTrainerFlat(LibraryTrainer):
    library = Library("fake_library.Flat")
    encoder = "wide"
    dimensions = (2, 3)


@pytest.mark.parametrize("size", [(40, 56), (41, 30), (9, 10, 7)])
def test_pads_and_crops_and_takes_the_first_map(size):
    network = LibraryNetwork("fake_library.Halving", 2, 3, size, keywords={"width": 5}, size_divisor=4)
    assert network.network.down.weight.shape[:2] == (5, 2)
    assert network(torch.randn(2, 2, *size)).shape == (2, 3, *size)


def test_parts_of_other_outputs_are_frozen():
    """nnU-Net's training on several GPUs needs a gradient for every parameter that could have one."""
    network = LibraryNetwork("fake_library.Deep", 2, 3, (8, 8), unused=("side",))
    network(torch.randn(1, 2, 8, 8)).sum().backward()
    missing = {name for name, p in network.named_parameters() if p.grad is None}
    assert missing == {name for name, p in network.named_parameters() if not p.requires_grad}
    assert missing == {"network.side.weight", "network.side.bias"}


def construct(cls: type, data, configuration: str):
    """The trainer, made as nnU-Net's command makes it."""
    import json

    with nnunet_in_process(data.root):
        plans = json.loads((data.preprocessed / "nnUNetPlans.json").read_text())
        dataset = json.loads((data.preprocessed / "dataset.json").read_text())
        return cls(plans | {"continue_training": False}, configuration, 0, dataset, torch.device("cpu"))


def test_made_from_the_plans(images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    trainer = construct(nnUNetTrainerHalving, data, "2d")
    assert trainer.network_keywords() == {"width": 6}
    network = nnUNetTrainerHalving.build_network_architecture(None, trainer.configuration_manager, 3, 3, True)
    assert network.network.size == tuple(trainer.configuration_manager.patch_size)
    with nnunet_in_process(data.root):
        trainer.initialize()
    assert not trainer.enable_deep_supervision
    facts = trainer.run_facts()
    assert (facts["network"], facts["network_kwargs"]) == ("fake_library.Halving", {"width": 6})


@pytest.mark.parametrize(
    ("attributes", "error", "told"),
    [
        ({"library": Library("monay.nets.X", extra="monai")}, ImportError,
         r"monay is not installed; run: pip install 'nnunet-attn\[monai\]'"),
        ({"library": Library("torch.nn.NoSuchNetwork")}, ImportError, r"there is no torch\.nn\.NoSuchNetwork"),
        ({"library": Library("torch.nn.Linear")}, ValueError, "has no parameter in_channels or input_channels"),
        ({"library": Library("fake_library.Halving", {"widht": 3})}, ValueError, "has no keyword widht; it has width"),
        ({"library": Library("fake_library.Halving", {"width": "3"}, 4)}, ValueError, "cannot be made with"),
        ({"library": Library("fake_library.Halving", {"img_size": (5, 5)}, 4)}, ValueError,
         r"does not take the plans' patch \[40, 56\]: made for \(5, 5\)$"),
        ({"library": Library("fake_library.Flat"), "encoder": "narrow"}, ValueError, r"returns \[38, 54\]"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_at_construction(attributes, error, told, images_2d, tmp_path):
    data = images_2d.copy(tmp_path)
    cls = type("nnUNetTrainerWrong", (LibraryTrainer,), attributes)
    with pytest.raises(error, match=told) as raised:
        construct(cls, data, "2d")
    assert "\n" not in str(raised.value)
    assert not (data.root / "nnUNet_results" / data.name).exists()


def test_a_2d_network_on_3d_is_one_line_at_construction(volumes_3d, tmp_path):
    data = volumes_3d.copy(tmp_path)
    with pytest.raises(ValueError, match=r"has no spatial_dims: it takes 2D images, this patch is 3D"):
        construct(nnUNetTrainerFlat, data, "3d_fullres")


@pytest.mark.parametrize("entry", [entry for entry in LIBRARY_ENTRIES if not find_spec(entry.network.split(".")[0])])
def test_a_missing_extra_names_the_line_that_installs_it(entry, images_2d, tmp_path):
    extra = entry.file.partition("_")[0]
    with pytest.raises(ImportError, match=rf"run: pip install 'nnunet-attn\[{extra}\]'"):
        construct(getattr(trainers, entry.trainer), images_2d.copy(tmp_path), "2d")


@pytest.mark.parametrize("entry", LIBRARY_ENTRIES, ids=lambda e: e.trainer)
def test_row_and_trainer_agree(entry):
    cls = getattr(trainers, entry.trainer)
    assert (cls.network, cls.dimensions) == (entry.network, entry.dimensions)
    assert cls.library.extra == entry.file.partition("_")[0]
    assert {*cls.recipes()} == {"SGD", *entry.about.paper_recipes}
    assert all(Recipe(**cls.recipes()[name]) for name in entry.about.paper_recipes)
    assert "_" not in entry.trainer, "that marks an ablation"


@pytest.mark.parametrize("entry", LIBRARIES)
def test_counts_are_the_library_s(entry):
    plan = default_configuration(entry.image_size)
    cls = getattr(trainers, entry.trainer)
    network = cls.build_network_architecture(None, plan, entry.input_channels, entry.num_classes, False).to("meta")
    assert sum(p.numel() for p in network.parameters()) == entry.cost.parameters
    assert gmacs(network, entry.image_size, entry.input_channels) == pytest.approx(entry.cost.gmacs, abs=0.006)


@pytest.mark.skipif(not find_spec("monai"), reason="the extra monai is not installed")
def test_swin_unetr_refuses_a_patch_that_it_cannot_take(images_2d, tmp_path):
    """32 x 32 leaves one pixel at its last stage, which an instance norm cannot normalise in training."""
    import json

    data = images_2d.copy(tmp_path)
    plans = json.loads((data.preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"]["patch_size"] = [32, 32]
    (data.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    with pytest.raises(ValueError, match=r"SwinUNETR does not take the plans' patch \[32, 32\]: Expected more than 1"):
        construct(trainers.nnUNetTrainerMONAISwinUNETR, data, "2d")
