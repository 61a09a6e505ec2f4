"""Comparisons on synthetic results trees in nnU-Net's layout."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from nnunet_attn.comparison.compare import compare
from nnunet_attn.comparison.over_datasets import make_side
from nnunet_attn.comparison.paired import compare_with_baseline, verdicts
from nnunet_attn.comparison.scores import stack_scores
from nnunet_attn.errors import UserError
from nnunet_attn.report.figures import with_short_names
from nnunet_attn.report.over_datasets import twin_table, verdict_texts
from nnunet_attn.report.published import PROTOCOL, find_published
from nnunet_attn.report.tables import Tables
from nnunet_attn.report.verdict import own_effects, sources, twins, verdict_table
from nnunet_attn.scoring.groups import find_groups

DATASET = "Dataset900_Synthetic"
LABELS = {"background": 0, "ring": 1, "core": 2}
STOCK, OURS = "nnUNetTrainer", "nnUNetTrainerDCAUNet"


class Tree:
    """Writes nnU-Net's folders: two frames of each patient, patients divided over the folds."""

    def __init__(self, root, *, patients=20, folds=5, labels=LABELS):
        self.root, self.labels = root, labels
        self.results, self.preprocessed = root / "results" / DATASET, root / "preprocessed" / DATASET
        self.cases = [f"patient{i:03d}_frame{f:02d}" for i in range(patients) for f in (1, 9)]
        self.folds = [[c for c in self.cases if int(c[7:10]) % folds == k] for k in range(folds)]
        self.dataset = {
            "labels": labels, "channel_names": {"0": "MR"}, "numTraining": len(self.cases), "file_ending": ".nii.gz",
        }  # fmt: skip
        self.preprocessed.mkdir(parents=True, exist_ok=True)
        splits = [{"train": [c for c in self.cases if c not in val], "val": val} for val in self.folds]
        (self.preprocessed / "splits_final.json").write_text(json.dumps(splits))

    def fold(self, row, fold):
        trainer, _, plans = row.partition(":")
        return self.results / f"{trainer}__{plans or 'nnUNetPlans'}__2d" / f"fold_{fold}"

    def add(self, row, dice, *, batch=12, fingerprint=0, **settings):
        """A trained row; ``dice`` is an array over cases and classes, NaN for a class absent from both masks."""
        model = self.fold(row, 0).parent
        model.mkdir(parents=True, exist_ok=True)
        plans = {"configurations": {"2d": {"patch_size": [64, 64], "batch_size": batch, "spacing": [1.0, 1.0]}}}
        for name, content in (
            ("dataset.json", self.dataset), ("plans.json", plans), ("dataset_fingerprint.json", {"n": fingerprint}),
        ):  # fmt: skip
            (model / name).write_text(json.dumps(content))
        debug = {"num_epochs": "1000", "num_iterations_per_epoch": "250", "optimizer": "SGD (\n", "initial_lr": "0.01"}
        for k, cases in enumerate(self.folds):
            folder = self.fold(row, k)
            (folder / "validation").mkdir(parents=True, exist_ok=True)
            (folder / "checkpoint_final.pth").touch()
            (folder / "debug.json").write_text(json.dumps(debug | settings))
            self.write_log(row, k, len(self.cases) - len(cases))
            self.write_summary(folder, {case: dice[self.cases.index(case)] for case in cases})

    def write_log(self, row, fold, training, seconds=(100.0, 20.0, 20.0)):
        lines = [f"2026-01-02 03:04:05.6: This split has {training} training and 4 validation cases. "]
        for epoch, s in enumerate(seconds):
            lines += [f"2026-01-02 03:04:05.6: Epoch {epoch} ", f"2026-01-02 03:04:05.6: Epoch time: {s} s "]
        (self.fold(row, fold) / "training_log_2026_1_2_03_04_05.txt").write_text("\n".join(lines))

    def write_summary(self, folder, dice, n_ref=1000):
        per_case = [
            {
                "prediction_file": f"{folder}/validation/{case}.nii.gz",
                "metrics": {
                    str(value): {
                        "Dice": d, "IoU": d / (2 - d), "n_ref": 0 if math.isnan(d) else n_ref, "n_pred": 900,
                    }
                    for value, d in zip(list(self.labels.values())[1:], values, strict=True)
                },
            }
            for case, values in dice.items()
        ]  # fmt: skip
        (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))


