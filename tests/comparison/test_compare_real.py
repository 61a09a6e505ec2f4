"""Compare and evaluate on results that nnU-Net itself wrote."""

import json

import pytest

from nnunet_attn.cli.main import main
from nnunet_attn.scoring.evaluate import evaluate
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process

pytestmark = pytest.mark.usefixtures("without_progress_figure")

SCHEDULE = "2epochs_1iterations"
ROWS = (f"nnUNetTrainer_{SCHEDULE}", f"nnUNetTrainerStockAdamW_{SCHEDULE}")


@pytest.mark.parametrize("dataset", ["regions_2d", pytest.param("volumes_3d", marks=pytest.mark.slow)])
def test_compare_reads_what_nnunet_writes(dataset, request, tmp_path):
    data = request.getfixturevalue(dataset).copy(tmp_path / "nnunet")
    with nnunet_in_process(data.root):
        for row in ROWS:
            for fold in (0, 1):
                trainer = make_trainer(data.dataset_id, data.configuration, row, fold=fold)
                trainer.run_training()
                trainer.perform_actual_validation()
        report = tmp_path / "report"
        arguments = [str(data.dataset_id), "-c", data.configuration, "-tr", *ROWS, "-o", str(report), "-np", "1"]
        assert main(["compare", *arguments]) == 0
        model = data.root / "nnUNet_results" / data.name / f"{ROWS[0]}__nnUNetPlans__{data.configuration}"
        scored = evaluate(model, progress=False)

    content = json.loads((report / "comparison.json").read_text())
    stock, ours = content["rows"]
    for row, trainer in zip((stock, ours), ROWS, strict=True):
        assert row["folds"][trainer] == {"0": "complete", "1": "complete"} | {str(k): "not trained" for k in (2, 3, 4)}
        assert row["schedule"] == [2, 1]
        assert row["epoch_seconds"] > 0
        assert row["parameters"] > 0
        assert row["environment"]["GPU"] == "none (CPU)"
    assert (stock["recipe"]["optimiser"], ours["recipe"]["optimiser"]) == ("SGD", "AdamW")
    assert (stock["pretrained"], ours["pretrained"]) == ("from scratch", "from scratch")
    assert ours["environment"]["nnunet-attn"] != "not recorded"
    flags = "\n".join(content["flags"])
    assert "2 of 5 folds are complete" in flags
    assert "Short schedule" in flags
    assert "Other recipe, same network" in flags
    assert len(list((report / "overlays").iterdir())) == len(ROWS)

    classes = list(scored.summary["mean"])
    assert classes == (["whole", "core"] if dataset == "regions_2d" else ["ring", "core"])
    for fold in (0, 1):  # our scores of nnU-Net's files are nnU-Net's scores
        theirs = json.loads((model / f"fold_{fold}" / "validation" / "summary.json").read_text())
        ours = scored.table[(scored.table.fold == str(fold)) & (scored.table.metric == "Dice")]
        for name, key in zip(classes, theirs["mean"], strict=True):
            values = ours[ours["class"] == name].value
            assert values.mean() == pytest.approx(theirs["mean"][key]["Dice"], nan_ok=True)
