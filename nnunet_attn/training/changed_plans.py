"""Plans derived from others by another spacing, patch or batch size; the topology follows by nnU-Net's own rule."""

import copy
from collections.abc import Sequence
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json

# What nnU-Net's planners hold for all their networks.
MIN_EDGE = 4
MAX_FEATURES = {2: 512, 3: 320}
PER_STAGE = {
    "n_conv_per_stage": (2,) * 16,
    "n_conv_per_stage_decoder": (),  # the same in all stages of the decoder
    "n_blocks_per_stage": (1, 3, 4, *(6,) * 13),
}


def change_plans(
    folder: Path,
    source: str,
    name: str,
    configuration: str,
    *,
    spacing: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    input_size: int | None = None,
) -> dict:
    """Write ``NAME.json``: one configuration of the plans ``source`` with changes; others that the file has are kept.

    A cascade comes whole: the other stages of it, and what inherits from the changed configuration, are copied. The
    data keep their identifier unless the spacing changes. Returns the new plans.

    Args:
        folder: The dataset's folder in nnUNet_preprocessed.
        source: Name of the plans to start from.
        name: Name of the new plans.
        configuration: For example "2d".
        spacing: Target spacing, one number an axis of the configuration; for 3D in the order of the image's own axes,
            as nnU-Net's ``-overwrite_target_spacing``.
        patch_size: Patch, one number an axis of the configuration, in the order of the plans.
        batch_size: Batch size.
        input_size: Edge of a fixed input, marked in the plans; the network halves it only while it is even.

    Raises:
        UserError: the plans are missing or would be overwritten, or the wish is impossible, with the nearest possible.
    """
    target = folder / f"{name}.json"
    if name == source:
        raise UserError(f"the new plans need another name than {source}; give -overwrite_plans_name")
    if not (folder / f"{source}.json").is_file():
        raise UserError(f"{folder / f'{source}.json'} is missing; run nnUNetv2_plan_experiment first, or name other "
                        "plans with --from")  # fmt: skip
    plans = load_json(folder / f"{source}.json")
    known = plans["configurations"]
    if configuration not in known:
        raise UserError(f"{source} has no configuration {configuration}, but {', '.join(known)}")
    changed = copy.deepcopy(known[configuration])
    fixed = plans.get("input_size")
    if fixed and (spacing is not None or patch_size not in (None, [fixed, fixed])):
        raise UserError(f"{source} has the input size {fixed}, so patch and spacing stay; change the batch size alone")
    if "inherits_from" in changed:
        raise UserError(
            f"{configuration} takes its settings from {changed['inherits_from']}; change that configuration instead"
        )
    dimensions = len(changed["patch_size"])
    before = list(changed["spacing"])
    if spacing is not None:
        changed["spacing"] = _checked_spacing(spacing, dimensions, plans["transpose_forward"])
    if list(changed["spacing"]) != before:
        changed["data_identifier"] = f"{name}_{configuration}"
        changed["median_image_size_in_voxels"] = [
            round(n * old / new)
            for n, old, new in zip(changed["median_image_size_in_voxels"], before, changed["spacing"], strict=True)
        ]
    if batch_size is not None:
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, got {batch_size}")
        changed["batch_size"] = batch_size
    if patch_size is not None and len(patch_size) != dimensions:
        raise UserError(
            f"{configuration} is {dimensions}D: --patch-size takes {dimensions} numbers, got {len(patch_size)}"
        )
    changed["patch_size"] = [int(n) for n in patch_size or changed["patch_size"]]
    if patch_size is not None or list(changed["spacing"]) != before:
        most = _halvings(input_size) if input_size else 999999
        _set_topology(changed, dimensions, wished=patch_size is not None, most=most)

    kept = {other: known[other] for other in _companions(known, configuration)}
    plans |= {"plans_name": name, "derived_from": source, "configurations": kept | {configuration: changed}}
    plans |= {"input_size": input_size} if input_size else {}
    if target.is_file():
        present = load_json(target)
        if present.get("derived_from") != source:
            raise UserError(f"{target} was not derived from {source} and would be lost; give another "
                            "-overwrite_plans_name")  # fmt: skip
        _check_data(folder, present["configurations"].get(configuration), changed)
        plans["configurations"] = kept | present["configurations"] | {configuration: changed}
    write_json(target, plans)
    return plans


def _companions(known: dict, configuration: str) -> list[str]:
    """Configurations that this one needs or that need it: stages of its cascade, and what inherits from it."""
    found, queue = [configuration], [configuration]
    while queue:
        here = queue.pop()
        linked = {known[here].get(key) for key in ("inherits_from", "previous_stage", "next_stage")}
        linked |= {other for other, content in known.items() if content.get("inherits_from") == here}
        more = [other for other in known if other in linked and other not in found]
        found += more
        queue += more
    return found[1:]


def _check_data(folder: Path, present: dict | None, changed: dict) -> None:
    """Refuse to give data of another spacing a name under which preprocessed data lie already."""
    if present is None or present.get("spacing") == changed["spacing"]:
        return
    data = folder / changed["data_identifier"]
    if present.get("data_identifier") == changed["data_identifier"] and data.is_dir():
        raise UserError(
            f"{data} holds data of spacing {_text(present['spacing'])}; delete it, or give another "
            "-overwrite_plans_name"
        )


