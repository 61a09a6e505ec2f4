from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.figure import Figure
from PIL import Image

from nnunet_attn.errors import UserError
from nnunet_attn.report.overlay import (
    Row,
    _draw,
    _prepare,
    _scale_bar,
    choose_slice,
    class_colours,
    overlay,
    pick_cases,
)
from nnunet_attn.scoring.classes import Classes

LABELS = {"ring": 1, "core": 2}


def has_colour(picture, colour, tolerance=12):
    """Number of pixels of (nearly) a colour."""
    distance = np.abs(picture.astype(int) - np.round(255 * np.array(colour)).astype(int))
    return int((distance.max(axis=-1) <= tolerance).sum())


@pytest.fixture
def volumes(tmp_path):
    """Two grey volumes with references, one perfect and one wrong method."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        labels = np.zeros((5, 40, 48), dtype=np.uint8)
        labels[2, 8:30, 10:34] = 1
        labels[2, 14:22, 16:26] = 2
        labels[1, 14:22, 16:26] = 1
        wrong = np.roll(labels, 6, axis=2)
        wrong[wrong == 2] = 1
        image = labels * 60.0 + rng.normal(0, 5, labels.shape)
        for folder, array in (("images", image), ("gt", labels), ("good", labels), ("bad", wrong)):
            (tmp_path / folder).mkdir(exist_ok=True)
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.0, 1.5, 8.0))
            suffix = "_0000" if folder == "images" else ""
            sitk.WriteImage(volume, str(tmp_path / folder / f"{name}{suffix}.nii.gz"))
    return tmp_path


def columns(folder):
    return {"reference": folder / "gt", "good": folder / "good", "bad": folder / "bad"}


def picture_of(path):
    return np.array(Image.open(path).convert("RGB"))


def test_figure_of_volumes_shows_classes_in_their_colours(volumes):
    cases = [(volumes / "images" / f"{name}_0000.nii.gz", name) for name in ("a", "b")]
    path = overlay(cases, columns(volumes), volumes / "out" / "figure.png", labels=LABELS)
    picture = picture_of(path)
    colours = class_colours(LABELS)
    legend = 100  # a patch of the legend has more pixels than this
    assert all(has_colour(picture, colour) > legend for colour in colours.values())
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
    one = picture_of(overlay(cases, columns(volumes), volumes / "one.png", labels=LABELS, rows=1))
    assert one.shape[1] == picture.shape[1]
    assert one.shape[0] < picture.shape[0]


def test_a_class_that_no_method_has_is_drawn_once(volumes):
    """The bad method has no core: its outline is in the reference and in the good method only."""
    cases = [(volumes / "images" / "a_0000.nii.gz", "a")]
    core = class_colours(LABELS)["core"]
    gt, bad = volumes / "gt", volumes / "bad"
    none, one, two = (
        has_colour(picture_of(overlay(cases, c, volumes / "f.png", labels=LABELS)), core, 40)
        for c in ({"reference": bad, "x": bad}, {"reference": gt, "x": bad}, {"reference": gt, "x": gt})
    )
    assert one > none
    assert two - none == pytest.approx(2 * (one - none), rel=0.2)


def test_colour_picture_keeps_its_colours(tmp_path):
    colour = np.zeros((40, 50, 3), dtype=np.uint8)
    colour[..., 0], colour[..., 1] = 200, 30
    labels = np.zeros((40, 50), dtype=np.uint8)
    labels[10:20, 10:20] = 1
    Image.fromarray(colour).save(tmp_path / "a_0000.png")
    Image.fromarray(labels).save(tmp_path / "a.png")
    files = {"a": tmp_path / "a.png"}
    path = overlay(
        [(tmp_path / "a_0000.png", "a")], {"reference": files, "x": files}, tmp_path / "f.png", labels={"polyp": 1}
    )
    assert has_colour(picture_of(path), (200 / 255, 30 / 255, 0)) > 10_000
    blend = 0.65 * np.array([200, 30, 0]) / 255 + 0.35 * np.array(class_colours({"polyp": 1})["polyp"])
    assert has_colour(picture_of(path), blend) > 1_000


def test_outlines_run_between_the_pixels():
    labels = np.zeros((8, 10), dtype=np.uint8)
    labels[2:4, 4:7] = 1
    axes = Figure().subplots()
    _draw(axes, Row("", np.zeros((8, 10, 3)), [labels], [], 1.0), labels, {"a": 1}, class_colours({"a": 1}))
    (contour,) = axes.collections
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    assert points.min(0) == pytest.approx([3.5, 1.5])
    assert points.max(0) == pytest.approx([6.5, 3.5])


def test_regions_and_ignored_voxels_count_as_in_the_tables(tmp_path):
    for name, row in (("image", [9, 9, 9, 0]), ("reference", [1, 2, 3, 0]), ("prediction", [2, 2, 1, 0])):
        Image.fromarray(np.array([row] * 3, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    image, *files = (tmp_path / f"{name}.png" for name in ("image", "reference", "prediction"))
    classes = Classes({"whole": (1, 2), "core": (2,)}, 3, {"whole": 1, "core": 2})
    row = _prepare("a", [image], files, classes, "foreground", 0)
    assert row.scores == [pytest.approx((1 + 2 / 3) / 2)]  # the third column does not count
    assert row.labels[1].tolist() == [[2, 2, 1, 0]] * 3  # and is drawn all the same


def test_slice_with_largest_foreground_or_disagreement():
    reference = np.zeros((6, 8, 8), dtype=int)
    reference[1, :5, :5], reference[4, :2, :2] = 1, 1
    good, bad = reference.copy(), reference.copy()
    bad[4] = 0
    assert choose_slice(reference, [good, bad], 0, "foreground") == 1
    assert choose_slice(reference, [good, bad], 0, "disagreement") == 4
    assert choose_slice(reference, [good], 0, "disagreement") == 1  # nothing is wrong
    assert choose_slice(np.zeros((7, 4, 4)), [np.zeros((7, 4, 4))], 0, "foreground") == 3
    assert choose_slice(reference.transpose(1, 2, 0), [bad.transpose(1, 2, 0)], 2, "disagreement") == 4


def test_volume_stored_in_another_orientation_gives_the_same_figure(volumes):
    """A flipped axis with the direction that says so shows the same anatomy."""
    case = [(volumes / "images" / "a_0000.nii.gz", "a")]
    expected = picture_of(overlay(case, columns(volumes), volumes / "f.png", labels=LABELS))
    for folder, name in (("images", "a_0000"), ("gt", "a"), ("good", "a"), ("bad", "a")):
        path = volumes / folder / f"{name}.nii.gz"
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS"), str(path))
    turned = picture_of(overlay(case, columns(volumes), volumes / "f.png", labels=LABELS))
    assert np.array_equal(turned, expected)


def test_large_pictures_and_many_classes(tmp_path):
    labels = np.zeros((2400, 3000), dtype=np.uint8)
    for value in range(1, 13):
        labels[100 * value : 100 * value + 100, 500:2000] = value
    Image.fromarray(np.full((2400, 3000, 3), 90, dtype=np.uint8)).save(tmp_path / "a_0000.png")
    Image.fromarray(labels).save(tmp_path / "a.png")
    names = {f"organ {value}": value for value in range(1, 13)}
    assert len(set(class_colours(names).values())) == 12
    path = overlay([(tmp_path / "a_0000.png", "a")], {"reference": tmp_path}, tmp_path / "f.png", labels=names)
    assert picture_of(path).shape[1] < 1000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(select="largest"), ValueError, "foreground, disagreement, got 'largest'"),
        (dict(labels={}), ValueError, "0 labels"),
        (dict(channel=1), UserError, "no channel 1; the image has 1"),
    ],
)
def test_bad_arguments(volumes, change, error, message):
    arguments = dict(labels=LABELS) | change
    with pytest.raises(error, match=message):
        overlay([(volumes / "images" / "a_0000.nii.gz", "a")], columns(volumes), volumes / "f.png", **arguments)
    assert not (volumes / "f.png").exists()


def test_files_that_are_missing_or_do_not_fit_are_named(volumes):
    case = [(volumes / "images" / "a_0000.nii.gz", "a")]
    (volumes / "bad" / "a.nii.gz").unlink()
    with pytest.raises(UserError, match=r"bad/a.nii.gz does not exist"):
        overlay(case, columns(volumes), volumes / "f.png", labels=LABELS)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 40, 47), np.uint8)), str(volumes / "bad" / "a.nii.gz"))
    with pytest.raises(UserError, match=r"shape \(5, 40, 47\), but its image \(5, 40, 48\)"):
        overlay(case, columns(volumes), volumes / "f.png", labels=LABELS)


def test_worst_median_and_best_are_picked_and_a_bar_tells_the_scale(volumes):
    references = {name: volumes / "gt" / f"{name}.nii.gz" for name in "ab"}
    mixed = {"a": volumes / "bad" / "a.nii.gz", "b": volumes / "good" / "b.nii.gz", "c": volumes / "bad" / "b.nii.gz"}
    references["c"] = references["b"]
    classes = Classes({"ring": (1,), "core": (2,)}, None, LABELS)
    picked = pick_cases("abc", references, [mixed], classes)
    assert picked == {"a": "worst", "c": "median", "b": "best"}  # a and c tie, in the order given
    row = _prepare("a", [volumes / "images" / "a_0000.nii.gz"], [references["a"], mixed["a"]], classes, "foreground", 0)
    axes = Figure().subplots()
    _scale_bar(axes, row)
    (bar,), (text,) = axes.lines, axes.texts
    start, end = bar.get_xdata()
    assert text.get_text() == "10 mm"
    assert (end - start) * row.width_mm == pytest.approx(10)
    _scale_bar(axes, replace(row, width_mm=None))
    assert len(axes.lines) == 1
