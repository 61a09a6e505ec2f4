"""Options that several commands share. Standard library only.

The rule: an option of more than one command is defined here, once, so that it has one name, one meaning and one help
text everywhere. Where nnU-Net has such an option, its name is used (``-c``, ``-f``, ``-tr``, ``-np``, ``-chk``,
``-device``, ``-overwrite_plans_name``, ``-gpu_memory_target``).

===========================  ===========================================================================================
``-f``, ``--folds``          A list of folds. Their number is ``--num-folds``; a command for one fold has ``--fold``.
``-o``, ``--output``         The file or folder that the command writes. It appears once it is complete.
``--overwrite``              Replace an output folder that exists, which is an error otherwise. Files are replaced.
``--groups``                 Which cases belong together: a CSV file of case and group, or a regular expression.
``-tr``, ``--trainers``      Names of trainers, or ``TRAINER:PLANS``. The first is the baseline.
``-np``, ``--processes``     Number of worker processes.
===========================  ===========================================================================================
"""

import argparse
import os
from pathlib import Path
from typing import Any


def default_processes() -> int:
    """nnU-Net's own setting, or eight, but no more than there are cores."""
    return min(int(os.environ.get("nnUNet_def_n_proc", 8)), os.cpu_count() or 1)


# argparse's parsers and groups of options
Parser = argparse._ActionsContainer


def add_configuration(parser: Parser, default: str | None = None) -> None:
    """``--configuration``; required unless ``default`` describes what is used without it."""
    text = "configuration of nnU-Net, such as 2d or 3d_fullres" + (f" (default: {default})" if default else "")
    parser.add_argument("-c", "--configuration", metavar="CONFIGURATION", required=default is None, help=text)


def add_folds(parser: Parser, default: str) -> None:
    """``--folds``; ``default`` describes the folds that are used without it."""
    parser.add_argument("-f", "--folds", nargs="+", metavar="FOLD", help=f"list of folds (default: {default})")


def add_checkpoint(parser: Parser) -> None:
    """``-chk``."""
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        metavar="NAME",
        default="checkpoint_final.pth",
        help="file name of the checkpoint (default: %(default)s)",
    )


def add_device(parser: Parser, default: str | None = "cpu") -> None:
    """``-device``; None means CUDA if torch can use it."""
    text = f"device (default: {default or 'cuda if torch can use it'})"
    parser.add_argument("-device", choices=("cpu", "cuda"), default=default, help=text)


def add_output(parser: Parser, what: str, *, required: bool = False) -> None:
    """``--output``; ``what`` describes the output and its default."""
    more: dict[str, Any] = {"required": True} if required else {}  # a group of alternatives takes no such argument
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help=what, **more)


def add_overwrite(parser: Parser) -> None:
    """``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")


CASE_GROUPS = (
    "a CSV file with the header 'case,patient' and lines of case and group, a JSON file of case and group, or a "
    "regular expression whose first parentheses enclose the group in the case's name; default: the dataset's "
    "manifest.json, else names like patient007_frame01"
)


def add_groups(parser: Parser, forms: str = CASE_GROUPS) -> None:
    """``--groups``, formerly ``--patients``; ``forms`` describes its values and the default."""
    text = f"which cases belong together (one patient, video, slide): {forms}"
    parser.add_argument("--groups", "--patients", metavar="FILE|REGEX", help=text)


def add_nsd_tolerance(parser: Parser, default: float | None = 1.0) -> None:
    """``--nsd-tolerance``; without a default, the study file's value is used."""
    shown = "1, or as in the study file" if default is None else f"{default:g}"
    parser.add_argument(
        "--nsd-tolerance",
        type=float,
        default=default,
        metavar="T",
        help=f"tolerance of NSD in mm, in pixels for pictures (default: {shown})",
    )


def add_voxels(parser: Parser) -> None:
    """``--voxels``."""
    parser.add_argument(
        "--voxels",
        action="store_true",
        help="HD95, ASSD and the tolerance of NSD in voxels: for files that do not hold the true spacing",
    )


def add_report_contents(parser: Parser) -> None:
    """``--no-surface`` and ``--published``."""
    parser.add_argument(
        "--no-surface", action="store_true", help="leave out HD95, ASSD and NSD, which need all predictions"
    )
    parser.add_argument("--published", action="store_true", help="also list results printed in the papers")


def add_dataset_json(parser: Parser) -> None:
    """``--dataset-json``."""
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="defines classes, regions and ignore label (default: searched beside predictions and references)",
    )


def add_references(parser: Parser, *, required: bool = False) -> None:
    """``--references``."""
    text = "folder of reference label maps" + ("" if required else " (default: that of nnU-Net's raw dataset)")
    parser.add_argument("--references", type=Path, metavar="FOLDER", required=required, help=text)


def add_trainers(parser: Parser, what: str) -> None:
    """``--trainers``."""
    parser.add_argument("-tr", "--trainers", nargs="+", required=True, metavar="NAME[:PLANS]", help=what)


def add_processes(parser: Parser) -> None:
    """``--processes``."""
    parser.add_argument(
        "-np",
        "--processes",
        type=int,
        default=default_processes(),
        metavar="N",
        help="number of worker processes (default: %(default)s)",
    )
