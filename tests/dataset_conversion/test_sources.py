"""Folders and archives list the same files; whatever is unsafe in an archive is refused."""

import copy
import io
import os
import stat
import tarfile
import zipfile

import pytest

from nnunet_attn.dataset_conversion import archives
from nnunet_attn.dataset_conversion.listing import open_sources
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
    files = open_sources([path], tmp_path / "scratch").files
    assert {file.name: file.read() for file in files} == FILES
    assert {file.basename for file in files} == {"a.txt", "b.bin", "top.txt"}
    assert all(str(path) in str(file) and str(file).endswith(file.basename) for file in files)
    assert [file.parent for file in files] == ["data", "data/deep er", "."]
    unpacked = os.listdir(tmp_path / "scratch")
    assert len(unpacked) == (name.count(".") == 2)  # only a compressed tar has a plain copy


def test_several_archives_are_one_source(folder, tmp_path):
    paths = [pack(folder / "data", tmp_path / "one.zip"), pack(folder / "data" / "deep er", tmp_path / "two.tar")]
    assert [f.name for f in open_sources(paths, tmp_path).files] == ["a.txt", "b.bin", "deep er/b.bin"]


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
    with pytest.raises(UserError, match="would be unpacked outside the archive"):
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
    (file,) = open_sources([tmp_path / "x.zip"], tmp_path).files
    with pytest.raises(UserError, match=r"x\.zip: a\.txt cannot be read"):
        file.read()


@pytest.mark.parametrize("begin", [b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c"])
def test_archives_that_only_other_programs_read_are_named(begin, tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "x.rar"
    path.write_bytes(begin + b"rest")
    with pytest.raises(UserError, match=r"x\.rar is a RAR or 7z archive, which cannot be read; unpack it"):
        open_sources([path], tmp_path)
    with pytest.raises(UserError, match=r"x\.rar cannot be read; unpack it, and take it out"):
        open_sources([tmp_path / "data"], tmp_path)


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
    names = [file.name for file in open_sources([tmp_path / "linked"], tmp_path).files]
    assert names == ["data/a.txt", "data/deep er/b.bin", "data/loop/top.txt"]


RUBBISH = ["__MACOSX/data/._a.txt", "data/._a.txt", "data/.DS_Store", "data/Thumbs.db", "desktop.ini",
           "data/.ipynb_checkpoints/a-checkpoint.txt", "data/@eaDir/a.txt/x.jpg", ".git/config"]  # fmt: skip


@pytest.mark.parametrize("name", ["", "x.zip", "x.tar.gz"])
def test_rubbish_is_skipped_everywhere(folder, tmp_path, name):
    for rubbish in RUBBISH:
        (folder / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (folder / rubbish).write_bytes(b"rubbish")
    source = open_sources([pack(folder, tmp_path / name) if name else folder], tmp_path)
    assert {file.name for file in source.files} == set(FILES)
    assert source.empty == []


def test_a_link_never_hides_the_real_folder(folder, tmp_path):
    """Whichever comes first in the directory's order."""
    for name in ("aaa", "zzz"):
        (folder / name).symlink_to(folder / "data")
    source = open_sources([folder], tmp_path)
    assert {file.name for file in source.files} == set(FILES)
    assert len(source.notes) == 2
    assert all("which is read only once" in note for note in source.notes)


@pytest.mark.parametrize("place", ["folder", "source"])
def test_pipes_sockets_and_links_to_nothing_are_refused_by_name(folder, tmp_path, place):
    path = folder / "data" / "odd.png" if place == "folder" else tmp_path / "odd.png"
    start = [folder] if place == "folder" else [path]
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"odd\.png is a pipe \(FIFO\), not a regular file"):
        open_sources(start, tmp_path)
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(UserError, match=r"odd\.png is a device"):
        open_sources(start, tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"odd\.png (is a broken link|does not exist)"):
        open_sources(start, tmp_path)


def test_empty_folders_are_told(folder, tmp_path):
    (folder / "patient007").mkdir()
    assert open_sources([folder], tmp_path).empty == [str(folder / "patient007")]


def test_names_stay_in_one_line(tmp_path):
    for name in (b"a\nb.txt", b"\xff.txt", "e\u0301.txt".encode()):
        with open(bytes(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"1")
    files = open_sources([tmp_path], tmp_path).files
    assert [file.read() for file in files] == [b"1"] * 3
    assert all("\n" not in str(file) and str(file).encode() for file in files)
    assert any(file.basename == "\u00e9.txt" for file in files)  # composed, whatever the file system does


def test_archives_in_folders_and_in_archives(folder, tmp_path):
    """Read where they lie; where they are unpacked beside, only once."""
    holder = tmp_path / "holder"
    holder.mkdir()
    inner = pack(folder, tmp_path / "inner.tar.gz")
    with zipfile.ZipFile(holder / "training.ZIP", "w") as archive:
        archive.write(inner, "part/inner.tar.gz")
        archive.writestr("b.txt", "2")
    (tmp_path / "scratch").mkdir()
    source = open_sources([holder], tmp_path / "scratch")
    assert {f.name: f.read() for f in source.files} == {
        "training/b.txt": b"2", **{f"training/part/inner/{name}": data for name, data in FILES.items()},
    }  # fmt: skip
    unpacked = folder.rename(holder / "unpacked")
    (holder / "training.ZIP").unlink()
    pack(unpacked, holder / "download.zip")
    source = open_sources([holder], tmp_path / "scratch")
    assert {f.name for f in source.files} == {f"unpacked/{name}" for name in FILES}
    assert source.notes == [f"{holder / 'download.zip'} was not read, since its files lie unpacked beside it"]
    (unpacked / "top.txt").write_text("another")
    assert len(open_sources([holder], tmp_path / "scratch").files) == 2 * len(FILES)


def test_archives_without_end_are_refused(tmp_path, monkeypatch):
    data = b"x"
    for i in range(5):
        with zipfile.ZipFile(tmp_path / f"{i}.zip", "w") as archive:
            archive.writestr("a.zip", data)
        data = (tmp_path / f"{i}.zip").read_bytes()
    with pytest.raises(UserError, match="more than 3 archives deep"):
        open_sources([tmp_path / "4.zip"], tmp_path)
    monkeypatch.setattr(archives, "EXPANSION", (1 << 20, 200))
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 10 << 20)
    for name in ("x.tar.gz", "x.tar.xz"):
        with tarfile.open(tmp_path / name, f"w:{name[-2:]}") as archive:
            member = tarfile.TarInfo("a.bin")
            member.size = 8 << 20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
        with pytest.raises(UserError, match="expands to more than 200 times its size"):
            open_sources([tmp_path / name], tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", bytes(11 << 20))
    with pytest.raises(UserError, match=r"a\.bin would be 0\.0 GB, more than any image"):
        open_sources([tmp_path / "x.zip"], tmp_path)


def test_overlapping_members_are_refused(tmp_path):
    """One stretch of compressed bytes under many names, as in the known zip bomb."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", os.urandom(1 << 16))
        first = archive.infolist()[0]
        for i in range(9):
            other = copy.copy(first)
            other.filename = f"b{i}.bin"
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
    with pytest.raises(UserError, match="overlapping members"):
        open_sources([tmp_path / "x.zip"], tmp_path)
