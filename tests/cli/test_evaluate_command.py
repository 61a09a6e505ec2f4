import json

import numpy as np
import pytest
from PIL import Image

from nnunet_attn.cli.main import main


@pytest.fixture
def dataset(tmp_path):
    """Three pictures with references, and the predictions of two methods."""
    rng = np.random.default_rng(0)
    for i in range(3):
        label = np.zeros((24, 30), dtype=np.uint8)
        label[4:16, 5:20] = 1
        image = rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)
        parts = {"imagesTs": image, "labelsTs": label, "one": label, "two": np.roll(label, i, axis=1)}
        for folder, array in parts.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"case{i}{'_0000' if folder == 'imagesTs' else ''}.png")
    content = {"labels": {"background": 0, "polyp": 1}, "file_ending": ".png", "channel_names": {"0": "R"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_evaluate_prints_a_table_and_writes_both_files(dataset, capsys):
    assert main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "-np", "1"]) == 0
    output = capsys.readouterr().out
    assert output.splitlines()[0].split() == [
        "class", "Dice", "IoU", "HD95", "px", "HD95", "voxel", "ASSD", "px", "NSD", "RVD", "cases", "missed",
        "invented",
    ]  # fmt: skip
    summary = json.loads((dataset / "two" / "nnunet_attn_metrics.json").read_text())
    assert summary["mean"]["polyp"]["Dice"] == pytest.approx((1 + 14 / 15 + 13 / 15) / 3)
    assert (dataset / "two" / "nnunet_attn_metrics.csv").is_file()
    # what was written there does not disturb the next run
    assert main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "-np", "1"]) == 0


def test_evaluate_says_what_is_wrong_in_one_line(dataset, capsys):
    (dataset / "two" / "case1.png").unlink()
    assert main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "-o", str(dataset / "m.csv")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 of 3 cases have no prediction: case1" in error
    assert not (dataset / "m.csv").exists()
    assert main(["evaluate", str(dataset / "nowhere"), str(dataset / "labelsTs")]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "--protocol", "monai"])


def test_evaluate_refuses_its_output_before_it_scores(dataset, capsys, monkeypatch):
    """A table of the summary's name, a folder that cannot be made, a name that is too long."""
    monkeypatch.setattr("nnunet_attn.scoring.evaluate.score_cases", lambda *_, **__: pytest.fail("scored"))
    (dataset / "file").touch()
    for output, words in (
        ("m.json", f"would be its summary's name; give {dataset / 'm.csv'}"),
        ("file/m.csv", f"error: {dataset / 'file'}"),
        ("m" * 300 + ".csv", "File name too long"),
        ("one", "is a folder; give the name of the file"),
    ):
        assert main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "-o", str(dataset / output)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error


def test_a_full_disk_is_one_line_that_names_the_file(dataset, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", full)
    output = dataset / "m.csv"
    assert main(["evaluate", str(dataset / "two"), str(dataset / "labelsTs"), "-o", str(output), "-np", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"nnunet-attn evaluate: error: {output}: No space left on device"
    assert not output.exists()


def test_overlay_draws_a_figure(dataset, capsys):
    output = dataset / "figure.png"
    arguments = ["--images", str(dataset / "imagesTs"), "--references", str(dataset / "labelsTs"), "-o", str(output)]
    assert main(["overlay", *arguments, "--predictions", f"A={dataset / 'one'}", str(dataset / "two")]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    tall = Image.open(output).size
    assert main(["overlay", *arguments, "--predictions", f"A={dataset / 'one'}", "--cases", "case1"]) == 0
    assert Image.open(output).size[1] < tall[1]
    assert main(["overlay", *arguments, "--predictions", str(dataset / "one"), "--rows", "1"]) == 0
    assert Image.open(output).size[1] < tall[1]
    assert main(["overlay", *arguments, "--predictions", str(dataset / "one"), "--cases", "case7"]) == 1
    assert "without reference or a prediction: case7" in capsys.readouterr().err