def draw(rng, tree, effect=0.0, spread=0.02):
    """Dice of the cases: hard and easy patients, the same for every row, then noise of patient and of case."""
    classes = len(tree.labels) - 1
    hard = np.random.default_rng(7).beta(12, 2, len(tree.cases) // 2).repeat(2)
    patient = rng.normal(effect, spread, len(hard) // 2).repeat(2)
    return np.clip((hard + patient)[:, None] + rng.normal(0, spread / 2, (len(hard), classes)), 0.01, 0.99)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    return Tree(tmp_path)


@pytest.fixture
def two_rows(tree):
    rng = np.random.default_rng(0)
    tree.add(STOCK, draw(rng, tree))
    tree.add(OURS, draw(rng, tree))
    return tree


def run(rows=(STOCK, OURS), **options):
    return compare("900", "2d", rows, **{"measure": False, "surface": False} | options)


# ---- what is claimed ----------------------------------------------------------------------------------------------


def claims(tree, draws, effect, rows):
    """Number of draws in which any row is called significantly different from the first."""
    rng = np.random.default_rng(1)
    for row in rows:
        tree.add(row, draw(rng, tree))
    count = 0
    for _ in range(draws):
        for i, row in enumerate(rows):
            dice = dict(zip(tree.cases, draw(rng, tree, effect if i else 0.0), strict=True))
            for k, cases in enumerate(tree.folds):
                tree.write_summary(tree.fold(row, k), {case: dice[case] for case in cases})
        count += any(verdict.significant for verdict in run(rows).verdicts)
    return count


THREE = (STOCK, OURS, f"{OURS}_noSpatialAttention")
POLYP = {"background": 0, "polyp": 1}


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is(tmp_path, tree):
    found = claims(Tree(tmp_path, folds=2, labels=POLYP), 500, 0.0, THREE)
    assert found <= 0.07 * 500
    assert found > 0  # a test that never claims anything would pass the line above


def test_nothing_is_found_where_nothing_is_in_the_numbers_alone(tmp_path):
    """The same without the files: two rows against a baseline, 300 times."""
    small, rng, found = Tree(tmp_path, folds=2, labels=POLYP), np.random.default_rng(3), 0
    groups = find_groups(small.cases)
    assert len(set(groups.of.values())) == 20
    for _ in range(300):
        runs = {
            row: [
                {("0", case): {"polyp": {"Dice": d}} for case, (d,) in zip(small.cases, draw(rng, small), strict=True)}
            ]
            for row in THREE
        }
        differences = compare_with_baseline(stack_scores(runs, ["polyp"], groups))
        found += any(verdict.significant for verdict in verdicts(differences, STOCK, groups))
    assert 0 < found <= 0.075 * 300


def test_planted_effect_is_found(tmp_path, tree):
    assert claims(Tree(tmp_path, folds=2, labels=POLYP), 40, 0.03, (STOCK, OURS)) >= 0.9 * 40


def test_verdicts_say_which_way_and_by_how_much(tree):
    rng = np.random.default_rng(2)
    stock = draw(rng, tree)
    tree.add(STOCK, stock)
    tree.add(OURS, np.clip(stock - 0.05 + rng.normal(0, 0.01, stock.shape), 0, 1))
    tree.add(f"{OURS}_noSpatialAttention", stock)
    worse, same = run((STOCK, OURS, f"{OURS}_noSpatialAttention")).verdicts
    assert worse.significant
    assert worse.text.startswith(f"{OURS} against {STOCK}: mean Dice per case -0.0")
    assert worse.text.endswith("better in 0 of 20 groups. Significantly lower, p < 0.001 after Holm's correction.")
    assert (worse.said, worse.p) == ("lower", "< 0.001")
    assert not same.significant
    assert same.text.endswith("No significant difference, p = 1.000 after Holm's correction.")
    assert with_short_names(same.text, {same.row: "A", STOCK: "B"}).startswith(
        "A against B: mean Dice per case +0.0000 (95 % interval"
    )


def test_a_row_that_hardly_learned_is_named_in_flag_and_verdict(tree):
    """As after a very short training, where one network predicts nothing yet: significant, and worth nothing."""
    rng = np.random.default_rng(3)
    tree.add(STOCK, np.zeros((len(tree.cases), 2)))
    tree.add(OURS, draw(rng, tree))
    for k in range(5):

        def nothing_predicted(summary):
            for case in summary["metric_per_case"]:
                case["metrics"]["1"]["n_pred"] = 0

        change_json(tree.fold(STOCK, k) / "validation" / "summary.json", nothing_predicted)
    result = run()
    assert result.flags[0].startswith("Poorly learned")
    assert f"{STOCK} completely misses ring" in result.flags[0]
    assert result.verdicts[0].significant
    assert result.verdicts[0].text.startswith(f"{STOCK} learned poorly, so this says little: {OURS} against {STOCK}")
    assert result.verdicts[0].said == "learned poorly (higher)"
    assert not any("Hardly" in flag for flag in result.flags[1:])


def test_too_few_patients_find_nothing_however_large_the_effect(tmp_path, tree):
    small = Tree(tmp_path, patients=5, folds=5)
    rng = np.random.default_rng(0)
    small.add(STOCK, draw(rng, small) * 0.5)
    small.add(OURS, draw(rng, small))
    result = run()
    assert not result.verdicts[0].significant
    text = result.verdicts[0].text
    assert text.endswith("With 5 groups these data cannot show significance (smallest possible p = 0.062).")
    assert "better in 5 of 5 groups" in text
    assert result.verdicts[0].p == "≥ 0.062"
    assert any("Too few groups: with 5 no test can reach p < 0.05" in flag for flag in result.flags)


def test_the_smallest_p_counts_the_rows(tmp_path, tree):
    """Seven groups: 2^-6 = 0.016 for one row, 0.0625 after Holm's correction for four."""
    small = Tree(tmp_path, patients=7, folds=1)
    rows = [STOCK, *(f"{OURS}{suffix}" for suffix in ("", "_noSpatialAttention", "_postNorm", "_lambda05"))]
    rng = np.random.default_rng(0)
    for i, row in enumerate(rows):
        small.add(row, draw(rng, small) * (1 if i else 0.5))
    assert not any("Too few" in flag for flag in run(rows[:2]).flags)
    assert run(rows[:2]).verdicts[0].significant
    result = run(rows)
    assert any("Too few groups: with 7 and 4 rows against the baseline no test can" in f for f in result.flags)
    assert not any(verdict.significant for verdict in result.verdicts)
    assert all("these data cannot show significance" in verdict.text for verdict in result.verdicts)


def test_nothing_is_claimed_where_groups_are_not_known(tree):
    tree.cases = [case.replace("_frame", "x") for case in tree.cases]
    tree.folds = [[case.replace("_frame", "x") for case in fold] for fold in tree.folds]
    splits = [{"train": [c for c in tree.cases if c not in val], "val": val} for val in tree.folds]
    (tree.preprocessed / "splits_final.json").write_text(json.dumps(splits))
    rng = np.random.default_rng(0)
    tree.add(STOCK, draw(rng, tree) * 0.5)
    tree.add(OURS, draw(rng, tree))
    result = run()
    (verdict,) = result.verdicts
    assert not verdict.significant
    assert not result.differences.significant.any()
    assert "better in 40 of 40 cases counted as independent" in verdict.text
    assert verdict.p == "–"
    assert "No claim" in verdict.text
    assert any(flag.startswith("Groups are not known (no manifest.json") for flag in result.flags)
    assert "significant" not in " ".join([verdict.text, *result.flags])
    (known,) = run(groups=r"(patient\d+)x").verdicts
    assert known.significant
    assert "of 20 groups" in known.text


# ---- numbers ------------------------------------------------------------------------------------------------------


def test_summary_is_of_the_cases_and_pairs_are_of_groups(two_rows):
    result = run()
    values = result.scores.long_table().query("row == @STOCK and `class` == 'core' and metric == 'Dice'").value
    line = result.summary.query("row == @STOCK and `class` == 'core' and metric == 'Dice'").iloc[0]
    assert (line.cases, line.groups) == (40, 20)
    assert line["mean"] == pytest.approx(values.mean())
    assert line["median"] == pytest.approx(values.median())
    assert line.sd == pytest.approx(values.std())
    assert line.low < line["mean"] < line.high
    primary = result.differences.query("primary")
    assert primary["class"].tolist() == ["case_mean"]
    assert primary.groups.item() == primary.wins.item() + primary.ties.item() + primary.losses.item() == 20
    exploratory = result.differences.query("not primary")
    assert not exploratory.significant.any()
    assert (exploratory.p_holm >= exploratory.p).all()


def test_class_absent_from_one_row_only_is_left_out_of_the_pairs_and_counted(tree):
    rng = np.random.default_rng(0)
    a, b = draw(rng, tree), draw(rng, tree)
    a[3, 1] = b[3, 1] = math.nan  # absent everywhere
    a[5, 1], b[5, 1] = math.nan, 0.0  # invented by the second row
    tree.add(STOCK, a)
    tree.add(OURS, b)
    path = tree.fold(OURS, tree_fold(tree, 5)) / "validation" / "summary.json"
    content = json.loads(path.read_text())
    for case in content["metric_per_case"]:
        if tree.cases[5] in case["prediction_file"]:
            case["metrics"]["2"]["n_ref"] = 0
    path.write_text(json.dumps(content))
    result = run()
    core = result.differences.query("`class` == 'core' and metric == 'Dice'").iloc[0]
    assert (core.cases, core.only_in_one) == (38, 1)
    table = result.scores.long_table()
    mean = table.query("row == @STOCK and `class` == 'case_mean' and metric == 'Dice'").set_index("case").value
    assert mean[tree.cases[3]] == pytest.approx(a[3, 0])
    # nnU-Net's mean of classes is the mean of the classes' means, another number where a case lacks a class
    overall = result.summary.query("row == @STOCK and `class` == 'mean' and metric == 'Dice'")["mean"].item()
    assert overall == pytest.approx(np.nanmean(a, axis=0).mean())
    per_case = result.summary.query("row == @STOCK and `class` == 'case_mean' and metric == 'Dice'")["mean"].item()
    assert per_case == pytest.approx(np.nanmean(a, axis=1).mean())
    assert abs(per_case - overall) > 1e-4


def tree_fold(tree, index):
    return next(k for k, cases in enumerate(tree.folds) if tree.cases[index] in cases)


def test_results_do_not_depend_on_the_order_of_folds_in_time(two_rows):
    forth, back = run(folds=["0", "1", "2", "3", "4"]), run(folds=["4", "2", "0", "1", "3"])
    assert forth.verdicts == back.verdicts
    assert forth.hashes["dataset.json, data part"] == back.hashes["dataset.json, data part"]


# ---- same data or none --------------------------------------------------------------------------------------------


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_labels(tree):
    change_json(tree.fold(OURS, 0).parent / "dataset.json", lambda d: d.update(numTraining=7))


def other_fingerprint(tree):
    change_json(tree.fold(OURS, 0).parent / "dataset_fingerprint.json", lambda d: d.update(n=1))


def other_cases(tree):
    """Another split of the same cases, with the splits file of the second training gone."""
    (tree.preprocessed / "splits_final.json").unlink()
    summary = tree.fold(OURS, 0) / "validation" / "summary.json"
    change_json(summary, lambda d: d["metric_per_case"].pop())


def other_input_size(tree):
    change_json(tree.fold(OURS, 0).parent / "dataset.json", lambda d: d.update(input_size=224))


def other_training_cases(tree):
    tree.write_log(OURS, 1, training=30)


def other_references(tree):
    def change(content):
        content["metric_per_case"][1]["metrics"]["2"]["n_ref"] = 999

    change_json(tree.fold(OURS, 3) / "validation" / "summary.json", change)


def other_splits_file(tree):
    path = tree.preprocessed / "splits_final.json"
    change_json(path, lambda d: d[2]["val"].remove("patient002_frame09"))


def shared_cases(tree):
    (tree.preprocessed / "splits_final.json").unlink()
    for row in (STOCK, OURS):
        source = tree.fold(row, 0) / "validation" / "summary.json"
        (tree.fold(row, 1) / "validation" / "summary.json").write_text(source.read_text())


def other_classes(tree):
    def change(content):
        for case in content["metric_per_case"]:
            case["metrics"]["3"] = case["metrics"].pop("2")

    change_json(tree.fold(OURS, 0) / "validation" / "summary.json", change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_labels, f"{STOCK} and {OURS} were trained on different data: dataset.json differs in numTraining"),
        (other_input_size, "converted at its own sizes, the other's with --input-size 224"),
        (other_fingerprint, "different data: their files dataset_fingerprint.json differ"),
        (other_cases, "different splits: fold 0 validates patient015_frame09 only in one"),
        (other_training_cases, "different splits: fold 1 trains on 32 and 30 cases"),
        (other_references, "different references: patient003_frame09, class core had 1000 and 999 voxels"),
        (other_splits_file, "fold 2 validated patient002_frame09, which splits_final.json does not list"),
        (shared_cases, "folds share validation cases: patient000_frame01, patient000_frame09"),
        (other_classes, "summary.json: classes of patient000_frame01 are not those of dataset.json"),
        (lambda tree: (tree.fold(OURS, 2) / "debug.json").write_text("{"), "debug.json cannot be read"),
    ],
)
def test_unequal_data_is_refused(two_rows, change, message):
    change(two_rows)
    with pytest.raises(UserError, match=message):
        run()


