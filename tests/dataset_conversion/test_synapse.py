"""Synapse: 8 or 13 organs, and TransUNet's files with their label orders, slices and lost spacing."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import synapse
from nnunet_attn.dataset_conversion.target import read_record
from nnunet_attn.errors import UserError

h5py = pytest.importorskip("h5py")

SLICES = {5: 4, 6: 3, 7: 3, 9: 3, 10: 3, 21: 3}
EIGHT = ["aorta", "gallbladder", "left_kidney", "right_kidney", "liver", "pancreas", "spleen", "stomach"]


def read(path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def make_repackaged(root, highest: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Slices and volumes with all labels up to ``highest``."""
    volumes = {}
    for folder in ("train_npz", "test_vol_h5"):
        (root / "Synapse" / folder).mkdir(parents=True)
    for number in (*SLICES, 1, 8):
        rng = np.random.default_rng(number)
        shape = (SLICES.get(number, 3), 12, 10)
        image = rng.random(shape, np.float32)
        label = rng.integers(0, highest + 1, shape).astype(np.uint8 if number in (1, 8) else np.float32)
        label[0, 0, : highest + 1 if highest < 10 else 10] = np.arange(14)[: 10 if highest >= 10 else highest + 1]
        volumes[number] = image, label
        if number in SLICES:
            for i, (one, other) in enumerate(zip(image, label, strict=True)):
                np.savez(root / "Synapse" / "train_npz" / f"case{number:04d}_slice{i:03d}.npz", image=one, label=other)
        else:
            with h5py.File(root / "Synapse" / "test_vol_h5" / f"case{number:04d}.npy.h5", "w") as file:
                file["image"], file["label"] = image, label
    return volumes


@pytest.fixture
def repackaged(tmp_path, monkeypatch):
    for number in synapse.SLICES:
        monkeypatch.setitem(synapse.SLICES, number, SLICES.get(number, 3))

    def make(highest: int):
        return tmp_path / "source", make_repackaged(tmp_path / "source", highest)

    return make


def test_thirteen_organs_keep_their_ids(make_source, nnunet_folders):
    source, cases = make_source("synapse")
    folder = synapse.make_converter(organs=13).convert(source, 5)
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0} | synapse.ORGANS
    for name, case in cases.items():
        np.testing.assert_array_equal(read(folder / f"labelsTr/{name}.nii.gz"), read(case.label_file))


def test_eight_organs_are_those_of_the_benchmark(make_source, nnunet_folders):
    source, cases = make_source("synapse")
    folder = synapse.convert(source, 5)
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0} | {name: i for i, name in enumerate(EIGHT, 1)}
    case = cases["synapse_0005"]
    original, new = read(case.label_file), read(folder / "labelsTr/synapse_0005.nii.gz")
    for name, old in synapse.ORGANS.items():
        np.testing.assert_array_equal(new[original == old], labels.get(name, 0))


def test_transunets_division(make_source, nnunet_folders, refused):
    source, _ = make_source("synapse")
    assert len(synapse.TEST) == 12
    assert len(synapse.SLICES) == 18
    assert sum(synapse.SLICES.values()) == 2211
    assert set(synapse.TEST) | set(synapse.SLICES) == {*range(1, 11), *range(21, 41)}
    refused("SOURCE lacks synapse_0003, synapse_0004, synapse_0007", synapse.convert, source, 5, split="transunet")
    for number in (7, 10):  # five volumes to train on
        for kind in ("img", "label"):
            folder = source / "Abdomen/RawData/Training" / kind
            shutil.copy(folder / f"{kind}0009.nii.gz", folder / f"{kind}{number:04d}.nii.gz")
    folder = synapse.convert(source, 5, split="transunet", allow_missing=True)
    assert [p.name[8:12] for p in sorted((folder / "labelsTs").iterdir())] == ["0001", "0002", "0022"]
    assert [p.name[8:12] for p in sorted((folder / "labelsTr").iterdir())] == [
        "0005",
        "0006",
        "0007",
        "0009",
        "0010",
        "0040",
    ]
    notes = read_record(folder)["notes"]
    assert any("volumes of the test set, which have no labels, not needed: 1" in note for note in notes)


