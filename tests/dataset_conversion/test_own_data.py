"""``convert pictures`` and ``convert volumes``: any 2D and 3D dataset."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion.own_names import case_names, pair_by_name
from nnunet_attn.dataset_conversion.own_volumes import _as_nifti
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.dataset_conversion.volumes import read_nifti
from nnunet_attn.errors import UserError


def files(*names: str) -> list[File]:
    return [File(name, name, Path("x")) for name in names]


def paired(images: list[str], masks: list[str]) -> tuple[dict[str, str], list[str]]:
    missing = {}
    found = pair_by_name(files(*images), files(*masks), missing, "mask")
    return {image.name: mask.name for image, mask in found.items()}, list(missing)


PAIRS = {
    "the same": (["a.png", "b.png"], ["a.png", "b.png"]),
    "other suffixes": (["1.jpg", "2.JPG", "10.jpeg"], ["1.png", "2.png", "10.png"]),
    "mark behind": (["a1.jpg", "a2.jpg"], ["a1_mask.png", "a2_mask.png"]),
    "mark before": (["7.jpg", "12.jpg"], ["mask_7.png", "mask_12.png"]),
    "both marked": (["img_7.jpg", "img_12.jpg"], ["label_7_final.png", "label_12_final.png"]),
    "ISIC": (["ISIC_01.jpg", "ISIC_12.jpg"], ["ISIC_01_segmentation.png", "ISIC_12_segmentation.png"]),
    "no separator": (["1.jpg", "2.jpg"], ["p1.jpg", "p2.jpg"]),
    "leading zeros": (["img001.png", "img012.png"], ["1.png", "12.png"]),
    "folders": (["p1/1.png", "p1/2.png", "p2/1.png"], ["p1/1.png", "p1/2.png", "p2/1.png"]),
    "blanks and capitals": (["Case 1.PNG", "Case 2.PNG"], ["case 1 (mask).png", "case 2 (mask).png"]),
    "one": (["scan_7.png"], ["mask_7.png"]),
    "nnU-Net": (["a_0000.png", "b_0000.png"], ["a.png", "b.png"]),
    "folders of one file": (["k1/imaging.png", "k2/imaging.png"], ["k1/segmentation.png", "k2/segmentation.png"]),
    "unicode": (["e\u0301.png", "o.png"], ["\u00e9.png", "o.png"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_by_name(kind):
    images, masks = PAIRS[kind]
    assert paired(images, masks) == (dict(zip(images, masks, strict=True)), [])
    turned, _ = paired(images, masks[::-1])
    assert turned == dict(zip(images, masks, strict=True))


def test_what_has_no_partner_is_named():
    found, missing = paired(["1.png", "2.png", "3.png"], ["m1.png", "m3.png", "m4.png"])
    assert found == {"1.png": "m1.png", "3.png": "m3.png"}
    assert missing == ["2.png has no mask (3 images, 3 masks)", "m4.png has no image (3 images, 3 masks)"]
    with pytest.raises(UserError, match=r"do not pair by name: 2 images such as a\.png, 2 masks such as c\.png"):
        paired(["a.png", "b.png"], ["c.png", "d.png"])
    with pytest.raises(UserError, match="do not pair by name"):
        paired(["a.png"], ["c.png"])
    with pytest.raises(UserError, match="do not pair by name"):
        paired(["k1/imaging.png", "k1/other.png", "k2/imaging.png"], ["k1/mask.png", "k2/mask.png"])


def test_names_for_nnunet():
    assert case_names(files("a b.png", "\u00fc(1).png")) == ["a_b", "u_1"]
    assert case_names(files("p1/1.png", "p2/1.png")) == ["p1_1", "p2_1"]
    with pytest.raises(UserError, match=r"a b\.png, a_b\.png would all be called a_b"):
        case_names(files("a b.png", "a_b.png"))


RNG = np.random.default_rng(0)


def picture(shape: tuple[int, int], channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, channels), dtype=np.uint8).squeeze()


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


SIZES = [(24, 32), (40, 30), (24, 32), (33, 47), (64, 16), (24, 24)]


@pytest.fixture
def own(tmp_path, nnunet_folders):
    """Six pictures of three patients, of many sizes, with masks of the values 0, 1 and 2."""
    cases = {}
    for i, shape in enumerate(SIZES):
        image, label = picture(shape), np.zeros(shape, np.uint8)
        label[4:12, 4:12], label[14:18, 6:9] = 1, 2
        save(tmp_path / "data" / "images" / f"p{i % 3}_{i}.png", image)
        save(tmp_path / "data" / "values" / f"p{i % 3}_{i}_mask.png", label)
        save(tmp_path / "data" / "binary" / f"p{i % 3}_{i}_mask.png", (label > 0) * np.uint8(255))
        save(tmp_path / "data" / "colours" / f"p{i % 3}_{i}.png", np.uint8([[0, 0, 0], [255, 0, 0], [0, 9, 8]])[label])
        cases[f"p{i % 3}_{i}"] = image, label
    return tmp_path / "data", cases, nnunet_folders / "Dataset040_Pictures"


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments), "--processes", "1"])


def check(folder: Path, cases: dict, labels: dict[str, int], lookup: list[int], part: str = "Tr") -> None:
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == labels
    assert sorted(p.stem for p in (folder / f"labels{part}").iterdir()) == sorted(cases)
    for name, (image, label) in cases.items():
        np.testing.assert_array_equal(np.array(Image.open(folder / f"images{part}/{name}_0000.png")), image)
        new = np.array(Image.open(folder / f"labels{part}/{name}.png"))
        np.testing.assert_array_equal(new, np.uint8(lookup)[label])


def test_black_and_white_masks(own, capsys):
    data, cases, folder = own
    assert convert("pictures", data / "images", data / "binary", 40) == 0
    check(folder, cases, {"background": 0, "foreground": 1}, [0, 1, 1])
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert len(json.loads((folder / "splits_final.json").read_text())) == 5
    assert json.loads((folder / "manifest.json").read_text())["groups"] is None
    said = capsys.readouterr().err
    for part in ("6 train (groups unknown)", "size: 24x24 to 47x33", "foreground", "cases count as independent"):
        assert part in said
    assert (folder / "preview.png").is_file()
    assert convert("pictures", data / "images", data / "binary", 40, "--verify") == 0


def test_labels_by_value_and_groups_by_expression(own):
    data, cases, folder = own
    labels = ["--labels", "background=0", "polyp=1", "tool=2"]
    groups = ["--groups", "(?P<patient>p[0-9])_", "--num-folds", 3]
    assert convert("pictures", data / "images", data / "values", 40, *labels, *groups) == 0
    check(folder, cases, {"background": 0, "polyp": 1, "tool": 2}, [0, 1, 2])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["groups"] == {"kind": "patient", "of": {name: name[:2] for name in cases}}
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert len({name[:2] for name in fold["val"]}) == 1
    assert convert("pictures", data / "images", data / "values", 40, *labels, "--verify") == 0
    assert convert("pictures", data / "images", data / "values", 40, "--overwrite", "--labels", "ignore=2", "a=1") == 0
    check(folder, cases, {"background": 0, "a": 1, "ignore": 2}, [0, 1, 2])
    assert convert("pictures", data / "images", data / "values", 40, "--overwrite", "--labels", "a=1,2") == 0
    check(folder, cases, {"background": 0, "a": 1}, [0, 1, 1])


def test_labels_by_colour(own, capsys):
    data, cases, folder = own
    command = ["pictures", data / "images", data / "colours", 40, "--colours"]
    assert convert(*command, "polyp=255,0,0", "tool=#000908") == 0
    check(folder, cases, {"background": 0, "polyp": 1, "tool": 2}, [0, 1, 2])
    assert convert(*command, "polyp=255,0,0", "--overwrite") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "p0_0.png holds the colour 0,9,8 (at x 6, y 14; 1.56% of the pixels" in error


def test_one_folder_and_patterns(own):
    data, cases, folder = own
    for file in (data / "binary").iterdir():
        shutil.move(file, data / "images" / file.name)
    (data / "images" / "readme.txt").write_text("mine")
    assert convert("pictures", data / "images", data / "images", 40) == 1
    assert convert("pictures", data / "images", f"{data}/images/*_mask.png", 40) == 0
    notes = json.loads((folder / "dataset.json").read_text())["conversion"]["notes"]
    assert "not chosen by the patterns, not needed: 1 (readme.txt)" in notes
    check(folder, cases, {"background": 0, "foreground": 1}, [0, 1, 1])


def test_archives_and_test_pictures(own, tmp_path, capsys):
    data, cases, folder = own
    for kind in ("images", "binary"):
        with zipfile.ZipFile(tmp_path / f"{kind}.zip", "w") as archive:
            for file in (data / kind).iterdir():
                archive.write(file, f"some/where/{file.name}")
    image = picture((20, 20))
    save(tmp_path / "test" / "t1.png", image)
    sources = tmp_path / "images.zip", tmp_path / "binary.zip", 40
    assert convert("pictures", *sources, "--test", tmp_path / "test") == 0
    check(folder, cases, {"background": 0, "foreground": 1}, [0, 1, 1])
    np.testing.assert_array_equal(np.array(Image.open(folder / "imagesTs/t1_0000.png")), image)
    assert list((folder / "labelsTs").iterdir()) == []
    save(tmp_path / "same name" / "p0_0.png", image)
    assert convert("pictures", *sources, "--test", tmp_path / "same name", "--overwrite") == 1
    assert "keep one of them, or rename the test files if they show something else" in capsys.readouterr().err
    mask = np.zeros((20, 20), np.uint8)
    mask[3:9, 3:9] = 255
    save(tmp_path / "test masks" / "t1.png", mask)
    more = ["--test", tmp_path / "test", tmp_path / "test masks", "--overwrite"]
    assert convert("pictures", *sources, *more) == 0
    check(folder, {"t1": (image, mask // 255)}, {"background": 0, "foreground": 1}, [0, 1], "Ts")
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 6


def test_grey_pictures_stay_grey_and_deep(own):
    data, cases, folder = own
    deep = {}
    for name, (image, label) in cases.items():
        deep[name] = image[..., 0].astype(np.uint16) * 200, label
        Image.fromarray(deep[name][0]).save(data / "images" / f"{name}.png")
    assert convert("pictures", data / "images", data / "binary", 40) == 0
    check(folder, deep, {"background": 0, "foreground": 1}, [0, 1, 1])
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "grey"}


REFUSED = {
    "values": (["--labels", "a=1"], "values", r"holds the values \[2\], and --labels names \[0, 1\]"),
    "binary of values": ([], "values", "no pixel is above 127, and not all are 0"),
    "twice": (["--labels", "a=1", "b=1"], "values", "the value 1 belongs to a and to b"),
    "form": (["--labels", "a"], "values", "entries like polyp=1"),
    "both": (["--labels", "a=1", "--colours", "a=1,2,3"], "values", "--labels or --colours"),
    "colour": (["--colours", "a=1,2"], "colours", "'1,2' of a is not a colour"),
    "colours as values": (["--labels", "a=1"], "colours", "a coloured mask; give --colours"),
    "expression": (["--groups", "(p[0-9]"], "binary", "neither a CSV file nor a regular expression"),
    "no parentheses": (["--groups", "p[0-9]"], "binary", "has 0 groups in parentheses"),
    "nothing found": (["--groups", "(q)"], "binary", r"finds nothing in p0_0\.png"),
    "folder": ([], "nowhere", "does not exist"),
    "three tests": (["--test", "a", "b", "c"], "binary", "got 3 paths"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(kind, own, capsys):
    data, _, folder = own
    more, masks, message = REFUSED[kind]
    assert convert("pictures", data / "images", data / masks, 40, *more) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert __import__("re").search(message, error), error
    assert list(folder.parent.iterdir()) == []


def test_a_picture_without_mask_is_an_error_unless_allowed(own, capsys):
    data, cases, folder = own
    (data / "binary" / "p0_3_mask.png").unlink()
    command = ["pictures", data / "images", data / "binary", 40]
    assert convert(*command) == 1
    assert "images/p0_3.png has no mask (6 images, 5 masks)" in capsys.readouterr().err
    assert convert(*command, "--allow-missing") == 0
    assert "left out: " in capsys.readouterr().err
    del cases["p0_3"]
    check(folder, cases, {"background": 0, "foreground": 1}, [0, 1, 1])


def test_help_has_examples(capsys):
    for key in ("pictures", "volumes"):
        with pytest.raises(SystemExit):
            main(["convert", key, "--help"])
        text = capsys.readouterr().out
        assert text.count(f"nnunet-attn convert {key} ") >= 5
        assert "preview.png" in text


def volume(array: np.ndarray, path: Path, spacing=(0.8, 0.9, 2.5), origin=(5.0, -3.0, 7.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path), useCompression=True)


@pytest.fixture(params=[".nii.gz", ".nrrd", ".mha"])
def volumes(request, tmp_path, nnunet_folders):
    """Five volumes of two channels, with label maps of the values 0, 1 and 4."""
    cases = {}
    for i in range(5):
        arrays = [RNG.integers(-99, 999, (6, 12, 10), dtype=np.int16) for _ in range(2)]
        label = np.zeros((6, 12, 10), np.uint8)
        label[2:4, 3:6, 3:6], label[4, 8, 8] = 1, 4
        case = tmp_path / "data" / f"case{i}"
        for name, array in (("t1", arrays[0]), ("flair", arrays[1]), ("seg", label)):
            volume(array, case / f"case{i}_{name}{request.param}")
        cases[f"case{i}"] = arrays, label
    return tmp_path / "data", request.param, cases, nnunet_folders / "Dataset041_Volumes"


def test_volumes_of_several_channels(volumes, capsys):
    data, end, cases, folder = volumes
    command = ["volumes", data, f"{data}/*/*_seg{end}", 41, "--channels", f"T1=*_t1{end}", f"FLAIR=*_flair{end}"]
    assert convert(*command) == 1
    error = capsys.readouterr().err
    assert "hold the values [0, 1, 4], without [2, 3]: nnU-Net expects consecutive ones; give --labels" in error
    assert convert(*command, "--labels", "core=1", "rest=4", "--groups", "(case[0-9])") == 0
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1", "1": "FLAIR"}
    assert content["labels"] == {"background": 0, "core": 1, "rest": 2}
    for name, (arrays, label) in cases.items():
        for i, array in enumerate(arrays):
            image = sitk.ReadImage(str(folder / f"imagesTr/{name}_{i:04d}.nii.gz"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
            np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.9, 2.5), rtol=1e-6)
            np.testing.assert_allclose(image.GetOrigin(), (5.0, -3.0, 7.0), rtol=1e-6)
        new = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"labelsTr/{name}.nii.gz")))
        np.testing.assert_array_equal(new, np.where(label == 4, 2, label))
    assert (folder / "preview.png").is_file()


@pytest.mark.parametrize("channels", [["CT"], ["T2", "ADC"]])
def test_nnunets_own_suffixes_are_not_doubled(channels, tmp_path, nnunet_folders):
    for case in ("case_000", "case_001"):
        array = RNG.integers(0, 2, (4, 6, 5), dtype=np.uint8)
        volume(array, tmp_path / "labelsTr" / f"{case}.nii.gz")
        for i in range(len(channels)):
            volume(array, tmp_path / "imagesTr" / f"{case}_{i:04d}.nii.gz")
    paths = [tmp_path / "imagesTr", tmp_path / "labelsTr"]
    assert convert("volumes", *paths, 41, "--channels", *channels, "--labels", "organ=1", "--num-folds", 2) == 0
    folder = nnunet_folders / "Dataset041_Volumes"
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == ["case_000.nii.gz", "case_001.nii.gz"]
    ends = range(len(channels))
    images = [f"{case}_{i:04d}.nii.gz" for case in ("case_000", "case_001") for i in ends]
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == images


def test_a_folder_for_each_case(tmp_path, nnunet_folders):
    for case in ("case_1", "case_2"):
        array = RNG.integers(0, 2, (4, 6, 5), dtype=np.uint8)
        for name in ("imaging", "segmentation"):
            volume(array, tmp_path / "kits" / case / f"{name}.nii.gz")
    kinds = [f"{tmp_path}/kits/*/{name}.nii.gz" for name in ("imaging", "segmentation")]
    assert convert("volumes", *kinds, 41, "--labels", "kidney=1", "--num-folds", 0) == 0
    labels = (nnunet_folders / "Dataset041_Volumes" / "labelsTr").iterdir()
    assert sorted(path.name for path in labels) == ["case_1_imaging.nii.gz", "case_2_imaging.nii.gz"]


@pytest.mark.parametrize("volumes", [".nii.gz"], indirect=True)
def test_a_header_that_is_slightly_off(volumes, capsys):
    data, end, cases, folder = volumes
    label = cases["case2"][1]
    volume(label, data / "case2" / f"case2_seg{end}", origin=(5.3, -3.0, 7.0))
    command = ["volumes", f"{data}/*/*_t1{end}", f"{data}/*/*_seg{end}", 41, "--labels", "core=1", "rest=4"]
    assert convert(*command) == 1
    error = capsys.readouterr().err
    assert "case2_seg.nii.gz lies elsewhere in space" in error
    assert "give --resample-mask" in error
    assert error.count("\n") == 1
    assert convert(*command, "--resample-mask") == 0
    assert "label maps resampled to the grid of their image: 1 (case2/case2_seg.nii.gz)" in capsys.readouterr().err
    new = sitk.ReadImage(str(folder / "labelsTr/case2_t1.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(new), np.where(label == 4, 2, label))
    volume(label, data / "case2" / f"case2_seg{end}", origin=(300, 0.0, 7.0))
    assert convert(*command, "--resample-mask", "--overwrite") == 1
    assert "do not show the same region" in capsys.readouterr().err


@pytest.mark.parametrize(("suffix", "begin"), [(".mha", b"LOCAL\n"), (".nrrd", b"\n\n")])
def test_no_flipped_bit_goes_unnoticed(tmp_path, suffix, begin):
    array = np.random.default_rng(0).integers(-99, 999, (3, 4, 5), dtype=np.int16)
    volume(array, tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    first = whole.index(begin) + len(begin)
    for bit in range(8 * (len(whole) - first)):
        damaged = bytearray(whole)
        damaged[first + bit // 8] ^= 1 << bit % 8
        try:
            voxels = read_nifti(_as_nifti(Content(f"damaged{suffix}", bytes(damaged)))).array.T
        except UserError:
            continue
        np.testing.assert_array_equal(voxels, array, err_msg=f"bit {bit}")  # a bit of the stream's header, unused


def test_damaged_volumes_are_refused(volumes, capfd):
    data, end, _, folder = volumes
    path = data / "case2" / f"case2_t1{end}"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 0x55
    for content in (whole[: len(whole) // 2], bytes(flipped), b"", b"<html>"):
        path.write_bytes(content)
        assert convert("volumes", f"{data}/*/*_t1{end}", f"{data}/*/*_seg{end}", 41, "--labels", "a=1,4") == 1
        error = capfd.readouterr().err
        assert f"case2_t1{end}" in error
        assert error.count("\n") == 1, error
        assert list(folder.parent.iterdir()) == []
