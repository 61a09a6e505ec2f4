"""What must hold for every converter, on a small source in the dataset's original layout."""

import errno
import gzip
import importlib
import io
import json
import os
import random
import shutil
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_attn.dataset_conversion import case_work, converter as frame
from nnunet_attn.dataset_conversion.cases import Case, Found
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.dataset_conversion.listing import Source
from nnunet_attn.dataset_conversion.target import read_record
from nnunet_attn.errors import UserError

KEYS = sorted(DATASETS)
VOLUMES = ("acdc", "synapse")
PICTURES = [key for key in KEYS if key not in VOLUMES]
MASKS = [key for key in PICTURES if key not in ("glas", "monuseg")]  # black and white


def converter(key: str) -> frame.Converter:
    return importlib.import_module(f"nnunet_attn.dataset_conversion.{key}").CONVERTER


def read(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.array(Image.open(path))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("key", KEYS)
def test_converts_pixel_by_pixel(key, make_source, nnunet_folders):
    source, cases = make_source(key)
    folder = converter(key).convert(source, 5)
    assert folder == nnunet_folders / f"Dataset005_{DATASETS[key].folder}"
    content = json.loads((folder / "dataset.json").read_text())
    end = content["file_ending"]
    for part, tag in (("train", "Tr"), ("test", "Ts")):
        names = sorted(n for n, case in cases.items() if (case.part == "test") == (part == "test"))
        for kind, after in (("images", f"_0000{end}"), ("labels", end)):
            present = sorted(p.name for p in (folder / f"{kind}{tag}").iterdir()) if names else []
            assert present == sorted(name + after for name in names)
        for name in names:
            case = cases[name]
            image, label = read(folder / f"images{tag}/{name}_0000{end}"), read(folder / f"labels{tag}/{name}{end}")
            np.testing.assert_array_equal(image, case.image)
            np.testing.assert_array_equal(label, case.label)
            assert label.dtype == np.uint8
            if end == ".nii.gz":
                ours, theirs = (
                    sitk.ReadImage(str(folder / f"labels{tag}/{name}{end}")),
                    sitk.ReadImage(str(case.image_file)),
                )
                for fact in ("GetSpacing", "GetOrigin", "GetDirection"):
                    np.testing.assert_allclose(getattr(ours, fact)(), getattr(theirs, fact)(), atol=1e-6)
    assert content["numTraining"] == sum(case.part != "test" for case in cases.values())
    assert sorted(content["labels"].values()) == list(range(len(content["labels"])))
    assert max(case.label.max() for case in cases.values()) == max(content["labels"].values())
    assert content["reference"] == DATASETS[key].reference
    assert content["licence"] == DATASETS[key].licence
    groups = {case.group for case in cases.values() if case.part != "test"}
    assert content["conversion"]["groups"]["train"] == len(groups)
    folds = json.loads((folder / "splits_final.json").read_text())
    assert len(folds) == 5
    learning = {name: case.group for name, case in cases.items() if case.part != "test"}
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(learning)
        assert fold["val"]
        assert not {learning[n] for n in fold["train"]} & {learning[n] for n in fold["val"]}
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(learning)


@pytest.mark.parametrize("key", PICTURES)
def test_pictures_have_three_channels(key, make_source, nnunet_folders):
    content = json.loads((converter(key).convert(make_source(key)[0], 5) / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert content["file_ending"] == ".png"


@pytest.mark.parametrize("key", KEYS)
def test_passes_nnunets_own_check(key, make_source, tmp_path, capsys):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    from nnunet_attn.training.in_process import nnunet_in_process

    with nnunet_in_process(tmp_path / "nnunet"):
        folder = converter(key).convert(make_source(key)[0], 5)
        verify_dataset_integrity(str(folder), 2)
    out = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in out
    assert "Error" not in out
    assert "mismatch" not in out


def pack(source: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(source.rglob("*")):
                archive.write(file, file.relative_to(source))
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            archive.add(source, "download")
    return path


@pytest.mark.parametrize("key", KEYS)
def test_archives_give_the_same_dataset(key, make_source, nnunet_folders, tmp_path):
    source, cases = make_source(key)
    expected = converter(key).convert(source, 5)
    files = sorted(p.relative_to(expected) for p in expected.rglob("*.*") if "json" not in p.name)
    for name in ("x.zip", "x.tar", "x.tar.gz"):
        folder = converter(key).convert(pack(source, tmp_path / name), 6, name=name.replace(".", ""), overwrite=True)
        assert sorted(p.relative_to(folder) for p in folder.rglob("*.*") if "json" not in p.name) == files
        assert all((folder / file).read_bytes() == (expected / file).read_bytes() for file in files)
        assert converter(key).verify(source, 6, name=name.replace(".", "")) == len(cases)
        shutil.rmtree(folder)


@pytest.mark.parametrize("key", KEYS)
def test_unsafe_archives_are_refused(key, make_source, refused, tmp_path):
    source, _ = make_source(key)
    path = pack(source, tmp_path / "x.zip")
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for member, message in (("../../evil.png", "would be unpacked outside"), (link, "is a link or special file")):
        shutil.copy(path, tmp_path / "bad.zip")
        with zipfile.ZipFile(tmp_path / "bad.zip", "a") as archive:
            archive.writestr(member, "/etc/passwd")
        refused(message, converter(key).convert, tmp_path / "bad.zip", 5)
    assert not list(tmp_path.rglob("evil*"))
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(source, "download")
        member = tarfile.TarInfo("download/link.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    refused("is a link or special file", converter(key).convert, tmp_path / "bad.tar", 5)


@pytest.mark.parametrize("key", KEYS)
def test_a_disk_that_fills_up_leaves_nothing(key, make_source, refused, monkeypatch):
    source, _ = make_source(key)
    room = random.Random(key).randrange(20_000)

    def write(path: Path, data: bytes) -> None:
        nonlocal room
        path.write_bytes(data[:room])
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(case_work, "write_bytes", write)
        refused("no space left for .*; nothing was kept", converter(key).convert, source, 5)
    converter(key).convert(source, 5)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def widen(path: Path) -> None:
    """One more column, in the file's own format."""
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.concatenate([array, array[:1]]), image.affine), path)
    else:
        with Image.open(path) as picture:
            wider = Image.fromarray(np.pad(np.asarray(picture), ((0, 0), (0, 1), (0, 0))))
            wider.save(path, picture.format)


def deepen(path: Path) -> None:
    """Another type of numbers: complex voxels, 16-bit channels."""
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(np.zeros((10, 12, 4), np.complex64), np.eye(4)), path)
    else:
        size = Image.open(path).size
        buffer = io.BytesIO()
        Image.new("I;16", size).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())


def copy_as(path: Path, name: str) -> None:
    shutil.copy(path, path.with_name(name))


def other_suffix(path: Path) -> str:
    if path.name.endswith(".nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        return path.with_suffix("").name
    return path.with_suffix(
        {".jpg": ".jpeg", ".tif": ".tiff", ".tiff": ".tif", ".png": ".jpg", ".bmp": ".png"}[path.suffix]
    ).name


DAMAGES = {
    "label missing": (lambda image, label: label.unlink(), r"has no (mask|annotation|outline file|label) |is missing"),
    "image missing": (lambda image, label: image.unlink(), r"has no image in|is missing"),
    "image truncated": (lambda image, label: cut(image), r"not a complete picture|truncated or damaged"),
    "label truncated": (lambda image, label: cut(label), r"not a complete (picture|XML file)|truncated or damaged"),
    "image empty": (lambda image, label: image.write_bytes(b""), r"not a complete (picture|NIfTI file)"),
    "label a web page": (
        lambda image, label: label.write_text("<html>log in<br>"),
        r"not a complete (picture|PNG, JPEG|XML file|NIfTI file)",
    ),
    "size": (lambda image, label: widen(image), r"its image .* (is \d+x\d+|has \()|lies outside"),
    "type": (lambda image, label: deepen(image), r"more than 8 bits per channel|holds complex64 voxels"),
    "duplicate": (
        lambda image, label: other_suffix(image) in os.listdir(image.parent) or copy_as(image, other_suffix(image)),
        r"both have the id|both compressed and not",
    ),
    "misnamed": (
        lambda image, label: image.rename(image.with_name(f"copy of {image.name}")),
        r"unexpected name|is missing|has no image",
    ),
}  # fmt: skip


# outlines have no size of their own; those outside the tile have their own test
@pytest.mark.parametrize(("key", "damage"), [(k, d) for k in KEYS for d in DAMAGES if (k, d) != ("monuseg", "size")])
def test_malformed_sources_are_refused(key, damage, make_source, refused):
    source, cases = make_source(key)
    change, message = DAMAGES[damage]
    case = list(cases.values())[2]
    change(case.image_file, case.label_file)
    line = refused(message, converter(key).convert, source, 5)
    assert str(source) in line, "the file is named with its path"


@pytest.mark.parametrize("key", KEYS)
def test_an_extra_image_is_refused(key, make_source, refused):
    source, cases = make_source(key)
    files = [case.image_file for case in list(cases.values())[:2]]
    new = {
        "acdc": "patient001_frame05.nii.gz", "clinicdb": "99.tif", "colondb": "99.tiff", "glas": "train_99.bmp",
        "isic2017": "ISIC_0000099.jpg", "kvasir": f"{'cju1':0<25}.jpg", "monuseg": "TCGA-99-0000-01Z-00-DX1.tif",
        "synapse": "img0030.nii.gz",
    }  # fmt: skip
    shutil.copy(files[0], files[0].with_name(new[key]))
    refused(r"has no (mask|annotation|outline file|label) in|belongs to neither", converter(key).convert, source, 5)


@pytest.mark.parametrize("key", MASKS)
def test_unknown_values_in_a_mask_are_refused(key, make_source, refused):
    source, cases = make_source(key)
    mask = next(iter(cases.values())).label_file
    grey = np.zeros(Image.open(mask).size[::-1], np.uint8)
    for values, message in (((1, 2), r"the values \[0, 1, 2\]"), ((128, 255), r"the values \[0, 128, 255\]")):
        grey[4:16], grey[16:] = values
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "PNG")
        mask.write_bytes(buffer.getvalue())
        refused(message, converter(key).convert, source, 5)


@pytest.mark.parametrize("key", KEYS)
def test_nothing_recognised_says_what_was_looked_for(key, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing here")
    line = refused("SOURCE holds (no|none|neither)", converter(key).convert, tmp_path / "empty", 5)
    words = {
        "acdc": "patientXXX",
        "glas": "train_N.bmp",
        "isic2017": "ISIC-2017",
        "monuseg": "Tissue",
        "synapse": "img",
    }
    assert words.get(key, "masks/") in line


@pytest.mark.parametrize("key", ["isic2017", "monuseg"])
def test_several_processes_give_the_same(key, make_source, nnunet_folders):
    """One converter of each kind is enough: a pool takes a second to start."""
    source, _ = make_source(key)
    one, two = (converter(key).convert(source, n, processes=n) for n in (1, 2))
    for file in (p.relative_to(one) for p in one.rglob("*.*")):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_groups_shared_by_test_and_training_are_told(make_source, nnunet_folders):
    source, _ = make_source("glas")
    record = read_record(converter("glas").convert(source, 5))
    assert (
        "this split leaks: 1 test cases belong to 1 groups (patients, sequences, ...) of training cases"
        in record["notes"]
    )


@pytest.mark.parametrize("key", KEYS)
def test_every_split_is_described_and_known(key):
    assert set(converter(key).splits) == set(DATASETS[key].splits)
    found = Found("", [Case("a", (), (), "a")])
    anything = replace(converter(key), discover=lambda files: found)
    with pytest.raises(UserError, match="has no split 'nonsense'; it has: "):
        anything.find(Source(), frame.Choices("nonsense"))
