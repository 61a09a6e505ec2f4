"""The report over datasets: numbers against what was computed by hand, and the same from an archive."""

import csv
import dataclasses
import json
import re
import time

import numpy as np
import pandas as pd
import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.comparison.over_datasets import Side, make_side, mean_ranks
from nnunet_attn.report.document import Table
from nnunet_attn.report.latex import latex_table, latex_text
from nnunet_attn.report.over_datasets import counted_datasets, matrix_tables, twin_table, verdict_texts
from nnunet_attn.study.markers import read_done, write_marker
from nnunet_attn.study.reporting import choose, comparison_of, make_tasks, open_study
from tests.study.conftest import Small, add_dataset, log_text, own_folders

STUDY = """\
name: short
device: cpu
datasets:
  - {dataset: 901, configuration: 2d}
  - {dataset: 902, configuration: 2d}
rows:
  - nnUNetTrainer
  - nnUNetTrainerDCAUNet
  - nnUNetTrainerDCAUNet_noAttention
schedule: 2epochs_4iterations
repeats: 2
report: {groups: groups.csv}
"""
EFFECT = {"nnUNetTrainer": 0.0, "nnUNetTrainerDCAUNet": 0.1, "nnUNetTrainerDCAUNet_noAttention": 0.06}
METRICS = ("Dice", "IoU", "HD95", "HD95_voxel", "ASSD", "NSD", "RVD", "n_pred", "n_ref")


