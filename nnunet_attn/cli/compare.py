"""Compare trained models of one dataset, the first being the baseline, and write a report.

  nnunet-attn compare 27 -c 2d --trainers nnUNetTrainer nnUNetTrainer:nnUNetResEncUNetMPlans nnUNetTrainerDCAUNet

Takes the final validation of all folds that are complete in every row, from nnU-Net's results folder. Rows that were
trained or validated on different data are refused; different plans, schedules, recipes and budgets are allowed and
flagged. Trainers that differ by _run2, _run3, ... alone are repeats and become one row.

The answer is "no significant difference" unless Wilcoxon's test over groups (patients, videos, slides; Holm-corrected
over the rows) and the interval of the mean both say otherwise. Where it is not known which cases belong together,
difference and interval are shown and nothing is claimed. A network whose _noAttention twin (or _noDCA, _skipOnly, or
StockAdamW on the plans' network) is among the rows is also compared with it: that is what its attention adds.

A test set instead of the validation, with the predictions of each row:
  nnunet-attn compare 27 -c 2d --trainers nnUNetTrainer nnUNetTrainerDCAUNet \\
      --test nnUNetTrainer=PREDICTIONS_A nnUNetTrainerDCAUNet=PREDICTIONS_B

Written into one folder: report.html (self-contained), report.md, tables.tex (booktabs) and references.bib, tables as
CSV, comparison.json, figures, overlays. The verdict table is printed at the end, too."""

import argparse
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "compare trained models with the stock trainer: tables, tests, cost, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="number or name")
    shared.add_configuration(parser)
    shared.add_trainers(parser, "trainers to compare, the baseline first")
    shared.add_folds(parser, "all of the split")
    parser.add_argument(
        "--test",
        nargs="+",
        metavar="ROW=FOLDER",
        help="instead of the validation: the folder of predictions of the test set for each of --trainers",
    )
    shared.add_references(parser)
    shared.add_groups(parser)
    shared.add_nsd_tolerance(parser)
    shared.add_voxels(parser)
    shared.add_report_contents(parser)
    shared.add_output(parser, "folder to write (default: compare_DATASET_CONFIGURATION)")
    shared.add_overwrite(parser)
    shared.add_processes(parser)


def rows_and_folders(texts: list[str]) -> dict[str, Path]:
    """``ROW=FOLDER`` taken apart.

    Raises:
        UserError: it is something else, or a row has two folders.
    """
    from nnunet_attn.errors import UserError

    result: dict[str, Path] = {}
    for text in texts:
        row, equals, folder = text.partition("=")
        if not (row and equals and folder):
            raise UserError(f"--test takes ROW=FOLDER for each of --trainers, such as nnUNetTrainer={text}; got {text}")
        if row in result:
            raise UserError(f"--test names {row} twice")
        result[row] = Path(folder)
    return result


def run(options: argparse.Namespace) -> int:
    import shutil

    from nnunet_attn.comparison.compare import compare
    from nnunet_attn.errors import UserError
    from nnunet_attn.files import complete_folder
    from nnunet_attn.report.document import to_text
    from nnunet_attn.report.figures import with_short_names
    from nnunet_attn.report.report import write_report
    from nnunet_attn.report.tables import Tables
    from nnunet_attn.report.verdict import verdict_table
    from nnunet_attn.scoring.folders import find_dataset, nnunet_folder

    if options.nsd_tolerance < 0:
        raise UserError(f"--nsd-tolerance must not be negative, got {options.nsd_tolerance}")
    dataset = find_dataset(options.dataset)
    output = options.output or Path(f"compare_{dataset}_{options.configuration}")
    test = rows_and_folders(options.test) if options.test else None
    folders = [nnunet_folder(f"nnUNet_{part}", dataset) for part in ("raw", "preprocessed", "results")]
    models = folders[-1].glob("*__*__*") if folders[-1] else ()
    inputs = [path for path in (*folders, *models, *(test or {}).values(), options.references, options.groups) if path]
    with complete_folder(output, overwrite=options.overwrite, inputs=inputs) as folder:
        comparison = compare(
            options.dataset,
            options.configuration,
            options.trainers,
            folds=options.folds,
            test=test,
            references=options.references,
            groups=options.groups,
            tolerance=options.nsd_tolerance,
            voxels=options.voxels,
            surface=not options.no_surface,
            processes=options.processes,
        )
        write_report(comparison, folder, published=options.published)
    tables = Tables(comparison)
    doubts = [f"- {flag}" for subject, flags in comparison.doubts.items() for flag in flags if subject != "Learning"]
    lines = [*comparison.doubts.get("Learning", ()), "What to doubt:", *doubts, ""]
    lines += [verdict.text for verdict in comparison.verdicts]
    lines += [effect.text(comparison.groups) for effect in comparison.own_effects]
    lines += [twin.text(comparison.groups) for twin in comparison.twins]
    print(with_short_names("\n".join(lines), tables.short))
    print(f"\n{to_text(verdict_table(tables), shutil.get_terminal_size((160, 24)).columns)}")
    for name, short in tables.short.items():
        print(f"{short} is {name}")
    print(f"\nReport: {output / 'report.html'} (also report.md, tables.tex, references.bib)")
    return 0
