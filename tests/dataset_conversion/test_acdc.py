"""ACDC: what comes out is what went in, patients stay together, and a bad source is refused in one line."""

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import acdc
from nnunet_attn.dataset_conversion.catalog import DATASETS

ROOT = Path(__file__).parents[2]
NAMES = [f"patient{n:03d}_frame{f:02d}" for n in range(1, 8) for f in (4, 12)]


def read(path: Path) -> tuple[np.ndarray, tuple]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), (image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def frame(source: Path, patient: int, number: int, end: str = "") -> Path:
    name = f"patient{patient:03d}"
    return source / "training" / name / f"{name}_frame{number:02d}{end}.nii.gz"


def rewrite(path: Path, array: np.ndarray, **geometry) -> None:
    old = sitk.ReadImage(str(path))
    new = sitk.GetImageFromArray(array)
    if array.shape == old.GetSize()[::-1]:
        new.CopyInformation(old)
    for name, value in geometry.items():
        getattr(new, f"Set{name}")(value)
    sitk.WriteImage(new, str(path))


def test_converts_pixel_by_pixel(acdc_source, nnunet_folders):
    folder = acdc.convert(acdc_source, 27)
    assert folder == nnunet_folders / "Dataset027_ACDC"
    assert sorted(p.name for p in folder.iterdir()) == [
        "dataset.json", "imagesTr", "imagesTs", "labelsTr", "labelsTs", "manifest.json", "preview.png",
        "splits_final.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (folder / "imagesTr").iterdir()) == [f"{n}_0000.nii.gz" for n in NAMES]
    assert sorted(p.name for p in (folder / "labelsTr").iterdir()) == [f"{n}.nii.gz" for n in NAMES]
    assert sorted(p.name for p in (folder / "labelsTs").iterdir()) == [
        "patient101_frame04.nii.gz", "patient101_frame12.nii.gz",
    ]  # fmt: skip
    for name in [*NAMES, "patient101_frame04", "patient101_frame12"]:
        part, place = ("Ts", "testing") if "101" in name else ("Tr", "training")
        for new, old in ((f"images{part}/{name}_0000", name), (f"labels{part}/{name}", f"{name}_gt")):
            array, geometry = read(folder / f"{new}.nii.gz")
            expected, expected_geometry = read(acdc_source / place / name[:10] / f"{old}.nii.gz")
            np.testing.assert_array_equal(array, expected)
            assert geometry == expected_geometry
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "cineMRI"}
    assert content["labels"] == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    assert (content["numTraining"], content["file_ending"]) == (14, ".nii.gz")
    assert content["licence"]
    assert content["reference"] == DATASETS["acdc"].reference
    assert content["conversion"]["cases"] == {"test": 2, "train": 14}
    assert content["conversion"]["groups"] == {"test": 1, "train": 7}


def test_folds_keep_patients_together(acdc_source, nnunet_folders):
    folds = json.loads((acdc.convert(acdc_source, 27) / "splits_final.json").read_text())
    assert len(folds) == 5
    for fold in folds:
        assert not {n[:10] for n in fold["train"]} & {n[:10] for n in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == NAMES
    assert sorted(n for fold in folds for n in fold["val"]) == NAMES
    again = json.loads((acdc.convert(acdc_source, 27, overwrite=True) / "splits_final.json").read_text())
    assert again == folds


@pytest.mark.parametrize("form", ["training", "one above", "zip", "tar.gz", "uncompressed frames"])
def test_every_form_of_the_source_gives_the_same(acdc_source, nnunet_folders, tmp_path, form):
    shutil.rmtree(acdc_source / "testing")
    expected = acdc.convert(acdc_source, 1)
    source = {"training": acdc_source / "training", "one above": acdc_source.parent}.get(form, tmp_path / "x")
    if form == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for file in acdc_source.rglob("*"):
                archive.write(file, Path("ACDC/database") / file.relative_to(acdc_source))
    elif form == "tar.gz":
        with tarfile.open(source, "w:gz") as archive:
            archive.add(acdc_source, "database")
    elif form == "uncompressed frames":
        source = acdc_source
        for file in list(source.rglob("*frame*.nii.gz")):
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    folder = acdc.convert(source, 2)
    for part in ("imagesTr", "labelsTr"):
        assert sorted(p.name for p in (folder / part).iterdir()) == sorted(p.name for p in (expected / part).iterdir())
        for path in (folder / part).iterdir():
            (array, geometry), (expected_array, expected_geometry) = read(path), read(expected / part / path.name)
            np.testing.assert_array_equal(array, expected_array)
            assert geometry == expected_geometry
    assert (folder / "splits_final.json").read_text() == (expected / "splits_final.json").read_text()


def test_split_lists_are_complete():
    for letter, tests in (("A", "patient095"), ("B", "patient093")):
        numbers = [
            {f"patient{i:03d}" for i in range(1, 101) if f"{i:03d}" in lists[letter].split()}
            for lists in (acdc._VAL, acdc._TEST)
        ]
        assert [len(n) for n in numbers] == [10, 20]
        assert not numbers[0] & numbers[1]
        assert max(numbers[1]) == tests
    assert set(DATASETS["acdc"].splits) == set(acdc.CONVERTER.splits)


def test_published_split_is_one_fold_with_test_cases_apart(acdc_source, add_acdc_patient, refused, nnunet_folders):
    refused("SOURCE holds none of the split's validation cases: patient019, patient021", acdc.convert, acdc_source, 27,
            split="A", allow_missing=True)  # fmt: skip
    add_acdc_patient(acdc_source / "training", 19)
    line = refused("SOURCE lacks patient008.* of split A; ", acdc.convert, acdc_source, 27, split="A")
    assert line.count("patient") == 92
    assert "patient002" not in line
    assert "--allow-missing" in line
    folder = acdc.convert(acdc_source, 27, split="A", allow_missing=True)
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert fold["val"] == ["patient019_frame04", "patient019_frame12"]
    assert {n[:10] for n in fold["train"]} == {f"patient{n:03d}" for n in (1, 4, 5, 6, 7)}
    assert {p.name[:10] for p in (folder / "labelsTs").iterdir()} == {"patient002", "patient003"}
    record = json.loads((folder / "dataset.json").read_text())
    assert record["numTraining"] == 12
    assert any("patient101_frame04" in note and "left out" in note for note in record["conversion"]["notes"])
    folder = acdc.convert(acdc_source, 28, name="B", split="B", allow_missing=True)
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert fold == {
        "train": [n for n in NAMES if n[:10] not in ("patient001", "patient002", "patient007")],
        "val": ["patient002_frame04", "patient002_frame12", "patient019_frame04", "patient019_frame12"],
    }
    assert {p.name[:10] for p in (folder / "imagesTs").iterdir()} == {"patient001", "patient007"}


def truncate(source: Path) -> None:
    path = frame(source, 3, 4)
    path.write_bytes(path.read_bytes()[:-40])


def corrupt(source: Path) -> None:
    path = frame(source, 3, 4, "_gt")
    data = bytearray(gzip.decompress(path.read_bytes()))
    compressed = bytearray(gzip.compress(bytes(data), 0))
    compressed[-60] ^= 1  # one voxel; the checksum at the end tells
    path.write_bytes(compressed)


def cut_uncompressed(source: Path) -> None:
    path = frame(source, 3, 4)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes())[:-10])
    path.unlink()


