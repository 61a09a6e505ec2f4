"""ClinicDB, ColonDB and Kvasir-SEG: layouts, groups and the splits that circulate."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from nnunet_attn.dataset_conversion import clinicdb, colondb, kvasir
from nnunet_attn.dataset_conversion.target import read_record


def names(folder, part: str) -> list[str]:
    place = folder / f"labels{part}"
    return sorted(p.stem for p in place.iterdir()) if place.is_dir() else []


def folds_of(folder) -> list[dict[str, list[str]]]:
    return json.loads((folder / "splits_final.json").read_text())


def test_clinicdb_sequences_are_the_published_ones():
    lengths = np.diff([0, *clinicdb.SEQUENCES])
    assert len(lengths) == 29
    assert sum(lengths) == 612
    assert (lengths.min(), lengths.max(), lengths[9], lengths[12]) == (6, 26, 6, 25)
    assert len(set(clinicdb.PRANET_TEST)) == 62
    assert len({int(np.searchsorted(clinicdb.SEQUENCES, n)) for n in clinicdb.PRANET_TEST}) == 26


def test_clinicdb_prefers_the_original_tif(make_source, nnunet_folders):
    """A repackaging holds PNG and TIF; PNG masks there have three channels."""
    source, cases = make_source("clinicdb")
    (source / "CVC-ClinicDB").rename(source / "TIF")
    for file in list((source / "TIF").rglob("*.tif")):
        other = source / "PNG" / file.relative_to(source / "TIF").with_suffix(".png")
        other.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("RGB").point(lambda v: v // 255 * 255).save(other)
    folder = clinicdb.convert(source, 5)
    assert read_record(folder)["source_layout"] == "TIF/Original/ with TIF/Ground Truth/"
    image = np.array(Image.open(folder / "imagesTr/clinicdb_026_0000.png"))
    np.testing.assert_array_equal(image, cases["clinicdb_026"].image)
    shutil.rmtree(source / "TIF")
    folder = clinicdb.convert(source, 6)
    label = np.array(Image.open(folder / "labelsTr/clinicdb_026.png"))
    np.testing.assert_array_equal(label, cases["clinicdb_026"].label)


def test_clinicdb_is_found_among_pranets_test_sets(make_source, nnunet_folders, refused):
    source, cases = make_source("clinicdb")
    root = source / "CVC-ClinicDB"
    (root / "Original").rename(root / "images")
    (root / "Ground Truth").rename(root / "masks")
    for other in ("CVC-300", "ETIS-LaribPolypDB"):
        shutil.copytree(root, source / other)
    refused("whose frames may be renumbered.*--original-numbers", clinicdb.convert, source, 5)
    refused("split pranet: it names frames by number", clinicdb.convert, source, 5, split="pranet", num_folds=0)
    folder = clinicdb.make_converter(original_numbers=True).convert(source, 5)
    assert json.loads((folder / "manifest.json").read_text())["groups"]["of"]["clinicdb_026"] == "sequence02"
    shutil.rmtree(folder)
    folder = clinicdb.convert(source, 5, num_folds=0)
    assert json.loads((folder / "manifest.json").read_text())["groups"] is None
    assert read_record(folder)["source_layout"] == "CVC-ClinicDB/images/ with CVC-ClinicDB/masks/"
    assert names(folder, "Tr") == sorted(cases)


def test_several_candidates_are_refused(make_source, refused):
    source, _ = make_source("clinicdb")
    (source / "CVC-ClinicDB").rename(source / "one")
    shutil.copytree(source / "one", source / "two")
    refused(
        "several pairs of folders: .*one/Original, .*two/Original; give the one you mean", clinicdb.convert, source, 5
    )


def test_clinicdb_has_612_frames(make_source, refused):
    source, cases = make_source("clinicdb")
    for case in (cases["clinicdb_612"].image_file, cases["clinicdb_612"].label_file):
        case.rename(case.with_name("613.tif"))
    refused(r"613\.tif is not a frame of CVC-ClinicDB, which counts from 1 to 612", clinicdb.convert, source, 5)


def test_the_same_frame_twice_is_refused(make_source, refused):
    source, cases = make_source("clinicdb")
    file = cases["clinicdb_026"].image_file
    shutil.copy(file, file.with_name("026.tif"))
    refused(r"(026|26)\.tif and .*26\.tif both have the id 26", clinicdb.convert, source, 5)


def test_pranets_list_leaks_and_that_is_told(make_source, nnunet_folders, refused):
    source, _ = make_source("clinicdb")
    refused("SOURCE lacks .*clinicdb_.* of split pranet", clinicdb.convert, source, 5, split="pranet")
    folder = clinicdb.convert(source, 5, split="pranet", allow_missing=True)
    assert names(folder, "Ts") == ["clinicdb_014", "clinicdb_025"]
    assert "clinicdb_001" in names(folder, "Tr")
    record = read_record(folder)
    assert any("leaks: 2 test cases belong to 1 groups" in note for note in record["notes"])
    assert record["folds"] == 5


@pytest.mark.parametrize("module", [clinicdb, colondb, kvasir])
def test_tenths_keep_groups_together(module, make_source, nnunet_folders):
    key = module.CONVERTER.key
    source, cases = make_source(key)
    folder = module.convert(source, 5, split="8-1-1")
    (fold,) = folds_of(folder)
    parts = {"train": fold["train"], "val": fold["val"], "test": names(folder, "Ts")}
    assert sorted(name for part in parts.values() for name in part) == sorted(cases)
    assert all(parts.values())
    groups = [{cases[n].group for n in part} for part in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    again = module.convert(source, 6, split="8-1-1", processes=1)
    assert folds_of(again) == [fold]


def test_tenths_need_ten_groups(make_source, refused):
    source, cases = make_source("kvasir")
    for name in list(cases)[:2]:
        cases[name].image_file.unlink()
        cases[name].label_file.unlink()
    refused("at least ten groups of cases; SOURCE has 9", kvasir.convert, source, 5, split="8-1-1")


def test_colondb_sequences_are_the_published_ones():
    lengths = np.diff([0, *colondb.LAST_FRAMES])
    assert (sum(lengths), len(lengths), lengths.min(), lengths.max()) == (380, 15, 5, 55)
    assert sorted(colondb.SEQUENCES) == list(range(1, 16))


def test_colondb_first_release(make_source, nnunet_folders, refused):
    source, cases = make_source("colondb")
    flat = source / "CVC-ColonDB" / "CVCColon"
    flat.mkdir()
    for name, case in cases.items():
        number = int(name[-3:])
        for file, prefix in ((case.image_file, ""), (case.label_file, "p")):
            Image.open(file).save(flat / f"{prefix}{number}.bmp")
        for prefix in "sc":  # non-informative region and contour: neither is wanted
            Image.open(case.image_file).save(flat / f"{prefix}{number}.bmp")
    for file in flat.parent.glob("*.tiff"):
        file.unlink()
    folder = colondb.convert(source, 5)
    assert names(folder, "Tr") == sorted(cases)
    assert read_record(folder)["source_layout"].startswith("original")
    for name, case in cases.items():
        np.testing.assert_array_equal(np.array(Image.open(folder / f"imagesTr/{name}_0000.png")), case.image)
        np.testing.assert_array_equal(np.array(Image.open(folder / f"labelsTr/{name}.png")), case.label)
    shutil.rmtree(folder)
    (flat / "p38.bmp").unlink()
    refused(r"38\.bmp has no mask", colondb.convert, source, 5)


def repackaged_colondb(source, cases):
    for case in cases.values():
        for file, place in ((case.image_file, "images"), (case.label_file, "masks")):
            new = source / "CVC-ColonDB" / place / f"{case.image_file.stem}.png"
            new.parent.mkdir(exist_ok=True)
            Image.open(file).save(new)
    for file in (source / "CVC-ColonDB").glob("*.tiff"):
        file.unlink()


def test_repackaged_frames_have_no_sequence(make_source, nnunet_folders, refused, tmp_path):
    source, cases = make_source("colondb")
    repackaged_colondb(source, cases)
    for split in (None, "8-1-1"):
        line = refused("repackaged copy whose frames may be renumbered", colondb.convert, source, 5, split=split)
        assert "--groups FILE.csv" in line
        assert "--num-folds 0" in line
    folder = colondb.convert(source, 5, num_folds=0)
    assert json.loads((folder / "manifest.json").read_text())["groups"] is None
    assert not (folder / "splits_final.json").exists()
    table = tmp_path / "groups.csv"
    table.write_text("case,sequence\n" + "".join(f"{n},{c.group}\n" for n, c in cases.items()))
    folder = colondb.convert(source, 6, groups=table)
    groups = json.loads((folder / "manifest.json").read_text())["groups"]
    assert groups == {"kind": "sequence", "of": {n: c.group for n, c in cases.items()}}
    assert len(folds_of(folder)) == 5


def test_colondb_has_380_frames(make_source, refused):
    source, cases = make_source("colondb")
    for number in (0, 381, 99999):
        for case in (cases["colondb_380"].image_file, cases["colondb_380"].label_file):
            shutil.copy(case, case.with_name(case.name.replace("380", str(number))))
        refused(f"{number}.tiff is not a frame of CVC-ColonDB, which counts from 1 to 380", colondb.convert, source, 5)
        for case in (cases["colondb_380"].image_file, cases["colondb_380"].label_file):
            case.with_name(case.name.replace("380", str(number))).unlink()


def test_pranet_tests_on_all_of_colondb(make_source, nnunet_folders, refused):
    source, cases = make_source("colondb")
    line = refused("SOURCE lacks colondb_002", colondb.convert, source, 5, split="pranet")
    assert "colondb_078" in line  # the circulating list lacks 77 to 97, the test set does not
    folder = colondb.convert(source, 5, split="pranet", allow_missing=True)
    assert names(folder, "Ts") == sorted(cases)
    assert names(folder, "Tr") == []
    assert not (folder / "splits_final.json").exists()
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 0
    assert (
        "there are test cases only: predict them with a model that was trained on another dataset"
        in read_record(folder)["notes"]
    )


def test_kvasirs_lists():
    assert {name: len(set(tests)) for name, tests in kvasir.TESTS.items()} == {"colonsegnet": 120, "pranet": 100}
    assert all(len(name) == 25 and name[0] == "c" for tests in kvasir.TESTS.values() for name in tests)


@pytest.mark.parametrize(("split", "count"), [("colonsegnet", 2), ("pranet", 1)])
def test_kvasir_splits(split, count, make_source, nnunet_folders):
    source, cases = make_source("kvasir")
    folder = kvasir.convert(source, 5, split=split, allow_missing=True)
    assert len(names(folder, "Ts")) == count
    assert len(names(folder, "Tr")) == len(cases) - count
    assert "cju0u82z3cuma0835wlxrnrjv" in names(folder, "Ts")
    assert Counter(n for fold in folds_of(folder) for n in fold["val"]) == Counter(names(folder, "Tr"))


def test_jpeg_masks_are_told_of(make_source, nnunet_folders):
    source, cases = make_source("kvasir")
    mask = np.zeros((200, 304), np.uint8)
    mask[37:150, 51:201] = 255
    case = cases["cju0u82z3cuma0835wlxrnrjv"]
    Image.fromarray(mask).save(case.label_file, quality=90)
    Image.fromarray(np.zeros((200, 304, 3), np.uint8)).save(case.image_file)
    between = int(((np.array(Image.open(case.label_file)) % 255) != 0).sum())
    notes = read_record(kvasir.convert(source, 5))["notes"]
    assert between
    share = f"{between / (200 * 304):.2%}"
    assert any(note.startswith("1 of 11 masks hold grey pixels") and share in note for note in notes)
    manifest = json.loads((nnunet_folders / "Dataset005_KvasirSEG" / "manifest.json").read_text())["cases"]
    assert manifest["cju0u82z3cuma0835wlxrnrjv"]["grey"] == pytest.approx(between / (200 * 304), abs=1e-6)


def test_kvasir_of_other_folder_names_with_drawn_pictures(make_source, nnunet_folders):
    source, cases = make_source("kvasir")
    root = source / "Kvasir-SEG"
    shutil.copytree(root / "images", root / "annotated_images")
    (root / "images").rename(root / "image")
    (root / "masks").rename(root / "mask")
    folder = kvasir.convert(source, 5)
    assert names(folder, "Tr") == sorted(cases)
    assert any("the same pictures again, not needed: 11" in note for note in read_record(folder)["notes"])