def test_repackaged_slices_become_volumes_again(repackaged, nnunet_folders):
    source, volumes = repackaged(13)
    converter = synapse.make_converter(organs=13, spacing=(0.8, 0.7, 3.0))
    folder = converter.convert(source, 5)
    assert [p.name[8:12] for p in sorted((folder / "labelsTs").iterdir())] == ["0001", "0008"]
    for number, (image, label) in volumes.items():
        part = "Ts" if number in (1, 8) else "Tr"
        path = folder / f"images{part}/synapse_{number:04d}_0000.nii.gz"
        np.testing.assert_array_equal(read(path), image)
        np.testing.assert_array_equal(read(folder / f"labels{part}/synapse_{number:04d}.nii.gz"), label)
        written = sitk.ReadImage(str(path))
        np.testing.assert_allclose(written.GetSpacing(), (0.8, 0.7, 3.0), rtol=1e-6)
        assert written.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT_clipped"}  # not CT: intensities are no Hounsfield units any more
    assert "spacing as given: [0.8, 0.7, 3.0] mm" in content["conversion"]["notes"]
    assert content["conversion"]["options"] == {"organs": 13, "label_order": None, "spacing": [0.8, 0.7, 3.0]}


def test_an_id_above_8_settles_the_order(repackaged, nnunet_folders):
    source, volumes = repackaged(13)
    folder = synapse.convert(source, 5)
    lookup = np.zeros(14, np.uint8)
    for name, number in synapse.ORGANS.items():
        lookup[number] = EIGHT.index(name) + 1 if name in EIGHT else 0
    new = read(folder / "labelsTr/synapse_0005.nii.gz")
    np.testing.assert_array_equal(new, lookup[volumes[5][1].astype(int)])
    notes = read_record(folder)["notes"]
    assert "labels of the source in the order of btcv" in notes
    assert "spacing unknown; 1 mm was written" in notes


def test_ids_up_to_8_do_not_settle_the_order(repackaged, nnunet_folders, refused):
    source, volumes = repackaged(8)
    refused("ids 0 to 8.*give --label-order transunet .* or cascade", synapse.convert, source, 5)
    refused(
        "values .*9|label values", synapse.make_converter(label_order="cascade").convert, repackaged_above(source), 5
    )
    shutil.rmtree(source)
    source, volumes = repackaged(8)
    _, label = volumes[5]
    folder = synapse.make_converter(label_order="transunet").convert(source, 5)
    np.testing.assert_array_equal(read(folder / "labelsTr/synapse_0005.nii.gz"), label)
    folder = synapse.make_converter(label_order="cascade").convert(source, 6)
    order = ["spleen", "right_kidney", "left_kidney", "gallbladder", "pancreas", "liver", "stomach", "aorta"]
    lookup = np.array([0, *(EIGHT.index(name) + 1 for name in order)])
    np.testing.assert_array_equal(read(folder / "labelsTr/synapse_0005.nii.gz"), lookup[label.astype(int)])


def repackaged_above(source):
    """One slice with an id that an 8-organ order does not have."""
    path = source / "Synapse/train_npz/case0006_slice001.npz"
    np.savez(path, image=np.zeros((12, 10), np.float32), label=np.full((12, 10), 9.0))
    return source


def test_command_takes_the_options_and_verify_needs_none(repackaged, nnunet_folders, capsys):
    source, _ = repackaged(8)
    command = ["convert", "synapse", str(source), "29", "--processes", "1"]
    options = ["--label-order", "cascade", "--spacing", "0.8", "0.8", "3", "--split", "transunet", "--allow-missing"]
    assert main([*command, *options]) == 0
    assert main([*command, "--verify"]) == 0
    assert "8 cases: SOURCE and dataset agree with the manifest" in capsys.readouterr().out


def slice_file(source, name="case0006_slice001.npz"):
    return source / "Synapse" / "train_npz" / name


def spoil(source, **arrays):
    np.savez(slice_file(source), **arrays)