def duplicate(source: Path) -> None:
    shutil.copytree(source / "training" / "patient003", source / "testing" / "patient003")


def skewed(source: Path) -> None:
    path = frame(source, 2, 4)
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 1] += 1.0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


def rgb(source: Path) -> None:
    array = np.zeros((10, 12, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(array, np.eye(4)), frame(source, 2, 4))


def vectors(source: Path) -> None:
    array = np.zeros((3, 12, 10, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(frame(source, 2, 4)))


MALFORMED = {
    "label missing": (lambda s: frame(s, 3, 4, "_gt").unlink(), r"patient003_frame04_gt\.nii\.gz is missing"),
    "image missing": (lambda s: frame(s, 3, 12).unlink(), r"patient003_frame12\.nii\.gz is missing.*frame 12 is ED"),
    "shape": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.zeros((3, 12, 11), np.uint8)),
        r"frame04_gt\.nii\.gz has shape \(11, 12, 3\), its image .*frame04\.nii\.gz has \(10, 12, 3\)",
    ),
    "spacing": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.zeros((3, 12, 10), np.uint8), Spacing=(1.3, 1.3, 8.0)),
        r"frame04_gt\.nii\.gz lies elsewhere in space than its image",
    ),
    "origin": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.zeros((3, 12, 10), np.uint8), Origin=(0.0, 0.0, 0.0)),
        "lies elsewhere in space",
    ),
    "label ids": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.full((3, 12, 10), 4, np.uint8)),
        r"frame04_gt\.nii\.gz holds the label values \[4\]; expected \[0, 1, 2, 3\]",
    ),
    "negative label": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.full((3, 12, 10), -1, np.int16)), r"label value -1",
    ),
    "label of 257": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.full((3, 12, 10), 257, np.int16)), r"label value 257",
    ),
    "fractional label": (
        lambda s: rewrite(frame(s, 3, 4, "_gt"), np.full((3, 12, 10), 0.5, np.float32)),
        r"frame04_gt\.nii\.gz holds the label value 0\.5; expected whole numbers",
    ),
    "not a number": (
        lambda s: rewrite(frame(s, 3, 4), np.full((3, 12, 10), np.nan, np.float32)), "frame04.*NaN or infinite",
    ),
    "complex": (
        lambda s: nib.save(nib.Nifti1Image(np.zeros((10, 12, 3), np.complex64), np.eye(4)), frame(s, 3, 4)),
        r"frame04\.nii\.gz holds complex64 voxels",
    ),
    "colour": (rgb, r"patient002_frame04\.nii\.gz holds .* voxels"),
    "vectors": (vectors, r"has shape \(10, 12, 3, 1, 3\); expected a 3D volume"),
    "4D": (
        lambda s: nib.save(nib.Nifti1Image(np.zeros((10, 12, 3, 2), np.int16), np.eye(4)), frame(s, 3, 4)),
        r"has shape \(10, 12, 3, 2\); expected a 3D volume",
    ),
    "skewed axes": (skewed, r"patient002_frame04\.nii\.gz cannot be read by nnU-Net's reader, SimpleITK"),
    "truncated": (truncate, r"patient003_frame04\.nii\.gz is truncated or damaged"),
    "damaged": (corrupt, r"patient003_frame04_gt\.nii\.gz is truncated or damaged"),
    "truncated, not compressed": (cut_uncompressed, r"patient003_frame04\.nii is not a complete NIfTI file"),
    "empty": (lambda s: frame(s, 3, 4).write_bytes(b""), r"patient003_frame04\.nii\.gz is not a complete NIfTI file"),
    "text": (lambda s: frame(s, 3, 4).write_text("log in"), r"patient003_frame04\.nii\.gz is not a complete NIfTI"),
    "patient twice": (duplicate, r"patient003 more than once: .*testing.*training|.*training.*testing"),
    "no Info.cfg": (
        lambda s: (s / "training/patient003/Info.cfg").unlink(), r"patient003/Info\.cfg is missing; it names the ED",
    ),
    "no ES": (
        lambda s: (s / "training/patient003/Info.cfg").write_text("ED: 12\nNbFrame: 30\n"),
        r"patient003/Info\.cfg should hold one line like 'ES: 1', and holds 0",
    ),
    "ES elsewhere": (
        lambda s: (s / "training/patient003/Info.cfg").write_text("ED: 12\nES: 7\n"),
        r"patient003_frame07\.nii\.gz is missing; Info\.cfg says frame 7 is ES",
    ),
    "ED is ES": (lambda s: (s / "training/patient003/Info.cfg").write_text("ED: 4\nES: 4\n"), "same frame for ED and"),
    "extra frame": (
        lambda s: shutil.copy(frame(s, 3, 4), frame(s, 3, 5)), r"patient003_frame05\.nii\.gz belongs to neither",
    ),
    "misnamed": (
        lambda s: frame(s, 3, 4).rename(s / "training/patient003/patient004_frame04.nii.gz"),
        r"patient003/patient004_frame04\.nii\.gz lies in another patient.s folder",
    ),
    "both forms": (
        lambda s: shutil.copy(frame(s, 3, 4), frame(s, 3, 4).with_suffix("")), "both compressed and not",
    ),
    "nothing of ACDC": (lambda s: shutil.rmtree(s / "training") or shutil.rmtree(s / "testing"), "no case of acdc"),
    "four patients": (
        lambda s: [shutil.rmtree(s / f"training/patient00{n}") for n in (1, 2, 3)],
        "5 folds need at least 5 groups.*SOURCE has 4: patient004.*give --num-folds 4, the largest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", MALFORMED)
