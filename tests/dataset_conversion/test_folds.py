"""Official splits, and seeded folds that never divide a group."""

import json

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.dataset_conversion import acdc
from nnunet_attn.dataset_conversion.cases import Case
from nnunet_attn.dataset_conversion.folds import (
    about_folds,
    balanced,
    leaks,
    make_folds,
    split_by_lists,
    split_by_tenths,
)
from nnunet_attn.errors import UserError


def test_balanced_is_seeded_even_and_complete():
    groups = {f"g{i}": size for i, size in enumerate([25, 25, 17, 11, 25, 23, 25, 26, 22, 6, 22, 25, 25, 20, 20])}
    bins = balanced(groups, 5)
    assert sorted(name for names in bins for name in names) == sorted(groups)
    sizes = [sum(groups[name] for name in names) for names in bins]
    assert max(sizes) - min(sizes) <= 13
    assert balanced(dict(reversed(groups.items())), 5) == bins
    # fixed for good: a published result depends on it
    assert balanced(dict.fromkeys("abcdefgh", 2), 5) == [["d", "a"], ["b", "f"], ["h", "g"], ["e"], ["c"]]


def case(name: str, group: str, part: str = "train") -> Case:
    return Case(name, (), (), group, part)


def test_folds_of_a_source_with_validation_cases():
    cases = [case("a1", "a"), case("b1", "b", "val"), case("b2", "b", "val"), case("c1", "c", "test")]
    assert make_folds(cases) == [{"train": ["a1"], "val": ["b1", "b2"]}]
    assert make_folds(cases[3:]) == []


def test_folds_of_another_number_than_five_are_told():
    assert about_folds([{}] * 5, None) == []
    assert "nnU-Net draws a random split by case" in about_folds([{}], None)[0]
    assert "train folds 0 to 2" in about_folds([{}] * 3, None)[0]
    assert about_folds([{}] * 3, 3) == []


def test_split_by_lists():
    rule = split_by_lists(lambda c: c.group, test=["c"], val=["b", "x"])
    cases, missing = rule([case("a1", "a"), case("b1", "b"), case("c1", "c"), case("d1", "d")])
    assert [c.part for c in cases] == ["train", "val", "test", "train"]
    assert missing == ["x"]
    with pytest.raises(UserError, match="none of the split's validation cases: b, x"):
        rule([case("a1", "a")])
    rule = split_by_lists(lambda c: c.group, test=["c"], train=["a"])
    cases, missing = rule([case("a1", "a"), case("b1", "b")])
    assert [c.name for c in cases] == ["a1"]
    assert missing == ["c"]


def parts_of(frames: list[int]) -> dict[str, tuple[int, int]]:
    """Numbers of cases and groups in each part of the 8-1-1 split of sequences of so many frames."""
    cases = [case(f"{i:02d}_{frame}", f"sequence{i:02d}") for i, n in enumerate(frames, 1) for frame in range(n)]
    found, _ = split_by_tenths(cases)
    parts = {part: [c.group for c in found if c.part == part] for part in ("train", "val", "test")}
    return {part: (len(groups), len(set(groups))) for part, groups in parts.items()}


COLONDB = [38, 22, 16, 20, 21, 51, 7, 20, 48, 5, 55, 20, 20, 10, 27]  # the published sequences


def test_tenths_have_a_tenth_of_the_cases_and_several_groups_if_possible():
    assert parts_of(COLONDB) == {"train": (304, 11), "val": (36, 2), "test": (40, 2)}
    first = [38, 22, 16, 0, 21, 51, 7, 0, 48, 5, 55, 0, 0, 10, 27]  # the first release
    assert parts_of(first) == {"train": (235, 9), "val": (38, 1), "test": (27, 1)}
    assert parts_of([1] * 1000) == {"train": (800, 800), "val": (100, 100), "test": (100, 100)}


def test_a_part_of_one_group_is_told():
    cases = [case("a1", "a"), case("b1", "b", "val"), case("c1", "c", "test"), case("c2", "c", "test")]
    assert leaks(cases) == ["all 2 test cases are of one group (c): a score on them is its score"]
    assert leaks(cases[:3]) == []


def test_a_group_in_training_and_validation_is_told():
    cases = [case("a1", "a"), case("a2", "a", "val"), case("b1", "b", "val")]
    assert leaks(cases) == [
        "this split leaks: 1 validation cases belong to 1 groups (patients, sequences, ...) of training cases"
    ]


