"""ISIC 2017: three parts in six archives."""

import json
import shutil
import zipfile

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import isic2017


@pytest.fixture
def archives(make_source, tmp_path):
    """The six archives as downloaded, with their cases."""
    source, cases = make_source("isic2017")
    paths = []
    for folder in sorted(source.iterdir()):
        paths.append(tmp_path / f"{folder.name}.zip")
        with zipfile.ZipFile(paths[-1], "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{folder.name}/{file.name}")
    return paths, cases


def test_official_split_from_the_six_archives(archives, nnunet_folders, capsys):
    paths, cases = archives
    command = ["convert", "isic2017", *map(str, paths), "33", "--split", "official", "--processes", "1"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "SOURCE lacks 2000 train cases (it has 6), 150 val cases (it has 1), 600 test cases (it has 2)" in said
    assert main([*command, "--allow-missing"]) == 0
    folder = nnunet_folders / "Dataset033_ISIC2017"
    assert capsys.readouterr().out.strip() == str(folder)
    assert json.loads((folder / "splits_final.json").read_text()) == [
        {part: sorted(n for n, case in cases.items() if case.part == part) for part in ("train", "val")}
    ]
    assert sorted(p.stem for p in (folder / "labelsTs").iterdir()) == [n for n, c in cases.items() if c.part == "test"]
    manifest = json.loads((folder / "manifest.json").read_text())["cases"]
    assert [name for name, _ in manifest["ISIC_0000000"]["inputs"]] == [
        "ISIC-2017_Training_Data/ISIC_0000000.jpg",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png",
    ]


def test_official_split_needs_validation_cases(archives, refused):
    paths, _ = archives
    training = [path for path in paths if "Training" in path.name]
    options = {"split": "official", "allow_missing": True}
    refused("SOURCE holds no validation cases", isic2017.convert, training, 33, **options)


def test_pictures_without_their_masks_archive_are_refused(archives, refused):
    paths, _ = archives
    rest = [path for path in paths if "Validation_Part1" not in path.name]
    refused(r"ISIC_0000006\.jpg has no mask in SOURCE \(1 images, 0 masks\)", isic2017.convert, rest, 33)


def test_a_picture_in_two_parts_is_refused(make_source, refused):
    source, cases = make_source("isic2017")
    case = cases["ISIC_0000000"]
    shutil.copy(case.image_file, source / "ISIC-2017_Test_v2_Data")
    shutil.copy(case.label_file, source / "ISIC-2017_Test_v2_Part1_GroundTruth")
    refused("SOURCE holds ISIC_0000000 more than once: .*Training_Data.*Test_v2_Data", isic2017.convert, source, 33)
