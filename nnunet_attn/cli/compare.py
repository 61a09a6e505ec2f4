"""Compare trained models of one dataset, the first being the baseline, and write a report.

  nnunet-attn compare 27 -c 2d --trainers nnUNetTrainer nnUNetTrainer:nnUNetResEncUNetMPlans nnUNetTrainerDCAUNet

Takes the final validation of all folds that are complete in every row, from nnU-Net's results folder. Rows that were
trained or validated on different data are refused; different plans, schedules, recipes and budgets are allowed and
flagged. The answer is "no significant difference" unless Wilcoxon's test over patients (Holm-corrected over the rows)
and the bootstrap interval both say otherwise.

Written into one folder: report.html (self-contained), report.md, tables as CSV, comparison.json, figures, overlays."""

import argparse
from pathlib import Path

from nnunet_attn.cli.evaluate import default_processes

HELP = "compare trained models with the stock trainer: tables, tests, cost, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="number or name")
    parser.add_argument("-c", "--configuration", required=True, help="for example 2d or 3d_fullres")
    parser.add_argument(
        "-tr", "--trainers", nargs="+", required=True, metavar="NAME[:PLANS]", help="rows, the baseline first"
    )
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help="default: all folds of the split")
    parser.add_argument(
        "--test",
        nargs="+",
        type=Path,
        metavar="PREDICTIONS",
        help="instead of the validation: a folder of predictions of the test set for each row, in their order",
    )
    parser.add_argument("--references", type=Path, metavar="FOLDER", help="default: nnU-Net's own")
    parser.add_argument(
        "--patients",
        metavar="RULE",
        help="which patient a case belongs to: a regular expression (its first group is the patient) or a JSON file "
        "case -> patient; default: names like patient007_frame01 are taken apart, other cases count as patients",
    )
    parser.add_argument("--nsd-tolerance", type=float, default=1.0, metavar="T", help="in mm (px for PNG); default 1")
    parser.add_argument("--no-surface", action="store_true", help="leave out HD95 and NSD, which read all predictions")
    parser.add_argument("--published", action="store_true", help="also list what the papers print, with its protocol")
    parser.add_argument("-o", "--output", type=Path, help="folder to write (default: compare_DATASET_CONFIGURATION)")
    parser.add_argument("--overwrite", action="store_true", help="replace that folder")
    parser.add_argument(
        "-np", "--processes", type=int, default=default_processes(), metavar="N", help="default: %(default)s"
    )


def run(options: argparse.Namespace) -> int:
    from nnunet_attn.comparison.compare import compare
    from nnunet_attn.errors import UserError
    from nnunet_attn.files import complete_folder
    from nnunet_attn.report.report import write_report
    from nnunet_attn.scoring.folders import find_dataset

    if options.nsd_tolerance < 0:
        raise UserError(f"--nsd-tolerance must not be negative, got {options.nsd_tolerance}")
    output = options.output or Path(f"compare_{find_dataset(options.dataset)}_{options.configuration}")
    with complete_folder(output, overwrite=options.overwrite) as folder:
        comparison = compare(
            options.dataset,
            options.configuration,
            options.trainers,
            folds=options.folds,
            test=options.test,
            references=options.references,
            patients=options.patients,
            tolerance=options.nsd_tolerance,
            surface=not options.no_surface,
            processes=options.processes,
        )
        write_report(comparison, folder, published=options.published)
    for verdict in comparison.verdicts:
        print(verdict.text)
    print("\n".join(f"- {flag}" for flag in comparison.flags))
    print(f"Report: {output / 'report.html'}")
    return 0
