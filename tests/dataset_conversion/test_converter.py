"""The shared core: folds, checks before the work, and a dataset that is there completely or not at all."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import acdc, case_work, converter
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.errors import UserError


def test_variable_must_be_set(acdc_source, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(UserError, match="variable nnUNet_raw is not set"):
        acdc.convert(acdc_source, 27)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_id": 0}, "between 1 and 999, got 0"),
        ({"dataset_id": 1000}, "between 1 and 999"),
        ({"name": "AC DC"}, "letters, digits"),
        ({"name": "../x"}, "letters, digits"),
        ({"processes": 0}, "--processes must be at least 1"),
        ({"split": "C"}, "no split 'C'; it has: A, B"),
        ({"source": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_wrong_arguments(acdc_source, refused, options, message):
    refused(message, acdc.convert, **{"source": acdc_source, "dataset_id": 27, **options})


def test_number_may_be_used_once(acdc_source, nnunet_folders):
    for place in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        other = nnunet_folders.parent / place / "Dataset027_Other"
        other.mkdir()
        with pytest.raises(UserError, match=r"Dataset027_Other already has the number 27.*--name Other"):
            acdc.convert(acdc_source, 27)
        other.rmdir()


def test_raw_folder_argument_leaves_the_users_folders_alone(acdc_source, nnunet_folders, tmp_path):
    (nnunet_folders / "Dataset027_Other").mkdir()
    folder = acdc.convert(acdc_source, 27, raw_folder=tmp_path / "elsewhere")
    assert folder == tmp_path / "elsewhere" / "Dataset027_ACDC"
    assert [p.name for p in nnunet_folders.iterdir()] == ["Dataset027_Other"]


def test_existing_dataset_is_kept_unless_told(acdc_source, nnunet_folders):
    folder = acdc.convert(acdc_source, 27)
    mark = folder / "mark"
    mark.write_text("mine")
    for arguments in (["--dry-run"], []):
        assert main(["convert", "acdc", str(acdc_source), "27", "--processes", "1", *arguments]) == 1
    assert mark.exists()
    (acdc_source / "training/patient003/Info.cfg").unlink()
    with pytest.raises(UserError, match="Info"):
        acdc.convert(acdc_source, 27, overwrite=True)
    assert mark.exists(), "a failing conversion must not cost the old dataset"
    shutil.rmtree(acdc_source / "training/patient003")
    acdc.convert(acdc_source, 27, overwrite=True)
    assert not mark.exists()
    assert len(list((folder / "imagesTr").iterdir())) == 12
    assert [p.name for p in nnunet_folders.iterdir()] == ["Dataset027_ACDC"]


def test_source_inside_the_target_is_refused(acdc_source, nnunet_folders):
    inside = nnunet_folders / "Dataset027_ACDC" / "download"
    shutil.copytree(acdc_source, inside)
    with pytest.raises(UserError, match=r"download lies in .*Dataset027_ACDC, which the output would replace"):
        acdc.convert(inside, 27, overwrite=True)
    assert (inside / "training").is_dir()
    groups = inside.parent / "groups.csv"
    groups.write_text("case,patient\n")
    with pytest.raises(UserError, match=r"groups\.csv lies in"):
        acdc.convert(acdc_source, 27, overwrite=True, groups=groups)
    assert groups.is_file()


def test_older_preprocessed_folds_must_agree(acdc_source, nnunet_folders):
    older = nnunet_folders.parent / "nnUNet_preprocessed" / "Dataset027_ACDC" / "splits_final.json"
    older.parent.mkdir()
    folder = acdc.convert(acdc_source, 27)
    folds = json.loads((folder / "splits_final.json").read_text())
    for fold in folds:
        fold["train"].reverse()
    older.write_text(json.dumps(folds))
    acdc.convert(acdc_source, 27, overwrite=True)  # the same folds in another order of cases
    folds[0]["val"].append(folds[0]["train"].pop())
    for content in (json.dumps(folds), "[]", "{", "[1]"):
        older.write_text(content)
        with pytest.raises(UserError, match="holds other folds") as caught:
            acdc.convert(acdc_source, 27, overwrite=True)
        assert str(older) in str(caught.value)
        assert sorted(p.name for p in nnunet_folders.iterdir()) == ["Dataset027_ACDC"]


def test_dry_run_checks_and_writes_nothing(acdc_source, nnunet_folders, capsys):
    command = ["convert", "acdc", str(acdc_source), "27", "--dry-run"]
    assert main(command) == 0
    out, said = capsys.readouterr()
    assert out.strip() == str(nnunet_folders / "Dataset027_ACDC")
    assert "would convert 2 test (1 groups), 14 train (7 groups)" in said
    assert "SOURCE holds 16 cases; the complete dataset has 200 or 300" in said
    assert list(nnunet_folders.iterdir()) == []
    assert main([*command, "--split", "A"]) == 1


def test_verify_finds_every_change(acdc_source, nnunet_folders, capsys):
    folder = acdc.convert(acdc_source, 27, split="B", allow_missing=True)
    command = ["convert", "acdc", str(acdc_source), "27", "--verify", "--processes", "1"]
    assert main(command) == 0
    assert "14 cases" in capsys.readouterr().out
    renamed = acdc_source.rename(acdc_source.with_name("unpacked elsewhere"))
    assert acdc.CONVERTER.verify(renamed, 27, processes=2) == 14
    for path in (
        folder / "labelsTs/patient001_frame04.nii.gz",
        renamed / "training/patient005/patient005_frame12.nii.gz",
    ):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(UserError, match=f"{path.name} has changed"):
            acdc.CONVERTER.verify(renamed, 27)
        path.write_bytes(before)
    (folder / "imagesTr/patient003_frame04_0000.nii.gz").unlink()
    shutil.rmtree(renamed / "training/patient006")
    with pytest.raises(UserError, match=r"patient006_frame04 is not in SOURCE.*patient003_frame04_0000.* is missing"):
        acdc.CONVERTER.verify(renamed, 27)
    with pytest.raises(UserError, match="was not converted by this package"):
        acdc.CONVERTER.verify(renamed, 28)


@pytest.mark.parametrize("seed", range(6))
def test_a_disk_that_fills_up_leaves_nothing(acdc_source, refused, nnunet_folders, monkeypatch, seed):
    """The writer fails at a random byte of all that is to be written."""
    total = sum(p.stat().st_size for p in acdc_source.rglob("*frame*.nii.gz"))
    room = random.Random(seed).randrange(total)

    def write(path: Path, data: bytes) -> None:
        nonlocal room
        path.write_bytes(data[:room])
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(case_work, "write_bytes", write)
        refused("no space left for .*Dataset027_ACDC; nothing was kept", acdc.convert, acdc_source, 27)
    acdc.convert(acdc_source, 27)


def test_a_disk_that_fills_up_at_the_end_leaves_nothing(acdc_source, refused, monkeypatch):
    def write(path: Path, content: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))

    monkeypatch.setattr(converter, "write_json", write)
    refused("no space left", acdc.convert, acdc_source, 27)


def test_any_other_failure_to_write_is_one_line_too(acdc_source, refused, monkeypatch):
    def write(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(case_work, "write_bytes", write)
    refused("Permission denied.*nothing was kept", acdc.convert, acdc_source, 27)


def heed_interrupts() -> None:
    """A shell starts background jobs with SIGINT ignored, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_or_interrupted_midway(acdc_source, nnunet_folders, tmp_path, how):
    """No half dataset, no process left behind, and a rerun is clean."""
    for number in range(8, 101):
        source = acdc_source / "training" / f"patient{number:03d}"
        shutil.copytree(acdc_source / "training" / "patient002", source)
        for file in list(source.iterdir()):
            file.rename(source / file.name.replace("patient002", f"patient{number:03d}"))
    command = [sys.executable, "-m", "nnunet_attn.dataset_conversion.acdc", str(acdc_source), "27", "--processes", "2"]
    said = tmp_path / "said"
    with said.open("w") as stderr:  # a pipe would be held open by workers that stay
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True, preexec_fn=heed_interrupts)
    partial = nnunet_folders / ".Dataset027_ACDC.partial"
    try:
        while process.poll() is None and len(list(partial.glob("imagesTr/*"))) < 3:
            time.sleep(0.002)
        (os.kill if how == signal.SIGKILL else os.killpg)(process.pid, how)
        process.wait(timeout=30)
        assert not (nnunet_folders / "Dataset027_ACDC").exists(), "it had finished before it was stopped"
        assert process.returncode == (-how if how == signal.SIGKILL else 1)
        if how == signal.SIGINT:
            assert said.read_text().splitlines()[-1:] == ["convert acdc: error: interrupted; nothing was written"]
            assert list(nnunet_folders.iterdir()) == []
        deadline = time.monotonic() + 20
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(process.pid), "workers outlive the command"
    finally:
        if _alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert [p.name for p in nnunet_folders.iterdir()] == ["Dataset027_ACDC"]
    assert len(list((nnunet_folders / "Dataset027_ACDC/labelsTr").iterdir())) == 2 * 100


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_full_disk(acdc_source, tmp_path):
    """A file system with room for a part of the dataset only; needs the right to mount one."""
    full = tmp_path / "full"
    full.mkdir()
    size = sum(p.stat().st_size for p in acdc_source.rglob("*frame*.nii.gz"))
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // 3}", "tmpfs", full], capture_output=True
    ).returncode:
        pytest.skip("not allowed to mount a file system")
    try:
        for processes in (1, 2):
            with pytest.raises(UserError, match="no space left"):
                acdc.convert(acdc_source, 27, raw_folder=full, processes=processes)
            assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", full], check=True)