IMAGE, LABEL = np.zeros((12, 10), np.float32), np.zeros((12, 10), np.float32)
MALFORMED = {
    "slice missing": (lambda s: slice_file(s).unlink(), r"case0006_slice001\.npz is missing"),
    "last slice missing": (
        lambda s: slice_file(s, "case0006_slice002.npz").unlink(), "case0006 has 2 slices in .*train_npz, and 3 when",
    ),
    "slice twice": (
        lambda s: shutil.copy(slice_file(s), slice_file(s, "case0006_slice0001.npz")), "are the same slice",
    ),
    "misnamed": (
        lambda s: slice_file(s).rename(slice_file(s, "case6_slice1.npz")), "names of slices should look like case0005",
    ),
    "no label": (lambda s: spoil(s, image=IMAGE), r"slice001\.npz should hold the arrays 'image' and 'label'"),
    "shape of label": (lambda s: spoil(s, image=IMAGE, label=LABEL[1:]), "expected numbers of the same shape"),
    "shape of slice": (lambda s: spoil(s, image=IMAGE[1:], label=LABEL[1:]), r"slice001\.npz has shape \(11, 10\)"),
    "volume in a slice": (lambda s: spoil(s, image=IMAGE[None], label=LABEL[None]), r"has shape \(1, 12, 10\)"),
    "not a number": (lambda s: spoil(s, image=IMAGE * np.nan, label=LABEL), "NaN or infinite"),
    "text": (lambda s: spoil(s, image=IMAGE.astype(str), label=LABEL), "numbers of the same shape"),
    "pickle": (lambda s: spoil(s, image=IMAGE.astype(object), label=LABEL), "truncated or damaged"),
    "label id": (lambda s: spoil(s, image=IMAGE, label=LABEL + 14), r"slice001\.npz holds the label values \[14\]"),
    "half a label": (lambda s: spoil(s, image=IMAGE, label=LABEL + 0.5), r"slice001\.npz holds the label value 0\.5"),
    "truncated slice": (
        lambda s: slice_file(s).write_bytes(slice_file(s).read_bytes()[:-300]),
        r"slice001\.npz is truncated or damaged",
    ),
    "truncated volume": (
        lambda s: (s / "Synapse/test_vol_h5/case0008.npy.h5").write_bytes(
            (s / "Synapse/test_vol_h5/case0008.npy.h5").read_bytes()[:-300]
        ),
        r"case0008\.npy\.h5 is truncated or damaged",
    ),
    "case in both": (
        lambda s: shutil.copy(s / "Synapse/test_vol_h5/case0008.npy.h5", s / "Synapse/test_vol_h5/case0006.npy.h5"),
        "synapse_0006 more than once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", MALFORMED)
def test_malformed_repackaged_sources_are_refused(damage, repackaged, refused):
    change, message = MALFORMED[damage]
    source, _ = repackaged(13)
    change(source)
    refused(message, synapse.convert, source, 5)


def test_unknown_label_of_the_original_is_refused(make_source, refused):
    source, cases = make_source("synapse")
    file = str(cases["synapse_0002"].label_file)
    image = sitk.ReadImage(file)
    image[0, 0, 0] = 14
    sitk.WriteImage(image, file)
    refused(r"label0002\.nii\.gz holds the label values \[14\]", synapse.convert, source, 5)


def test_arguments_must_fit_the_source(make_source, refused):
    source, _ = make_source("synapse")
    for options in ({"label_order": "transunet"}, {"spacing": (1, 1, 3)}):
        refused("SOURCE holds NIfTI volumes", synapse.make_converter(**options).convert, source, 5)
    for options in (
        {"organs": 13, "label_order": "cascade"},
        {"organs": 9},
        {"spacing": (1, 1, 0)},
        {"spacing": (1, 1)},
    ):
        with pytest.raises(UserError, match=r"hold 8 organs, not 13|--organs is 8 or 13|three positive numbers"):
            synapse.make_converter(**options)


def test_h5py_is_asked_for_when_it_is_needed(repackaged, refused, monkeypatch):
    import sys

    source, _ = repackaged(13)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(r'reading \.h5 files needs h5py: pip install "nnunet-attn\[hdf5\]"', synapse.convert, source, 5)
