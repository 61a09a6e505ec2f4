"""Which cases belong together, and where that was found."""

import json

import pytest

from nnunet_attn.errors import UserError
from nnunet_attn.scoring.groups import find_groups

DATASET = "Dataset900_Videos"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / DATASET
    folder.mkdir()
    return folder


def write(folder, **content):
    (folder / "manifest.json").write_text(json.dumps({"algorithm": "SHA-256", "cases": {}} | content))


def test_of_the_converters_manifest(raw):
    of = {"a": "s1", "b": "s1", "c": "s2", "of the test set": "s3"}
    write(raw, groups={"kind": "study", "of": of})
    groups = find_groups(["a", "b", "c"], dataset=DATASET)
    assert groups.of == {"a": "s1", "b": "s1", "c": "s2"}
    assert groups.known
    assert groups.counted() == "2 studies"
    assert groups.how == f"from {DATASET}/manifest.json"
    assert find_groups(["a"], folders=[raw]).known  # a folder of references whose dataset has no name


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ({"groups": None}, f"{DATASET}/manifest.json has no groups"),
        ({}, f"{DATASET}/manifest.json has no groups"),
        ({"groups": {"kind": "patient", "of": {"a": "p"}}}, f"{DATASET}/manifest.json names no group for b"),
    ],
)
def test_groups_that_a_manifest_does_not_know(raw, content, how):
    write(raw, **content)
    groups = find_groups(["a", "b"], dataset=DATASET)
    assert (groups.known, groups.how, groups.counted()) == (False, how, "2 cases counted as independent")
    frames = find_groups(["p1_frame1", "p1_frame2"], dataset=DATASET)
    assert frames.known == (content.get("groups") is None or "of" in content["groups"])
    assert set(frames.of.values()) == {"p1"}


def test_damaged_manifests_are_refused(raw):
    (raw / "manifest.json").write_text("{")
    with pytest.raises(
        UserError, match=r"manifest\.json cannot be read .*; convert the dataset again, or give --groups"
    ):
        find_groups(["a"], dataset=DATASET)
    write(raw, groups=["a"])
    with pytest.raises(UserError, match="holds groups in an unknown form"):
        find_groups(["a"], dataset=DATASET)
    assert find_groups(["a"], "(.)", dataset=DATASET).of == {"a": "a"}  # what the user gives comes first


def test_by_name_or_not_at_all(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    cases = ["patient001_frame01", "patient001_frame12", "patient002_slice-3"]
    assert list(find_groups(cases).of.values()) == ["patient001", "patient001", "patient002"]
    assert not find_groups([*cases, "b"], dataset=DATASET).known


def test_what_the_user_gives(tmp_path):
    assert find_groups(["s1-a", "s1-b"], r"(s\d)-").of == {"s1-a": "s1", "s1-b": "s1"}
    assert find_groups(["s1-a", "s1-b"], r"s\d").counted() == "1 groups"
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"x": "p", "y": "p"}))
    assert find_groups(["x", "y"], str(path)).of == {"x": "p", "y": "p"}
    table = tmp_path / "groups.csv"
    table.write_text("case,slide\nx,1\ny,1\nz,2\n")
    groups = find_groups(["x", "z"], str(table))
    assert (groups.counted(), groups.how) == ("2 slides", "from groups.csv")
    with pytest.raises(UserError, match=r"groups\.json gives no group for z"):
        find_groups(["x", "z"], str(path))
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read"):
        find_groups(["x"], str(tmp_path / "nowhere.csv"))
    with pytest.raises(UserError, match="neither a CSV file nor a regular expression"):
        find_groups(["x"], "(")