def fill(small: Small, matrix) -> None:
    """Finished trainings whose Dice is 0.6 + effect + the case's + the repeat's part; core has 0.1 less than ring."""
    for job in matrix.trainings:
        fold, row = small.fold(job), matrix.study.rows[job.model.row].text
        (fold / "validation").mkdir(parents=True)
        cases = matrix.splits[job.dataset][job.fold]["val"]
        per_case, lines = [], []
        for case in cases:
            rng = np.random.default_rng(int(case[4:]))
            base = 0.6 + EFFECT.get(row, 0.0) + 0.02 * rng.random() + 0.01 * (job.model.repeat - 1)
            metrics = {}
            for value, name in ((1, "ring"), (2, "core")):
                dice = base - 0.1 * (value == 2) + 0.002 * job.model.row * rng.random()
                values = dict.fromkeys(METRICS, 10.0) | {"Dice": dice, "IoU": dice / (2 - dice), "RVD": 0.0}
                metrics[str(value)] = {m: values[m] for m in ("Dice", "IoU", "n_pred", "n_ref")}
                lines += [("d", "t", job.fold, case, name, m, v) for m, v in values.items()]
            per_case.append({"prediction_file": f"{fold}/validation/{case}.png", "metrics": metrics})
        (fold / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))
        with (fold / "nnunet_attn_metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("dataset", "trainer", "fold", "case", "class", "metric", "value"), *lines])
        about = {"protocol": "nnunet", "nsd_tolerance": 1.0, "unit": "px"}
        (fold / "nnunet_attn_metrics.json").write_text(json.dumps(about))
        (fold / "debug.json").write_text(json.dumps({"num_epochs": "2", "num_iterations_per_epoch": "4"}))
        (fold / "training_log_2026_1_1_10_00_00.txt").write_text(log_text(2))
        for name, source in (("plans.json", f"{job.model.plans}.json"), ("dataset.json", "dataset.json")):
            target = fold.parent / name
            if not target.exists():
                folder = small.layout.preprocessed / matrix.names[job.dataset]
                target.write_bytes((folder / source).read_bytes())


@pytest.fixture
def study(tmp_path) -> Small:
    """Two datasets of 24 cases in 12 groups, three rows, two folds, two repeats, all trained."""
    (tmp_path / "study.yaml").write_text(STUDY)
    groups = "\n".join(f"case{i:03d},p{i // 2}" for i in range(24))
    (tmp_path / "groups.csv").write_text(f"case,patient\n{groups}\n")
    small = Small(tmp_path / "study.yaml", own_folders(tmp_path / "short"))
    for number in (901, 902):
        add_dataset(small.layout, f"Dataset{number}_Blobs", 24, 2)
    fill(small, small.matrix())
    return small


def test_numbers_of_the_report_are_those_computed_by_hand(study, tmp_path, capsys):
    assert main(["study", "report", str(study.file), "-o", str(tmp_path / "report"), "-np", "1"]) == 0
    verdict = capsys.readouterr().out.splitlines()[0]
    assert verdict.startswith(
        "nnUNetTrainerDCAUNet: significantly higher Dice than nnUNetTrainer on Dataset901_Blobs ("
    )
    results = pd.read_csv(tmp_path / "report" / "results.csv").set_index(["dataset", "row", "metric"])
    line = results.loc["Dataset902_Blobs", "nnUNetTrainer", "Dice"]
    draws = [np.random.default_rng(i).random() for i in range(24)]
    assert line["mean"] == pytest.approx(0.6 - 0.05 + 0.02 * np.mean(draws) + 0.005)
    assert line.run_sd == pytest.approx(0.01 / 2**0.5)  # of two means that are 0.01 apart
    assert line.repeats == 2
    assert line.groups == 12
    assert results.loc["Dataset901_Blobs", "nnUNetTrainer", "HD95"]["mean"] == 10
    ranks = pd.read_csv(tmp_path / "report" / "ranks.csv").set_index("row")["mean"]
    assert ranks.to_dict() == {"nnUNetTrainer": 3, "nnUNetTrainerDCAUNet": 1, "nnUNetTrainerDCAUNet_noAttention": 2}
    twins = pd.read_csv(tmp_path / "report" / "twins.csv")
    assert twins.without.tolist() == ["nnUNetTrainerDCAUNet_noAttention"] * 2
    assert twins["mean"].between(0.035, 0.045).all()
    assert twins.significant.all()

    folder = tmp_path / "report"
    page = (folder / "report.html").read_text()
    for heading in ("Results", "Does the attention matter?", "Spread between repeats", "Cost", "Learning curves"):
        assert f">{heading}</h2>" in page
    links = re.findall(r'href="([^#"][^"]*)"', page)
    assert links == [f"Dataset90{i}_Blobs__2d/report.html" for i in (1, 2)]
    assert all((folder / link).is_file() for link in links)
    assert not re.findall(r'src="(?!data:)', page)
    tex = (folder / "tables.tex").read_text()
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") >= 5
    assert r"nnUNetTrainerDCAUNet\_noAttention" in tex


def test_an_archive_gives_the_same_report(study, tmp_path, capsys):
    study.file.write_text(STUDY.replace("  - {dataset: 902, configuration: 2d}\n", ""))
    assert main(["study", "archive", str(study.file), "-o", str(tmp_path / "small")]) == 0
    files = [path for path in (tmp_path / "small").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pth", ".png")]
    assert not [path for path in files if str(study.layout.folder) in path.read_text()]
    for source, name in ((study.file, "a"), (tmp_path / "small", "b")):
        assert main(["study", "report", str(source), "-o", str(tmp_path / name), "-np", "1"]) == 0
    for name in ("results.csv", "differences.csv", "twins.csv", "ranks.csv", "tables.tex"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for source, output in ((study.file, study.file.parent), (tmp_path / "small", tmp_path / "small")):
        assert main(["study", "archive", str(source), "-o", str(output), "--overwrite"]) == 1
        assert f"lies in {output}, which the output would replace" in capsys.readouterr().err


def test_what_is_complete_so_far_is_reported_and_the_rest_named(study, tmp_path, capsys):
    matrix = study.matrix()
    for job in matrix.trainings:
        text = matrix.study.rows[job.model.row].text
        gone = (text.endswith("noAttention") and job.dataset == 1) or (text.endswith("DCAUNet") and job.fold == 1)
        if gone or (job.model.repeat == 2 and job.model.row == 0 and job.dataset == 0):
            (study.fold(job) / "validation" / "summary.json").unlink()
    assert main(["study", "report", str(study.file), "-o", str(tmp_path / "report"), "-np", "1"]) == 0
    notes = json.loads((tmp_path / "report" / "study.json").read_text())["notes"]
    assert notes == [
        "Dataset901_Blobs: nnUNetTrainer has 1 of 2 repeats.",
        "Dataset901_Blobs: fold 1 is not complete in every row.",
        "Dataset902_Blobs: nnUNetTrainerDCAUNet_noAttention has no complete fold.",
        "Dataset902_Blobs: fold 1 is not complete in every row.",
    ]
    assert "not complete" in (tmp_path / "report" / "report.md").read_text()
    for job in matrix.trainings:
        if job.model.row == 0:
            (study.fold(job) / "validation" / "summary.json").unlink(missing_ok=True)
    assert main(["study", "report", str(study.file), "-o", str(tmp_path / "none"), "-np", "1"]) == 1
    assert "nothing to report yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_repeat_may_be_ahead_of_the_first_training(study, tmp_path):
    """A row is there as soon as one of its trainings is, also the baseline."""
    matrix = study.matrix()
    for job in matrix.trainings:
        if job.model.repeat == 1 and job.fold == 1 and job.model.row < 2 and job.dataset == 0:
            (study.fold(job) / "validation" / "summary.json").unlink()
    chosen, used, notes = choose(matrix, 0, None)
    assert used == ["0", "1"]
    assert [[model.repeat for model in row] for row in chosen] == [[2], [2], [1, 2]]
    assert notes == [
        "Dataset901_Blobs: nnUNetTrainer has 1 of 2 repeats.",
        "Dataset901_Blobs: nnUNetTrainerDCAUNet has 1 of 2 repeats.",
    ]


def test_trainings_that_are_older_than_the_data_are_named_also_of_an_archive(study, tmp_path):
    study.file.write_text(STUDY.replace("  - {dataset: 902, configuration: 2d}\n", ""))
    matrix = study.matrix()
    first = matrix.trainings[0]
    (study.fold(first) / "checkpoint_final.pth").touch()
    write_marker(matrix, first, {})
    (study.layout.raw / "Dataset901_Blobs" / "labelsTr" / "case003.png").write_text("corrected")
    assert read_done(matrix, hash_files=True).flags == {first.id: ["images or labels"]}
    assert main(["study", "archive", str(study.file), "-o", str(tmp_path / "small")]) == 0
    for source in (study.file, tmp_path / "small"):
        matrix = open_study(source, None)
        _, notes = make_tasks(matrix, tmp_path, None)
        assert notes == [f"trained before images or labels changed: {first.id}"]


def side_of(study) -> Side:
    """The first dataset's numbers."""
    (task, *_), _ = make_tasks(study.matrix(), study.file.parent, None)
    comparison = comparison_of(dataclasses.replace(task, options=task.options | {"surface": False}))
    return make_side(comparison, dict(zip(comparison.names, task.rows, strict=True)))


def test_a_test_set_is_no_second_dataset(study):
    side = side_of(study)
    test = dataclasses.replace(side, name=f"{side.name}, test set", test=True)
    assert counted_datasets([side, test]) == "1 dataset, 1 test set"
    assert mean_ranks([side, test], side.rows).datasets.tolist() == [1, 1, 1]


def test_what_cannot_be_shown_or_was_not_learned_is_said(study):
    side = side_of(study)
    few = dataclasses.replace(side, differences=side.differences.assign(smallest_p=0.1, significant=False))
    told = r"\w+: no difference can be shown on \w+ \(\+0\.\d+\), where groups of cases are too few, or unknown\."
    assert all(re.fullmatch(told, text) for text in verdict_texts([few], side.rows))
    assert ", p ≥ 0.1" in matrix_tables([few], side.rows)[0].rows[1][1]
    none = dataclasses.replace(few, differences=few.differences.assign(smallest_p=1.0))
    assert ", p" not in matrix_tables([none], side.rows)[0].rows[1][1]
    weak = dataclasses.replace(side, twins=side.twins.assign(unlearned="nnUNetTrainerDCAUNet_noAttention"))
    assert twin_table([side]).rows[0][-1] == "yes"
    assert twin_table([weak]).rows[0][-1] == "learned poorly: nnUNetTrainerDCAUNet_noAttention (yes)"


def test_latex_prints_what_stands_there():
    assert latex_text("a_b & 5 % ± -0.1 {x} 1-2") == r"a\_b \& 5 \% $\pm$ $-$0.1 \{x\} 1-2"
    text = latex_table(Table(["", "n"], [["a", "1"], ["b", "2"]], "counts"))
    assert text.splitlines()[2:] == [
        r"\caption{counts}", r"\begin{tabular}{lr}", r"\toprule", r" & n \\", r"\midrule", r"a & 1 \\", r"b & 2 \\",
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_report_of_2400_trainings_takes_less_than_two_minutes(tmp_path):
    """8 datasets, 20 rows, 5 folds of 50 cases, 3 repeats."""
    rows = [f"  - nnUNetTrainer{n}{a}" for n in ("DCAUNet", "FIAS") for a in ("", *(f"_lr{m}e4" for m in range(1, 10)))]
    datasets = "\n".join(f"  - {{dataset: {d}, configuration: 2d}}" for d in range(1, 9))
    text = "\n".join(["name: many", "device: cpu", "datasets:", datasets, "rows:", *rows, "schedule: 2epochs"])
    (tmp_path / "study.yaml").write_text(text + "\nrepeats: 3\n")
    small = Small(tmp_path / "study.yaml", own_folders(tmp_path / "many"))
    for number in range(1, 9):
        add_dataset(small.layout, f"Dataset{number:03d}_Many", 250, 5)
    matrix = small.matrix()
    assert len(matrix.trainings) == 2400
    fill(small, matrix)
    started = time.monotonic()
    assert main(["study", "report", str(small.file), "-o", str(tmp_path / "report"), "-np", "2"]) == 0
    print(f"{time.monotonic() - started:.0f} s")
    assert time.monotonic() - started < 120
