"""Variants of sources: each converts to the same bytes as the plain source, or is refused in one line naming the file.

Each change takes the source's folder, its image and label files, and a seeded generator, changes files in place, and
returns the folder or archive to convert. A change that does not fit a source returns None.
"""

import importlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion.catalog import DATASETS

Change = Callable[[Path, list[Path], list[Path], np.random.Generator], Path | None]
PICTURES = (".png", ".jpg", ".bmp", ".tif", ".tiff")


def _pick(files: list[Path], rng: np.random.Generator) -> Path:
    return files[int(rng.integers(len(files)))]


def _folders(root: Path) -> list[Path]:
    """Folders below the root, deepest first."""
    return sorted((p for p in root.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts))


def _rename_folders(root: Path, new: Callable[[str], str]) -> Path:
    for folder in _folders(root):
        if new(folder.name) != folder.name != "__MACOSX":
            folder.rename(folder.with_name("~")).rename(folder.with_name(new(folder.name)))
    return root


def folders_in_capitals(root, images, labels, rng):
    return _rename_folders(root, str.upper)


def folders_in_small_letters(root, images, labels, rng):
    return _rename_folders(root, str.lower)


def folders_with_other_separators(root, images, labels, rng):
    other = str(rng.choice(["_", "-", " "]))
    return _rename_folders(root, lambda name: "".join(other if c in "_- " else c for c in name))


def folders_in_the_plural(root, images, labels, rng):
    return _rename_folders(
        root, lambda name: name if name.endswith(("s", "S")) or any(map(str.isdigit, name)) else f"{name}s"
    )


def suffixes_in_capitals(root, images, labels, rng):
    for file in [p for p in root.rglob("*") if p.is_file()]:
        stem, dot, suffix = file.name.partition(".")
        file.rename(file.with_name(stem + dot + suffix.upper()))
    return root


def names_in_capitals(root, images, labels, rng):
    for file in [p for p in root.rglob("*") if p.is_file()]:
        file.rename(file.with_name("~")).rename(file.with_name(file.name.upper()))
    return root


def one_deeper(root, images, labels, rng):
    outer = root.with_name("outer")
    outer.mkdir()
    shutil.move(root, outer / "download (1)")
    return outer


def unicode_and_blanks(root, images, labels, rng):
    return root.rename(root.with_name("donn\u00e9es \u4e2d\u6587 e\u0301 (copy)"))


def rubbish(root, images, labels, rng):
    for folder in [root, *_folders(root)]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x.png", "@eaDir/x.png", ".ipynb_checkpoints/y.tif"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"rubbish")
    junk = root / "__MACOSX" / f"._{images[0].name}"
    junk.parent.mkdir()
    junk.write_bytes(b"rubbish")
    return root


def texts(root, images, labels, rng):
    for name in ("README.txt", "LICENCE", "metadata.csv", "paper.pdf", "MANDATORY_CITATION.md"):
        (root / name).write_text("text")
    return root


def an_empty_folder(root, images, labels, rng):
    (root / "empty").mkdir()
    return root


def an_empty_sibling(root, images, labels, rng):
    """A folder as those of the cases, with nothing in it."""
    name = images[0].parent.name
    (images[0].parent.parent / f"{name[:-1]}{(int(name[-1]) + 7) % 10 if name[-1].isdigit() else 'x'}").mkdir(
        exist_ok=True
    )
    return root


def zipped(root, images, labels, rng):
    path = root.with_name("download.ZIP")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root))
    return path


def tarred(root, images, labels, rng):
    kind = str(rng.choice(["", "gz", "xz", "bz2"]))
    path = root.with_name(f"download.tar.{kind}" if kind else "download.tar")
    with tarfile.open(path, f"w:{kind}") as archive:
        archive.add(root, "download")
    return path


def zipped_in_a_folder(root, images, labels, rng):
    path = zipped(root, images, labels, rng)
    shutil.rmtree(root)
    root.mkdir()
    path.rename(root / "training.zip")
    return root


def zipped_beside(root, images, labels, rng):
    zipped(root, images, labels, rng).rename(root / "download.zip")
    return root


def a_link_to_a_folder(root, images, labels, rng):
    folder = images[0].parent
    (folder.parent / f"0{folder.name}").symlink_to(folder)
    return root


def files_as_links(root, images, labels, rng):
    store = root.with_name("store")
    store.mkdir()
    for i, file in enumerate([*images, *labels]):
        shutil.move(file, store / str(i))
        file.symlink_to(store / str(i))
    return root


