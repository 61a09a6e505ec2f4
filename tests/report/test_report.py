"""The whole command on a small results tree with real files, and the two forms of its document."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from nnunet_attn.catalog import FAMILIES
from nnunet_attn.citations import CITATIONS
from nnunet_attn.cli.main import main
from nnunet_attn.comparison.compare import compare
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.report.document import Folded, Heading, Items, Picture, Table, Text, to_html, to_markdown, to_text
from nnunet_attn.report.figures import row_colours, row_markers, short_names, with_short_names
from nnunet_attn.report.latex import latex_table
from nnunet_attn.report.page import DARK, LIGHT, STYLE
from nnunet_attn.report.tables import best_cells
from nnunet_attn.scoring.metrics import METRICS

DATASET = "Dataset901_Blobs"
ROWS = ("nnUNetTrainer_2epochs", "nnUNetTrainerStockAdamW_2epochs")
PLANS = {
    "dataset_name": DATASET, "plans_name": "nnUNetPlans", "image_reader_writer": "NaturalImage2DIO",
    "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
    "configurations": {"2d": {
        "data_identifier": "nnUNetPlans_2d", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [40, 56], "spacing": [1.0, 1.0], "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3, "features_per_stage": [8, 16, 32], "conv_op": "torch.nn.modules.conv.Conv2d",
                "kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]], "n_conv_per_stage": [2] * 3,
                "n_conv_per_stage_decoder": [2] * 2, "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d", "norm_op_kwargs": {"affine": True},
                "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": None,
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }},
}  # fmt: skip


def square(x, y, size=12):
    label = np.zeros((40, 56), dtype=np.uint8)
    label[y : y + size, x : x + size] = 1
    label[y + 3 : y + size - 3, x + 3 : x + size - 3] = 2
    return label


def write_picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def counts(prediction, reference, value):
    p, r = prediction == value, reference == value
    tp, fp, fn = int((p & r).sum()), int((p & ~r).sum()), int((~p & r).sum())
    return {"Dice": 2 * tp / (2 * tp + fp + fn), "IoU": tp / (tp + fp + fn), "n_ref": tp + fn, "n_pred": tp + fp}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Two trained rows of two folds, twelve pictures, in nnU-Net's three folders; test predictions beside."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    rng = np.random.default_rng(0)
    raw, preprocessed, results = (tmp_path / f"nnUNet_{n}" / DATASET for n in ("raw", "preprocessed", "results"))
    dataset = {
        "labels": {"background": 0, "ring": 1, "core": 2}, "channel_names": {"0": "R", "1": "G", "2": "B"},
        "numTraining": 12, "file_ending": ".png",
    }  # fmt: skip
    cases = [f"case{i:02d}" for i in range(12)]
    references = {case: square(*rng.integers(2, 24, 2)) for case in cases}
    for case, label in references.items():
        noise = rng.integers(0, 60, (40, 56, 3))
        write_picture(raw / "imagesTr" / f"{case}_0000.png", (noise + 60 * label[..., None]).astype(np.uint8))
        write_picture(preprocessed / "gt_segmentations" / f"{case}.png", label)
        write_picture(raw / "imagesTs" / f"{case}_0000.png", (noise + 60 * label[..., None]).astype(np.uint8))
        write_picture(raw / "labelsTs" / f"{case}.png", label)
    splits = [{"train": cases[6:], "val": cases[:6]}, {"train": cases[:6], "val": cases[6:]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    for row in ROWS:
        model = results / f"{row}__nnUNetPlans__2d"
        for fold in (0, 1):
            folder, per_case = model / f"fold_{fold}", []
            for case in splits[fold]["val"]:
                prediction = np.roll(references[case], rng.integers(-2, 3, 2), (0, 1))
                path = folder / "validation" / f"{case}.png"
                write_picture(path, prediction)
                write_picture(tmp_path / "test" / row / path.name, prediction)
                metrics = {str(value): counts(prediction, references[case], value) for value in (1, 2)}
                per_case.append({"prediction_file": str(path), "metrics": metrics})
            (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))
            (folder / "checkpoint_final.pth").touch()
        (model / "plans.json").write_text(json.dumps(PLANS))
        (model / "dataset.json").write_text(json.dumps(dataset))
    (raw / "dataset.json").write_text(json.dumps(dataset))
    return tmp_path


class Page(HTMLParser):
    """Collects what a page would load, its identifiers of structure, and whether tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_short_names_replace_whole_names():
    short = {"nnUNetTrainer": "stock", "nnUNetTrainerX_2epochs:P": "X"}
    text = "nnUNetTrainerX_2epochs:P and nnUNetTrainer: better than nnUNetTrainerX_2epochs or nnUNetTrainer:Q"
    assert with_short_names(text, short) == "X and stock: better than nnUNetTrainerX_2epochs or nnUNetTrainer:Q"


