"""Files as the datasets ship them, compared with the source by readers that the converters do not use.

They lie outside the project: in the folder of the variable NNUNET_ATTN_ORIGINALS, or in ../shared/data/originals.
"""

import csv
import importlib
import json
import os
import re
import runpy
import shutil
import struct
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import matplotlib.path
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import acdc, clinicdb, colondb, glas, isic2017, kvasir, monuseg, synapse
from nnunet_attn.dataset_conversion.target import read_record
from nnunet_attn.errors import UserError

FOLDER = os.environ.get("NNUNET_ATTN_ORIGINALS", Path(__file__).parents[3] / "shared" / "data" / "originals")
FOLDER = Path(FOLDER)
pytestmark = [pytest.mark.originals, pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")]
FORMS = ["folder", "deeper", "shallower", "zip", "tar.gz"]


def unpack_bits(data: bytes) -> bytes:
    out, i = bytearray(), 0
    while i < len(data):
        n = data[i]
        if n < 128:
            out += data[i + 1 : i + 2 + n]
            i += 2 + n
        else:
            out += b"" if n == 128 else data[i + 1 : i + 2] * (257 - n)
            i += 1 if n == 128 else 2
    return bytes(out)


def read_tiff(path: Path) -> np.ndarray:
    """A TIFF of 8-bit samples, not compressed or with PackBits, by its bytes alone."""
    data = path.read_bytes()
    end = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(f"{end}I", data, 4)
    tags = {}
    for i in range(struct.unpack_from(f"{end}H", data, start)[0]):
        tag, kind, count = struct.unpack_from(f"{end}HHI", data, start + 2 + 12 * i)
        code = {1: "B", 3: "H", 4: "I"}.get(kind)
        if code:
            place = start + 10 + 12 * i
            if count * struct.calcsize(code) > 4:
                (place,) = struct.unpack_from(f"{end}I", data, place)
            tags[tag] = struct.unpack_from(f"{end}{count}{code}", data, place)
    assert set(tags[258]) == {8}
    strips = [data[a : a + n] for a, n in zip(tags[273], tags[279], strict=True)]
    raw = b"".join(map(unpack_bits, strips) if tags[259] == (32773,) else strips)
    shape = (tags[257][0], tags[256][0], tags.get(277, (1,))[0])
    return np.frombuffer(raw, np.uint8).reshape(shape).squeeze()


def form_of(source: Path, form: str, tmp_path: Path) -> Path:
    """The same files one folder deeper, the only folder inside where there is one, or an archive."""
    tmp_path.mkdir(exist_ok=True)
    if form == "folder":
        return source
    if form == "deeper":
        shutil.copytree(source, tmp_path / "outer" / "download" / source.name)
        return tmp_path / "outer"
    if form == "shallower":
        inside = [p for p in source.iterdir() if p.is_dir()]
        return inside[0] if len(inside) == 1 and not any(p.is_file() for p in source.iterdir()) else source
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for file in source.rglob("*"):
                archive.write(file, Path(source.name) / file.relative_to(source))
        return tmp_path / "x.zip"
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    return tmp_path / "x.tar.gz"


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_same_jpeg(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Two decoders of JPEG differ where they interpolate colours: by 20 in single pixels, below 1 on average."""
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 1


def groups_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())["groups"]


def cases_of(folder: Path, part: str) -> list[str]:
    place = folder / f"labels{part}"
    return sorted(p.name.split(".")[0] for p in place.iterdir()) if place.is_dir() else []


@pytest.mark.parametrize("form", FORMS)
def test_clinicdb(form, nnunet_folders, tmp_path):
    source = FOLDER / "CVC-ClinicDB"
    folder = clinicdb.convert(form_of(source, form, tmp_path), 31)
    assert len(cases_of(folder, "Tr")) == 99
    groups = groups_of(folder)
    assert groups["kind"] == "sequence"
    assert set(groups["of"].values()) == {f"sequence{n:02d}" for n in (1, 4, 10, 13, 23, 28)}
    folds = json.loads((folder / "splits_final.json").read_text())
    assert len(folds) == 5
    grey = 0
    for name in cases_of(folder, "Tr"):
        number = int(name[-3:])
        image, mask = (read_tiff(source / kind / f"{number}.tif") for kind in ("Original", "Ground Truth"))
        np.testing.assert_array_equal(read(folder / f"imagesTr/{name}_0000.png"), image)
        np.testing.assert_array_equal(read(folder / f"labelsTr/{name}.png"), mask > 127)
        assert image.shape == (288, 384, 3)
        grey += bool(((mask > 0) & (mask < 255)).any())
    manifest = json.loads((folder / "manifest.json").read_text())["cases"]
    assert sum("grey" in case for case in manifest.values()) == grey == 51
    assert (folder / "preview.png").stat().st_size > 10_000


@pytest.mark.parametrize("form", FORMS)
def test_colondb(form, nnunet_folders, tmp_path):
    source = FOLDER / "CVC-ColonDB"
    folder = colondb.convert(form_of(source, form, tmp_path), 32)
    of = {1: 1, 2: 1, 3: 1, 20: 1, 40: 2, 77: 5, 100: 6, 150: 7, 222: 11, 301: 4, 380: 13}
    assert groups_of(folder) == {
        "kind": "sequence", "of": {f"colondb_{n:03d}": f"sequence{s:02d}" for n, s in of.items()},
    }  # fmt: skip
    for number in of:
        image = source / f"{number}.tiff"
        image = read_tiff(image if image.exists() else image.with_suffix(".tif"))
        name = f"colondb_{number:03d}"
        np.testing.assert_array_equal(read(folder / f"imagesTr/{name}_0000.png"), image)
        np.testing.assert_array_equal(
            read(folder / f"labelsTr/{name}.png"), read_tiff(source / f"p{number}.tiff") > 127
        )
    assert len(json.loads((folder / "splits_final.json").read_text())) == 5


@pytest.mark.parametrize("form", FORMS)
def test_glas(form, nnunet_folders, tmp_path):
    source = FOLDER / "GlaS"
    with pytest.raises(UserError, match="give --num-folds 3, the largest number"):
        glas.convert(form_of(source, form, tmp_path), 35)
    folder = glas.convert(form_of(source, form, tmp_path / "again"), 35, num_folds=0)
    assert cases_of(folder, "Tr") == ["train_1", "train_2", "train_50"]
    assert cases_of(folder, "Ts") == ["testA_1", "testA_30", "testB_1"]
    rows = csv.reader((source / "Grade.csv").read_text().replace("\r", "\n").splitlines())
    patients = {row[0].strip(): row[1].strip() for row in rows}
    groups = groups_of(folder)
    assert groups["kind"] == "patient"
    for part in ("Tr", "Ts"):
        for name in cases_of(folder, part):
            assert groups["of"][name] == f"patient{patients[name]}"
            np.testing.assert_array_equal(
                read(folder / f"images{part}/{name}_0000.png"), read(source / f"{name}.bmp")[..., :3]
            )
            instances = read(source / f"{name}_anno.bmp")[..., 0]
            np.testing.assert_array_equal(read(folder / f"labels{part}/{name}.png"), instances > 0)


def drawn(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie in an outline, by another library."""
    mask = np.zeros(shape, bool)
    for region in ElementTree.parse(path).iter("Region"):
        points = np.array([(float(v.get("X")), float(v.get("Y"))) for v in region.iter("Vertex")])
        if len(points) < 3:
            continue
        low = np.clip(np.floor(points.min(0)).astype(int), 0, np.array(shape[::-1]) - 1)
        high = np.clip(np.ceil(points.max(0)).astype(int), 0, np.array(shape[::-1]) - 1) + 1
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = matplotlib.path.Path(points).contains_points(np.stack([x.ravel(), y.ravel()], 1))
        mask[low[1] : high[1], low[0] : high[0]] |= inside.reshape(x.shape)
    return mask


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "train", "test"), [("MoNuSeg_a", 1, 2), ("MoNuSeg_b", 2, 0)])
def test_monuseg(name, train, test, form, nnunet_folders, tmp_path):
    source = FOLDER / name
    folder = monuseg.convert(form_of(source, form, tmp_path), 36, num_folds=0)
    assert (len(cases_of(folder, "Tr")), len(cases_of(folder, "Ts"))) == (train, test)
    for part in ("Tr", "Ts"):
        for case in cases_of(folder, part):
            (tile,), (outline,) = (list(source.rglob(f"[!.]*{case[1:]}{end}")) for end in (".tif", ".xml"))
            image = np.array(Image.open(tile))
            np.testing.assert_array_equal(read(folder / f"images{part}/{case}_0000.png"), image)
            ours, theirs = read(folder / f"labels{part}/{case}.png") > 0, drawn(outline, image.shape[:2])
            # matplotlib leaves out pixels on the outline itself, scikit-image does not
            assert (theirs & ~ours).sum() < 10
            assert not (ours & ~ndimage.binary_dilation(theirs, np.ones((3, 3)), 2)).sum() > 10
            assert groups_of(folder)["of"][case] == case[:12]


