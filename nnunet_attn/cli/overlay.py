"""Draw the qualitative figure: rows of cases; columns image, reference, and each method's prediction.

  nnunet-attn overlay -o figure.png --images imagesTs --references labelsTs \\
      --predictions nnU-Net=PREDICTIONS_A DCAU-Net=PREDICTIONS_B

Without --cases it picks the worst, the median and the best case by Dice, the mean over the methods. Grey levels are
windowed to what lies around the foreground, which is what CT needs; a scale bar is drawn where the spacing is in mm.
A folder of predictions may also be a trained model's (TRAINER__PLANS__CONFIGURATION), whose validation is drawn."""

import argparse
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "draw image, reference and predictions of some cases side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="folder with CASE_0000.ext, CASE_0001.ext, ...")
    shared.add_references(parser, required=True)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="[NAME=]FOLDER",
        help="folders of predictions, one for each column, and the column's title",
    )
    shared.add_output(parser, "picture (png, svg, pdf)", required=True)
    parser.add_argument(
        "--cases", nargs="+", metavar="CASE", help="cases to draw (default: worst, median and best by mean Dice)"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="instead: N cases, spread evenly over all")
    parser.add_argument(
        "--select",
        choices=("foreground", "disagreement"),
        default="foreground",
        help="slice of a volume: the one with the largest foreground, or with most voxels that a prediction has wrong",
    )
    parser.add_argument("--channel", type=int, default=0, help="channel shown, unless the image is a colour picture")
    parser.add_argument("--dpi", type=int, default=150, help="resolution (default: %(default)s)")
    shared.add_dataset_json(parser)


def run(options: argparse.Namespace) -> int:
    import sys

    from tqdm import tqdm

    from nnunet_attn.errors import UserError
    from nnunet_attn.files import check_writable
    from nnunet_attn.report.overlay import overlay, pick_cases
    from nnunet_attn.scoring.cases import listed
    from nnunet_attn.scoring.classes import Classes
    from nnunet_attn.scoring.folders import files_by_case, find_dataset_json, image_files, predicted_files

    check_writable(options.output)
    named = [("", text) if Path(text).is_dir() else text.rpartition("=")[::2] for text in options.predictions]
    folders = [Path(folder) for _, folder in named]
    found = options.dataset_json or find_dataset_json(options.references, *folders)
    if found is None:
        raise UserError("no dataset.json beside references or predictions names the classes; give --dataset-json")
    references = files_by_case(options.references)
    predictions = [predicted_files(folder) for folder in folders]

    cases = options.cases or sorted(set(references).intersection(*predictions))
    missing = sorted({case for case in cases for files in (references, *predictions) if case not in files})
    if missing:
        raise UserError(f"without reference or a prediction: {listed(missing)}")
    if not cases:
        raise UserError("no case has a reference and a prediction of every method")
    classes = Classes.from_file(found)
    names = [name or folder.name.split("__")[0] for (name, _), folder in zip(named, folders, strict=True)]
    titles: dict[str, str] = {}
    if options.cases is None and options.rows is None:
        with tqdm(total=len(cases), unit="case", desc="Dice", file=sys.stderr, disable=None) as bar:
            titles = pick_cases(cases, references, predictions, classes, bar.update)
        cases = list(titles) or cases[:3]
    overlay(
        [(image_files(options.images, case), case) for case in cases],
        {"reference": references} | dict(zip(names, predictions, strict=True)),
        options.output,
        labels=classes.drawn,
        classes=classes,
        titles=titles,
        select=options.select,
        rows=None if options.cases else options.rows,
        channel=options.channel,
        dpi=options.dpi,
    )
    print(options.output)
    return 0
