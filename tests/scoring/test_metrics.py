import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from medpy.metric.binary import assd as medpy_assd, hd95 as medpy_hd95, ravd as medpy_ravd

from nnunet_attn.scoring.metrics import METRICS, assd, dice, hd95, iou, nsd, rvd, score, surface_distances


def ellipsoid(shape, centre, radii):
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)) <= 1


def brute_border(mask):
    """Voxels of the mask with a face neighbour that is outside the mask or the array."""
    border = []
    for voxel in map(tuple, np.argwhere(mask)):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = list(voxel)
            neighbour[axis] += step
            inside = all(0 <= n < size for n, size in zip(neighbour, mask.shape, strict=True))
            if not inside or not mask[tuple(neighbour)]:
                border.append(voxel)
                break
    return np.array(border)


def brute_distances(prediction, reference, spacing):
    p, r = (brute_border(mask) * np.asarray(spacing) for mask in (prediction, reference))
    matrix = np.linalg.norm(p[:, None] - r[None], axis=-1)
    return np.concatenate((matrix.min(1), matrix.min(0)))


CASES = [
    ((14, 17), (1.0, 1.0)),
    ((14, 17), (0.7, 1.9)),
    ((7, 9, 8), (1.0, 1.0, 1.0)),
    ((7, 9, 8), (3.0, 0.8, 0.9)),
]


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("density", [0.03, 0.3, 0.8])
def test_metrics_equal_brute_force_and_medpy(shape, spacing, density):
    rng = np.random.default_rng(len(shape) + int(100 * density))
    for _ in range(4):
        prediction, reference = rng.random((2, *shape)) < density
        prediction.flat[3] = reference.flat[-2] = True
        distances = brute_distances(prediction, reference, spacing)
        assert hd95(prediction, reference, spacing) == pytest.approx(np.percentile(distances, 95), abs=1e-9)
        assert hd95(prediction, reference, spacing) == pytest.approx(
            medpy_hd95(prediction, reference, spacing), abs=1e-9
        )
        for tolerance in (0.0, 1.0, 2.05):
            share = np.mean(distances <= tolerance + 1e-9)
            assert nsd(prediction, reference, spacing, tolerance) == pytest.approx(share, abs=1e-12)
        p, r = set(map(tuple, np.argwhere(prediction))), set(map(tuple, np.argwhere(reference)))
        assert dice(prediction, reference) == pytest.approx(2 * len(p & r) / (len(p) + len(r)), abs=1e-12)
        assert iou(prediction, reference) == pytest.approx(len(p & r) / len(p | r), abs=1e-12)


def test_hd95_equals_medpy_on_organs_in_a_large_volume():
    shape, spacing = (20, 90, 100), (3.0, 0.8, 0.8)
    prediction = ellipsoid(shape, (9, 40, 50), (4, 12, 15)) | ellipsoid(shape, (15, 80, 90), (1, 3, 2))
    reference = ellipsoid(shape, (10, 43, 48), (5, 11, 16))
    assert hd95(prediction, reference, spacing) == pytest.approx(medpy_hd95(prediction, reference, spacing), abs=1e-9)
    assert hd95(prediction, reference) == pytest.approx(medpy_hd95(prediction, reference), abs=1e-9)
    assert hd95(prediction, reference, 2.0) == pytest.approx(medpy_hd95(prediction, reference, 2.0), abs=1e-9)


@pytest.mark.parametrize("specks", [3, 60, 6000])
def test_specks_far_from_the_organ(specks):
    """Few border voxels in a large box and many, which are computed differently."""
    shape, spacing = (30, 60, 64), (3.0, 0.8, 0.9)
    reference = ellipsoid(shape, (12, 30, 32), (3, 8, 9))
    prediction = np.roll(reference, 2, axis=1)
    prediction.flat[np.random.default_rng(0).choice(prediction.size, specks, replace=False)] = True
    expected = medpy_hd95(prediction, reference, spacing)
    assert hd95(prediction, reference, spacing) == pytest.approx(expected, abs=1e-9)
    if specks < 100:
        within = brute_distances(prediction, reference, spacing) <= 2.4 * (1 + 1e-6)
        assert nsd(prediction, reference, spacing, 2.4) == pytest.approx(within.mean(), abs=1e-12)


