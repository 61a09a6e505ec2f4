"""Jobs that prepare data: convert, plan, preprocess. Existing results are left alone."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json
from nnunet_attn.study.inputs import Inputs
from nnunet_attn.study.layout import SPLITS_ASIDE
from nnunet_attn.study.matrix import NETWORK_PLANS, Job, Matrix
from nnunet_attn.study.outputs import data_folder, data_problem, plans_problem
from nnunet_attn.study.schema import PLANNERS, PlansWithChanges

if TYPE_CHECKING:
    from nnunet_attn.study.job import Run


def _processes() -> int:
    """Number of worker processes of a preparation job."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def convert(run: "Run") -> dict[str, object]:
    """Convert the raw dataset."""
    conversion = run.matrix.study.datasets[run.job.dataset].convert
    assert conversion is not None
    if (run.layout.raw / run.name / "dataset.json").is_file():
        run.log.say("the raw dataset exists")
        return {}
    options: list[object] = ["--name", run.name[11:], "--processes", _processes(), *conversion.options]
    if conversion.num_folds is not None:
        options += ["--num-folds", conversion.num_folds]
    if conversion.split is not None:
        options += ["--split", conversion.split]
    for folder in (run.layout.raw, run.layout.preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    run.command("nnunet-attn", "convert", conversion.converter, *conversion.sources, int(run.name[7:10]), *options)
    return {}


def plan(run: "Run") -> dict[str, object]:
    """Make fingerprint and plans, and install the study's split file if it names one."""
    folder = run.layout.preprocessed / run.name
    number, wanted = int(run.name[7:10]), run.matrix.plans[run.job.dataset]
    if plans_problem(folder, ()) is not None:
        run.command("nnUNetv2_extract_fingerprint", "-d", number, "-np", _processes(), "--verify_dataset_integrity")
    changed = run.matrix.study.datasets[run.job.dataset].changed
    with _splits_aside(folder, run.matrix.splits[run.job.dataset]):
        for name in wanted:
            _make_plans(run, name, changed)
    if not (folder / "dataset.json").is_file():
        shutil.copyfile(run.layout.raw / run.name / "dataset.json", folder / "dataset.json")
    return {"plans": wanted}


@contextmanager
def _splits_aside(folder: Path, splits: list[dict] | None) -> Iterator[None]:
    """Keep the study's folds out of the way of nnU-Net's planners, and put them in place at the end.

    A planner copies the raw dataset's split file, and fails where there are other folds already. After a kill the folds
    lie aside, where ``read_splits`` and the next call find them.
    """
    aside, place = folder / SPLITS_ASIDE, folder / "splits_final.json"
    if splits is not None and not aside.is_file():
        if place.is_file():
            os.replace(place, aside)
        else:
            write_json(aside, splits)
    try:
        yield
    finally:
        if aside.is_file():
            os.replace(aside, place)


def _make_plans(run: "Run", name: str, changed: dict[str, PlansWithChanges]) -> None:
    folder, number = run.layout.preprocessed / run.name, int(run.name[7:10])
    if (folder / f"{name}.json").is_file():
        return
    if name in changed:
        change = changed[name]
        _make_plans(run, change.source, changed)
        if change.input_size:
            size = ["--input-size", change.input_size, "--batch-size", change.batch]
            run.command("nnunet-attn", "plan", number, *size, "-overwrite_plans_name", name)
            return
        choice = run.matrix.study.datasets[run.job.dataset]
        for configuration in sorted({row.configuration or choice.configuration for row in run.matrix.study.rows
                                     if (row.plans or choice.plans) == name}):  # fmt: skip
            words: list[object] = ["-overwrite_plans_name", name, "-c", configuration]
            words += ["-overwrite_target_spacing", *change.spacing] if change.spacing else []
            words += ["--patch-size", *change.patch] if change.patch else []
            words += ["--batch-size", change.batch] if change.batch else []
            run.command("nnunet-attn", "plan", number, "--from", change.source, *words)
    elif name in NETWORK_PLANS:
        run.command("nnunet-attn", "plan", number, "--network", NETWORK_PLANS[name])
    else:
        # the ResEnc planners set torch's threads to this variable, and 0, a usual setting for trainings, fails there
        run.command("nnUNetv2_plan_experiment", "-d", number, "-pl", PLANNERS[name], nnUNet_n_proc_DA="1")


def preprocess(run: "Run") -> dict[str, object]:
    """Preprocess one configuration, unless its data exist (plans may share them); returns what they are made from."""
    plans, configuration = str(run.job.plans), str(run.job.configuration)
    folder = run.layout.preprocessed / run.name
    inputs = Inputs(run.matrix, hash_files=True).of(run.job)
    if data_problem(folder, plans, configuration) is not None:
        run.command(
            "nnUNetv2_preprocess", "-d", int(run.name[7:10]), "-plans_name", plans, "-c", configuration,
            "-np", _processes(),
        )  # fmt: skip
    problem = data_problem(folder, plans, configuration)
    if problem is not None:
        raise UserError(f"after nnUNetv2_preprocess, {problem}")
    if not (folder / "splits_final.json").is_file():
        _make_splits(run)
    return {"inputs": inputs}


def remove_data(matrix: Matrix, job: Job) -> None:
    """Remove the preprocessed data and references of a preprocessing whose inputs changed, so that it runs again.

    nnU-Net's own command replaces the data, but only references that are older than the labels. Fingerprint and plans
    are kept.
    """
    name = matrix.names[job.dataset]
    raw, folder = matrix.layout.raw / name, matrix.layout.preprocessed / name
    if (raw / "dataset.json").is_file():
        shutil.copyfile(raw / "dataset.json", folder / "dataset.json")
    shutil.rmtree(folder / "gt_segmentations", ignore_errors=True)
    data = data_folder(folder, str(job.plans), str(job.configuration))
    if data is not None and data.is_dir():
        shutil.rmtree(data)


def _make_splits(run: "Run") -> None:
    """Make nnU-Net's own five folds; nnU-Net makes them in the first training, but here several may start at once."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    description = json.loads((run.layout.preprocessed / run.name / "dataset.json").read_text(encoding="utf-8"))
    references = run.layout.preprocessed / run.name / "gt_segmentations"
    ending = description["file_ending"]
    cases = sorted(p.name.removesuffix(ending) for p in references.iterdir() if p.name.endswith(ending))
    splits = generate_crossval_split(cases, seed=12345, n_splits=5)
    plain = [{part: [str(case) for case in cases] for part, cases in fold.items()} for fold in splits]
    write_json(run.layout.preprocessed / run.name / "splits_final.json", plain)