def small_settings(folder: Path, source: str, configuration: str) -> dict[str, list]:
    """Spacing and patch for trying things out, as ``change_plans`` takes them: 64 pixels or 32 voxels an edge at most.

    The spacing is so large that one patch shows the median image: with a small patch on the full image, predicting the
    validation would take far longer than the training. Empty where ``change_plans`` will refuse anyway.
    """
    file = folder / f"{source}.json"
    plans = load_json(file) if file.is_file() else {"configurations": {}}
    known = plans["configurations"].get(configuration, {})
    if "patch_size" not in known:
        return {}
    most = 64 if len(known["patch_size"]) == 2 else 32
    sizes = known["median_image_size_in_voxels"]
    spacing = [old * max(1.0, n / most) for old, n in zip(known["spacing"], sizes, strict=True)]
    patch = fitting_patch(spacing, [min(round(n), most) for n in sizes])
    if spacing == list(known["spacing"]):
        return {"patch_size": patch}
    if len(spacing) == 3:  # in the order of the image's own axes
        spacing = [spacing[list(plans["transpose_forward"]).index(axis)] for axis in range(3)]
    return {"patch_size": patch, "spacing": spacing}


def fitting_patch(spacing: Sequence[float], wish: Sequence[int]) -> list[int]:
    """The patch next to a wish, as nnU-Net rounds it; ``change_plans`` takes it as it is."""
    wish = list(wish)
    for _ in range(8):  # rounding one axis may change the number of halvings
        _, _, _, fitting, _ = get_pool_and_conv_props(spacing, wish, MIN_EDGE, 999999)
        if list(map(int, fitting)) == wish:
            break
        wish = [int(n) for n in fitting]
    return wish


def _checked_spacing(spacing: Sequence[float], dimensions: int, transpose: Sequence[int]) -> list[float]:
    if len(spacing) != dimensions:
        raise UserError(
            f"this configuration is {dimensions}D: -overwrite_target_spacing takes {dimensions} numbers, "
            f"got {len(spacing)}"
        )
    if not all(0 < s < float("inf") for s in spacing):
        raise UserError(f"spacings must be positive, got {' '.join(f'{s:g}' for s in spacing)}")
    return [float(s) for s in (spacing if dimensions == 2 else [spacing[axis] for axis in transpose])]


def _halvings(size: int) -> int:
    """How often a number can be halved."""
    return (size & -size).bit_length() - 1


def _set_topology(configuration: dict, dimensions: int, *, wished: bool, most: int = 999999) -> None:
    """Stages, strides, kernels and widths for the configuration's spacing and patch.

    A patch that was asked for must fit them; one that was kept while the spacing changed is padded until it does, as
    nnU-Net pads its own.
    """
    spacing, patch = configuration["spacing"], configuration["patch_size"]
    _, strides, kernels, fitting, _ = get_pool_and_conv_props(spacing, patch, MIN_EDGE, most)
    fitting = [int(n) for n in fitting]
    if len(strides) < 2:
        raise UserError(f"a patch of {_text(patch)} is too small: at least one axis must have {2 * MIN_EDGE} voxels or "
                        "more, two where their spacings are alike")  # fmt: skip
    if fitting != patch and wished:
        below = _smaller(spacing, patch)
        raise UserError(
            f"a patch of {_text(patch)} cannot be halved as often as nnU-Net would; the nearest possible "
            f"{'are ' + _text(below) + ' and' if below else 'is'} {_text(fitting)}"
        )
    configuration["patch_size"] = fitting
    arguments = configuration["architecture"]["arch_kwargs"]
    stages, widths = len(strides), list(arguments["features_per_stage"])
    most = max(widths) if widths[-2:-1] == widths[-1:] else max(MAX_FEATURES[dimensions], *widths)
    if "patch_size" in arguments:
        arguments["patch_size"] = fitting
    arguments |= {
        "n_stages": stages,
        "strides": [list(s) for s in strides],
        "kernel_sizes": [list(k) for k in kernels],
        "features_per_stage": [min(most, widths[0] * 2**i) for i in range(stages)],
    }
    for key, default in PER_STAGE.items():
        if key in arguments:
            have, wanted = list(arguments[key]), stages - key.endswith("decoder")
            more = have[-1:] * wanted if key.endswith("decoder") else list(default[len(have) :])
            arguments[key] = (have + more)[:wanted]


def _smaller(spacing: Sequence[float], patch: Sequence[int]) -> list[int] | None:
    """The largest patch that fits and is nowhere larger than ``patch``; None below two halvings."""
    wish = list(patch)
    while min(wish) >= 1:
        _, strides, _, fitting, divisors = get_pool_and_conv_props(spacing, wish, MIN_EDGE, 999999)
        if [int(n) for n in fitting] == wish:
            return wish if len(strides) > 1 else None
        wish = [n - 1 if n % int(d) else n for n, d in zip(wish, divisors, strict=True)]
    return None


def _text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