def test_descriptions_may_differ_and_so_may_plans(two_rows):
    change_json(two_rows.fold(OURS, 0).parent / "dataset.json", lambda d: d.update(description="another"))
    two_rows.add(f"{STOCK}:nnUNetResEncUNetMPlans", draw(np.random.default_rng(3), two_rows), batch=8)
    result = run((STOCK, f"{STOCK}:nnUNetResEncUNetMPlans", OURS))
    assert any("Unequal plans" in flag and "batch 8 (baseline 12)" in flag for flag in result.flags)
    assert not any("No baseline is" in flag for flag in result.flags)
    assert any("No baseline is" in flag for flag in run().flags)
    two_rows.add(f"{OURS}:nnUNetResEncUNetMPlans", draw(np.random.default_rng(4), two_rows))
    assert any("No baseline is" in flag for flag in run((STOCK, f"{OURS}:nnUNetResEncUNetMPlans")).flags)
    plans = result.hashes["plans"]
    assert plans[STOCK] == plans[OURS] != plans[f"{STOCK}:nnUNetResEncUNetMPlans"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ((STOCK,), {}, "two or more different rows"),
        ((STOCK, STOCK), {}, "two or more different rows"),
        ((STOCK, f"{STOCK}:nnUNetPlans", OURS), {}, f"{STOCK} and {STOCK}:nnUNetPlans are one training"),
        ((STOCK, "nnUNetTrainerNobody"), {}, f"was this row trained.*holds {OURS}__nnUNetPlans__2d, {STOCK}__"),
        ((STOCK, OURS), {"folds": ["all"]}, "fold_all is validated on its own training cases"),
        ((STOCK, OURS), {"groups": r"case(\d+)"}, "gives no group for patient000_frame01"),
        ((STOCK, OURS), {"groups": "("}, "is neither a CSV file nor a regular expression"),
        ((STOCK, OURS), {"test": {}}, "--test needs references"),
    ],
)
def test_wrong_questions(two_rows, rows, options, message):
    with pytest.raises(UserError, match=message):
        run(rows, **options)