def test_compare_writes_a_report_in_all_forms(trained, capsys):
    output = trained / "report"
    arguments = ["compare", "901", "-c", "2d", "-tr", *ROWS, "-o", str(output), "-np", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "StockAdamW against stock: mean Dice per case" in printed
    assert "- StockAdamW: schedule not recorded" in printed
    assert f"\nStockAdamW is {ROWS[1]}\n" in printed
    assert "of 12 cases counted as independent. No claim" in printed
    assert printed.index("What to doubt") < printed.index("bold: best mean (no test)") < printed.index("Report: ")

    page = Page((output / "report.html").read_text())
    assert not page.open
    assert page.loads
    anchors = [link for link in page.loads if link.startswith("#")]
    assert all(link.startswith("data:image/") for link in page.loads if link not in anchors)
    assert all(f'id="{link[1:]}"' in (output / "report.html").read_text() for link in anchors)
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1  # without src, since it is not among what the page loads
    assert f'title="{ROWS[1]}"' in (output / "report.html").read_text()
    assert (output / "references.bib").read_text().startswith("@article{isensee2021nnunet,")
    assert "Isensee et al., 2021" in (output / "report.md").read_text()
    style = re.search(r"<style>(.*?)</style>", (output / "report.html").read_text(), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert page.tags.count("img") == 3 + len(ROWS)

    text = (output / "report.md").read_text()
    links = re.findall(r"\]\((\S+)\)", text)
    assert len(links) == page.tags.count("img")
    assert all((output / link).is_file() for link in links)
    assert all((output / link).with_suffix(".png").is_file() for link in links)
    for heading in ("What to doubt", "Results", "Paired differences to the baseline", "Cost", "Schedule and recipe",
                    "Worst, median and best cases", "How the numbers are computed", "Provenance"):  # fmt: skip
        assert f"## {heading}" in text

    content = json.loads((output / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert content["cases"] == content["groups"]["count"] == 12
    assert content["groups"]["known"] is False
    for shown in (printed, text, (output / "report.html").read_text()):
        assert "significant" not in shown.lower()
    assert content["unit"] == "px"
    stock, adam = content["rows"]
    assert stock["parameters"] == adam["parameters"] > 0
    assert stock["gmacs"] == pytest.approx(adam["gmacs"])
    assert stock["cost_problem"] is None
    assert len(content["sha256"]["reference files"]) == 64
    assert {line["metric"] for line in content["summary"]} == set(METRICS)

    cases = pd.read_csv(output / "cases.csv")
    assert set(cases.metric) >= {"Dice", "IoU", "HD95", "NSD", "n_ref"}
    assert cases.groupby("row").case.nunique().tolist() == [12, 12]

    assert main(arguments) == 1  # what is there is not replaced unasked
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--no-surface", "--published"]) == 0
    assert "No HD95, ASSD and NSD: left out (--no-surface)." in capsys.readouterr().out
    assert "The papers print no results for these trainers" in (output / "report.md").read_text()
    assert sorted(path.name for path in trained.glob(".report*")) == []


def test_compare_on_a_test_set(trained, capsys):
    written = (ROWS[0], f"{ROWS[1]}:nnUNetPlans:2d")  # with plans and configuration, as studies write rows
    tests = [f"{name}={trained / 'test' / row}" for name, row in zip(written, ROWS, strict=True)]
    output = trained / "report"
    arguments = ["compare", "901", "-c", "2d", "-tr", *ROWS, "-o", str(output), "-np", "1", "--test"]
    assert main([*arguments, *tests]) == 0
    content = json.loads((output / "comparison.json").read_text())
    assert content["evaluated"] == "test set"
    assert content["cases"] == 12
    (trained / "test" / ROWS[1] / "case03.png").unlink()
    assert main([*arguments, *tests, "--overwrite"]) == 1
    assert "1 of 12 cases have no prediction: case03" in capsys.readouterr().err
    assert main([*arguments, tests[0], "--overwrite"]) == 1
    assert f"--test takes ROW=FOLDER for each row of --trainers: there is none for {ROWS[1]}" in capsys.readouterr().err
    assert json.loads((output / "comparison.json").read_text()) == content  # a failed run leaves the old report


def test_unequal_ensembles_are_flagged_on_a_test_set(trained):
    test = {row: trained / "test" / row for row in ROWS}
    flags = compare("901", "2d", ROWS, test=test, measure=False).flags
    assert not any("Unequal folds" in flag for flag in flags)
    shutil.rmtree(trained / "nnUNet_results" / DATASET / f"{ROWS[1]}__nnUNetPlans__2d" / "fold_1")
    flags = compare("901", "2d", ROWS, test=test, measure=False).flags
    assert any(f"Unequal folds are trained ({ROWS[0]}: 0, 1; {ROWS[1]}: 0)." in flag for flag in flags)


def test_groups_of_the_manifest_are_used_and_named(trained, capsys):
    """Six sequences of two frames each, as a converter writes them."""
    groups = {"kind": "sequence", "of": {f"case{i:02d}": f"s{i // 2}" for i in range(12)}}
    (trained / "nnUNet_raw" / DATASET / "manifest.json").write_text(json.dumps({"cases": {}, "groups": groups}))
    arguments = ["compare", "901", "-c", "2d", "-tr", *ROWS, "-np", "1", "--no-surface"]
    assert main([*arguments, "-o", str(trained / "a")]) == 0
    assert f"- 6 sequences (from {DATASET}/manifest.json)." in capsys.readouterr().out
    text = (trained / "a" / "report.md").read_text()
    assert "12 cases of 6 sequences, validation of folds 0 1" in text
    assert "No significant difference" in text
    assert json.loads((trained / "a" / "comparison.json").read_text())["groups"]["count"] == 6

    table = trained / "groups.csv"
    table.write_text("case,patient\n" + "".join(f"case{i:02d},p{i // 4}\n" for i in range(12)))
    assert main([*arguments, "-o", str(trained / "b"), "--patients", str(table)]) == 0
    out = capsys.readouterr().out
    assert "- 3 patients (from groups.csv)." in out
    assert "Too few patients: with 3 no test can reach p < 0.05 after Holm's correction (the smallest is 0.25)." in out

    assert main(["evaluate", str(trained / "test" / ROWS[0]), str(trained / "nnUNet_raw" / DATASET / "labelsTs"),
                 "--dataset-json", str(trained / "nnUNet_results" / DATASET / f"{ROWS[0]}__nnUNetPlans__2d"
                 / "dataset.json"), "-np", "1"]) == 0  # fmt: skip
    assert f"over 6 groups (sequence), from {DATASET}/manifest.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("plans.json", {"plans_name": "other"}, "differs from the plans that the row was trained with in plans_name"),
        ("dataset.json", {"numTraining": 7}, "differs from the dataset that the row was trained on in numTraining"),
        ("nnunet_attn_prediction.json", {"trainer": "x"}, f"says trainer x, the row's is {ROWS[1]}"),
    ],
)
def test_predictions_of_another_row_are_refused_by_name(trained, capsys, file, change, message):
    model = trained / "nnUNet_results" / DATASET / f"{ROWS[1]}__nnUNetPlans__2d"
    folder = trained / "test" / ROWS[1]
    record = {"trainer": ROWS[1], "plans": "nnUNetPlans", "configuration": "2d"}
    for name in ("plans.json", "dataset.json"):
        (folder / name).write_text((model / name).read_text())
    (folder / "nnunet_attn_prediction.json").write_text(json.dumps(record))
    tests = [f"{row}={trained / 'test' / row}" for row in reversed(ROWS)]
    arguments = ["compare", "901", "-c", "2d", "-tr", *ROWS, "-np", "1", "-o", str(trained / "report"), "--test"]
    if file == "plans.json":
        assert main([*arguments, *tests]) == 0
        out = capsys.readouterr().out
        assert "was taken as stock's predictions; neither dataset and plans nor trainer could be verified" in out
        assert "taken as StockAdamW's" not in out
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    assert main([*arguments, *tests, "--overwrite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--test {ROWS[1]}={folder} contradicts the row" in error
    assert message in error


def test_the_report_never_replaces_what_is_compared(trained, capsys):
    results, test = trained / "nnUNet_results" / DATASET, trained / "test" / ROWS[0]
    arguments = ["compare", "901", "-c", "2d", "-tr", *ROWS, "-np", "1", "--overwrite"]
    more = ["--test", *(f"{row}={trained / 'test' / row}" for row in ROWS)]
    for output in (results, results / f"{ROWS[1]}__nnUNetPlans__2d", test, trained):
        assert main([*arguments, "-o", str(output), *(more if output == test else [])]) == 1
        assert f"lies in {output}, which the output would replace" in capsys.readouterr().err
        assert output.is_dir()


def test_predictions_changed_after_the_validation_are_noticed(trained, capsys):
    path = trained / "nnUNet_results" / DATASET / f"{ROWS[1]}__nnUNetPlans__2d" / "fold_0" / "validation" / "case02.png"
    write_picture(path, np.roll(np.array(Image.open(path)), 9, axis=1))
    assert main(["compare", "901", "-c", "2d", "-tr", *ROWS, "-o", str(trained / "report"), "-np", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{ROWS[1]}, fold 0, case02, class ring: validation/summary.json says Dice" in error
    assert not (trained / "report").exists()


def test_missing_files_and_unknown_trainers_cost_only_what_they_must(trained, capsys):
    """A model installed from a zip has no predictions; a trainer of somebody else may not be installed here."""
    results = trained / "nnUNet_results" / DATASET
    for path in (results / f"{ROWS[1]}__nnUNetPlans__2d").glob("fold_*/validation/*.png"):
        path.unlink()
    (results / f"{ROWS[1]}__nnUNetPlans__2d").rename(results / "nnUNetTrainerOfSomebody__nnUNetPlans__2d")
    rows = (ROWS[0], "nnUNetTrainerOfSomebody")
    assert main(["compare", "901", "-c", "2d", "-tr", *rows, "-o", str(trained / "report"), "-np", "1"]) == 0
    assert "No HD95, ASSD and NSD: 12 files are missing" in capsys.readouterr().out
    text = (trained / "report" / "report.md").read_text()
    assert "parameters and GMACs were not counted" in text
    assert "No pictures:" in text


def test_document_escapes_what_it_shows(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    nasty = 'a_b*c|d <script>"x"</script> & [l](http://x)'
    blocks = [
        Heading(nasty), Text(nasty, emphasis=True), Items([nasty]), Table([nasty, "n"], [[nasty, "1"]], caption=nasty),
        Folded(nasty, [Text(nasty)]), Picture((tmp_path / "a.png").relative_to(tmp_path), nasty),
    ]  # fmt: skip
    page = Page(to_html(nasty, blocks, tmp_path))
    assert not page.open
    assert page.tags.count("script") == 1
    assert len(page.loads) == 1
    text = to_markdown(nasty, blocks)
    assert "<script>" not in re.sub(r"\\.", "", text)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in table)


def contrast(one, other):
    """WCAG's ratio of two colours #rrggbb."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_aa(colours):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("ground", "verdict", "warning"):
        assert contrast(colours["text"], colours[ground]) >= 4.5
    for text in ("muted", "link"):
        assert contrast(colours[text], colours["ground"]) >= 4.5
    for mark in ("mark", "alarm"):
        assert contrast(colours[mark], colours["ground"]) >= 3
    body = STYLE.split("body {", 1)[1]
    assert not re.findall(r"(?<!-)color: (?!var|light)", body)  # text has no other colours


def test_rows_have_colours_that_can_be_seen_on_white_and_differ_in_lightness_or_marker():
    rows = [f"r{i}" for i in range(8)]
    shown, markers = row_colours(rows), row_markers(rows)
    assert all(contrast(colour, "#ffffff") >= 3 for colour in shown.values())
    assert len(set(shown.values())) == len(set(markers.values())) == 8


def test_best_values_are_bold_with_ties():
    lines = [["0.9000 [..]", "3.10", "0.1"], ["0.9000 ± 0.1", "2.00", "0.3"], ["–", "4.00", "0.2"]]
    assert best_cells(lines, ["Dice", "HD95", None]) == {(0, 1), (1, 1), (1, 2)}
    assert best_cells(lines[:1], ["Dice", "HD95", None]) == frozenset()
    table = Table(["", "Dice"], [["a", "0.9"], ["b", "0.8"]], bold=frozenset({(0, 1)}))
    assert "<td><b>0.9</b></td>" in to_html("t", [table], None)
    assert "| a | **0.9** |" in to_markdown("t", [table])
    assert r"a & \textbf{0.9} \\" in latex_table(table)


def test_a_table_too_wide_for_the_terminal_is_listed():
    table = Table(["", "Dice", "verdict"], [["DCAUNet", "0.9", "higher"], ["stock", "0.8", "–"]], "title")
    assert to_text(table, 40).splitlines() == [
        "title", "         Dice  verdict", "DCAUNet   0.9   higher", "stock     0.8        –",
    ]  # fmt: skip
    assert to_text(table, 20).splitlines()[:4] == ["title", "DCAUNet", "  Dice     0.9", "  verdict  higher"]
    assert to_text(table, 20).splitlines()[4:] == ["stock", "  Dice     0.8"]


def test_large_pictures_are_held_as_webp(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    page = Page(to_html("t", [Picture((tmp_path / "a.png").relative_to(tmp_path), "w")], tmp_path))
    (link,) = page.loads
    assert link.startswith("data:image/webp;base64,")
    assert len(link) < (tmp_path / "a.png").stat().st_size


def test_citations_are_those_of_the_citation_file():
    content = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    listed = {work["title"].strip(): work for work in content["references"]}
    assert set(CITATIONS) == {*FAMILIES, *(entry.key for entry in LIBRARY_ENTRIES)}
    for key, citation in CITATIONS.items():
        assert f"@{citation.kind}{{{citation.key}," in citation.bibtex
        if key not in FAMILIES:  # a library's network, cited by info and the report of those who train it
            continue
        work = listed[citation.title]
        assert [f"{a['family-names']}, {a['given-names']}" for a in work["authors"]] == list(citation.authors)
        assert work["year"] == citation.year


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (["nnUNetTrainer_lr1e1_8epochs:Small", "nnUNetTrainerFIAS_8epochs:Small"], ["stock_lr1e1", "FIAS"]),
        (["nnUNetTrainer", "nnUNetTrainer:nnUNetResEncUNetMPlans"], ["stock", "stock (ResEncUNetM)"]),
        (["nnUNetTrainer_8epochs", "nnUNetTrainer_20epochs"], ["stock_8epochs", "stock_20epochs"]),
    ],
)
def test_short_names_leave_out_what_all_rows_share(rows, names):
    assert list(short_names(rows).values()) == names