@pytest.mark.parametrize("form", FORMS)
def test_acdc(form, nnunet_folders, tmp_path):
    source = Path(shutil.copytree(FOLDER / "ACDC", tmp_path / "ACDC", copy_function=shutil.copyfile))
    for path in (source, *source.rglob("*")):
        path.chmod(0o755)
    patient = source / "training" / "patient001"
    with pytest.raises(UserError, match=r"patient001_frame12\.nii\.gz is missing; Info\.cfg says frame 12 is ES"):
        acdc.convert(source, 27, num_folds=0)
    for end in ("", "_gt"):
        shutil.copy(patient / f"patient001_frame01{end}.nii.gz", patient / f"patient001_frame12{end}.nii.gz")
    (source / "MANDATORY_CITATION.md").write_text("cite")
    (patient / "patient001_4d.nii.gz").write_bytes(b"never read")
    folder = acdc.convert(form_of(source, form, tmp_path / "form") if form != "folder" else source, 27, num_folds=0)
    assert cases_of(folder, "Tr") == ["patient001_frame01", "patient001_frame12"]
    assert groups_of(folder) == {"kind": "patient", "of": dict.fromkeys(cases_of(folder, "Tr"), "patient001")}
    for new, old in (("imagesTr/patient001_frame01_0000", ""), ("labelsTr/patient001_frame01", "_gt")):
        ours = sitk.ReadImage(str(folder / f"{new}.nii.gz"))
        theirs = sitk.ReadImage(str(patient / f"patient001_frame01{old}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
        assert ours.GetSpacing() == theirs.GetSpacing() == (1.5625, 1.5625, 10)
        assert ours.GetOrigin() == theirs.GetOrigin()
        assert ours.GetDirection() == theirs.GetDirection()


@pytest.mark.parametrize(("organs", "layout"), [(8, "img label"), (13, "imagesTr labelsTr")])
def test_btcv(organs, layout, nnunet_folders, tmp_path):
    """Real labels with made-up images of the same geometry."""
    source = FOLDER / "BTCV" / "RawData" / "Training" / "label"
    images, labels = (tmp_path / "RawData" / "Training" / name for name in layout.split())
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for number in (1, 3):
        name = f"label{number:04d}.nii.gz"
        label = sitk.ReadImage(str(source / name))
        shutil.copyfile(source / name, labels / name)
        image = sitk.Cast(label, sitk.sitkInt16) * 50
        sitk.WriteImage(image, str(images / f"img{number:04d}.nii.gz"), useCompression=True)
    folder = synapse.make_converter(organs=organs).convert(tmp_path / "RawData", 29, num_folds=2)
    assert cases_of(folder, "Tr") == ["synapse_0001", "synapse_0003"]
    names = json.loads((folder / "dataset.json").read_text())["labels"]
    for number in (1, 3):
        theirs = sitk.ReadImage(str(source / f"label{number:04d}.nii.gz"))
        ours = sitk.ReadImage(str(folder / f"labelsTr/synapse_{number:04d}.nii.gz"))
        for fact in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
            np.testing.assert_allclose(getattr(ours, fact)(), getattr(theirs, fact)(), rtol=1e-6)
        old, new = sitk.GetArrayFromImage(theirs), sitk.GetArrayFromImage(ours)
        for organ, value in synapse.ORGANS.items():
            if (old == value).any():
                np.testing.assert_array_equal(np.unique(new[old == value]), [names.get(organ, 0)])
    assert read_record(folder)["group"] == "patient"


MORE = FOLDER.parent  # other real files, in the layouts of their datasets


@pytest.mark.skipif(not (MORE / "Kvasir-SEG").is_dir(), reason="real files of Kvasir-SEG are not there")
@pytest.mark.parametrize("form", FORMS)
def test_kvasir(form, nnunet_folders, tmp_path):
    source = MORE / "Kvasir-SEG"
    folder = kvasir.convert(form_of(source, form, tmp_path), 34)
    assert groups_of(folder) is None
    assert len(cases_of(folder, "Tr")) == 5
    for name in cases_of(folder, "Tr"):
        image, mask = (read(source / kind / f"{name}.jpg") for kind in ("images", "masks"))
        ours, label = read(folder / f"imagesTr/{name}_0000.png"), read(folder / f"labelsTr/{name}.png")
        assert_same_jpeg(ours, image)
        assert (label != (mask[..., 0] > 127)).mean() < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not (MORE / "ISIC2017").is_dir(), reason="real files of ISIC 2017 are not there")
def test_isic2017(nnunet_folders):
    source = MORE / "ISIC2017"
    folder = isic2017.convert(source, 33, split="official", allow_missing=True)
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert (len(fold["train"]), len(fold["val"]), len(cases_of(folder, "Ts"))) == (18, 2, 2)
    for part in ("Tr", "Ts"):
        for name in cases_of(folder, part):
            (image,), (mask,) = source.glob(f"*_Data/{name}.jpg"), source.glob(f"*/{name}_segmentation.png")
            assert_same_jpeg(read(folder / f"images{part}/{name}_0000.png"), read(image))
            np.testing.assert_array_equal(read(folder / f"labels{part}/{name}.png"), read(mask) > 127)


@pytest.mark.slow
@pytest.mark.skipif(not (MORE / "ACDC").is_dir(), reason="real files of ACDC are not there")
def test_acdc_of_80_patients(nnunet_folders):
    source = MORE / "ACDC"
    folder = acdc.convert(source, 27, processes=2)
    names = cases_of(folder, "Tr")
    assert len(names) == 160
    assert len(set(groups_of(folder)["of"].values())) == 80
    for name in names[::8]:
        for new, old in ((f"imagesTr/{name}_0000", name), (f"labelsTr/{name}", f"{name}_gt")):
            ours = sitk.ReadImage(str(folder / f"{new}.nii.gz"))
            theirs = sitk.ReadImage(str(source / "training" / name[:10] / f"{old}.nii.gz"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
            assert ours.GetSpacing() == theirs.GetSpacing()


FUZZ = runpy.run_path(str(Path(__file__).with_name("test_fuzz.py")))
FUZZED = {
    "clinicdb": ("CVC-ClinicDB", r"(README|/(1|2|70|200|253|470|591)\.tif$)"),
    "colondb": ("CVC-ColonDB", r"(README|/c?p?(1|3|77|100|222)\.tiff?$)"),
    "glas": ("GlaS", ""),
    "monuseg": ("MoNuSeg_b", ""),
    "acdc": ("ACDC", ""),
}


@pytest.fixture
def small_original(tmp_path):
    """A few real files of a dataset, with what the plain conversion makes of them."""

    def make(key: str, raw: Path):
        name, wanted = FUZZED[key]
        root = tmp_path / f"{name} source"
        for file in (FOLDER / name).rglob("*"):
            if file.is_file() and re.search(wanted, f"/{file.name}"):
                new = root / name / file.relative_to(FOLDER / name)
                new.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, new)
        if key == "acdc":
            for end in ("", "_gt"):
                file = root / "ACDC" / "training" / "patient001" / f"patient001_frame01{end}.nii.gz"
                shutil.copyfile(file, file.with_name(file.name.replace("01_gt", "12_gt").replace("01.nii", "12.nii")))
        module = importlib.import_module(f"nnunet_attn.dataset_conversion.{key}")
        folder = module.convert(root, 8, num_folds=0)
        manifest = json.loads((folder / "manifest.json").read_text())["cases"]
        pairs = [[root / path for path, _ in case["inputs"]] for case in manifest.values()]
        expected = {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*sT[rs]/*")}
        shutil.rmtree(folder)
        return root, [pair[0] for pair in pairs], [pair[1] for pair in pairs], expected

    return make


@pytest.mark.slow
@pytest.mark.parametrize("change", [*FUZZ["HARMLESS"], *FUZZ["HARMFUL"]], ids=lambda change: change.__name__)
@pytest.mark.parametrize("key", FUZZED)
def test_variants_of_originals(key, change, small_original, nnunet_folders, capfd):
    """As the fuzz of made-up sources: the same bytes, or one line that names the file."""
    root, images, labels, expected = small_original(key, nnunet_folders)
    source = change(root, images, labels, np.random.default_rng(5))
    if source is None:
        pytest.skip("the change does not fit this dataset")
    capfd.readouterr()
    code = main(["convert", key, str(source), "9", "--processes", "1", "--num-folds", "0"])
    out, error = capfd.readouterr()
    if code == 0:
        folder = Path(out.strip())
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*sT[rs]/*")} == expected
        return
    assert change not in FUZZ["HARMLESS"], error
    assert (code, out, error.count("\n")) == (1, "", 1), error
    assert str(source.parent) in error, error
    assert list(nnunet_folders.iterdir()) == []