def test_unknown_dataset(two_rows):
    with pytest.raises(UserError, match=r"dataset 901: looked for Dataset901_\* in .* and found none"):
        compare("901", "2d", (STOCK, OURS))
    assert compare(DATASET, "2d", (STOCK, OURS), measure=False, surface=False).dataset == DATASET


# ---- incomplete folds, flags --------------------------------------------------------------------------------------


def test_incomplete_folds_are_left_out_and_said(two_rows):
    (two_rows.fold(OURS, 4) / "validation" / "summary.json").unlink()
    (two_rows.fold(OURS, 3) / "checkpoint_final.pth").unlink()
    change_json(two_rows.fold(STOCK, 2) / "validation" / "summary.json", lambda d: d["metric_per_case"].pop())
    result = run()
    assert [fold.name for fold in result.rows[0].model.complete] == ["0", "1", "3", "4"]
    assert result.gathered.evaluated == "validation of folds 0 1"
    flags = "\n".join(result.flags)
    assert "2 of 5 folds are complete in every row and are used, for scores and cost: 0, 1." in flags
    assert result.facts[STOCK].trainings == result.facts[OURS].trainings == 2
    assert result.facts[OURS].hours == pytest.approx(2 * 140 / 3600)
    assert "fold 4: not validated" in flags
    assert "fold 3: training not finished (3 of 1000 epochs logged)" in flags
    assert "fold 2: validation lacks 1 of 8 cases, the first is patient017_frame09" in flags
    with pytest.raises(UserError, match=r"no fold is complete in every row.*fold 3 training not finished"):
        run(folds=["3"])
    only = run(folds=["0", "7"])
    assert any(flag.startswith("Single fold") for flag in only.flags)
    assert any("fold 7: not trained" in flag for flag in only.flags)