def _again(path: Path, array: np.ndarray, **options) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    path.write_bytes(buffer.getvalue())


def planes_for_colours(root, images, labels, rng):
    """Channels one after the other in a TIFF."""
    tiffs = [p for p in images if p.suffix in (".tif", ".tiff")]
    if not tiffs:
        return None
    for path in tiffs:
        array = tifffile.imread(path)
        _again(path, np.moveaxis(array, -1, 0), photometric="rgb", planarconfig="separate")
    return root


def grey_tag_for_colours(root, images, labels, rng):
    """As in CVC-ClinicDB: three samples under PhotometricInterpretation 1."""
    tiffs = [p for p in images if p.suffix in (".tif", ".tiff")]
    if not tiffs:
        return None
    for path in tiffs:
        _again(path, tifffile.imread(path), photometric="minisblack", planarconfig="contig")
    return root


def _masks(labels: list[Path]) -> list[Path]:
    return [p for p in labels if p.suffix in (".png", ".bmp", ".tif", ".tiff")]


def masks_with_alpha(root, images, labels, rng):
    if not _masks(labels):
        return None
    for path in _masks(labels):
        mask = Image.open(path).convert("L")
        alpha = Image.fromarray(rng.integers(0, 256, mask.size[::-1], dtype=np.uint8))
        buffer = io.BytesIO()
        Image.merge("LA", (mask, alpha)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
    return root


def masks_in_three_channels(root, images, labels, rng):
    if not _masks(labels):
        return None
    for path in _masks(labels):
        with Image.open(path) as mask:
            kind = mask.format
            mask.convert("RGB").save(path, kind)
    return root


def a_missing_file(root, images, labels, rng):
    _pick(images + labels, rng).unlink()
    return root


def a_truncated_file(root, images, labels, rng):
    path = _pick(images + labels, rng)
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data) - 1))])
    return root


def an_empty_file(root, images, labels, rng):
    _pick(images + labels, rng).write_bytes(b"")
    return root


def a_web_page(root, images, labels, rng):
    _pick(images + labels, rng).write_text("<html><body>please log in</body></html>")
    return root


def image_for_label(root, images, labels, rng):
    i = int(rng.integers(len(images)))
    one, other = images[i].read_bytes(), labels[i].read_bytes()
    images[i].write_bytes(other)
    labels[i].write_bytes(one)
    return root


def sixteen_bits(root, images, labels, rng):
    path = _pick(images, rng)
    if path.suffix in PICTURES:
        buffer = io.BytesIO()
        Image.fromarray(np.full((24, 32), 999, np.uint16)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
    else:
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkComplexFloat32), str(path))
    return root


def a_tiny_picture(root, images, labels, rng):
    i = int(rng.integers(len(images)))
    if images[i].suffix not in PICTURES:
        return None
    for path in (images[i], labels[i]):
        if path.suffix in PICTURES:
            buffer = io.BytesIO()
            Image.new("L", (1, 1)).save(buffer, "PNG")
            path.write_bytes(buffer.getvalue())
    return root


def a_copy_of_a_file(root, images, labels, rng):
    path = _pick(images + labels, rng)
    stem, dot, suffix = path.name.partition(".")
    shutil.copy(path, path.with_name(f"{stem} (1){dot}{suffix}"))
    return root


def a_stranger(root, images, labels, rng):
    """A picture or volume that belongs to no case."""
    path = _pick(images, rng)
    shutil.copy(path, root / f"figure{''.join(path.suffixes)}")
    return root


def a_pipe(root, images, labels, rng):
    os.mkfifo(_pick(images, rng).with_name("pipe.png"))
    return root


def a_device(root, images, labels, rng):
    _pick(images, rng).with_name("device.png").symlink_to("/dev/zero")
    return root


def a_dangling_link(root, images, labels, rng):
    path = _pick(images + labels, rng)
    path.unlink()
    path.symlink_to(root / "nowhere")
    return root


def a_folder_for_a_file(root, images, labels, rng):
    path = _pick(images + labels, rng)
    path.unlink()
    path.mkdir()
    return root


def _archive_with(root: Path, member: zipfile.ZipInfo | str, data: bytes) -> Path:
    path = zipped(root, [], [], np.random.default_rng(0))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, data)
    return path


def an_archive_that_climbs(root, images, labels, rng):
    return _archive_with(root, str(rng.choice(["../../evil.png", "/etc/evil.png", "a/../../evil.png"])), b"x")


