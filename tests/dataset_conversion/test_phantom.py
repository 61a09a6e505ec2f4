"""The phantom is in ACDC's layout, the same for the same seed, and no task for a threshold."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunet_attn.dataset_conversion.phantom import LV, MYO, RV, SHAPE, SPACING, write_phantom


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom"), training=1, test=4, seed=3)


def test_layout(database):
    patient = database / "training" / "patient001"
    assert sorted(p.name for p in patient.iterdir()) == [
        "Info.cfg",
        *(f"patient001_frame{frame}{kind}.nii.gz" for frame in ("01", "10") for kind in ("", "_gt")),
    ]
    image = sitk.ReadImage(str(patient / "patient001_frame01.nii.gz"))
    assert image.GetSpacing() == pytest.approx(SPACING)
    label = read(patient / "patient001_frame01_gt.nii.gz")
    assert label.shape == SHAPE
    assert set(np.unique(label)) == {0, RV, MYO, LV}


def test_anatomy(database):
    """The left ventricle lies inside the muscle, is smaller at systole, and touches the right one nowhere."""
    for patient in sorted((database / "testing").iterdir()):
        ed, es = (read(patient / f"{patient.name}_frame{frame}_gt.nii.gz") for frame in ("01", "10"))
        assert 0.3 < (es == LV).sum() / (ed == LV).sum() < 0.75
        assert (es == MYO).sum() > 0.8 * (ed == MYO).sum()
        for label in (ed, es):
            around = ndimage.binary_dilation(label == LV, np.ones((1, 3, 3))) & (label != LV)
            assert (label[around] == MYO).all()


def test_seed_decides(tmp_path, database):
    again = write_phantom(tmp_path / "a", training=1, test=0, seed=3) / "training" / "patient001"
    other = write_phantom(tmp_path / "b", training=1, test=0, seed=4) / "training" / "patient001"
    name = "patient001_frame01.nii.gz"
    first = read(database / "training" / "patient001" / name)
    assert np.array_equal(read(again / name), first)
    assert not np.array_equal(read(other / name), first)


def best_threshold_dice(images: list[np.ndarray], labels: list[np.ndarray], value: int) -> float:
    """Best mean Dice of a class over all intensity bands, each cut to one of its three largest components."""
    levels = np.percentile(np.concatenate([i.ravel() for i in images]), np.linspace(2, 100, 25))
    best = 0.0
    for low in levels[:-1]:
        for high in levels[levels > low]:
            scores = np.zeros((len(images), 3))
            for n, (image, label) in enumerate(zip(images, labels, strict=True)):
                components, found = ndimage.label((image >= low) & (image <= high))
                sizes = np.bincount(components.ravel(), minlength=4)[1:]
                for rank, component in enumerate(np.argsort(-sizes)[: min(3, found)] + 1):
                    mask, truth = components == component, label == value
                    scores[n, rank] = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
            best = max(best, scores.mean(0).max())
    return best


@pytest.mark.slow
def test_thresholds_do_not_solve_it(database):
    stems = [
        patient / f"{patient.name}_frame{f}"
        for patient in sorted((database / "testing").iterdir())
        for f in ("01", "10")
    ]
    images, labels = [read(f"{stem}.nii.gz") for stem in stems], [read(f"{stem}_gt.nii.gz") for stem in stems]
    scores = [best_threshold_dice(images, labels, value) for value in (RV, MYO, LV)]
    assert np.mean(scores) < 0.6
    assert np.mean(scores) > 0.05  # the search does find something