def test_a_finished_training_counts_without_its_checkpoint(two_rows):
    """Checkpoints are large and get deleted; the log shows that all epochs were done."""
    (two_rows.fold(OURS, 3) / "checkpoint_final.pth").unlink()
    change_json(two_rows.fold(OURS, 3) / "debug.json", lambda d: d.update(num_epochs="3"))
    assert len(run().rows[1].model.complete) == 5


def test_schedule_recipe_and_budget_are_flagged(tree):
    rng = np.random.default_rng(0)
    tree.add(STOCK, draw(rng, tree))
    tree.add(OURS, draw(rng, tree), num_epochs="50", optimizer="AdamW (\n", initial_lr="0.0003")
    for k in range(5):
        tree.write_log(OURS, k, 32, seconds=(200.0, 40.0, 40.0, 40.0))
        record = {"pretrained": {"file": "encoder.pth"}, "sessions": [{"peak_memory_allocated": 3 * 2**30}]}
        (tree.fold(OURS, k) / "nnunet_attn_run.json").write_text(json.dumps(record))
    result = run()
    flags = "\n".join(result.flags)
    assert f"Short schedule ({OURS})" in flags
    assert f"Unequal schedule: {OURS} 50 x 250 iterations, {STOCK} 1000 x 250." in flags
    assert "differs from nnUNetTrainer in optimiser, initial rate" in flags
    assert f"Not budget-matched: {OURS} has 2.0 times the epoch time of {STOCK}." in flags
    assert f"{OURS} starts from pretrained weights (encoder.pth)." in flags
    turned = "\n".join(run((OURS, STOCK)).flags)
    assert "starts from pretrained weights" not in turned, "of stock nothing is recorded"
    for k in range(5):
        (tree.fold(STOCK, k) / "nnunet_attn_run.json").write_text(json.dumps({"pretrained": "from scratch"}))
    turned = "\n".join(run((OURS, STOCK)).flags)
    assert f"The baseline {OURS} starts from pretrained weights (encoder.pth), unlike {STOCK}." in turned
    facts = result.facts
    assert facts[STOCK].epoch_seconds == 20.0  # the median, not the slow first epoch
    assert facts[OURS].hours == pytest.approx(5 * 320 / 3600)
    assert facts[OURS].peak_allocated == 3.0
    assert facts[STOCK].peak_allocated is None
    assert facts[STOCK].pretrained == "not recorded"


