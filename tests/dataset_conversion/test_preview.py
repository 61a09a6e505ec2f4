"""The contact sheet and the final paragraph show what was converted."""

from collections import Counter

import numpy as np
from PIL import Image

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion.case_work import Result
from nnunet_attn.dataset_conversion.cases import Case
from nnunet_attn.dataset_conversion.preview import COLOURS, MOST, TILE, choose, write_preview


def result(folder, name: str, label: np.ndarray) -> Result:
    for part, array in (("images", np.full((*label.shape, 3), 90, np.uint8)), ("labels", label)):
        (folder / f"{part}Tr").mkdir(exist_ok=True)
        end = "_0000" if part == "images" else ""
        Image.fromarray(array).save(folder / f"{part}Tr" / f"{name}{end}.png")
    pixels = dict(enumerate(np.bincount(label.ravel()).tolist()))
    files = f"imagesTr/{name}_0000.png", f"labelsTr/{name}.png"
    return Result(Case(name, (), (), name), {"inputs": []}, *files, label.shape, pixels, Counter(), {})


def test_smallest_largest_and_empty_are_among_at_most_16(tmp_path):
    results = []
    for i in range(40):
        label = np.zeros((60, 80), np.uint8)
        label[5 : 6 + i, 5 : 6 + i] = 1
        results.append(result(tmp_path, f"case{i:02d}", label))
    results.append(result(tmp_path, "empty", np.zeros((60, 80), np.uint8)))
    chosen = {r.case.name: remark for r, remark in choose(results)}
    assert len(chosen) == MOST
    assert chosen["case00"] == "smallest structure"
    assert chosen["case39"] == "largest structure"
    assert chosen["empty"] == "no structure"
    assert len(choose(results[:3])) == 3


def test_structures_of_one_pixel_are_outlined(tmp_path):
    """In pictures that are shown at a tenth of their size."""
    label = np.zeros((2000, 2560), np.uint8)
    label[500, 700] = 1
    label[1000:1400, 1000:1500] = 2
    write_preview(tmp_path, [result(tmp_path, "case", label)], {"background": 0, "dot": 1, "box": 2})
    sheet = np.asarray(Image.open(tmp_path / "preview.png"))
    tile = sheet[28 : 28 + 200, :TILE]
    one, two = (np.argwhere((tile == colour).all(-1)) for colour in COLOURS[:2])
    assert len(one)
    assert np.abs(one - np.array([500, 700]) / 10).max() < 3
    assert np.abs(two.min(0) - np.array([1000, 1000]) / 10).max() < 3
    assert np.abs(two.max(0) - np.array([1400, 1500]) / 10).max() < 3
    legend = sheet[-28:-14]
    assert ((legend[..., 1] > 120) & (legend[..., 0] < 90)).any()  # letters in the colour of the label


def test_final_paragraph(make_source, nnunet_folders, capsys):
    source, cases = make_source("clinicdb")
    (source / "notes.txt").write_text("mine")
    empty = list(cases.values())[3]
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(empty.label_file)
    assert main(["convert", "clinicdb", str(source), "5", "--processes", "1"]) == 0
    said = capsys.readouterr().err
    for line in (
        "converted 13 train (11 groups)",
        "size: 32x24; share of pixels: background ",
        "group: sequence",
        "note: not needed: notes.txt",
        "note: masks without foreground: 1 (CVC-ClinicDB/Ground Truth/26.tif)",
    ):
        assert line in said
    assert (nnunet_folders / "Dataset005_ClinicDB" / "preview.png").is_file()


def test_dry_run_says_how_each_folder_is_read(make_source, nnunet_folders, capsys):
    source, _ = make_source("isic2017")
    assert main(["convert", "isic2017", str(source), "5", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert (
        "read ISIC-#_Training_Data: 6 images, 7 not needed" in said
        or "read ISIC-2017_Training_Data: 6 images, 7" in said
    )
    assert "ISIC-2017_Training_Part1_GroundTruth: 6 labels" in said
    source, _ = make_source("acdc")
    assert main(["convert", "acdc", str(source), "5", "--dry-run"]) == 0
    assert "read database/training/patient# (7): 14 images, 14 labels, 7 read" in capsys.readouterr().err


def test_the_same_image_twice_is_told(make_source, nnunet_folders, capsys):
    source, cases = make_source("kvasir")
    first, second = list(cases.values())[:2]
    second.image_file.write_bytes(first.image_file.read_bytes())
    second.label_file.write_bytes(first.label_file.read_bytes())
    assert main(["convert", "kvasir", str(source), "5", "--processes", "1"]) == 0
    names = list(cases)[:2]
    assert (
        f"the same image under several names, which a split may divide: {names[0]} = {names[1]}"
        in capsys.readouterr().err
    )
