"""The steps of ``nnunet-attn quickstart``; imported only when it runs."""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from tqdm import tqdm

from nnunet_attn.catalog import STOCK
from nnunet_attn.comparison.compare import compare
from nnunet_attn.dataset_conversion import acdc
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.dataset_conversion.phantom import write_phantom
from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_file, complete_folder, write_json
from nnunet_attn.report.overlay import overlay
from nnunet_attn.report.report import write_report
from nnunet_attn.trainer_names import hint, parse_trainer_name
from nnunet_attn.training.in_process import make_trainer, nnunet_in_process, plan_and_preprocess, predict

DATASET_ID = 27
REAL_BATCH = 2  # in place of the plans', with --source
LABELS = {"RV": 1, "MYO": 2, "LV": 3}
TEST_CASES = 8
VALIDATION_BATCHES = 1  # of an epoch, for nnU-Net's log only; the validation after the training is complete
SHORT = 1000  # steps; a shorter training has the rates below, a longer one those of its recipe
RATES = {"SGD": "3e2", "AdamW": "1e3"}  # as suffixes: 0.03 and 0.001
SECONDS = {"data": 3, "fingerprint": 3, "train": 0.24, "predict": 4, "report": 6}  # shares of the time; of a step 0.24
LEARNED = 0.8  # mean Dice on the phantom that shows that a network learns; thresholds stay below 0.6
NEXT = """\
Next, on your own data ("nnunet-attn convert --help"), with nnUNet_raw, nnUNet_preprocessed and nnUNet_results set:
  nnunet-attn convert acdc /downloads/ACDC/database 27
  nnUNetv2_plan_and_preprocess -d 27 -c 2d --verify_dataset_integrity
  nnUNetv2_train 27 2d 0
  nnUNetv2_train 27 2d 0 -tr nnUNetTrainerDCAUNet
  nnunet-attn compare 27 -c 2d -tr nnUNetTrainer nnUNetTrainerDCAUNet"""


def with_schedule(name: str, epochs: int, iterations: int) -> str:
    """The trainer's name with the schedule and, if that is short and the name has none, a rate that fits it."""
    parsed = parse_trainer_name(name)
    family = parsed.family if parsed else "stock" if name == STOCK else None
    recipe = parsed.recipe if parsed else "SGD"
    short = epochs * iterations < SHORT and family and recipe in (None, "SGD") and not (parsed and parsed.initial_lr)
    rate = f"_lr{RATES[recipe or 'AdamW']}" if short else ""
    return f"{name}{rate}_{epochs}epochs_{iterations}iterations"


def check_found(names: Sequence[str]) -> None:
    """Raise UserError for a trainer that nnU-Net does not find."""
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                recursive_find_trainer_class_by_name(name)
        except RuntimeError as error:
            raise UserError(hint(name) or f"nnU-Net finds no trainer {name}; see nnunet-attn list") from error