def test_a_row_with_the_other_recipe_is_named_as_what_tells_them_apart(two_rows):
    rng = np.random.default_rng(5)
    adam = {"optimizer": "AdamW (\n"}
    two_rows.add("nnUNetTrainerStockAdamW", draw(rng, two_rows), **adam)
    two_rows.add(OURS, draw(rng, two_rows), **adam)
    flags = "\n".join(run((STOCK, "nnUNetTrainerStockAdamW", OURS)).flags)
    assert "Other recipe, same network: nnUNetTrainerStockAdamW differs" in flags
    assert "Row nnUNetTrainerStockAdamW separates the two." in flags


def test_schedule_that_nobody_recorded_is_said(two_rows):
    for k in range(5):
        (two_rows.fold(STOCK, k) / "debug.json").unlink()
    result = run()
    assert any(f"{STOCK}: schedule not recorded" in flag for flag in result.flags)
    assert result.facts[STOCK].recipe["optimiser"] == "not recorded"


def test_folds_that_differ_among_themselves_are_flagged(two_rows):
    change_json(two_rows.fold(OURS, 2) / "debug.json", lambda d: d.update(initial_lr="0.1"))
    assert any(f"{OURS}: its folds differ in initial rate" in flag for flag in run().flags)


def test_networks_that_cannot_be_built_are_compared_all_the_same(two_rows):
    """Plans without an architecture, as these are."""
    result = run(measure=True)
    assert result.facts[STOCK].cost_problem.startswith("KeyError")
    assert len(result.verdicts) == 1


# ---- repeats ------------------------------------------------------------------------------------------------------


def test_repeats_become_one_row(tree):
    """By hand: per case the mean over repeats; beside it the spread between repeats."""
    rng = np.random.default_rng(4)
    stock = draw(rng, tree)
    ours = [stock + 0.02 + rng.normal(0, 0.002, stock.shape) for _ in range(3)]
    tree.add(STOCK, stock)
    for suffix, dice in zip(("_run10", "", "_run2"), ours, strict=True):
        tree.add(f"{OURS}{suffix}", dice)
    result = run((STOCK, f"{OURS}_run10", OURS))
    assert result.names == [STOCK, OURS]
    assert any(f"Trained repeats that were not named in --trainers: {OURS}_run2." in flag for flag in result.flags)
    result = run((STOCK, f"{OURS}_run10", OURS, f"{OURS}_run2"))
    assert [model.trainer for model in result.rows[1].runs] == [OURS, f"{OURS}_run2", f"{OURS}_run10"]
    assert result.facts[OURS].trainings == 15
    means = [dice.mean() for dice in ours]
    line = result.summary.query("row == @OURS and `class` == 'mean' and metric == 'Dice'").iloc[0]
    assert line["mean"] == pytest.approx(np.mean(means))
    assert line.run_sd == pytest.approx(np.std(means, ddof=1))
    assert line.repeats == 3
    difference = result.differences.query("primary").iloc[0]
    assert difference["mean"] == pytest.approx(np.mean(means) - stock.mean())
    assert not any("not named" in flag for flag in result.flags)
    with pytest.raises(UserError, match=f"--trainers names repeats of {OURS} only"):
        run((OURS, f"{OURS}_run2"))
    assert any(f"One training per fold of {STOCK}:" in flag for flag in result.flags)
    table = result.scores.long_table()
    assert sorted(set(table[table.row == OURS].repeat)) == [1, 2, 3]


def fold_of(tree) -> np.ndarray:
    """Fold of each case, as a column beside the classes."""
    return np.array([[int(case[7:10]) % len(tree.folds)] for case in tree.cases])


