"""Convert a dataset as downloaded (unpacked folder, zip or tar) to nnU-Net's raw format."""

import argparse

from nnunet_attn.dataset_conversion import command
from nnunet_attn.dataset_conversion.catalog import DATASETS

HELP = "convert a dataset as downloaded to nnU-Net's raw format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "\n\n".join(f"{key}: {command.about(key)}" for key in DATASETS)
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    for key, dataset in DATASETS.items():
        subparser = datasets.add_parser(
            key,
            help=dataset.title,
            description=command.about(key),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser, dataset)


def run(options: argparse.Namespace) -> int:
    return command.run(options.dataset, options)
