"""Options that several commands share. Standard library only.

The rule: an option that more than one command has is made here, once, so that it has one name, one meaning and one
help text everywhere. nnU-Net's own names are used where nnU-Net has the thing (``-c``, ``-tr``, ``-np``,
``-overwrite_plans_name``, ``-gpu_memory_target``).

===================  ===================================================================================================
``-f``, ``--folds``  Always a list of folds. Their number is ``--num-folds``.
``-o``, ``--output``  What the command writes: a file or a folder. It appears when it is complete.
``--overwrite``      Replace a folder that is there, which is refused otherwise. Single files are replaced without it.
``--groups``         Which cases belong together: a CSV file of case and group, or a pattern on the cases' names.
``-tr``, ``--trainers``  Names of trainers; where plans may differ, ``TRAINER:PLANS``. The first is the baseline.
``-np``, ``--processes``  Worker processes.
===================  ===================================================================================================
"""

import argparse
import os
import sys
from pathlib import Path


def coloured(text: str, colour: int) -> str:
    """In an ANSI colour on a terminal; plain where NO_COLOR is set (no-color.org), or nobody looks."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\033[{colour}m{text}\033[0m"


def default_processes() -> int:
    """nnU-Net's own setting, or eight, but no more than there are cores."""
    return min(int(os.environ.get("nnUNet_def_n_proc", 8)), os.cpu_count() or 1)


def add_folds(parser: argparse.ArgumentParser, default: str) -> None:
    """``--folds``; ``default`` says in words which folds are taken without it."""
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help=f"list of folds (default: {default})")


def add_output(parser: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    """``--output``; ``what`` is written, with its default."""
    parser.add_argument("-o", "--output", type=Path, required=required, metavar="PATH", help=what)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")


def add_groups(parser: argparse.ArgumentParser) -> None:
    """``--groups``, of which ``--patients`` is an older name."""
    parser.add_argument(
        "--groups",
        "--patients",
        metavar="RULE",
        help="which cases belong together (one patient, video, slide): a CSV file with a line 'case,patient' and lines "
        "of case and group, a JSON file of case and group, or a regular expression whose first bracket in the case's "
        "name is the group; default: the dataset's manifest.json, else names like patient007_frame01",
    )


def add_trainers(parser: argparse.ArgumentParser, what: str) -> None:
    """``--trainers``."""
    parser.add_argument("-tr", "--trainers", nargs="+", required=True, metavar="NAME[:PLANS]", help=what)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """``--processes``."""
    parser.add_argument(
        "-np",
        "--processes",
        type=int,
        default=default_processes(),
        metavar="N",
        help="worker processes (default: %(default)s)",
    )