def test_number_of_folds():
    cases = [case(f"{g}{i}", g) for g in "abcdef" for i in range(2)]
    for number in (2, 3, 6):
        folds = make_folds(cases, number)
        assert len(folds) == number
        assert sorted(name for fold in folds for name in fold["val"]) == sorted(c.name for c in cases)
        for fold in folds:
            assert not {n[0] for n in fold["train"]} & {n[0] for n in fold["val"]}
    assert make_folds(cases, 0) == []
    for number in (-1, 1):
        with pytest.raises(UserError, match=r"0 .no split file. or at least 2"):
            make_folds(cases, number)
    with pytest.raises(UserError, match=r"7 folds need at least 7 groups .*SOURCE has 6: a, b, c, d, e, and 1 more; "
                                        "give --num-folds 6, the largest"):  # fmt: skip
        make_folds(cases, 7)
    with pytest.raises(UserError, match=r"5 folds .*has 2: a, b; give --num-folds 2"):
        make_folds(cases[:4])
    with pytest.raises(UserError, match="has 1: a; give --num-folds 0 to convert without folds"):
        make_folds(cases[:2])
    assert len(make_folds(cases[:4], shrink=True)) == 2
    assert make_folds(cases[:2], shrink=True) == []
    with pytest.raises(UserError, match="has its own validation cases"):
        make_folds([case("a", "a"), case("b", "b", "val")], 3)


def test_folds_from_the_command_line(acdc_source, nnunet_folders, capsys):
    command = ["convert", "acdc", str(acdc_source), "27", "--processes", "1", "--overwrite", "--num-folds"]
    folder = nnunet_folders / "Dataset027_ACDC"
    assert main([*command, "3"]) == 0
    assert len(json.loads((folder / "splits_final.json").read_text())) == 3
    assert main([*command, "0"]) == 0
    assert "nnU-Net will make its own five folds, by case, which may divide groups" in capsys.readouterr().err
    assert not (folder / "splits_final.json").exists()
    assert main([*command, "8"]) == 1
    error = capsys.readouterr().err
    assert "give --num-folds 7, the largest number possible" in error
    assert error.count("\n") == 1


def test_a_fingerprint_of_the_data_before_is_told(acdc_source, nnunet_folders, tmp_path, monkeypatch, capsys):
    """nnU-Net keeps it, and with it the spacing and intensities of other data."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    command = ["convert", "acdc", str(acdc_source), "27", "--processes", "1", "--overwrite"]
    assert main(command) == 0
    assert "--clean" not in capsys.readouterr().err
    fingerprint = tmp_path / "preprocessed" / "Dataset027_ACDC" / "dataset_fingerprint.json"
    fingerprint.parent.mkdir(parents=True)
    fingerprint.touch()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"{fingerprint} is of the data before" in said
    assert "nnUNetv2_plan_and_preprocess -d 27 --verify_dataset_integrity --clean" in said


def test_an_official_split_is_by_patient_also_with_other_groups(acdc_source, nnunet_folders):
    groups = r"patient(?P<site>\d{2})"
    folder = acdc.convert(acdc_source, 27, split="B", groups=groups, allow_missing=True)
    assert json.loads((folder / "manifest.json").read_text())["groups"]["kind"] == "site"
    assert (folder / "splits_final.json").is_file()


def test_groups_of_every_case_are_in_the_manifest(acdc_source, nnunet_folders):
    folder = acdc.convert(acdc_source, 27)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["groups"]["kind"] == "patient"
    assert manifest["groups"]["of"] == {name: name[:10] for name in manifest["cases"]}
    assert len(manifest["cases"]) == 16


def test_groups_from_a_file(acdc_source, nnunet_folders, tmp_path):
    folder = acdc.convert(acdc_source, 27)
    names = json.loads((folder / "manifest.json").read_text())["cases"]
    table = tmp_path / "groups.csv"
    site = {name: f"site{int(name[7:10]) % 3}" for name in names}
    table.write_text("\ufeffcase, Site\n" + "".join(f"{n},{g}\n" for n, g in site.items()) + "other,x\n\n")
    folder = acdc.convert(acdc_source, 27, groups=table, num_folds=3, overwrite=True)
    assert json.loads((folder / "manifest.json").read_text())["groups"] == {"kind": "site", "of": site}
    for fold in json.loads((folder / "splits_final.json").read_text()):
        assert not {site[n] for n in fold["train"]} & {site[n] for n in fold["val"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,patient\n", "should hold lines like"),
        ("case;patient\na;b\n", "should hold lines like"),
        ("case,patient\na,\n", "should hold lines like"),
        ("case,patient\na,b\na,c\n", "gives a two groups, b and c"),
        ("case,patient\na,b\n", "names no group for patient001_frame04, .* and 11 more"),
        ("patient001_frame04,a\npatient001_frame12,a\n", "begins with the case patient001_frame04; put the line"),
        (None, "cannot be read"),
    ],
)
def test_wrong_lists_of_groups(acdc_source, refused, tmp_path, text, message):
    table = tmp_path / "groups.csv"
    if text is not None:
        table.write_text(text)
    refused(message, acdc.convert, acdc_source, 27, groups=table)
