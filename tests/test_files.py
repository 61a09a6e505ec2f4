"""A folder that is replaced is lost at no moment: every call fails once, and the process is killed at every step."""

import os
import signal
import subprocess
import sys

import pytest

from nnunet_attn.errors import UserError
from nnunet_attn.files import check_writable, complete_file, complete_folder, refuse_existing, write_json

FILES = ("a.txt", "b.txt", "c.txt")


def fill(folder, text):
    folder.mkdir(exist_ok=True)
    for name in FILES:
        (folder / name).write_text(text)


def content(folder):
    """The text of a complete copy; None if there is none under this name."""
    texts = {(folder / name).read_text() if (folder / name).is_file() else None for name in FILES}
    return texts.pop() if len(texts) == 1 else None


def replace_with(folder, text):
    with complete_folder(folder, overwrite=True) as temporary:
        fill(temporary, text)


def start_and_fail(folder):
    """A start that comes to nothing: it has only put back what an earlier one left."""
    with pytest.raises(ZeroDivisionError), complete_folder(folder, overwrite=True):
        raise ZeroDivisionError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "target"
    with complete_folder(target) as temporary:
        fill(temporary, "new")
        assert not target.exists()
    assert content(target) == "new"
    assert names(tmp_path) == ["target"]
    with pytest.raises(UserError, match="exists already"), complete_folder(target):
        pass
    replace_with(target, "newer")
    assert content(target) == "newer"
    assert names(tmp_path) == ["target"]


def test_an_input_is_never_replaced(tmp_path):
    model = tmp_path / "model"
    fill(model, "old")
    (tmp_path / "link").symlink_to(model)
    for output, given in ((model, model), (tmp_path, model), (model, model / "a.txt"), (model, tmp_path / "link")):
        with (
            pytest.raises(UserError, match=r"the input .* lies in .*, which the output would replace"),
            complete_folder(output, overwrite=True, inputs=[given]),
        ):
            pass
    assert content(model) == "old"
    with complete_folder(model / "inside", inputs=[model, tmp_path / "absent", "(p[0-9]+)"]) as temporary:
        fill(temporary, "new")
    assert content(model / "inside") == "new"


def test_the_current_folder_can_be_replaced(tmp_path, monkeypatch):
    target = tmp_path / "target"
    fill(target, "old")
    monkeypatch.chdir(target)
    with pytest.raises(UserError, match="exists already"), complete_folder("."):
        pass
    with complete_folder(".", overwrite=True) as temporary:
        fill(temporary, "new")
    assert content(target) == "new"
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_no_failing_rename_loses_the_folder(tmp_path, monkeypatch, failing):
    target = tmp_path / "target"
    fill(target, "old")
    calls, replace = [], os.replace

    def fake(*arguments):
        calls.append(arguments)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fake)
    with pytest.raises(OSError, match="No space left"):
        replace_with(target, "new")
    assert content(target) == ("new" if failing == 3 else "old")
    monkeypatch.undo()
    start_and_fail(target)
    assert content(target) == ("new" if failing == 3 else "old")
    assert names(tmp_path) == ["target"]


def test_when_every_later_rename_fails_the_next_start_puts_the_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "target"
    fill(target, "old")
    calls, replace = [], os.replace

    def fake(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise PermissionError(13, "Permission denied")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fake)
    with pytest.raises(PermissionError):
        replace_with(target, "new")
    monkeypatch.undo()
    with pytest.raises(UserError, match="exists already"):
        refuse_existing(target, overwrite=False)
    with pytest.raises(UserError, match="exists already"), complete_folder(target):
        pass
    assert content(target) == "old"


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from nnunet_attn.files import complete_folder

step, target = sys.argv[1], Path(sys.argv[2])
calls, replace, rmtree = [], os.replace, shutil.rmtree

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counted(*arguments):
    calls.append(arguments)
    if step == f"before rename {len(calls)}":
        die()
    replace(*arguments)
    if step == f"after rename {len(calls)}":
        die()

def halfway(folder):
    if step == "while removing" and folder.name.endswith("discarded"):
        (folder / "a.txt").unlink()
        die()
    rmtree(folder)

os.replace, shutil.rmtree = counted, halfway
with complete_folder(target, overwrite=True) as temporary:
    (temporary / "a.txt").write_text("new")
    if step == "while filling":
        die()
    for name in ("b.txt", "c.txt"):
        (temporary / name).write_text("new")
"""
STEPS = ["while filling", *(f"{when} rename {i}" for i in (1, 2, 3) for when in ("before", "after")), "while removing"]


@pytest.mark.parametrize("step", STEPS)
def test_no_kill_loses_the_folder(tmp_path, step):
    target = tmp_path / "target"
    fill(target, "old")
    done = subprocess.run([sys.executable, "-c", KILLED, step, str(target)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert any(content(path) for path in (target, tmp_path / ".target.replaced"))
    start_and_fail(target)
    new = step in ("after rename 2", "before rename 3", "after rename 3", "while removing")
    assert content(target) == ("new" if new else "old")
    replace_with(target, "newer")
    assert content(target) == "newer"
    assert names(tmp_path) == ["target"]


def test_what_a_link_points_to_survives(tmp_path):
    disk, target = tmp_path / "disk", tmp_path / "target"
    fill(disk, "old")
    target.symlink_to(disk)
    replace_with(target, "new")
    assert content(disk) == "old"
    assert content(target) == "new"
    assert not target.is_symlink()
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"), complete_folder(dangling):
        pass
    replace_with(dangling, "new")
    assert names(tmp_path) == ["dangling", "disk", "target"]


def test_a_file_is_complete_or_as_it_was(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), complete_file(path) as temporary:
        (temporary.write_text("half"), (tmp_path / "nowhere").unlink())
    assert path.read_text() == "old"
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.csv'"), complete_file(path):
        raise OSError(28, "No space left on device")
    write_json(path, [1])
    assert path.read_text() == "[\n  1\n]\n"
    assert names(tmp_path) == ["a.csv"]


def test_what_cannot_be_written_is_known_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "a.csv")
    assert names(tmp_path / "new") == []
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / ("a" * 300 + ".csv"))
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)