def test_folds_that_disagree_are_named(tmp_path, tree):
    """All patients of a fold share the luck of its training; an interval over patients does not know that."""
    two, rng = Tree(tmp_path, folds=2), np.random.default_rng(2)
    two.add(STOCK, draw(rng, two))
    two.add(f"{OURS}_noAttention", draw(rng, two))
    two.add(OURS, draw(rng, two) + np.array([0.03, -0.03])[fold_of(two)])
    found = run((STOCK, f"{OURS}_noAttention", OURS))
    (flag,) = [f for f in found.flags if f.startswith("Folds disagree more than")]
    first, second = re.findall(r"(\w+) minus (\w+) \+0\.0\d+ in fold 0, -0\.0\d+ in fold 1 \(p (?:< )?0\.0\d+\)", flag)
    assert (first, second) == ((OURS, STOCK), (OURS, f"{OURS}_noAttention"))
    assert [entry["minus"] for entry in found.to_json()["fold_disagreements"]] == [STOCK, f"{OURS}_noAttention"]
    assert re.search(r"No significant difference.* The folds disagree \(\+0\.0", found.verdicts[1].text)


def test_where_folds_disagree_two_are_not_enough_for_a_claim(tmp_path, tree):
    two, rng = Tree(tmp_path, folds=2), np.random.default_rng(5)
    stock = draw(rng, two)
    two.add(STOCK, stock)
    two.add(f"{OURS}_noAttention", stock + rng.normal(0, 0.004, stock.shape))
    two.add(OURS, stock + np.array([0.09, 0.0])[fold_of(two)] + rng.normal(0, 0.004, stock.shape))
    found = run((STOCK, f"{OURS}_noAttention", OURS))
    verdict = found.verdicts[1]
    assert not verdict.significant
    assert verdict.said == "not shown: folds disagree"
    assert re.search(r"No claim: p = 0.0.* \(\+0.\d+ in fold 0, [+-]0.\d+ in fold 1\); neither each", verdict.text)
    side = make_side(found, {row: row for row in found.names})
    assert list(side.twins.significant) == [False]
    assert twin_table([side]).rows[0][-1] == "not shown, folds disagree"
    assert re.search(
        r"no significant difference on \w+ \(\+0.\d+, folds disagree\)", verdict_texts([side], found.names)[1]
    )


@pytest.mark.parametrize("folds", [2, 5])
def test_what_all_folds_gain_is_claimed_though_they_disagree_on_how_much(folds, tmp_path, tree):
    some, rng = Tree(tmp_path, patients=40, folds=folds), np.random.default_rng(5)
    stock = draw(rng, some)
    some.add(STOCK, stock)
    some.add(OURS, stock + 0.03 + 0.02 * fold_of(some) + rng.normal(0, 0.004, stock.shape))
    (verdict,) = run((STOCK, OURS)).verdicts
    assert verdict.significant
    assert verdict.said == "higher"
    assert re.search(r"Significantly higher, .* disagree on how large .* in fold [14]\)\.", verdict.text)


def test_folds_too_small_to_compare_are_named(tmp_path, tree):
    small, rng = Tree(tmp_path, patients=19), np.random.default_rng(5)
    for row in (STOCK, OURS):
        small.add(row, draw(rng, small))
    assert any(flag.startswith("Folds 0, 1, 2, 3, 4: fewer than 5 groups, so it was not") for flag in run().flags)
    large = Tree(tmp_path, patients=29)
    for row in (STOCK, OURS):
        large.add(row, draw(rng, large))
    assert not any("fewer than 5 groups" in flag for flag in run().flags)