def an_archive_with_a_link(root, images, labels, rng):
    member = zipfile.ZipInfo("link.png")
    member.external_attr = 0o120777 << 16
    return _archive_with(root, member, b"/etc/passwd")


def a_cut_archive(root, images, labels, rng):
    path = (zipped if rng.random() < 0.5 else tarred)(root, images, labels, rng)
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(len(data) - 200))])
    return path


HARMLESS: list[Change] = [
    folders_in_capitals, folders_in_small_letters, folders_with_other_separators, folders_in_the_plural,
    suffixes_in_capitals, names_in_capitals, one_deeper, unicode_and_blanks, rubbish, texts, an_empty_folder, zipped,
    tarred, zipped_in_a_folder, zipped_beside, a_link_to_a_folder, files_as_links, planes_for_colours,
    grey_tag_for_colours, masks_with_alpha, masks_in_three_channels,
]  # fmt: skip
HARMFUL: list[Change] = [
    a_missing_file, a_truncated_file, an_empty_file, a_web_page, image_for_label, sixteen_bits, a_tiny_picture,
    a_copy_of_a_file, a_stranger, a_pipe, a_device, a_dangling_link, a_folder_for_a_file, an_archive_that_climbs,
    an_archive_with_a_link, a_cut_archive, an_empty_sibling,
]  # fmt: skip
KEYS = sorted(DATASETS)
MATRIX = [(key, change) for change in (*HARMLESS, *HARMFUL) for key in KEYS]
BY_DEFAULT = set(np.random.default_rng(7).permutation(len(MATRIX))[:30].tolist())
PLAIN: dict[str, dict[str, bytes]] = {}


def outputs(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("images*/*"), *folder.glob("labels*/*"), folder / "splits_final.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def converts_or_is_refused(key: str, changes: list[Change], seed: int, make_source, raw: Path, capfd) -> bool:
    """Whether the changed source was converted; None if a change does not fit it."""
    source, cases = make_source(key)
    if key not in PLAIN:
        PLAIN[key] = outputs(importlib.import_module(f"nnunet_attn.dataset_conversion.{key}").convert(source, 9))
        shutil.rmtree(raw / f"Dataset009_{DATASETS[key].folder}")
    rng = np.random.default_rng(seed)
    for change in changes:
        images, labels = ([getattr(case, f"{kind}_file") for case in cases.values()] for kind in ("image", "label"))
        source = change(source, images, labels, rng)
        if source is None:
            pytest.skip("the change does not fit this dataset")
    capfd.readouterr()
    code = main(["convert", key, str(source), "9", "--processes", "1"])
    out, error = capfd.readouterr()
    assert "Traceback" not in error
    if code == 0:
        assert outputs(Path(out.strip())) == PLAIN[key]
        return True
    assert code == 1
    assert out == ""
    assert error.count("\n") == 1, error
    assert error.startswith("nnunet-attn convert: error: ")
    assert str(source.parent) in error, error
    assert list(raw.iterdir()) == []
    return False


@pytest.mark.parametrize(
    ("key", "change"),
    [
        pytest.param(key, change, id=f"{change.__name__}-{key}", marks=[] if i in BY_DEFAULT else pytest.mark.slow)
        for i, (key, change) in enumerate(MATRIX)
    ],
)
def test_one_change(key, change, make_source, nnunet_folders, capfd):
    """What is harmless must convert."""
    converted = converts_or_is_refused(key, [change], MATRIX.index((key, change)), make_source, nnunet_folders, capfd)
    assert converted or change not in HARMLESS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_two_changes(seed, make_source, nnunet_folders, capfd):
    """Names first, then anything that does not need the old ones."""
    rng = np.random.default_rng(seed)
    content = [planes_for_colours, grey_tag_for_colours, masks_with_alpha, masks_in_three_channels, a_missing_file,
               a_truncated_file, image_for_label, sixteen_bits, a_copy_of_a_file, files_as_links]  # fmt: skip
    around = [folders_in_capitals, folders_with_other_separators, suffixes_in_capitals, names_in_capitals, one_deeper,
              unicode_and_blanks, rubbish, zipped, tarred, zipped_in_a_folder]  # fmt: skip
    changes = [content[rng.integers(len(content))], around[rng.integers(len(around))]]
    if changes[1] in (zipped, tarred, zipped_in_a_folder) and changes[0] is files_as_links:
        pytest.skip("archives hold no links")
    converts_or_is_refused(KEYS[seed % len(KEYS)], changes, seed, make_source, nnunet_folders, capfd)
