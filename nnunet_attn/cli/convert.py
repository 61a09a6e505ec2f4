"""Convert a dataset as downloaded (unpacked folder, zip or tar) to nnU-Net's raw format."""

import argparse

from nnunet_attn.dataset_conversion import command, own_command
from nnunet_attn.dataset_conversion.catalog import DATASETS

HELP = "convert a dataset as downloaded to nnU-Net's raw format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Your own data: nnunet-attn convert pictures --help, nnunet-attn convert volumes --help\n\n"
    parser.epilog += "\n\n".join(f"{key}: {command.about(key)}" for key in DATASETS)
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    own_command.add_parsers(datasets)
    for key, dataset in DATASETS.items():
        subparser = datasets.add_parser(
            key,
            help=dataset.title,
            description=command.about(key),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser, dataset)


def run(options: argparse.Namespace) -> int:
    runner = own_command if options.dataset in own_command.OWN else command
    return runner.run(options.dataset, options)