def without_moments(path: Path) -> None:
    """Drop the optimiser's moments, up to two thirds of the file, from a checkpoint of a training that is over."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    checkpoint["optimizer_state"]["state"] = {}
    with complete_file(path) as temporary:
        torch.save(checkpoint, temporary)


class Job:
    """One quickstart in one folder. Steps that a stopped run has completed are not done again.

    Attributes:
        configuration: Of nnU-Net's.
        size, pixel: Rows and columns of the phantom's slices, and their distance in mm.
    """

    configuration = "2d"
    size, pixel = 64, 2.5

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder, self.options = folder, options
        self.screen = sys.stderr
        self.names = [with_schedule(name, options.epochs, options.iterations) for name in options.trainers]
        self.training = SECONDS["train"] * options.epochs * options.iterations + SECONDS["predict"]
        fixed = SECONDS["data"] + SECONDS["fingerprint"] + SECONDS["report"]
        total = fixed + (self.training + SECONDS["predict"]) * len(self.names)
        self.bar = tqdm(
            total=total, file=self.screen, disable=None, smoothing=0, leave=False,
            bar_format="{desc}: {percentage:.0f} % |{bar}| {elapsed}, {remaining} left{postfix}",
        )  # fmt: skip

    def run(self) -> None:
        started = time.monotonic()
        print(f"Working in {self.folder}", file=self.screen)
        log = self.folder / "nnunet.log"
        with (
            self.bar,
            log.open("a", encoding="utf-8") as file,
            contextlib.redirect_stdout(file),
            contextlib.redirect_stderr(file),
            nnunet_in_process(self.folder, processes=os.cpu_count() or 2),
        ):
            self.step("data", SECONDS["data"], self.data)
            self.step("fingerprint, plan, preprocess", SECONDS["fingerprint"], self.plan)
            for name in self.names:
                self.step(f"train {name}", self.training, self.train, name)
            for name in self.names:
                self.step(f"predict with {name}", SECONDS["predict"], self.predict, name)
            scores = self.step("score", 0, self.score)
            self.step("picture", SECONDS["report"] / 2, self.picture)
            self.step("report", SECONDS["report"] / 2, self.compare)
        self.report(scores, time.monotonic() - started)

    def step(self, what: str, share: float, function: Callable, *arguments: object) -> Any:
        """Do one step; ``share`` is its part of the bar, of which it may move some itself."""
        started, before = time.monotonic(), self.bar.n
        self.bar.set_description_str(what)
        result = function(*arguments)
        self.bar.update(max(0.0, before + share - self.bar.n))
        tqdm.write(f"{what}: {time.monotonic() - started:.0f} s", file=self.screen)
        return result

    @property
    def raw(self) -> Path:
        return self.folder / "nnUNet_raw" / f"Dataset{DATASET_ID:03d}_{DATASETS['acdc'].folder}"

    def data(self) -> None:
        if self.raw.is_dir():
            return
        if self.options.source is not None:
            acdc.convert(self.options.source, DATASET_ID, split="B", allow_missing=True)
            return
        with complete_folder(self.folder / "source", overwrite=True) as source:
            few = {"training": 5, "test": 1} if self.options.quick else {}
            write_phantom(source, seed=self.options.seed, size=self.size, pixel=self.pixel, **few)
        acdc.convert(self.folder / "source", DATASET_ID)

    def plan(self) -> None:
        preprocessed = plan_and_preprocess(DATASET_ID, (self.configuration,), shrink=self.options.quick)
        if self.options.source is not None:
            path = preprocessed / "nnUNetPlans.json"
            plans = json.loads(path.read_text(encoding="utf-8"))
            plans["configurations"][self.configuration]["batch_size"] = REAL_BATCH
            write_json(path, plans)

    def model(self, name: str) -> Path:
        return self.folder / "nnUNet_results" / self.raw.name / f"{name}__nnUNetPlans__{self.configuration}"

    def make(self, name: str, *, resume: bool) -> Any:
        return make_trainer(DATASET_ID, self.configuration, name, resume=resume, device=self.options.device)

    def train(self, name: str) -> None:
        fold = self.model(name) / "fold_0"
        if (fold / "validation" / "summary.json").is_file():
            return
        np.random.seed(self.options.seed)  # noqa: NPY002  nnU-Net draws its patches from numpy's global generator
        torch.manual_seed(self.options.seed)
        trainer = self.make(name, resume=any(fold.glob("checkpoint_*.pth")))
        trainer.num_val_iterations_per_epoch = VALIDATION_BATCHES
        end_epoch, save, draw = trainer.on_epoch_end, trainer.save_checkpoint, trainer.logger.plot_progress_png

        kept = ("final", "latest") if self.options.source else ("final",)  # a minute's training begins again

        def save_what_is_needed(filename: str) -> None:  # hundreds of megabytes each
            if filename.endswith(tuple(f"checkpoint_{which}.pth" for which in kept)):
                save(filename)

        def draw_at_the_end(folder: str) -> None:  # a second per epoch otherwise
            if trainer.current_epoch == trainer.num_epochs - 1:
                draw(folder)

        def on_epoch_end() -> None:
            end_epoch()
            self.bar.set_postfix_str(f"loss {trainer.logger.get_value('train_losses', step=-1):.3f}", refresh=False)
            self.bar.update((self.training - SECONDS["predict"]) / trainer.num_epochs)

        trainer.save_checkpoint, trainer.on_epoch_end = save_what_is_needed, on_epoch_end
        trainer.logger.plot_progress_png = draw_at_the_end
        trainer.run_training()
        self.bar.set_postfix_str("")
        without_moments(fold / "checkpoint_final.pth")
        trainer.perform_actual_validation()

    def cases(self) -> list[str]:
        """Names of the held-out cases that are predicted."""
        return sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTs").glob("*.nii.gz"))[
            :TEST_CASES
        ]

    def predict(self, name: str) -> None:
        output = self.folder / "predictions" / name
        if output.is_dir():
            return
        with complete_folder(output) as temporary:
            images = [[str(self.raw / "imagesTs" / f"{case}_0000.nii.gz")] for case in self.cases()]
            predict(self.model(name), images, temporary, [str(temporary / case) for case in self.cases()],
                    device=self.options.device)  # fmt: skip

    def score(self) -> dict[str, dict[str, float]]:
        scores = {name: self.score_of(name) for name in self.names}
        write_json(self.folder / "scores.json", scores)
        return scores

    def score_of(self, name: str) -> dict[str, float]:
        """Mean Dice per class over the held-out cases, by nnU-Net's own evaluation."""
        predictions = self.folder / "predictions" / name
        summary = compute_metrics_on_folder(
            str(self.raw / "labelsTs"), str(predictions), str(predictions / "summary.json"), SimpleITKIO(),
            ".nii.gz", list(LABELS.values()), num_processes=1, chill=True,
        )  # fmt: skip
        per_class = {label: float(summary["mean"][value]["Dice"]) for label, value in LABELS.items()}
        return {"mean": float(np.mean(list(per_class.values()))), **per_class}

    def picture(self) -> None:
        overlay(
            [(self.raw / "imagesTs" / f"{case}_0000.nii.gz", case) for case in self.cases()[:3]],
            {"reference": self.raw / "labelsTs"} | {n: self.folder / "predictions" / n for n in self.names},
            self.folder / "overlay.png",
            labels=LABELS,
        )

    def compare(self) -> None:
        """The report that ``nnunet-attn compare --test`` writes, on the cases that were predicted."""
        folder = self.folder / "report"
        if folder.is_dir():
            return
        with complete_folder(self.folder / "references", overwrite=True) as references:
            for case in self.cases():
                shutil.copy(self.raw / "labelsTs" / f"{case}.nii.gz", references)
        with complete_folder(folder) as temporary:
            comparison = compare(
                str(DATASET_ID), "2d", self.names, folds=["0"],
                test={name: self.folder / "predictions" / name for name in self.names},
                references=self.folder / "references",
            )  # fmt: skip
            write_report(comparison, temporary)

    def report(self, scores: dict[str, dict[str, float]], seconds: float) -> None:
        width = max(map(len, scores))
        print(f"\nDice on {len(self.cases())} held-out cases\n{'':{width}}   mean    " + "     ".join(LABELS))
        for name, values in scores.items():
            print(f"{name:{width}}  " + "  ".join(f"{value:6.3f}" for value in values.values()))
        weak = [name for name, values in scores.items() if values["mean"] < LEARNED]
        learned = f"{' and '.join(weak)} stayed below {LEARNED}: not learned." if weak else "All networks learn."
        print(
            f"\n{'Everything runs; nothing is learned in so few steps.' if self.options.quick else learned} A run this "
            f"short compares nothing: {self.options.epochs} epochs of {self.options.iterations} iterations, one seed, "
            "different recipes.\n"
            f"{seconds:.0f} s. All files are in {self.folder}; delete it freely.\n\n"
            f"Report:  {self.folder / 'report' / 'report.html'} (open it in a browser)\n"
            f"Picture: {self.folder / 'overlay.png'}\n\n{NEXT}"
        )
