"""Stands in for nnU-Net's commands and for nnunet-attn evaluate: the same files in the same order.

    fake_nnunet.py preprocess -d DATASET -plans_name P -c CONFIGURATION -np N
    fake_nnunet.py train DATASET CONFIGURATION FOLD -tr TRAINER -p PLANS -device cpu [--c | --val]
    fake_nnunet.py predict -i FOLDER -o FOLDER -d DATASET -c CONFIGURATION -tr TRAINER -p PLANS -f FOLDS [-chk NAME]
    fake_nnunet.py evaluate FOLD -o FILE -np N
    fake_nnunet.py evaluate PREDICTIONS REFERENCES -o FILE -np N

Preprocessed data are files that hold the label file's text; a prediction is one that holds the checkpoint's name.

``FAKE_RAISE=TEXT`` raises where TEXT is in the trainer's name; ``FAKE_SLEEP`` seconds pass in each of three epochs.
"""

import argparse
import json
import os
import shutil
import sys
import time
import zipfile
from pathlib import Path

EPOCHS = 3


def save(path: Path, epoch: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("epoch", str(epoch))
        archive.writestr("weights", b"\0" * 20000)


def load(fold: Path) -> int:
    for name in ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"):  # nnU-Net's order
        if (fold / name).is_file():
            with zipfile.ZipFile(fold / name) as archive:
                return int(archive.read("epoch"))
    raise SystemExit("no checkpoint to go on from")


def preprocess(arguments: list[str]) -> None:
    """As nnU-Net: data are replaced, references only where they are older than the labels."""
    parser = argparse.ArgumentParser()
    for name in ("-d", "-plans_name", "-c", "-np"):
        parser.add_argument(name)
    options = parser.parse_args(arguments)
    folder = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(options.d):03d}_*"))
    plans = json.loads((folder / f"{options.plans_name}.json").read_text())
    data, references = folder / plans["configurations"][options.c]["data_identifier"], folder / "gt_segmentations"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    references.mkdir(exist_ok=True)
    for label in (Path(os.environ["nnUNet_raw"]) / folder.name / "labelsTr").iterdir():
        (data / f"{label.stem}.pkl").write_text(label.read_text())
        copy = references / label.name
        if not copy.is_file() or copy.stat().st_mtime < label.stat().st_mtime:
            shutil.copy2(label, copy)


def train(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("dataset", "configuration", "fold"):
        parser.add_argument(name)
    for name in ("-tr", "-p", "-device"):
        parser.add_argument(name)
    parser.add_argument("--c", action="store_true")
    parser.add_argument("--val", action="store_true")
    options = parser.parse_args(arguments)
    preprocessed = next(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(options.dataset):03d}_*"))
    model = Path(os.environ["nnUNet_results"]) / preprocessed.name
    model /= f"{options.tr}__{options.p}__{options.configuration}"
    fold = model / f"fold_{options.fold}"
    fold.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", f"{options.p}.json"):
        (model / name).write_bytes((preprocessed / name).read_bytes())
    number = len(list(fold.glob("training_log_*.txt")))
    log = fold / f"training_log_2026_1_1_10_00_{number:02d}.txt"

    def say(text: str) -> None:
        with log.open("a") as file:
            file.write(f"2026-01-01 10:00:00: {text}\n")
        print(text, flush=True)

    say(f"threads {os.environ.get('NNUNET_ATTN_THREADS')} workers {os.environ.get('nnUNet_n_proc_DA')}")
    say(f"weights {os.environ.get('NNUNET_ATTN_PRETRAINED')}")
    start = load(fold) if options.c or options.val else 0
    for epoch in range(EPOCHS if options.val else start, EPOCHS):
        say(f"Epoch {epoch}")
        if os.environ.get("FAKE_RAISE", "-") in options.tr:
            raise RuntimeError("CUDA error: the card is on fire")
        time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
        say("Epoch time: 1.0 s")
        save(fold / "checkpoint_latest.pth", epoch + 1)
        save(fold / "checkpoint_best.pth", epoch + 1)
    if not options.val:
        save(fold / "checkpoint_final.pth", EPOCHS)
        (fold / "checkpoint_latest.pth").unlink(missing_ok=True)
    (fold / "validation").mkdir(exist_ok=True)
    cases = json.loads((preprocessed / "splits_final.json").read_text())[int(options.fold)]["val"]
    metrics = {str(value): {"Dice": 0.5, "IoU": 0.4, "n_ref": 10, "n_pred": 9} for value in (1, 2)}
    content = {"metric_per_case": [{"prediction_file": f"/x/{case}.png", "metrics": metrics} for case in cases]}
    (fold / "validation" / "summary.json").write_text(json.dumps(content))


def predict(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("-i", "-o", "-d", "-c", "-tr", "-p", "-device", "-npp", "-nps"):
        parser.add_argument(name)
    parser.add_argument("-f", nargs="+")
    parser.add_argument("-chk", default="checkpoint_final.pth")
    options = parser.parse_args(arguments)
    results = next(Path(os.environ["nnUNet_results"]).glob(f"Dataset{int(options.d):03d}_*"))
    for fold in options.f:
        checkpoint = results / f"{options.tr}__{options.p}__{options.c}" / f"fold_{fold}" / options.chk
        if not checkpoint.is_file():
            raise SystemExit(f"{checkpoint} is missing")
    for image in Path(options.i).glob("*_0000.png"):
        (Path(options.o) / image.name.replace("_0000", "")).write_text(options.chk)


def evaluate(arguments: list[str]) -> None:
    folder, output = Path(arguments[0]), Path(arguments[arguments.index("-o") + 1])
    names = sorted(path.stem for path in folder.glob("*.png"))
    if (folder / "validation").is_dir():
        cases = json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]
        names = [Path(case["prediction_file"]).stem for case in cases]
    lines = [f"{case},{label},Dice,0.5" for case in names for label in ("ring", "core")]
    output.write_text("\n".join(["case,class,metric,value", *lines]) + "\n")


if __name__ == "__main__":
    {"preprocess": preprocess, "train": train, "predict": predict, "evaluate": evaluate}[sys.argv[1]](sys.argv[2:])
