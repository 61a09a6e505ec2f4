"""Datasets of ``--input-size``: both sizes, case by case against another implementation (torch, medpy)."""

import json

import numpy as np
import pytest
import torch
from medpy.metric.binary import dc, hd95

from nnunet_attn.cli.main import main
from nnunet_attn.errors import UserError
from nnunet_attn.scoring.evaluate import evaluate

from .test_evaluate import LABELS, blobs, write_dataset_json, write_nifti, write_png

TRUE = (1.4, 1.7, 8.0)  # x, y, z


def resized(array, size):
    tensor = torch.from_numpy(array.astype(np.float32)).reshape(-1, 1, *array.shape[-2:])
    result = torch.nn.functional.interpolate(tensor, size=size, mode="nearest-exact")
    return result.reshape(*array.shape[:-2], *size).numpy()


@pytest.fixture
def volumes(tmp_path):
    """Three volumes of a dataset converted with --input-size 32, and predictions on their grids."""
    raw = tmp_path / "Dataset027_Hearts32"
    write_dataset_json(raw, input_size=32)
    cases, pairs = {}, {}
    for i, shape in enumerate(((6, 20, 24), (7, 40, 26), (8, 31, 33))):
        rng = np.random.default_rng(i)
        pairs[f"case{i}"] = pair = blobs(rng, shape), blobs(rng, shape)
        spacing = (32 / shape[2], 32 / shape[1], 8.0)
        for folder, array in zip((tmp_path / "predicted", raw / "labelsTs"), pair, strict=True):
            write_nifti(folder / f"case{i}.nii.gz", array, spacing=spacing)
        cases[f"case{i}"] = {"spacing": TRUE, "original_size": shape[::-1]}
    (raw / "manifest.json").write_text(json.dumps({"cases": cases}))
    return tmp_path / "predicted", raw / "labelsTs", pairs


def values(result):
    return {(r.case, r["class"], r.metric): r.value for _, r in result.table.iterrows()}


def test_volumes_at_both_sizes(volumes):
    predictions, references, pairs = volumes
    original = values(evaluate(predictions, references, progress=False))
    small = values(evaluate(predictions, references, at_input_size=True, protocol="transunet", progress=False))
    for case, pair in pairs.items():
        at_input = [resized(array, (32, 32)) for array in pair]
        for name, value in list(LABELS.items())[1:]:
            p, r = (array == value for array in pair)
            assert original[case, name, "Dice"] == pytest.approx(dc(p, r))
            assert original[case, name, "HD95"] == pytest.approx(hd95(p, r, voxelspacing=TRUE[::-1]))
            assert original[case, name, "ml_ref"] == pytest.approx(r.sum() * np.prod(TRUE) / 1000)
            p, r = (array == value for array in at_input)
            assert small[case, name, "Dice"] == pytest.approx(dc(p, r))
            assert small[case, name, "HD95_voxel"] == pytest.approx(hd95(p, r))


def test_pictures_at_both_sizes(tmp_path, capsys):
    raw = tmp_path / "Dataset031_Polyps32"
    write_dataset_json(raw, ending=".png", input_size=32)
    sizes, originals = ((50, 70), (33, 90)), {}
    for i, size in enumerate(sizes):
        rng = np.random.default_rng(i)
        original = np.kron(blobs(rng, (6, 10, 10))[3], np.ones((9, 9), np.uint8))[: size[0], : size[1]]
        predicted = blobs(rng, (6, 32, 32))[3]
        originals[f"case{i}"] = original, predicted
        write_png(raw / "labelsTs_original" / f"case{i}.png", original)
        write_png(raw / "labelsTs" / f"case{i}.png", resized(original, (32, 32)).astype(np.uint8))
        write_png(tmp_path / "predicted" / f"case{i}.png", predicted)
    full = values(evaluate(tmp_path / "predicted", raw / "labelsTs", progress=False))
    small = values(evaluate(tmp_path / "predicted", raw / "labelsTs", at_input_size=True, progress=False))
    for case, (original, predicted) in originals.items():
        enlarged, reduced = resized(predicted, original.shape), resized(original, (32, 32))
        for name, value in list(LABELS.items())[1:]:
            for scores, p, r in ((full, enlarged, original), (small, predicted, reduced)):
                if (p == value).any() and (r == value).any():
                    assert scores[case, name, "Dice"] == pytest.approx(dc(p == value, r == value))
                    assert scores[case, name, "HD95"] == pytest.approx(hd95(p == value, r == value))
    assert main(["evaluate", str(tmp_path / "predicted"), str(raw / "labelsTs"), "--at-input-size"]) == 0
    assert "size: input (32)" in capsys.readouterr().out


def test_what_the_conversion_kept_must_be_there(volumes, tmp_path):
    predictions, references, _ = volumes
    (references.parent / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"holds the true spacings and cannot .* inside the converted dataset"):
        evaluate(predictions, references, progress=False)
    evaluate(predictions, references, at_input_size=True, progress=False)
    write_dataset_json(references.parent)
    with pytest.raises(UserError, match="converted with --input-size; this one was not"):
        evaluate(predictions, references, at_input_size=True, progress=False)