def test_masks_that_touch_the_edge_of_the_image_have_a_border_there():
    full = np.ones((6, 7), dtype=bool)
    centre = np.zeros_like(full)
    centre[3, 3] = True
    assert hd95(full, centre) == pytest.approx(medpy_hd95(full, centre), abs=1e-12)
    assert surface_distances(full, full).size == 2 * (2 * 6 + 2 * 7 - 4)
    assert hd95(full, full) == 0
    assert nsd(full, full, tolerance=0) == 1


def test_one_voxel_each():
    a, b = np.zeros((2, 5, 6, 7), dtype=bool)
    a[1, 2, 3], b[4, 2, 5] = True, True
    assert hd95(a, b, (2.0, 1.0, 1.5)) == pytest.approx(math.hypot(3 * 2.0, 2 * 1.5))
    assert dice(a, b) == iou(a, b) == nsd(a, b) == 0
    assert dice(a, a) == iou(a, a) == nsd(a, a) == 1


def test_pooled_is_neither_the_larger_nor_the_mean_of_both_directions():
    prediction = ellipsoid((40, 40), (20, 20), (12, 12))
    reference = prediction.copy()
    prediction[2, 2:11] = True
    forth, back = (
        np.array([np.linalg.norm(brute_border(b) - v, axis=1).min() for v in brute_border(a)])
        for a, b in ((prediction, reference), (reference, prediction))
    )
    pooled = np.percentile(np.concatenate((forth, back)), 95)
    assert hd95(prediction, reference) == pytest.approx(pooled)
    assert abs(pooled - max(np.percentile(forth, 95), np.percentile(back, 95))) > 1


def test_empty_masks_follow_the_protocol():
    empty = np.zeros((4, 5, 6), dtype=bool)
    full = ~empty
    spacing = (2.0, 1.0, 1.0)
    assert math.isnan(dice(empty, empty))
    assert math.isnan(iou(empty, empty))
    assert math.isnan(hd95(empty, empty))
    assert math.isnan(nsd(empty, empty))
    for prediction, reference in ((empty, full), (full, empty)):
        assert dice(prediction, reference) == iou(prediction, reference) == nsd(prediction, reference) == 0
        assert hd95(prediction, reference) == math.inf
        assert score(prediction, reference, spacing) == {
            "Dice": 0, "IoU": 0, "NSD": 0,
            "HD95": pytest.approx(math.sqrt(6**2 + 4**2 + 5**2)),
            "HD95_voxel": pytest.approx(math.sqrt(3**2 + 4**2 + 5**2)),
            "ASSD": pytest.approx(math.sqrt(6**2 + 4**2 + 5**2)),
            "RVD": -1 if reference.any() else pytest.approx(math.nan, nan_ok=True),
        }  # fmt: skip
        assert assd(prediction, reference) == math.inf
    assert math.isnan(assd(empty, empty))
    assert math.isnan(rvd(full, empty))
    assert all(math.isnan(value) for value in score(empty, empty, spacing).values())
    with pytest.raises(ValueError, match="empty"):
        surface_distances(empty, full)


def test_transunet_protocol_has_its_quirks():
    empty = np.zeros((4, 5, 6), dtype=bool)
    some = empty.copy()
    some[1:3, 1:3, 1:3] = True
    moved = np.roll(some, 1, axis=0)

    def rated(prediction, reference):
        result = score(prediction, reference, (5.0, 1.0, 1.0), protocol="transunet")
        assert math.isnan(result["HD95"])
        assert all(math.isnan(result[metric]) for metric in ("NSD", "ASSD", "RVD"))
        return result["Dice"], result["IoU"], result["HD95_voxel"]

    assert rated(some, empty) == (1, 1, 0)
    assert rated(empty, some) == (0, 0, 0)
    assert rated(empty, empty) == (0, 0, 0)
    assert rated(moved, some) == (0.5, pytest.approx(1 / 3), medpy_hd95(moved, some))


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (4.0, 0.5)])
def test_score_is_the_single_metrics_together(spacing):
    a, b = ellipsoid((30, 40), (14, 18), (9, 11)), ellipsoid((30, 40), (15, 21), (10, 9))
    result = score(a, b, spacing, tolerance=1.5)
    assert tuple(result) == METRICS
    assert result == {
        "Dice": dice(a, b),
        "IoU": iou(a, b),
        "HD95": pytest.approx(hd95(a, b, spacing), abs=1e-12),
        "HD95_voxel": hd95(a, b),
        "ASSD": pytest.approx(assd(a, b, spacing), abs=1e-12),
        "NSD": nsd(a, b, spacing, 1.5),
        "RVD": rvd(a, b),
    }


