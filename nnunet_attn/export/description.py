"""``model.json``: all that a program in any language needs to run the network; and checks of what can be exported."""

from pathlib import Path
from typing import Any

from nnunet_attn import __version__
from nnunet_attn.errors import UserError
from nnunet_attn.files import sha256
from nnunet_attn.training.trained_model import TrainedModel

FORMAT = 1
RESAMPLING = "resample_data_or_seg_to_shape"
NORMALIZATIONS = (
    "CTNormalization",
    "NoNormalization",
    "RGBTo01Normalization",
    "RescaleTo01Normalization",
    "ZScoreNormalization",
)
# packages that predict.py needs for files, besides numpy, scipy and onnxruntime
READER_PACKAGES = {
    "NaturalImage2DIO": ("Pillow",),
    "SimpleITKIO": ("SimpleITK",),
    "SimpleITKIOWithReorient": ("SimpleITK",),
    "NibabelIO": ("nibabel",),
}
NOTES = {
    "axes": "Arrays are (channel, z, y, x); spacings in that order, in mm. transpose_forward reorders z, y, x first; "
    "spacing, patch_size and mirror_axes hold in the new order. A 2D model takes the slices along the first axis.",
    "order": "transpose, crop to the box of voxels that are not 0 in some channel, normalise, resample to spacing, pad "
    "with 0 to patch_size, sliding window, cut the padding off, mean over folds, resample the logits to the cropped "
    "shape, labels, put into the whole image, transpose_backward.",
    "normalization": "One step a channel. With use_mask, only voxels inside the non-zero region, its holes filled.",
    "resampling": "Splines of this order, values cut to the input's range, nearest slice along an axis that is more "
    "than 3 times coarser than the finest (before or after). 2D models keep the first axis.",
    "sliding_window": "Tiles at most step_size tiles apart, evenly; logits times Gaussian weights, summed and divided "
    "by the sum of weights, all kept in float16. The logits of a tile are the mean over all combinations of flips.",
    "labels": "Without regions_class_order the largest output; with it, output i > 0 (sigmoid > 0.5) writes label "
    "regions_class_order[i], the later over the earlier.",
}


def check_exportable(model: TrainedModel, refused: str = "cannot be exported") -> None:
    """Raise if ``predict.py`` would not do exactly what nnU-Net does with this model.

    Args:
        model: The model.
        refused: What the message says of it.

    Raises:
        UserError: the model is a cascade, or has an unusual resampling, preprocessing, normalisation or file format.
    """
    plan, name = model.configuration_manager, f"{model.folder.name} {refused}"
    if plan.previous_stage_name is not None:
        raise UserError(
            f"{name}: {model.configuration} is a cascade on {plan.previous_stage_name}; cascades are not supported"
        )
    for purpose in ("data", "probabilities"):
        function = plan.configuration[f"resampling_fn_{purpose}"]
        if function != RESAMPLING:
            raise UserError(f"{name}: its plans resample by {function}, only {RESAMPLING} runs without torch")
        if plan.configuration[f"resampling_fn_{purpose}_kwargs"].get("order_z", 0) != 0:
            raise UserError(
                f"{name}: its plans interpolate between slices (order_z), only the nearest slice is supported"
            )
    if plan.configuration["preprocessor_name"] != "DefaultPreprocessor":
        raise UserError(f"{name}: its plans name the preprocessor {plan.configuration['preprocessor_name']}")
    if model.plans.get("label_manager", "LabelManager") != "LabelManager":
        raise UserError(f"{name}: its plans name the label manager {model.plans['label_manager']}")
    unknown = sorted(set(plan.normalization_schemes) - set(NORMALIZATIONS))
    if unknown:
        raise UserError(f"{name}: unknown normalisation {', '.join(unknown)}; known: {', '.join(NORMALIZATIONS)}")
    if model.plans["image_reader_writer"] not in READER_PACKAGES:
        raise UserError(
            f"{name}: its images are read by {model.plans['image_reader_writer']}; "
            f"supported: {', '.join(READER_PACKAGES)}"
        )


def requirements(model: TrainedModel) -> list[str]:
    """Packages that ``predict.py`` needs for this model."""
    packages = {"numpy", "onnxruntime", "scipy", *READER_PACKAGES[model.plans["image_reader_writer"]]}
    if model.dataset_json["file_ending"] == ".tif":
        packages.add("tifffile")
    return sorted(packages, key=str.lower)


def describe(model: TrainedModel, files: dict[str, Path], opset: int) -> dict[str, Any]:
    """The content of ``model.json``; ``files`` are the ONNX files by fold."""
    plan, labels = model.configuration_manager, model.label_manager
    intensities = model.plans_manager.foreground_intensity_properties_per_channel
    configuration = plan.configuration
    resampling = {
        name: {
            "order": configuration[f"resampling_fn_{purpose}_kwargs"]["order"],
            "force_separate_z": configuration[f"resampling_fn_{purpose}_kwargs"].get("force_separate_z", False),
        }
        for name, purpose in (("image", "data"), ("logits", "probabilities"))
    }
    return {
        "format": FORMAT,
        "notes": NOTES,
        "source": {
            "dataset": model.plans["dataset_name"],
            "model": model.folder.name,
            "trainer": model.trainer,
            "plans": model.plans["plans_name"],
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "nnunet_attn": __version__,
        },
        "folds": [
            {
                "fold": fold,
                "file": file.name,
                "sha256": sha256(file),
                "checkpoint_sha256": sha256(model.folder / f"fold_{fold}" / model.checkpoint),
            }
            for fold, file in files.items()
        ],
        "opset": opset,
        "input": "image",
        "output": "logits",
        "outputs": labels.num_segmentation_heads,
        "channels": model.channels,
        "file_ending": model.dataset_json["file_ending"],
        "reader": model.plans["image_reader_writer"],
        "transpose_forward": list(model.plans_manager.transpose_forward),
        "transpose_backward": list(model.plans_manager.transpose_backward),
        "normalization": [
            {"scheme": scheme, "use_mask": bool(use_mask), "intensities": intensities[str(channel)]}
            for channel, (scheme, use_mask) in enumerate(
                zip(plan.normalization_schemes, plan.use_mask_for_norm, strict=True)
            )
        ],
        "spacing": list(plan.spacing),
        "resampling": resampling,
        "patch_size": [int(n) for n in plan.patch_size],
        "step_size": 0.5,
        "gaussian": {"sigma_scale": 1 / 8, "maximum": 10},
        "mirror_axes": list(model.mirror_axes or ()),
        "labels": model.dataset_json["labels"],
        "regions_class_order": list(labels.regions_class_order) if labels.has_regions else None,
        "highest_label": int(max(labels.all_labels)),
    }
