"""GlaS and MoNuSeg: patients, parts, instances and outlines."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from nnunet_attn.dataset_conversion import glas, monuseg
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.dataset_conversion.target import read_record
from nnunet_attn.errors import UserError


def test_glas_without_its_table_says_that_patients_are_unknown(make_source, nnunet_folders):
    source, _ = make_source("glas")
    table = next(source.rglob("Grade.csv"))
    table.unlink()
    record = read_record(glas.convert(source, 5))
    assert any("patients are unknown, and folds may divide a patient" in note for note in record["notes"])
    assert record["groups"] == {"test": 3, "train": 6}


def test_glas_table_must_fit(make_source, refused):
    source, _ = make_source("glas")
    table = next(source.rglob("Grade.csv"))
    rows = table.read_text().splitlines()
    table.write_text("\n".join(rows[:-1]))
    refused(r"Grade\.csv names no patient for testB_1", glas.convert, source, 5)
    table.write_text("name, grade\ntrain_1, benign\n")
    refused(r"should have the columns 'name' and 'patient ID', and has name, grade", glas.convert, source, 5)


def test_glas_official_split_counts(make_source, nnunet_folders, refused):
    source, _ = make_source("glas")
    refused(r"lacks 85 train cases \(it has 6\), 80 test cases \(it has 3\)", glas.convert, source, 5, split="official")
    record = read_record(glas.convert(source, 5, split="official", allow_missing=True))
    assert (record["cases"], record["folds"]) == ({"test": 3, "train": 6}, 5)


def test_glas_annotations_of_jpeg_are_refused(make_source, refused):
    source, cases = make_source("glas")
    file = cases["train_3"].label_file
    Image.open(file).save(file.with_suffix(".jpg"))
    file.unlink()
    refused(r"train_3_anno\.jpg holds instance numbers, which JPEG compression changes", glas.convert, source, 5)


def outlines(*regions: str) -> Content:
    text = "".join(f'<Region Id="{i}">{region}</Region>' for i, region in enumerate(regions, 1))
    return Content(
        "the file", f"<Annotations><Annotation><Regions>{text}</Regions></Annotation></Annotations>".encode()
    )


def vertices(*points: tuple[float, float]) -> str:
    return "<Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points) + "</Vertices>"


def test_outlines_against_a_point_in_polygon_loop():
    """Every pixel's centre, tested against the crossing number of the outline."""
    rng = np.random.default_rng(1)
    points = rng.uniform(2, 28, (7, 2)) + 1e-3
    label, _ = monuseg.rasterise(outlines(vertices(*points)), (30, 30))
    expected = np.zeros((30, 30), bool)
    for y in range(30):
        for x in range(30):
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    expected[y, x] ^= True
    np.testing.assert_array_equal(label, expected)
    assert 20 < expected.sum() < 800


def test_short_outlines_are_left_out_and_counted():
    square = vertices((2, 2), (6, 2), (6, 6), (2, 6))
    label, counts = monuseg.rasterise(outlines(square, vertices((9, 9), (12, 12)), "<Vertices/>"), (20, 20))
    assert label.sum() == 25
    assert counts == {"outlines of fewer than three points, left out": 2}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (outlines(vertices((40, 2), (46, 2), (46, 6))), "region 1 lies outside the tile of 20x20"),
        (outlines(vertices((-9, 2), (-6, 2), (-6, 6))), "region 1 lies outside"),
        (outlines(vertices((2, 2), (6, 2), (float("nan"), 6))), "region 1 lies outside"),
        (outlines('<Vertices><Vertex X="1"/></Vertices>'), "a vertex of region 1 has no numbers X and Y"),
        (outlines('<Vertices><Vertex X="a" Y="1"/></Vertices>'), "a vertex of region 1 has no numbers X and Y"),
        (outlines(), "holds no outlines"),
        (Content("the file", b"<Annotations><Annotation>"), "not a complete XML file"),
        (Content("the file", b""), "not a complete XML file"),
    ],
)
def test_damaged_outlines_are_refused(data, message):
    with pytest.raises(UserError, match=f"^the file.*{message}"):
        monuseg.rasterise(data, (20, 20))


def test_holes_are_refused():
    text = outlines(vertices((2, 2), (6, 2), (6, 6))).data.replace(b'Id="1"', b'Id="1" NegativeROA="1"')
    with pytest.raises(UserError, match="region 1 is a hole"):
        monuseg.rasterise(Content("the file", text), (20, 20))


def test_monuseg_tiles_of_a_patient_stay_together(make_source, nnunet_folders):
    source, cases = make_source("monuseg")
    pair = {"TCGA-00-5592-01Z-00-DX0", "TCGA-00-5592-01Z-00-DX1"}
    assert pair <= cases.keys()
    for fold in json.loads((monuseg.convert(source, 5) / "splits_final.json").read_text()):
        assert pair <= set(fold["train"]) or pair <= set(fold["val"])


def test_monuseg_official_split_knows_both_releases(make_source, refused):
    source, _ = make_source("monuseg")
    refused(
        re.escape("lacks 30 or 37 train cases (it has 6), 14 test cases (it has 2)"),
        monuseg.convert, source, 5, split="official",
    )  # fmt: skip


def test_monuseg_in_every_arrangement(make_source, nnunet_folders):
    """Training tiles beside their outlines, folders of other names, and no folder that tells the part."""
    source, cases = make_source("monuseg")
    expected = {p.name: p.read_bytes() for p in monuseg.convert(source, 1).rglob("*.png")}
    train = source / "MoNuSeg 2018 Training Data"
    for case in cases.values():
        if case.part == "train":
            shutil.move(case.label_file, train / case.label_file.name)
            shutil.move(case.image_file, train / case.image_file.name)
    for folder in ("Tissue Images", "Annotations"):
        (train / folder).rmdir()
    masks = train / "masks"
    masks.mkdir()
    for name, case in cases.items():
        if case.part == "train":
            Image.fromarray(case.label.astype(np.uint8) * 255).save(masks / f"{name}.png")
    folder = monuseg.convert(source, 2)
    assert {p.name: p.read_bytes() for p in folder.rglob("*.png")} == expected
    assert any("masks drawn from the outlines, not needed: 6" in note for note in read_record(folder)["notes"])
    assert names(monuseg.convert(train, 3), "Ts") == []
    test = source / "MoNuSegTestData"
    assert len(names(monuseg.convert(test, 4), "Ts")) == 2
    bare = test.rename(source / "tiles")
    assert names(monuseg.convert(bare, 5, num_folds=0), "Ts") == []
    for file in bare.iterdir():
        file.rename(bare / file.name.replace("TCGA-06-5592", "TCGA-44-2665"))
    folder = monuseg.convert(bare, 6, num_folds=0)
    assert names(folder, "Ts") == ["TCGA-44-2665-01Z-00-DX6"]
    assert (
        "no folder name says which part the tiles belong to; the challenge's list of test tiles was used"
        in read_record(folder)["notes"]
    )


def names(folder, part: str) -> list[str]:
    place = folder / f"labels{part}"
    return sorted(p.stem for p in place.iterdir()) if place.is_dir() else []
