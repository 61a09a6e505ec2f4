"""Folders and archives list the same files; whatever is unsafe in an archive is refused."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from nnunet_attn.dataset_conversion.sources import open_sources
from nnunet_attn.errors import UserError

FILES = {"data/a.txt": b"first", "data/deep er/b.bin": bytes(range(256)) * 300, "top.txt": b""}


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    for junk in (".DS_Store", "data/._a.txt", "__MACOSX/data/a.txt", "data/Thumbs.db"):
        (tmp_path / "folder" / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / junk).write_bytes(b"junk")
    return tmp_path / "folder"


def pack(folder, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
            archive.add(folder, ".")
    return path


@pytest.mark.parametrize("name", ["", "x.zip", "x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_folder_and_archives_list_and_read_the_same(folder, tmp_path, name):
    path = pack(folder, tmp_path / name) if name else folder
    (tmp_path / "scratch").mkdir()
    files = open_sources([path], tmp_path / "scratch")
    assert {file.name: file.read() for file in files} == FILES
    assert {file.basename for file in files} == {"a.txt", "b.bin", "top.txt"}
    assert all(str(path) in str(file) and str(file).endswith(file.basename) for file in files)
    assert [file.parent for file in files] == ["data", "data/deep er", "."]
    unpacked = os.listdir(tmp_path / "scratch")
    assert len(unpacked) == (name.count(".") == 2)  # only a compressed tar has a plain copy


def test_several_archives_are_one_source(folder, tmp_path):
    paths = [pack(folder / "data", tmp_path / "one.zip"), pack(folder / "data" / "deep er", tmp_path / "two.tar")]
    assert [f.name for f in open_sources(paths, tmp_path)] == ["a.txt", "b.bin", "deep er/b.bin"]


UNSAFE = ["../evil.txt", "data/../../evil.txt", "/etc/evil.txt", "C:/evil.txt", "..\\evil.txt", "data\\..\\..\\evil"]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_path_traversal_is_refused(tmp_path, name, kind):
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("fine.txt", b"1")
            archive.writestr(name, b"2")
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(UserError, match="leaves the archive's own folder"):
        open_sources([path], tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    member = tarfile.TarInfo("data/link.txt")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    with pytest.raises(UserError, match=r"link\.txt is a link or special file"):
        open_sources([tmp_path / "x.tar.gz"], tmp_path)


def test_links_in_zip_are_refused(tmp_path):
    member = zipfile.ZipInfo("data/link.txt")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match=r"link\.txt is a link or special file"):
        open_sources([tmp_path / "x.zip"], tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"1")
        archive.writestr("a.txt", b"2")
    with pytest.raises(UserError, match="twice in the archive"):
        open_sources([tmp_path / "x.zip"], tmp_path)


def test_encrypted_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"secret")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        open_sources([tmp_path / "x.zip"], tmp_path)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_truncated_archives_are_refused(folder, tmp_path, name):
    path = pack(folder, tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])
    with pytest.raises(UserError, match="download it again"):
        open_sources([path], tmp_path)


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.bz2", "x.tar.xz"])
def test_damaged_compressed_tar_is_named(folder, tmp_path, name):
    path = pack(folder, tmp_path / name)
    data = bytearray(path.read_bytes())
    data[-12 if name.endswith("gz") else -40] ^= 0x55  # in the checksum at the end
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} is (damaged|neither a folder nor a complete) .*download it again"):
        open_sources([path], tmp_path)


def test_damaged_zip_member_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"the quick brown fox")
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes().replace(b"brown", b"green"))
    (file,) = open_sources([tmp_path / "x.zip"], tmp_path)
    with pytest.raises(UserError, match=r"x\.zip: a\.txt cannot be read"):
        file.read()


def test_what_is_no_archive_or_not_there_is_said(tmp_path):
    (tmp_path / "x.zip").write_text("<html>log in first</html>")
    with pytest.raises(UserError, match="neither a folder nor a complete zip or tar"):
        open_sources([tmp_path / "x.zip"], tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        open_sources([tmp_path / "nowhere"], tmp_path)


def test_folder_links_are_followed_once(folder, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data").symlink_to(folder / "data")
    (folder / "data" / "loop").symlink_to(folder)
    names = [file.name for file in open_sources([tmp_path / "linked"], tmp_path)]
    assert names == ["data/a.txt", "data/deep er/b.bin", "data/loop/top.txt"]
