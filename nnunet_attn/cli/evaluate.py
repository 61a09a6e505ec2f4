"""Score predictions: Dice, IoU, HD95, ASSD, normalised surface distance, volume difference, per case and class.

  nnunet-attn evaluate PREDICTIONS REFERENCES          two folders of label maps (NIfTI, PNG, ...)
  nnunet-attn evaluate RESULTS/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION     its validation, all folds

Writes a long CSV table and a JSON summary, and prints the means. Classes, regions and ignore label come from the
dataset.json that is found beside either folder. HD95 pools both directions (medpy's definition); other tools report
the larger direction, which is another number."""

import argparse
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "score predictions per case and class: Dice, IoU, HD95, surface distance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predictions", type=Path, help="folder of predictions, a trained model's folder, or a fold of it"
    )
    parser.add_argument(
        "references", type=Path, nargs="?", help="folder of references; nnU-Net's own for a trained model"
    )
    shared.add_output(parser, "CSV file; the summary goes beside it (default: into PREDICTIONS)")
    parser.add_argument(
        "--protocol",
        choices=("nnunet", "transunet"),
        default="nnunet",
        help="nnunet: a class absent from both masks is left out. transunet: scoring of the TransUNet family's papers, "
        "without spacing; an absent class that is predicted scores Dice 1, a missed one 0 with HD95 0",
    )
    parser.add_argument(
        "--at-input-size",
        action="store_true",
        help="of a dataset converted with --input-size: score at that size, in the network's pixels; otherwise at the "
        "original size, with the true spacing",
    )
    shared.add_nsd_tolerance(parser)
    shared.add_voxels(parser)
    shared.add_folds(parser, "all that a trained model has")
    shared.add_groups(parser)
    parser.add_argument(
        "--only-predicted", action="store_true", help="score the predicted cases although others lack a prediction"
    )
    shared.add_dataset_json(parser)
    parser.add_argument(
        "-l", "--labels", type=int, nargs="+", help="label values to score, if there is no dataset.json"
    )
    shared.add_processes(parser)


def run(options: argparse.Namespace) -> int:
    from nnunet_attn.errors import UserError
    from nnunet_attn.files import check_writable
    from nnunet_attn.scoring.evaluate import evaluate, text_intervals, text_table, write

    if options.nsd_tolerance < 0:
        raise UserError(f"--nsd-tolerance must not be negative, got {options.nsd_tolerance}")
    output = options.output or options.predictions / "nnunet_attn_metrics.csv"
    if output.suffix.lower() == ".json":
        raise UserError(
            f"-o names the CSV table, and {output} would be its summary's name; give {output.with_suffix('.csv')}"
        )
    if options.output or options.predictions.is_dir():
        check_writable(output)
        check_writable(output.with_suffix(".json"))
    result = evaluate(
        options.predictions,
        options.references,
        dataset_json=options.dataset_json,
        labels=options.labels,
        folds=options.folds,
        groups=options.groups,
        protocol=options.protocol,
        tolerance=options.nsd_tolerance,
        voxels=options.voxels,
        only_predicted=options.only_predicted,
        at_input_size=options.at_input_size,
        processes=options.processes,
    )
    table, summary = write(result, output)
    print(text_table(result.summary))
    print(text_intervals(result.summary))
    size = f", size: {result.summary['size']}" if result.summary["size"] else ""
    print(f"\n{result.summary['cases']} cases, protocol {options.protocol}{size}; written: {table}, {summary}")
    return 0