def test_malformed_sources_are_refused(acdc_source, refused, damage):
    change, message = MALFORMED[damage]
    change(acdc_source)
    refused(message, acdc.convert, acdc_source, 27)


def test_whole_numbers_stored_as_floats_are_labels_all_the_same(acdc_source, nnunet_folders):
    path = frame(acdc_source, 3, 4, "_gt")
    labels, geometry = read(path)
    rewrite(path, labels.astype(np.float32))
    converted = acdc.convert(acdc_source, 27) / "labelsTr/patient003_frame04.nii.gz"
    new, new_geometry = read(converted)
    assert new.dtype == np.uint8
    np.testing.assert_array_equal(new, labels)
    np.testing.assert_allclose(np.concatenate(new_geometry), np.concatenate(geometry), atol=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "nnunet_attn.cli.main", "convert", "acdc"],
        ["-m", "nnunet_attn.dataset_conversion.acdc"],
        [str(ROOT / "scripts" / "convert_acdc.py")],
    ],
    ids=["nnunet-attn", "python -m", "script"],
)
def test_all_commands_do_the_same_with_two_processes(acdc_source, nnunet_folders, command):
    expected = acdc.convert(acdc_source, 1)
    done = subprocess.run(
        [sys.executable, *command, str(acdc_source), "27", "--name", "Heart", "--processes", "2"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = nnunet_folders / "Dataset027_Heart"
    assert done.stdout.strip() == str(folder)
    assert "converted 2 test (1 groups), 14 train (7 groups)" in done.stderr
    files = sorted(p.relative_to(folder) for p in folder.rglob("*.*"))
    assert files == sorted(p.relative_to(expected) for p in expected.rglob("*.*"))
    for file in files:
        assert (folder / file).read_bytes() == (expected / file).read_bytes(), file


def test_command_reports_an_error_in_one_line(acdc_source, nnunet_folders, capsys):
    truncate(acdc_source)
    assert main(["convert", "acdc", str(acdc_source), "27", "--processes", "2"]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("nnunet-attn convert: error: ")
    assert error.count("\n") == 1
    assert list(nnunet_folders.iterdir()) == []


def test_help_names_what_a_user_must_know(capsys):
    for arguments in (["convert", "--help"], ["convert", "acdc", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        text = " ".join(capsys.readouterr().out.split())
        for part in (
            "creatis",
            "licence",
            "100 training",
            "nnunet-attn convert acdc SOURCE 27",
            "--split A",
            "SSL4MIS",
        ):
            assert part in text


@pytest.fixture
def repackaged(tmp_path):
    """SSL4MIS's files: volumes, and their slices counted from 1; six patients, two frames each."""
    h5py = pytest.importorskip("h5py")
    volumes = {}
    (tmp_path / "data" / "slices").mkdir(parents=True)
    for number in (1, 2, 3, 4, 5, 28):
        for i, name in enumerate((f"patient{number:03d}_frame01", f"patient{number:03d}_frame09")):
            rng = np.random.default_rng(2 * number + i)
            volumes[name] = rng.random((11, 12, 10), np.float32), rng.integers(0, 4, (11, 12, 10), dtype=np.uint8)
            with h5py.File(tmp_path / "data" / f"{name}.h5", "w") as file:
                file["image"], file["label"] = volumes[name]
            for z, (image, label) in enumerate(zip(*volumes[name], strict=True), 1):
                with h5py.File(tmp_path / "data" / "slices" / f"{name}_slice_{z}.h5", "w") as file:
                    file["image"], file["label"], file["scribble"] = image, label, label
    return tmp_path / "data", volumes


@pytest.mark.parametrize("form", ["volumes", "slices", "both"])
def test_repackaged_files_become_volumes(repackaged, nnunet_folders, form):
    source, volumes = repackaged
    if form == "volumes":
        shutil.rmtree(source / "slices")
    folder = acdc.make_converter(spacing=(1.4, 1.4, 8.0)).convert(source / ("slices" if form == "slices" else ""), 27)
    for name, (image, label) in volumes.items():
        array, geometry = read(folder / f"imagesTr/{name}_0000.nii.gz")
        np.testing.assert_array_equal(array, image)
        np.testing.assert_allclose(geometry[0], (1.4, 1.4, 8.0), rtol=1e-6)
        np.testing.assert_array_equal(read(folder / f"labelsTr/{name}.nii.gz")[0], label)
    record = json.loads((folder / "dataset.json").read_text())["conversion"]
    assert record["source_layout"] == "repackaged: HDF5 volumes or slices"
    assert "spacing as given: [1.4, 1.4, 8.0] mm" in record["notes"]
    assert any("slices of the same cases, not needed: 132" in note for note in record["notes"]) == (form == "both")
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert not {n[:10] for n in fold["train"]} & {n[:10] for n in fold["val"]}


def test_repackaged_files_take_the_published_splits(repackaged, nnunet_folders):
    source, _ = repackaged
    folder = acdc.convert(source, 27, split="B", allow_missing=True)
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert {n[:10] for n in fold["val"]} == {"patient002", "patient028"}
    assert {p.name[:10] for p in (folder / "labelsTs").iterdir()} == {"patient001"}
    record = json.loads((folder / "dataset.json").read_text())["conversion"]
    assert "spacing unknown; 1 mm was written" in record["notes"]


def test_repackaged_test_patients_are_not_trained_on(repackaged, nnunet_folders):
    """By number, or by a folder's name; training slices beside testing volumes."""
    source, volumes = repackaged
    (source / "slices").rename(source / "ACDC_training_slices")
    tested = source / "ACDC_testing_volumes"
    tested.mkdir()
    for file in source.glob("*.h5"):
        if file.name.startswith("patient028"):
            for slice_ in (source / "ACDC_training_slices").glob(f"{file.stem}*"):
                slice_.unlink()
            file.rename(tested / file.name)
        else:
            file.unlink()
    shutil.copy(tested / "patient028_frame01.h5", source / "patient101_frame01.h5")
    folder = acdc.convert(source, 27)
    assert {p.name[:10] for p in (folder / "labelsTs").iterdir()} == {"patient028", "patient101"}
    assert {p.name[:10] for p in (folder / "labelsTr").iterdir()} == {f"patient{n:03d}" for n in range(1, 6)}
    array, _ = read(folder / "imagesTr/patient001_frame09_0000.nii.gz")
    np.testing.assert_array_equal(array, volumes["patient001_frame09"][0])


def test_malformed_repackaged_sources_are_refused(repackaged, acdc_source, refused):
    source, _ = repackaged
    slices = source / "slices"
    missing = slices / "patient003_frame01_slice_10.h5"
    missing.rename(source / "kept")
    refused(r"patient003_frame01_slice_10\.h5 is missing", acdc.convert, slices, 27)
    shutil.copy(slices / "patient003_frame01_slice_9.h5", slices / "patient003_frame01_slice_09.h5")
    refused("hold the same data; keep one", acdc.convert, slices, 27)
    (slices / "patient003_frame01_slice_09.h5").rename(slices / "patient3.h5")
    refused(r"patient3\.h5 has an unexpected name; files are like patient001_frame01\.h5", acdc.convert, slices, 27)
    shutil.rmtree(slices)
    volume = source / "patient003_frame01.h5"
    volume.write_bytes(volume.read_bytes()[:900])
    refused(r"patient003_frame01\.h5 is truncated or damaged", acdc.convert, source, 27)
    refused("NIfTI volumes, whose spacing is known", acdc.make_converter(spacing=(1, 1, 1)).convert, acdc_source, 27)


def test_a_folder_in_other_letters_does_not_vanish(acdc_source, nnunet_folders):
    expected = sorted(p.name for p in (acdc.convert(acdc_source, 1) / "labelsTr").iterdir())
    for old, new in (("patient001", "Patient001"), ("patient002", "PATIENT_002"), ("patient003", "patient 3")):
        (acdc_source / "training" / old).rename(acdc_source / "training" / new)
    assert sorted(p.name for p in (acdc.convert(acdc_source, 2) / "labelsTr").iterdir()) == expected


def test_what_looks_like_a_patient_and_is_not_read_is_an_error(acdc_source, refused):
    (acdc_source / "training" / "patient009").mkdir()
    refused("patient009 is empty, although folders of this name hold cases", acdc.convert, acdc_source, 27)
    (acdc_source / "training" / "patient009").rmdir()
    shutil.copytree(acdc_source / "training" / "patient001", acdc_source / "training" / "subject9")
    refused("patient001 more than once", acdc.convert, acdc_source, 27)
    for file in (acdc_source / "training" / "subject9").iterdir():
        file.rename(file.with_name(file.name.replace("patient001", "subject9")))
    refused(r"subject9/subject9_.* was not recognised as part of a case", acdc.convert, acdc_source, 27)


def test_incomplete_patients_are_left_out_if_allowed(acdc_source, nnunet_folders):
    frame(acdc_source, 3, 12, "_gt").unlink()
    (acdc_source / "training/patient004/Info.cfg").unlink()
    folder = acdc.convert(acdc_source, 27, allow_missing=True)
    names = sorted(p.name[:18] for p in (folder / "labelsTr").iterdir())
    assert names == [n for n in NAMES if n != "patient003_frame12" and not n.startswith("patient004")]
    (note,) = [n for n in json.loads((folder / "dataset.json").read_text())["conversion"]["notes"] if "left out" in n]
    assert "patient003_frame12_gt.nii.gz is missing" in note
    assert "patient004/Info.cfg is missing" in note


def test_all_files_in_one_folder(acdc_source, nnunet_folders, tmp_path, refused):
    """Without Info.cfg, which would be there seven times."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in acdc_source.rglob("*_frame*"):
        shutil.copy(file, flat)
    folder = acdc.convert(flat, 27)
    assert sorted(p.name[:18] for p in (folder / "labelsTr").iterdir()) == NAMES
    assert len(list((folder / "labelsTs").iterdir())) == 2
    notes = json.loads((folder / "dataset.json").read_text())["conversion"]["notes"]
    assert "no Info.cfg in SOURCE: which frames are ED and ES was not checked" in notes
    shutil.rmtree(folder)
    (flat / "patient003_frame12_gt.nii.gz").unlink()
    refused(r"patient003_frame12_gt\.nii\.gz is missing", acdc.convert, flat, 27)


def test_a_folder_for_each_file(acdc_source, nnunet_folders):
    """As some unpackers leave it."""
    expected = sorted(p.name for p in (acdc.convert(acdc_source, 1) / "labelsTr").iterdir())
    for file in list(acdc_source.rglob("*_frame*.nii.gz")):
        data = gzip.decompress(file.read_bytes())
        file.unlink()
        file.with_suffix("").mkdir()
        (file.with_suffix("") / file.with_suffix("").name).write_bytes(data)
    assert sorted(p.name for p in (acdc.convert(acdc_source, 2) / "labelsTr").iterdir()) == expected