def test_tolerance_holds_for_spacings_rounded_to_float32():
    a, b = np.zeros((2, 1, 20), dtype=bool)
    a[0, 3], b[0, 8] = True, True
    assert nsd(a, b, (1.0, float(np.float32(0.2))), 1.0) == 1
    assert nsd(a, b, (1.0, 0.2001), 1.0) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: dice(a, b[:-1]), r"one shape, got \(4, 5\) and \(3, 5\)"),
        (lambda a, b: hd95(a, b, (1.0, 1.0, 1.0)), "each of 2 axes"),
        (lambda a, b: hd95(a, b, (1.0, 0.0)), "must be positive"),
        (lambda a, b: nsd(a, b, tolerance=-1), "not be negative, got -1"),
        (lambda a, b: score(a, b, protocol="monai"), "nnunet, transunet, got 'monai'"),
    ],
)
def test_bad_input_is_refused_with_the_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((4, 5)), np.ones((4, 5)))


MASKS = st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)
STEP = st.sampled_from((0.5, 0.78125, 1.0, 1.25, 3.0))
SPACING = st.tuples(STEP, STEP, STEP)


@settings(max_examples=150, deadline=None)
@given(MASKS, SPACING, st.integers(0, 2), st.integers(1, 3))
def test_properties(masks, spacing, axis, margin):
    a, b = masks
    values = score(a, b, spacing)
    swapped = score(b, a, spacing)
    signed = swapped.pop("RVD")
    assert {k: v for k, v in values.items() if k != "RVD"} == pytest.approx(swapped, nan_ok=True)  # symmetric
    if a.any() and b.any():
        assert (1 + signed) * (1 + values["RVD"]) == pytest.approx(1)
    if not a.any() and not b.any():
        return
    assert 0 <= values["IoU"] <= values["Dice"] <= 1
    assert values["Dice"] == pytest.approx(2 * values["IoU"] / (1 + values["IoU"]))
    assert 0 <= values["NSD"] <= 1
    diagonal = np.linalg.norm((np.array(a.shape) - 1) * spacing)
    assert 0 <= values["HD95"] <= diagonal + 1e-9
    if not (a.any() and b.any()):
        return
    assert hd95(a, b, spacing) == pytest.approx(medpy_hd95(a, b, spacing), abs=1e-9)
    assert assd(a, b, spacing) == pytest.approx(medpy_assd(a, b, spacing), abs=1e-9)
    assert rvd(a, b) == pytest.approx(medpy_ravd(a, b), abs=1e-12)
    order = [axis, *(i for i in range(3) if i != axis)]  # axes and their spacing may be renamed together
    turned = score(a.transpose(order), b.transpose(order), [spacing[i] for i in order])
    assert turned == pytest.approx(values)
    wider = score(*(np.pad(mask, margin) for mask in (a, b)), spacing)  # background around changes nothing
    assert wider == pytest.approx(values)
    doubled = score(a, b, [2 * s for s in spacing], tolerance=2.0)
    assert doubled["HD95"] == pytest.approx(2 * values["HD95"])
    assert doubled["NSD"] == pytest.approx(values["NSD"])
    perfect = {"Dice": 1, "IoU": 1, "HD95": 0, "HD95_voxel": 0, "ASSD": 0, "NSD": 1, "RVD": 0}
    assert score(a, a, spacing) == perfect
    assert doubled["ASSD"] == pytest.approx(2 * values["ASSD"])
    assert doubled["RVD"] == values["RVD"]
