"""Studies: datasets x trainers x folds x repeats from one file, on this machine or on Slurm, with one report.

  nnunet-attn study check study.yaml      what there is to do, what is done, what it costs; nothing runs
  nnunet-attn study run study.yaml        train; stop it in any way at any time, the same command goes on
  nnunet-attn study run study.yaml -- --executor slurm --jobs 8 --default-resources slurm_partition=gpu runtime=1440
  nnunet-attn study status study.yaml     how far each training is
  nnunet-attn study report study.yaml     the report over all datasets, also of what is complete so far
  nnunet-attn study archive study.yaml -o FOLDER     the small files that the report is made from; study report FOLDER
  nnunet-attn study list study.yaml       all jobs, a line each
  nnunet-attn study list                  the studies of the papers' tables that come with this package

A study file:

  name: short
  device: cpu                   # cuda by default
  datasets:
    - dataset: 27
      configuration: 2d
  rows:                         # TRAINER, TRAINER:PLANS or TRAINER:PLANS:CONFIGURATION; the first is the baseline
    - nnUNetTrainer
    - nnUNetTrainerDCAUNet
  schedule: 100epochs           # suffix of all rows; left out: each trainer's own
  repeats: 2

Everything lies in a folder of the study's name beside the file, nnU-Net's three folders too, unless the file says
"folders: environment". Running needs Snakemake: pip install "nnunet-attn[study]"."""

import argparse
from pathlib import Path
from typing import Any

from nnunet_attn import command_options as shared

HELP = "many trainings from one file: check, run, status, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        needed: dict[str, Any] = {"nargs": "?"} if name == "list" else {}
        about = "the study file, or the name of a study of this package"
        sub.add_argument("study", type=Path, metavar="STUDY.yaml", help=about, **needed)
        sub.add_argument("--folder", type=Path, metavar="FOLDER", help="folder of the study (default: its name, "
                         "beside the file)")  # fmt: skip
        return sub

    action("check", "show finished and missing trainings by row and dataset, and estimate the time; nothing runs")
    run_parser = action("run", "run all unfinished jobs; arguments after -- go to Snakemake")
    run_parser.add_argument(
        "--retrain",
        action="store_true",
        help="repeat trainings whose dataset, plans or folds changed after the training",
    )
    status = action("status", "show how far each training is, and the last lines of those that failed")
    status.add_argument("--all", action="store_true", help="also jobs that are done or waiting")
    status.add_argument("--json", action="store_true", help="print a list of objects, one per job")
    status.add_argument("--watch", action="store_true", help="show it again every ten seconds, until all is done")
    report = action("report", "write the report over all datasets, and one for each; STUDY.yaml may be an archive")
    shared.add_output(report, "folder to write (default: report in the study's folder)")
    shared.add_overwrite(report)
    shared.add_folds(report, "those that are complete in every row of a dataset")
    shared.add_groups(report)
    shared.add_nsd_tolerance(report, default=None)
    shared.add_report_contents(report)
    shared.add_processes(report)
    archive = action("archive", "copy the small files that the report needs: no checkpoints, no images")
    shared.add_output(archive, "folder to write", required=True)
    shared.add_overwrite(archive)
    action("list", "list all jobs with their state, a line each; without a file, this package's studies")
    job = action("job", "do one job, as run does for each; list shows the names")
    job.add_argument("job", metavar="JOB")


def run(options: argparse.Namespace) -> int:
    from nnunet_attn.study.papers import find_study, list_text

    if options.study is None:
        print(list_text())
        return 0
    options.study = find_study(options.study)
    if options.action in ("report", "archive"):
        return _from_small_files(options)
    from nnunet_attn.study.layout import check_folder, find_layout
    from nnunet_attn.study.matrix import make_matrix
    from nnunet_attn.study.study_file import read_study

    study = read_study(options.study)
    layout = find_layout(study, options.folder)
    check_folder(layout)
    matrix = make_matrix(study, layout)
    if options.action == "run":
        from nnunet_attn.study.driver import run_study

        return run_study(matrix, options.more, retrain=options.retrain)
    if options.action == "job":
        from nnunet_attn.study.job import run_job

        return run_job(matrix, options.job)
    return _show(options, matrix)


def _from_small_files(options: argparse.Namespace) -> int:
    from nnunet_attn.files import complete_folder
    from nnunet_attn.study.archive import write_archive
    from nnunet_attn.study.reporting import open_study, write_study_report

    matrix = open_study(options.study, options.folder)
    layout = matrix.layout
    inputs = [options.study, layout.folder, layout.raw, layout.preprocessed, layout.results]
    if options.action == "archive":
        with complete_folder(options.output, overwrite=options.overwrite, inputs=inputs) as folder:
            count = write_archive(matrix, folder)
        print(f"{count} files in {options.output}; nnunet-attn study report {options.output} makes the report of them")
        return 0
    given = {
        "groups": options.groups,
        "nsd_tolerance": options.nsd_tolerance,
        "surface": False if options.no_surface else None,
        "published": options.published or None,
    }
    matrix.study.report.update({key: value for key, value in given.items() if value is not None})
    output = options.output or layout.folder / "report"
    overwrite = options.overwrite or options.output is None
    with complete_folder(output, overwrite=overwrite, inputs=inputs) as folder:
        verdicts = write_study_report(matrix, folder, folds=options.folds, processes=options.processes)
    print("\n".join(verdicts))
    print(f"Report: {output / 'report.html'}")
    return 0


def _show(options: argparse.Namespace, matrix: Any) -> int:
    import json
    import sys
    import time

    from nnunet_attn.study.markers import read_done
    from nnunet_attn.study.states import DONE, read_states
    from nnunet_attn.study.tables import check_text, job_line, status_rows, status_text

    while True:
        done = read_done(matrix)
        states = read_states(matrix, done)
        if options.action == "check":
            print(check_text(matrix, states, done))
            return 0
        if options.action == "list":
            print("\n".join(job_line(job, states[job.id]) for job in matrix.jobs.values()))
            return 0
        if options.json:
            print(json.dumps(status_rows(matrix, states), indent=2))
            return 0
        text = status_text(matrix, states, everything=options.all)
        print(("\033[H\033[2J" if options.watch and sys.stdout.isatty() else "") + text, flush=True)
        if not options.watch or all(states[job.id].word == DONE for job in matrix.trainings):
            return 0
        time.sleep(10)
