"""Write a trained model as ONNX, with a script that predicts without torch and nnU-Net.

  nnunet-attn export MODEL_FOLDER -o FOLDER
  cd FOLDER && pip install -r requirements.txt && python predict.py -i IMAGES -o PREDICTIONS

MODEL_FOLDER is TRAINER__PLANS__CONFIGURATION in nnUNet_results, of any trainer: ours, or stock nnU-Net's. FOLDER gets
fold_X.onnx (one for each fold, float32, the patch fixed, any batch), model.json (preprocessing, sliding window, labels,
for readers in any language), predict.py and requirements.txt. Each ONNX file is compared with the model on random
patches; if their logits differ by 1e-4 of the largest, FOLDER is not made. Cascades are refused, and plans that
resample by torch.

  nnunet-attn export MODEL_FOLDER --check FOLDER IMAGES

predicts images by FOLDER/predict.py and by nnU-Net's predictor of MODEL_FOLDER, and compares the labels voxel by voxel.

Needs the extra packages of: pip install "nnunet-attn[export]"
"""

import argparse
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "write a trained model as ONNX that predicts without torch and nnU-Net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="a trained model")
    kind = parser.add_mutually_exclusive_group(required=True)
    shared.add_output(kind, "folder to write")
    kind.add_argument(
        "--check", type=Path, nargs="+", metavar=("FOLDER", "IMAGES"), help="compare an export with nnU-Net on images"
    )
    shared.add_folds(parser, "all that are trained")
    shared.add_checkpoint(parser)
    shared.add_overwrite(parser)


def run(options: argparse.Namespace) -> int:
    return check(options) if options.check else export(options)


def export(options: argparse.Namespace) -> int:
    """Write the export."""
    from nnunet_attn.export.export import check_packages, export_model
    from nnunet_attn.files import refuse_existing
    from nnunet_attn.training.trained_model import read_model

    check_packages()
    refuse_existing(options.output, options.overwrite, [options.model])
    model = read_model(options.model, options.folds, options.checkpoint)
    differences = export_model(model, options.output, overwrite=options.overwrite)
    print(options.output)
    for fold, difference in differences.items():
        print(f"  fold {fold}: logits agree, largest difference {difference:.1e} of the largest logit")
    return 0


def check(options: argparse.Namespace) -> int:
    """Compare an export with nnU-Net; exit code 1 where they do not agree."""
    from nnunet_attn.errors import UserError
    from nnunet_attn.export.agreement import DICE_DIFFERENCE, EQUAL_VOXELS, check_export
    from nnunet_attn.export.export import check_packages

    folder, *images = options.check
    if not images:
        raise UserError("--check takes the export's folder and then images: --check FOLDER IMAGES")
    absent = [str(path) for path in (options.model, folder, *images) if not path.exists()]
    if absent:
        raise UserError(f"no such file or folder: {', '.join(absent)}")
    another = options.checkpoint != "checkpoint_final.pth"
    given = {"-f": options.folds, "-chk": another, "--overwrite": options.overwrite}
    if unused := [flag for flag, value in given.items() if value]:
        raise UserError(f"--check compares all that is in FOLDER and writes nothing: leave out {' '.join(unused)}")
    check_packages()
    results = check_export(folder, options.model, images)
    for case, agreement in results.items():
        print(f"{case}: {agreement}")
    agrees = results["all cases"].agrees
    print(
        f"{'agrees' if agrees else 'DOES NOT AGREE'}: at least {100 * EQUAL_VOXELS:g} % equal voxels and Dice "
        f"differences below {DICE_DIFFERENCE:g} over all cases are asked for"
    )
    return 0 if agrees else 1
