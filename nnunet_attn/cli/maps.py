"""Show what the attention of a trained network looks at, in figures, volumes and numbers.

  nnunet-attn maps MODEL_FOLDER CASE_0000.nii.gz -o FOLDER

Each image goes through nnU-Net's preprocessing and sliding window (without mirroring); the maps come back on its grid.
FOLDER gets, of each case, CASE.png (the figure), CASE/*.nii.gz (maps of whole cases, for ITK-SNAP and Slicer; the
prediction beside them), and of all maps.csv (means inside each class, at its border and in the background) and
maps.html. The marked place is where the prediction is least certain, or --point.

Differential cross attention shows both softmax maps of the marked pixel, their difference, lambda, and how much of the
first map the subtraction removes; Dual Cross-Attention the matrices between channels and the marked token's attention;
XAttnRes which entry of the history each pixel reads most, and the entropy of its weights; EMCAD gates and weights; FIAS
the fusion's weights and the marked pixel's attention by dilation.
"""

import argparse
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "show what the attention of a trained network looks at"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a trained model")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="a folder, or files CASE_0000.ending")
    shared.add_output(parser, "folder to write", required=True)
    parser.add_argument("-f", "--fold", metavar="FOLD", help="a single fold (default: the first that is trained)")
    shared.add_checkpoint(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--slice", dest="slice_index", type=int, metavar="N", help="only slice N (from 0, along z)")
    place.add_argument("--point", type=int, nargs=3, metavar=("X", "Y", "Z"), help="the marked voxel, from 0")
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="PATTERN",
        help="layers to draw, with each head by itself, for example 'x_dec.*' (default: the last layer of each kind)",
    )
    parser.add_argument("--no-volumes", action="store_true", help="write no NIfTI files")
    shared.add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    from nnunet_attn.maps.command import write_maps

    write_maps(
        options.model,
        options.images,
        options.output,
        fold=options.fold,
        checkpoint=options.checkpoint,
        point=options.point,
        slice_index=options.slice_index,
        layers=options.layers,
        volumes=not options.no_volumes,
        overwrite=options.overwrite,
    )
    print(options.output / "maps.html")
    return 0
