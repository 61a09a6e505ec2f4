"""Small sources in the original layouts of the datasets, each with what its conversion must hold."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_attn.errors import UserError

SPACING, ORIGIN = (1.37, 1.41, 9.5), (-12.5, 30.25, 7.0)
DIRECTION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def write_volume(path: Path, array: np.ndarray, spacing=SPACING, origin=ORIGIN, direction=DIRECTION) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def write_acdc_patient(folder: Path, number: int, *, size: tuple[int, int, int] = (3, 12, 10)) -> None:
    """One patient; the ED frame is not the first in the order of names."""
    rng = np.random.default_rng(number)
    patient = f"patient{number:03d}"
    (folder / patient).mkdir(parents=True)
    (folder / patient / "Info.cfg").write_text("ED: 12\nES: 4\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\n")
    for frame in (4, 12):
        stem = folder / patient / f"{patient}_frame{frame:02d}"
        write_volume(stem.with_suffix(".nii.gz"), rng.integers(0, 900, size, dtype=np.int16))
        write_volume(Path(f"{stem}_gt.nii.gz"), rng.integers(0, 4, size, dtype=np.uint8))


@dataclass(frozen=True)
class Expected:
    """One case: its files, its part, its group, and the arrays that nnU-Net must read (channels last in pictures)."""

    image_file: Path
    label_file: Path
    part: str
    group: str
    image: np.ndarray
    label: np.ndarray


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A mask of whole 8x8 blocks, so that JPEG keeps its threshold."""
    blocks = rng.random((shape[0] // 8, shape[1] // 8)) < 0.5
    blocks[0, :2] = True, False
    return np.kron(blocks, np.ones((8, 8), bool))


def save_picture(path: Path, array: np.ndarray, **options) -> np.ndarray:
    """Save, and return what any reader of the format gets back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return np.array(Image.open(path))


def photograph(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def make_clinicdb(root: Path) -> dict[str, Expected]:
    """Frames of eleven sequences; 14 and 25 are in PraNet's test list, beside 1 of the same sequence."""
    cases = {}
    for frame, sequence in {1: 1, 14: 1, 25: 1, 26: 2, 51: 3, 68: 4, 79: 5, 104: 6, 152: 8, 178: 9, 201: 10, 206: 11,
                            612: 29}.items():  # fmt: skip
        rng = np.random.default_rng(frame)
        files = (
            root / "CVC-ClinicDB" / "Original" / f"{frame}.tif",
            root / "CVC-ClinicDB" / "Ground Truth" / f"{frame}.tif",
        )
        image, mask = save_picture(files[0], photograph(rng, (24, 32))), blob(rng, (24, 32))
        save_picture(files[1], mask * np.uint8(255))
        cases[f"clinicdb_{frame:03d}"] = Expected(*files, "train", f"sequence{sequence:02d}", image, mask)
    return cases


def make_colondb(root: Path) -> dict[str, Expected]:
    """Frames of eleven sequences, with contours that are not needed."""
    cases = {}
    for frame, sequence in {1: 1, 38: 1, 39: 2, 61: 3, 77: 5, 100: 6, 150: 7, 203: 9, 208: 10, 264: 14, 300: 15, 301: 4,
                            380: 13}.items():  # fmt: skip
        rng = np.random.default_rng(frame)
        files = [root / "CVC-ColonDB" / f"{prefix}{frame}.tiff" for prefix in ("", "p", "cp")]
        image, mask = save_picture(files[0], photograph(rng, (24, 32))), blob(rng, (24, 32))
        for file in files[1:]:
            save_picture(file, mask * np.uint8(255))
        cases[f"colondb_{frame:03d}"] = Expected(*files[:2], "train", f"sequence{sequence:02d}", image, mask)
    (root / "CVC-ColonDB" / "README.txt.txt").write_text("CVC-ColonDB")
    return cases


KVASIR = [*(f"cju0{i:021d}" for i in range(9)), "cju0s690hkp960855tjuaqvv0", "cju0u82z3cuma0835wlxrnrjv"]


def make_kvasir(root: Path) -> dict[str, Expected]:
    """The last two are test pictures: of both lists, of the 120 alone."""
    cases = {}
    for i, name in enumerate(KVASIR):
        rng = np.random.default_rng(i)
        files = root / "Kvasir-SEG" / "images" / f"{name}.jpg", root / "Kvasir-SEG" / "masks" / f"{name}.jpg"
        shape = (24 + 8 * (i % 3), 32)
        image, mask = save_picture(files[0], photograph(rng, shape)), blob(rng, shape)
        save_picture(files[1], np.stack([mask * np.uint8(255)] * 3, -1), quality=95)
        cases[name] = Expected(*files, "train", name, image, mask)
    (root / "Kvasir-SEG" / "kavsir_bboxes.json").write_text("{}")
    return cases


def make_isic2017(root: Path) -> dict[str, Expected]:
    cases = {}
    for number, (part, name) in enumerate(
        [*[("train", "Training")] * 6, ("val", "Validation"), ("test", "Test_v2"), ("test", "Test_v2")]
    ):
        rng = np.random.default_rng(number)
        case = f"ISIC_{number:07d}"
        data = root / f"ISIC-2017_{name}_Data"
        files = data / f"{case}.jpg", root / f"ISIC-2017_{name}_Part1_GroundTruth" / f"{case}_segmentation.png"
        image, mask = save_picture(files[0], photograph(rng, (32, 40))), blob(rng, (32, 40))
        save_picture(files[1], mask * np.uint8(255))
        save_picture(data / f"{case}_superpixels.png", photograph(rng, (32, 40)))
        (data / f"ISIC-2017_{name}_Data_metadata.csv").write_text("image_id,age_approximate,sex\n")
        cases[case] = Expected(*files, part, case, image, mask)
    return cases


def make_glas(root: Path) -> dict[str, Expected]:
    """Instances beyond 127, and a patient in both training and test."""
    cases, folder = {}, root / "Warwick QU Dataset (Released 2016_07_08)"
    for number, (name, patient) in enumerate({
        "train_1": 1, "train_2": 1, "train_3": 2, "train_4": 3, "train_5": 4, "train_6": 5, "testA_1": 1, "testA_10": 6,
        "testB_1": 7,
    }.items()):  # fmt: skip
        rng = np.random.default_rng(number)
        files = folder / f"{name}.bmp", folder / f"{name}_anno.bmp"
        image = save_picture(files[0], photograph(rng, (24, 32)))
        instances = blob(rng, (24, 32)) * rng.integers(1, 256, (24, 32), dtype=np.uint8)
        save_picture(files[1], instances)
        part = "train" if name.startswith("train") else "test"
        cases[name] = Expected(*files, part, f"patient{patient}", image, instances > 0)
    with (folder / "Grade.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", " patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)"])
        writer.writerows([name, f" {case.group[7:]}", " benign", " healthy"] for name, case in cases.items())
    return cases


def make_monuseg(root: Path) -> dict[str, Expected]:
    """Boxes as outlines: from the first to the last pixel's centre, one of them over the tile's edge."""
    cases = {}
    for number in range(8):
        rng = np.random.default_rng(number)
        part = "train" if number < 6 else "test"
        patient = f"TCGA-{number // 2 if number < 2 else number:02d}-5592"
        name = f"{patient}-01Z-00-DX{number}"
        places = [root / "MoNuSegTestData"] * 2
        if part == "train":
            places = [root / "MoNuSeg 2018 Training Data" / kind for kind in ("Tissue Images", "Annotations")]
        files = places[0] / f"{name}.tif", places[1] / f"{name}.xml"
        image = save_picture(files[0], photograph(rng, (40, 50)))
        label, regions = np.zeros((40, 50), bool), []
        for region, (top, left, height, width) in enumerate([(3, 5, 6, 9), (20, 30, 4, 4), (35, 44, 10, 12)], 1):
            label[top : top + height, left : left + width] = True
            corners = [
                (left, top),
                (left + width - 1, top),
                (left + width - 1, top + height - 1),
                (left, top + height - 1),
            ]
            vertices = "".join(f'<Vertex X="{x}.0" Y="{y}.0" Z="0"/>' for x, y in corners)
            regions.append(f'<Region Id="{region}" NegativeROA="0"><Vertices>{vertices}</Vertices></Region>')
        places[1].mkdir(parents=True, exist_ok=True)
        files[1].write_text(
            f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25"><Annotation Id="1"><Attributes/>'
            f"<Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions><Plots/></Annotation></Annotations>"
        )
        cases[name] = Expected(*files, part, patient, image, label)
    return cases


def make_synapse(root: Path) -> dict[str, Expected]:
    """Volumes with all 13 labels; the label of the 8 organs follows."""
    cases, organs = {}, np.array([0, 7, 4, 3, 2, 0, 5, 8, 1, 0, 0, 6, 0, 0], np.uint8)
    for number in (1, 2, 5, 6, 9, 22, 40):
        rng = np.random.default_rng(number)
        folder = root / "Abdomen" / "RawData" / "Training"
        files = folder / "img" / f"img{number:04d}.nii.gz", folder / "label" / f"label{number:04d}.nii.gz"
        image = rng.integers(-1000, 2000, (4, 12, 10), dtype=np.int16)
        label = rng.integers(0, 14, image.shape, dtype=np.uint8)
        for file, array in zip(files, (image, label), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_volume(file, array)
        name = f"synapse_{number:04d}"
        cases[name] = Expected(*files, "train", name, image, organs[label])
    (root / "Abdomen" / "RawData" / "Testing" / "img").mkdir(parents=True)
    shutil.copy(files[0], root / "Abdomen" / "RawData" / "Testing" / "img" / "img0061.nii.gz")
    return cases


def make_acdc(root: Path) -> dict[str, Expected]:
    cases = {}
    for number, part in {**dict.fromkeys(range(1, 8), "train"), 101: "test"}.items():
        folder = root / "database" / ("testing" if part == "test" else "training")
        write_acdc_patient(folder, number)
        for frame in (4, 12):
            stem = f"patient{number:03d}_frame{frame:02d}"
            files = [folder / stem[:10] / f"{stem}{end}.nii.gz" for end in ("", "_gt")]
            arrays = [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files]
            cases[stem] = Expected(*files, part, stem[:10], *arrays)
    return cases


MAKERS = {
    "acdc": make_acdc, "clinicdb": make_clinicdb, "colondb": make_colondb, "glas": make_glas,
    "isic2017": make_isic2017, "kvasir": make_kvasir, "monuseg": make_monuseg, "synapse": make_synapse,
}  # fmt: skip


@pytest.fixture
def make_source(tmp_path) -> Callable[[str], tuple[Path, dict[str, Expected]]]:
    """Make a small source of a dataset; returns its folder, and what each case must become."""

    def make(key: str) -> tuple[Path, dict[str, Expected]]:
        root = tmp_path / f"{key} source"
        return root, MAKERS[key](root)

    return make


@pytest.fixture(scope="session")
def _acdc_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("acdc") / "database"
    for number in range(1, 8):
        write_acdc_patient(root / "training", number)
    write_acdc_patient(root / "testing", 101)
    (root / "training" / "patient001" / "patient001_4d.nii.gz").write_bytes(b"never read")
    (root / "training" / ".DS_Store").write_bytes(b"junk")
    (root / "MANDATORY_CITATION.md").write_text("cite us")
    return root


@pytest.fixture
def acdc_source(_acdc_tree, tmp_path) -> Path:
    """Seven training patients and a test patient in ACDC's original layout, to be changed at will."""
    return Path(shutil.copytree(_acdc_tree, tmp_path / "source" / "database"))


@pytest.fixture
def add_acdc_patient() -> Callable[[Path, int], None]:
    return write_acdc_patient


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch) -> Path:
    """Empty folders of nnU-Net's with its variables set; the raw one is returned."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / "nnunet" / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    return tmp_path / "nnunet" / "nnUNet_raw"


@pytest.fixture
def refused(nnunet_folders) -> Callable[..., str]:
    """Call a conversion that must fail with one line that matches, and leave nothing behind; returns the line."""

    def check(match: str, convert: Callable, *args, **options) -> str:
        with pytest.raises(UserError, match=match) as caught:
            convert(*args, **options)
        assert "\n" not in str(caught.value)
        assert list(nnunet_folders.iterdir()) == []
        return str(caught.value)

    return check
