"""nnU-Net's whole pipeline in one process, for the quickstart and for tests on small data.

nnU-Net starts worker processes for every step, and each imports torch again (4 to 5 s). On data of a few megabytes
that is most of the time, so here its pools become thread pools, through the call that makes them and the name under
which listing files has one. The real functions of nnU-Net run, on its real files. Afterwards environment and pools are
as before.
"""

import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from unittest import mock

from nnunet_attn.files import write_json

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class _ThreadContext:
    """Stands in for ``multiprocessing.get_context("spawn")``; ``Pool`` makes threads, all else is the real one's."""

    Pool = staticmethod(ThreadPool)

    def __init__(self, context: Any):
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


@contextmanager
def nnunet_in_process(folder: Path, *, processes: int = 2) -> Iterator[None]:
    """Run nnU-Net inside ``folder`` (with raw, preprocessed and results in it) and inside this process.

    The environment and ``multiprocessing`` are put back on leaving. nnU-Net reads ``nnUNet_def_n_proc`` when it is
    imported first; with 1 its prediction uses one thread.
    """
    paths = {name: str(Path(folder) / name) for name in VARIABLES}
    for path in paths.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    settings = {"nnUNet_def_n_proc": str(processes), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    real = multiprocessing.get_context
    with (
        mock.patch.dict(os.environ, paths | settings),
        mock.patch("multiprocessing.get_context", lambda method=None: _ThreadContext(real(method))),
        mock.patch("nnunetv2.utilities.utils.Pool", ThreadPool),
    ):
        yield


def plan_and_preprocess(dataset_id: int, configurations: tuple[str, ...] = ("2d",), *, shrink: bool = False) -> Path:
    """Fingerprint, plan and preprocess with nnU-Net's own functions; returns the preprocessed folder of the dataset.

    Args:
        dataset_id: A dataset in nnUNet_raw.
        configurations: What to preprocess.
        shrink: Cut the planned networks and the batch to a size for tests (3 stages of 8 to 32 features, batch 2).
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, preprocess
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name

    extractor = DatasetFingerprintExtractor(dataset_id, int(os.environ["nnUNet_def_n_proc"]))
    extractor.num_foreground_voxels_for_intensitystats = 1e5  # 1e8 by default, per channel, whatever the dataset
    extractor.run(overwrite_existing=True)
    with mock.patch.dict(os.environ, {"nnUNet_n_proc_DA": "1"}):  # 0 makes planning call torch.set_num_threads(0)
        plan_experiments([dataset_id])
    folder = Path(nnUNet_preprocessed) / convert_id_to_dataset_name(dataset_id)
    if shrink:
        plans_file = folder / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        for configuration in plans["configurations"].values():
            if "architecture" in configuration:
                _shrink(configuration)
        plans_file.write_text(json.dumps(plans))
    preprocess([dataset_id], configurations=configurations, num_processes=(1,) * len(configurations))
    return folder


def _shrink(configuration: dict, stages: int = 3) -> None:
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["n_stages"] = stages
    arguments["features_per_stage"] = [8 * 2**i for i in range(stages)]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
        if key in arguments:
            arguments[key] = arguments[key][:stages]
    arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: stages - 1]
    configuration["batch_size"] = 2


def make_trainer(
    dataset_id: int,
    configuration: str,
    trainer_name: str,
    *,
    fold: int = 0,
    plans: str = "nnUNetPlans",
    resume: bool = False,
    device: str = "cpu",
) -> Any:
    """A trainer for one fold, made by nnU-Net's own look-up; not yet run."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    trainer = get_trainer_from_args(
        str(dataset_id), configuration, fold, trainer_name, plans, resume, device=torch.device(device)
    )
    maybe_load_checkpoint(trainer, resume, False)
    return trainer


def predict(
    model_folder: Path,
    images: Path | list[list[str]],
    output: Path,
    names: list[str] | None = None,
    *,
    device: str = "cpu",
) -> None:
    """Predict with fold 0 of a trained model: sliding window, mirroring, as ``nnUNetv2_predict`` does.

    Args:
        model_folder: Folder of the trainer in nnUNet_results.
        images: A folder, or a list of cases, each the list of its channels' files.
        output: Folder to write to.
        names: With a list of cases, the files to write, without ending.
        device: "cpu" or "cuda".
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,), "checkpoint_final.pth")
    Path(output).mkdir(parents=True, exist_ok=True)
    trainer, plans, configuration = Path(model_folder).name.split("__")
    record = {"trainer": trainer, "plans": plans, "configuration": configuration, "folds": [0]}
    write_json(Path(output) / "nnunet_attn_prediction.json", record)  # which nnunet-attn compare reads
    predictor.predict_from_files_sequential(images if isinstance(images, list) else str(images), names or str(output))
