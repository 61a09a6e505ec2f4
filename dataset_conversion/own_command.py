"""The command line for data of the user's own: ``nnunet-attn convert pictures`` and ``nnunet-attn convert volumes``."""

import argparse
from collections.abc import Callable

from nnunet_attn.dataset_conversion.catalog import OWN_PICTURES, OWN_VOLUMES
from nnunet_attn.dataset_conversion.command import add_common_arguments, run_converter
from nnunet_attn.errors import UserError

OWN = {"pictures": OWN_PICTURES, "volumes": OWN_VOLUMES}
DESCRIPTIONS = {
    "pictures": """\
Convert pictures and masks of your own (PNG, JPEG, BMP, TIFF; any sizes; RGB or grey) to nnU-Net's raw format.

IMAGES and MASKS are folders, zip or tar archives, or quoted patterns such as 'data/*_mask.png'. A picture and its mask
share a name apart from a prefix or suffix that all pictures, or all masks, have in common: img_7.jpg with mask_7.png,
7.jpg with 7_segmentation.png; or each pair has a folder of its own. No file is dropped silently: files that do not pair
are an error that names them.

Masks are black and white (or 0 and 1) unless --labels or --colours says what they hold. A file preview.png in the
dataset's folder shows up to 16 pictures with the outlines of their masks: look at it.""",
    "volumes": """\
Convert volumes and label maps of your own (.nii, .nii.gz, .nrrd, .mha) to nnU-Net's raw format.

IMAGES and LABELS are folders, zip or tar archives, or quoted patterns such as 'data/*/*_seg.nii.gz'. An image and its
label map share a name apart from a prefix or suffix that all images, or all label maps, have in common; or each pair
has a folder of its own: 'kits/*/imaging.nii.gz' with 'kits/*/segmentation.nii.gz'. No file is dropped silently: files
that do not pair are an error that names them. A label map must have the geometry of its image. A file preview.png in
the dataset's folder shows up to 16 cases with the outlines of their labels: look at it.""",
}
EXAMPLES = {
    "pictures": """\
examples:
  black and white masks of the same names:
    nnunet-attn convert pictures data/images data/masks 40
  masks that hold a value for each label; 255 is not scored:
    nnunet-attn convert pictures images masks 40 --name Surgery --labels background=0 polyp=1 tool=2,3 ignore=255
  masks that hold a colour for each label:
    nnunet-attn convert pictures images masks 40 --colours polyp=255,0,0 tool=0,0,255
  pictures and masks in one folder; several pictures of a patient, told by the name (p01_003.png):
    nnunet-attn convert pictures data 'data/*_mask.png' 40 --groups '(?P<patient>p[0-9]+)_'
  a list of cases and their groups; three folds; pictures for testing with their masks:
    nnunet-attn convert pictures images masks 40 --groups patients.csv --num-folds 3 --test test/images test/masks
  what would be done:
    nnunet-attn convert pictures images masks 40 --dry-run""",
    "volumes": """\
examples:
  one channel; "CT" makes nnU-Net normalise by Hounsfield units:
    nnunet-attn convert volumes data/images data/labels 41 --name Liver --channels CT --labels liver=1 tumour=2
  labels taken together or left out of the names, with others as background:
    nnunet-attn convert volumes images labels 41 --labels background=0,3 lung=1,2
  several channels, told by patterns of file names:
    nnunet-attn convert volumes BraTS 'BraTS/*/*_seg.nii.gz' 42 --channels 'T1=*_t1.nii.gz' 'FLAIR=*_flair.nii.gz' \\
        --labels necrosis=1 oedema=2 enhancing=4
  several channels with nnU-Net's suffixes _0000, _0001:
    nnunet-attn convert volumes imagesTr labelsTr 43 --channels T2 ADC
  several volumes of a patient; label maps whose header is slightly off:
    nnunet-attn convert volumes images labels 44 --groups '(?P<patient>patient[0-9]+)' --resample-mask""",
}


def add_parsers(datasets: argparse._SubParsersAction) -> None:
    """Add both commands."""
    for key, about in OWN.items():
        parser = datasets.add_parser(
            key,
            help=about.title,
            description=DESCRIPTIONS[key],
            epilog=EXAMPLES[key],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add = parser.add_argument
        labels = "MASKS" if key == "pictures" else "LABELS"
        add("images", metavar="IMAGES", help="folder, archive or quoted pattern of the images")
        add("masks", metavar=labels, help=f"folder, archive or quoted pattern of the {labels.lower()}")
        add("dataset_id", type=int, metavar="DATASET_ID", help="nnU-Net's number for the dataset, 1 to 999")
        add("--name", help=f"the NAME in DatasetXXX_NAME (default: {about.folder}, and the input size if there is one)")
        add(
            "--test",
            nargs="+",
            default=[],
            metavar="PATH",
            help=f"images for testing, and their {labels.lower()} if any",
        )
        add("--labels", nargs="+", default=[], metavar="NAME=VALUE[,VALUE]", help="name of each value of the masks")
        if key == "pictures":
            add(
                "--colours",
                "--colors",
                nargs="+",
                default=[],
                metavar="NAME=R,G,B",
                help="name of each colour of the masks",
            )
            add(
                "--channels",
                choices=("auto", "rgb", "grey"),
                default="auto",
                help="auto: grey if all pictures are grey, else rgb",
            )
        else:
            add(
                "--channels",
                nargs="+",
                default=["image"],
                metavar="NAME[=PATTERN]",
                help="names of the channels, with a pattern of file names for each if there are several",
            )
            add("--resample-mask", action="store_true", help="resample label maps to the grids of their images")
        add_common_arguments(parser)


def run(key: str, options: argparse.Namespace) -> int:
    """Convert, describe or verify.

    Raises:
        UserError: The source or the set-up is wrong, or Ctrl-C was pressed.
    """
    from nnunet_attn.dataset_conversion.own_names import split_pattern

    if len(options.test) > 2:
        raise UserError(f"--test takes images, and their masks if there are any; got {len(options.test)} paths")
    paths = [split_pattern(given) for given in (options.images, options.masks, *options.test)]
    options.source = [path for path, _ in paths]
    settings = {"patterns": [pattern for _, pattern in paths], "test": len(options.test), "labels": options.labels}
    settings["channels"] = options.channels
    if key == "pictures":
        settings["colours"] = options.colours
    else:
        settings["resample_mask"] = options.resample_mask
    return run_converter(_maker(key), settings, options)


def _maker(key: str) -> Callable:
    import importlib

    return importlib.import_module(f"nnunet_attn.dataset_conversion.own_{key}").make_converter
