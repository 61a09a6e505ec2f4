"""Studies: datasets x trainers x folds x repeats from one file, on this machine or on Slurm, with one report.

  nnunet-attn study check study.yaml      what there is to do, what is done, what it costs; nothing runs
  nnunet-attn study run study.yaml        train; stop it in any way at any time, the same command goes on
  nnunet-attn study run study.yaml -- --executor slurm --jobs 8 --default-resources slurm_partition=gpu runtime=1440
  nnunet-attn study status study.yaml     how far each training is
  nnunet-attn study list study.yaml       all jobs, a line each

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

HELP = "many trainings from one file: check, run, status, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.add_argument("study", type=Path, metavar="STUDY.yaml", help="the study file")
        sub.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder of the study (default: its name, "
                         "beside the file)")  # fmt: skip
        return sub

    action("check", "show the matrix of trainings: what is done, what is missing, what it costs; nothing runs")
    run_parser = action("run", "run what is not done; what follows -- goes to Snakemake")
    run_parser.add_argument(
        "--retrain", action="store_true", help="train anew where dataset, plans or folds changed after the training"
    )
    status = action("status", "show how far each training is, and the last lines of those that failed")
    status.add_argument("--all", action="store_true", help="also jobs that are done or waiting")
    status.add_argument("--watch", action="store_true", help="show it again every ten seconds, until all is done")
    action("list", "list all jobs with their state, a line each")
    job = action("job", "do one job, as run does for each; list shows the names")
    job.add_argument("job", metavar="JOB")


def run(options: argparse.Namespace) -> int:
    from nnunet_attn.study.layout import check_folder, find_layout
    from nnunet_attn.study.matrix import make_matrix
    from nnunet_attn.study.schema import read_study

    study = read_study(options.study)
    layout = find_layout(study, options.output)
    check_folder(layout)
    matrix = make_matrix(study, layout)
    if options.action == "run":
        from nnunet_attn.study.driver import run_study

        return run_study(matrix, options.more, retrain=options.retrain)
    if options.action == "job":
        from nnunet_attn.study.job import run_job

        return run_job(matrix, options.job)
    return _show(options, matrix)


def _show(options: argparse.Namespace, matrix: Any) -> int:
    import sys
    import time

    from nnunet_attn.study.markers import read_done
    from nnunet_attn.study.states import DONE, read_states
    from nnunet_attn.study.tables import check_text, job_line, status_text

    while True:
        done = read_done(matrix)
        states = read_states(matrix, done)
        if options.action == "check":
            print(check_text(matrix, states, done))
            return 0
        if options.action == "list":
            print("\n".join(job_line(job, states[job.id]) for job in matrix.jobs.values()))
            return 0
        text = status_text(matrix, states, everything=options.all)
        print(("\033[H\033[2J" if options.watch and sys.stdout.isatty() else "") + text, flush=True)
        if not options.watch or all(states[job.id].word == DONE for job in matrix.trainings):
            return 0
        time.sleep(10)