def test_a_test_that_leans_the_other_way_than_the_mean_is_no_claim(tmp_path, tree):
    polyps, rng = Tree(tmp_path, patients=100, labels=POLYP), np.random.default_rng(5)
    rescued = (np.arange(len(polyps.cases)) // 2 % 5 == 0)[:, None]
    stock = np.where(rescued, 0.02, 0.9) + rng.normal(0, 0.002, rescued.shape)
    polyps.add(STOCK, stock)
    polyps.add(OURS, stock + np.where(rescued, 0.5, -0.01) + rng.normal(0, 0.002, rescued.shape))
    (verdict,) = run((STOCK, OURS)).verdicts
    assert not verdict.significant
    assert verdict.said == "not shown: test against mean"


# ---- twins --------------------------------------------------------------------------------------------------------


def test_a_network_is_paired_with_its_twin(tree):
    """Same plans, same suffixes; repeats of both count; what the attention adds is the paired difference."""
    rng = np.random.default_rng(6)
    stock = draw(rng, tree)
    without = stock + rng.normal(0, 0.002, stock.shape)
    tree.add(STOCK, stock)
    tree.add(f"{OURS}_noAttention_20epochs", without)
    tree.add(f"{OURS}_20epochs", without + 0.01)
    tree.add(f"{OURS}_20epochs_run2", without + 0.02)
    for k in range(5):
        tree.write_log(f"{OURS}_20epochs", k, 32, seconds=(25.0, 25.0, 25.0))
        tree.write_log(f"{OURS}_20epochs_run2", k, 32, seconds=(25.0, 25.0, 25.0))
    rows = (STOCK, f"{OURS}_20epochs", f"{OURS}_20epochs_run2", f"{OURS}_noAttention_20epochs")
    result = run(rows)
    (twin,) = result.twins
    assert (twin.row, twin.twin) == (f"{OURS}_20epochs", f"{OURS}_noAttention_20epochs")
    assert twin.difference.mean == pytest.approx(0.015)
    assert twin.difference.groups == 20
    assert twin.step_time == pytest.approx((25 - 20) / 25)
    assert twin.parameters is None  # not measured here
    assert "mean Dice per case +0.0150" in twin.text(result.groups)
    assert "an unknown share of its parameters, 20.0 % of its step time" in twin.text(result.groups)
    slower_twin = dataclasses.replace(twin, step_time=-0.2)
    assert "none of its step time" in slower_twin.text(result.groups)
    assert result.to_json()["twins"][0]["difference"]["wins"] == 20
    tables = Tables(result)
    assert twins(tables)[0].text == "What the attention adds"
    assert twins(tables)[2].rows[0][2] == "+0.0150"
    assert run((STOCK, f"{OURS}_noAttention_20epochs")).twins == []
    assert not twins(Tables(run((STOCK, f"{OURS}_20epochs"))))  # stock under SGD is no twin


def test_the_network_is_told_from_the_recipe(tree):
    """Beside StockAdamW, or its _SGD beside stock; where the logs name other recipes it is not."""
    rng = np.random.default_rng(8)
    stock = np.clip(draw(rng, tree), 0, 0.9)
    adam = {"optimizer": "AdamW (\n", "initial_lr": "0.0003"}
    tree.add(STOCK, stock)
    tree.add(f"{STOCK}StockAdamW", stock + 0.04, **adam)
    tree.add(OURS, stock + 0.05, **adam)
    tree.add(f"{OURS}_noAttention", stock + 0.03, **adam)
    rows = (STOCK, f"{STOCK}StockAdamW", OURS, f"{OURS}_noAttention")
    result = run(rows)
    whole, without = result.own_effects
    assert (whole.row, whole.candidate, whole.stock) == (OURS, OURS, f"{STOCK}StockAdamW")
    assert whole.difference.mean == pytest.approx(0.01)
    assert without.difference.mean == pytest.approx(-0.01)
    assert "without the recipe" in whole.text(result.groups)
    table = verdict_table(Tables(result))
    line = dict(zip(table.header, table.rows[2], strict=True))
    assert line["minus stock [95 % interval]"].startswith("+0.0500 [")
    assert line["network's own, same recipe"].startswith("+0.0100 [")
    assert line["attention's own"].startswith("+0.0200 [")
    assert line["better groups"] == "20 of 20"
    assert line["verdict"] == "higher"
    assert table.bold == {(2, 2)}
    assert len(sources(Tables(result))) == 2
    assert own_effects(Tables(result))[2].rows[0][2] == "+0.0100"
    assert json.dumps(result.to_json()["own_effects"])

    tree.add(f"{OURS}_SGD", stock - 0.02)
    (found,) = run((STOCK, OURS, f"{OURS}_SGD")).own_effects[:1]
    assert (found.row, found.candidate, found.stock) == (OURS, f"{OURS}_SGD", STOCK)
    tree.add(f"{STOCK}StockAdamW", stock + 0.04, **adam | {"initial_lr": "0.1"})
    assert run(rows).own_effects == []


# ---- published numbers ----------------------------------------------------------------------------------


def test_every_published_number_is_of_one_of_our_trainers_and_stands_once():
    from nnunet_attn.lookup import find_written
    from nnunet_attn.report.published import NUMBERS

    assert all(find_written(number.trainer) for number in NUMBERS)
    assert len({(number.trainer, number.dataset) for number in NUMBERS}) == len(NUMBERS)


def test_published_numbers_belong_to_trainer_and_dataset():
    assert find_published("nnUNetTrainerFIAS", "Dataset011_Synapse").dice == 87.81
    assert find_published("nnUNetTrainerFIAS", "Dataset027_ACDC").hd95 is None
    assert find_published("nnUNetTrainerFIAS", "Dataset300_Lung") is None
    assert find_published("nnUNetTrainer", "Dataset011_Synapse") is None
    assert find_published("nnUNetTrainerXAttnResUNet_kaimingQuery", "Dataset011_Synapse").dice == 74.32
    assert find_published("nnUNetTrainerXAttnResUNet_decoderOnly_run2", "Dataset011_Synapse").hd95 == 28.02
    assert find_published("nnUNetTrainerXAttnResEMCAD_noSkip", "Dataset012_CVC-ColonDB").dice == 89.81
    assert "ignores voxel spacing" in PROTOCOL
