"""A cardiac phantom in ACDC's own layout: short-axis cine MR slices with right ventricle, myocardium, left ventricle.

It replaces ACDC where the data is not at hand (quickstart, tests). The anatomy, with sizes in mm: the left
ventricle is a cone with rounded apex inside a muscle ring that thickens when it contracts; the right ventricle is a
crescent that wraps the septum; around them lie lungs (dark), liver, chest wall with fat (as bright as blood), a
descending aorta and vessels (blood outside the heart). Papillary muscles, a bias field, partial volume and Rician
noise make it too hard for plain thresholds. Everything is drawn from one seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

SHAPE = (8, 96, 96)
SPACING = (1.925, 1.925, 10.0)
FRAMES = {"ED": 1, "ES": 10}
RV, MYO, LV = 1, 2, 3


def _inside(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: Any, ry: Any, angle: float = 0.0) -> np.ndarray:
    """Squared normalised distance from the centre of an ellipse (lengths in mm); inside it is below 1."""
    dx, dy = x - cx, y - cy
    u, v = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
    return (u / rx) ** 2 + (v / ry) ** 2


class _Patient:
    """The randomly drawn properties of one patient, from which each frame of ``size`` squared pixels is rendered."""

    def __init__(self, rng: np.random.Generator, size: int, pixel: float):
        self.rng, self.size, self.pixel = rng, size, pixel
        self.centre = rng.uniform(-12, 12, 2)
        self.septum = rng.uniform(np.pi * 0.85, np.pi * 1.25)  # direction from left to right ventricle
        self.lv_radius = rng.uniform(21, 28)
        self.wall = rng.uniform(7.5, 11)
        self.rv_size = rng.uniform(0.95, 1.25)
        self.ejection = rng.uniform(0.62, 0.8)  # radius at end systole over radius at end diastole
        self.drift = rng.uniform(-1.2, 1.2, 2)  # of the left ventricle's axis, mm per slice
        self.body = rng.uniform(78, 90), rng.uniform(62, 74)
        self.blood, self.muscle = rng.uniform(190, 240), rng.uniform(85, 120)
        self.fat, self.lung = rng.uniform(200, 260), rng.uniform(15, 35)
        self.liver = rng.uniform(90, 130)
        self.noise = rng.uniform(7, 13)
        self.bias = rng.uniform(-0.25, 0.25, 3)
        self.vessels = [(rng.uniform(-60, 60), rng.uniform(-50, 50), rng.uniform(3, 7)) for _ in range(5)]
        self.apex = rng.uniform(6.4, 7.6)  # slice where the left ventricle ends

    def slice(self, z: int, systole: bool) -> tuple[np.ndarray, np.ndarray]:
        """Image and label of one slice, each drawn on a grid three times finer and averaged."""
        fine = 3
        n = self.size * fine
        y, x = np.meshgrid(np.arange(float(n)), np.arange(float(n)), indexing="ij")
        x, y = (x - n / 2) * self.pixel / fine, (y - n / 2) * self.pixel / fine
        tissue = np.full(x.shape, 4.0)
        body = _inside(x, y, 0, 0, *self.body)
        tissue[body < 1] = self.fat
        tissue[_inside(x, y, 0, 0, self.body[0] - 9, self.body[1] - 9) < 1] = self.muscle
        for side in (-1, 1):
            tissue[_inside(x, y, side * 38, -8, 30, 42) < 1] = self.lung
        tissue[_inside(x, y, -30, 48, 45, 20) < 1] = self.liver
        tissue[_inside(x, y, 25, 44, 8, 8) < 1] = self.blood  # descending aorta
        for cx, cy, r in self.vessels:
            tissue[_inside(x, y, cx, cy, r, r) < 1] = self.blood

        label = np.zeros(x.shape, np.uint8)
        shrink = np.sqrt(max(0.0, 1 - (z / self.apex) ** 2.5))
        cx, cy = self.centre + self.drift * (z - SHAPE[0] / 2)
        cavity = self.lv_radius * shrink * (self.ejection if systole else 1.0)
        wall = self.wall * (1.45 if systole else 1.0) * (0.75 + 0.25 * shrink)
        if shrink > 0.25:
            outer = cavity + wall
            tissue[_inside(x, y, cx, cy, outer + 5, outer + 4) < 1] = self.fat * 0.9  # epicardial fat
            self._right_ventricle(tissue, label, x, y, cx, cy, outer, shrink * (0.85 if systole else 1.0))
            tissue[_inside(x, y, cx, cy, outer, outer) < 1], label[_inside(x, y, cx, cy, outer, outer) < 1] = (
                self.muscle,
                MYO,
            )
            if cavity > 4:
                inside = _inside(x, y, cx, cy, cavity, cavity) < 1
                tissue[inside], label[inside] = self.blood, LV
                for angle in (self.septum + 1.9, self.septum - 1.9):  # papillary muscles belong to the cavity
                    px, py = cx + 0.62 * cavity * np.cos(angle), cy + 0.62 * cavity * np.sin(angle)
                    tissue[(_inside(x, y, px, py, 3.2, 3.2) < 1) & inside] = self.muscle
        return self._acquire(tissue, x, y, fine), label[fine // 2 :: fine, fine // 2 :: fine]

    def _right_ventricle(
        self,
        tissue: np.ndarray,
        label: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        cx: float,
        cy: float,
        outer: float,
        size: float,
    ) -> None:
        """A crescent with a thin wall: an ellipse beside the septum; the left ventricle is drawn over it."""
        if size < 0.45:
            return
        reach = outer * 0.72
        rx_, ry_ = cx + reach * np.cos(self.septum), cy + reach * np.sin(self.septum)
        a, b = self.rv_size * size * 26, self.rv_size * size * 33
        tissue[_inside(x, y, rx_, ry_, a + 3, b + 3, self.septum) < 1] = self.muscle
        cavity = _inside(x, y, rx_, ry_, a, b, self.septum) < 1
        tissue[cavity], label[cavity] = self.blood * 0.97, RV

    def _acquire(self, tissue: np.ndarray, x: np.ndarray, y: np.ndarray, fine: int) -> np.ndarray:
        ny = nx = self.size
        blurred = ndimage.gaussian_filter(tissue, 0.5 * fine).reshape(ny, fine, nx, fine).mean((1, 3))
        u, v = (c.reshape(ny, fine, nx, fine).mean((1, 3)) / 90 for c in (x, y))
        shaded = blurred * (1 + self.bias[0] * u + self.bias[1] * v + self.bias[2] * u * v)
        texture = ndimage.gaussian_filter(self.rng.normal(size=shaded.shape), 1.5) * 12
        real = shaded + texture * (shaded > 40) + self.rng.normal(0, self.noise, shaded.shape)
        return np.hypot(real, self.rng.normal(0, self.noise, shaded.shape)).astype(np.float32)


def _write(array: np.ndarray, path: Path, pixel: float) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((pixel, pixel, SPACING[2]))
    sitk.WriteImage(image, str(path), useCompression=True)


def write_patient(folder: Path, seed: int, size: int = SHAPE[1], pixel: float = SPACING[0]) -> None:
    """Write one patient in ACDC's layout: Info.cfg, and image and label of the ED and ES frames.

    ``size`` is the number of rows and columns of a slice, ``pixel`` their distance in mm.
    """
    patient = _Patient(np.random.default_rng(seed), size, pixel)
    folder.mkdir(parents=True)
    lines = [
        *(f"{phase}: {frame}" for phase, frame in FRAMES.items()),
        "Group: NOR",
        "Height: 0.0",
        "NbFrame: 12",
        "Weight: 0.0",
    ]
    (folder / "Info.cfg").write_text("\n".join(lines) + "\n")
    for phase, frame in FRAMES.items():
        slices = [patient.slice(z, phase == "ES") for z in range(SHAPE[0])]
        stem = f"{folder.name}_frame{frame:02d}"
        _write(np.stack([image for image, _ in slices]), folder / f"{stem}.nii.gz", pixel)
        _write(np.stack([label for _, label in slices]), folder / f"{stem}_gt.nii.gz", pixel)


def write_phantom(
    folder: Path,
    *,
    training: int = 12,
    test: int = 4,
    seed: int = 0,
    size: int = SHAPE[1],
    pixel: float = SPACING[0],
) -> Path:
    """Write ``database/training`` and ``database/testing`` in ``folder``, as in ACDC; returns ``database``.

    ``size`` and ``pixel``: see ``write_patient``.
    """
    database = Path(folder) / "database"
    for i in range(training):
        write_patient(database / "training" / f"patient{i + 1:03d}", seed * 1000 + i, size, pixel)
    for i in range(test):
        write_patient(database / "testing" / f"patient{i + 101:03d}", seed * 1000 + 500 + i, size, pixel)
    return database