def test_catalogue_agrees_with_the_converters():
    from importlib import import_module

    for key, dataset in DATASETS.items():
        converter = import_module(f"nnunet_attn.dataset_conversion.{key}").CONVERTER
        assert converter.key == key
        assert set(converter.splits) == set(dataset.splits)
        assert (Path(__file__).parents[2] / "scripts" / f"convert_{key}.py").is_file()


def test_help_is_light():
    code = (
        "import sys, nnunet_attn.cli.main as m; m.make_parser(); "
        "assert not {'numpy', 'SimpleITK', 'nibabel', 'torch', 'nnunetv2', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_import_lightly():
    """Neither torch nor nnU-Net, which take seconds."""
    code = (
        "import sys, nnunet_attn.dataset_conversion.acdc; "
        "assert not {'torch', 'nnunetv2', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


BROKEN = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_text(path.read_text()[:-9]),
    "other": lambda path: path.write_text("[1]"),
    "other cases": lambda path: path.write_text('{"cases": {"a": 1}}'),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", BROKEN)
def test_verify_without_a_complete_manifest_is_one_line(acdc_source, nnunet_folders, capsys, how):
    folder = acdc.convert(acdc_source, 27)
    BROKEN[how](folder / "manifest.json")
    assert main(["convert", "acdc", str(acdc_source), "27", "--verify", "--processes", "1"]) == 1
    error = capsys.readouterr().err
    assert "manifest.json is missing or damaged" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--dry-run", "--verify"])
def test_what_the_system_refuses_is_one_line(acdc_source, nnunet_folders, capsys, monkeypatch, flag):
    """A dangling link, a folder that cannot be read, and a full folder for temporary files."""
    acdc.convert(acdc_source, 27)
    command = ["convert", "acdc", str(acdc_source), "27", "--name", "ACDC" if flag == "--verify" else "Other", flag]
    command += ["--processes", "1"]
    if flag == "--dry-run":
        shutil.rmtree(nnunet_folders / "Dataset027_ACDC")
    path = acdc_source / "training" / "patient003" / "Info.cfg"
    path.unlink()
    path.symlink_to(acdc_source / "nowhere")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "patient003/Info.cfg" in error
    assert error.count("\n") == 1

    class Full:
        def __init__(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x/y")

    monkeypatch.setattr(converter.tempfile, "TemporaryDirectory", Full)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "no space left" in error
    assert "/tmp/x is full" in error
    assert error.count("\n") == 1
