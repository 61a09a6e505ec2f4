"""Write plans: for one of our networks, sized by that network's memory, or copies of other plans with changes.

1. Plans for one of our networks. Patch and batch size are planned by nnU-Net's rules for the memory that the network
   itself keeps, so that networks compare at equal memory:

  nnunet-attn plan 27 --network MixAtt -gpu_memory_target 8
  nnUNetv2_train 27 3d_fullres 0 -p MixAttPlans

Plans for networks on nnU-Net's own (DiffCA, DualCA, MixAtt, XAttnRes; with --residual on its residual encoder) name the
network and train with the stock trainer, which brings its own recipe; nnUNetTrainerMixAtt trains on them as well, with
ours. Plans for networks of fixed shape (DCAUNet, FIAS, ...) have 2D configurations only and need the network's trainer:

  nnunet-attn plan 27 --network DCAUNet
  nnUNetv2_train 27 2d 0 -p DCAUNetPlans -tr nnUNetTrainerDCAUNet

2. Plans with changes, for every trainer. Stages, strides and kernels follow by nnU-Net's own rule:

  nnunet-attn plan 27 --from nnUNetPlans -overwrite_plans_name Small -c 2d -overwrite_target_spacing 2.5 2.5 \\
      --patch-size 96 96 --batch-size 10
  nnUNetv2_preprocess -d 27 -plans_name Small -c 2d
  nnUNetv2_train 27 2d 0 -p Small -tr nnUNetTrainerDCAUNet

3. Plans with a paper's fixed input, for a dataset that was converted with the same --input-size:

  nnunet-attn plan 27 --input-size 224 --batch-size 24
  nnUNetv2_preprocess -d 27 -plans_name Input224Batch24 -c 2d
  nnUNetv2_train 27 2d 0 -p Input224Batch24 -tr nnUNetTrainerDCAUNet_paper

4. Plans for trying things out: images shrunk to a tiny patch, for a smoke test of a minute or two on a CPU:

  nnunet-attn plan 27 --debug
  nnUNetv2_preprocess -d 27 -plans_name nnUNetPlansDebug -c 2d
  nnUNetv2_train 27 2d 0 -p nnUNetPlansDebug -tr nnUNetTrainerDCAUNet_1epochs_2iterations -device cpu

The dataset must have its fingerprint (from nnUNetv2_plan_and_preprocess or nnUNetv2_extract_fingerprint). Data that are
preprocessed already are used again wherever the preprocessing is the same.
"""

import argparse
from typing import Any

from nnunet_attn import command_options as shared
from nnunet_attn.catalog import ENTRIES

HELP = "write plans for one of our networks, or other plans with changes"

NETWORKS = {entry.trainer.removeprefix("nnUNetTrainer"): entry for entry in ENTRIES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="name or ID of a dataset in nnUNet_raw")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--network", choices=tuple(NETWORKS), help="network to plan for (see nnunet-attn list)")
    kind.add_argument("--debug", action="store_true", help="nnUNetPlans with tiny images and batch, for a smoke test")
    kind.add_argument("--from", dest="source", metavar="PLANS", help="plans to change, for example nnUNetPlans")
    kind.add_argument("--input-size", type=int, metavar="PIXELS", help="input of a paper, as given to convert")
    parser.add_argument("-overwrite_plans_name", metavar="NAME", help="name of the plans (default: DualCAPlans, ...)")
    parser.add_argument(
        "-overwrite_target_spacing",
        metavar="MM",
        type=float,
        nargs="+",
        help="target spacing: three numbers for 3D as in nnU-Net; with --from, two for 2d",
    )
    network = parser.add_argument_group("with --network")
    network.add_argument("--residual", action="store_true", help="on nnU-Net's residual encoder (ResEnc M)")
    network.add_argument("-gpu_memory_target", metavar="GB", type=float, help="memory to plan for (default: 8)")
    network.add_argument(
        "-preprocessor_name", metavar="CLASS", default="DefaultPreprocessor", help="preprocessor, as in nnU-Net"
    )
    changes = parser.add_argument_group("with --from (--batch-size also with --input-size)")
    shared.add_configuration(changes, "2d")
    changes.add_argument("--patch-size", metavar="VOXELS", type=int, nargs="+", help="patch, one number an axis")
    changes.add_argument("--batch-size", metavar="N", type=int, help="batch size")


def run(options: argparse.Namespace) -> None:
    import math
    import re

    from nnunet_attn.errors import UserError

    if options.gpu_memory_target is not None and not 0 < options.gpu_memory_target < math.inf:
        raise UserError(f"-gpu_memory_target must be a positive number of GB, got {options.gpu_memory_target:g}")
    name = options.overwrite_plans_name
    if name is not None and (not re.fullmatch(r"\w[\w.-]*", name) or "__" in name):  # nnU-Net joins names by "__"
        raise UserError(
            "-overwrite_plans_name becomes the name of a file and of folders: letters, digits, '.', '-' and single "
            f"'_' only, got {name!r}"
        )
    check_dataset(options.dataset)
    if options.input_size is not None:
        plan_input(options)
    else:
        (plan_network if options.network else change)(options)


def plan_input(options: argparse.Namespace) -> None:
    """Plans with a fixed input."""
    import os
    from pathlib import Path

    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_attn.errors import UserError
    from nnunet_attn.training.input_size_plans import CONFIGURATION, plan_input_size

    size = options.input_size
    if options.patch_size and options.patch_size != [size, size]:
        patch = " ".join(map(str, options.patch_size))
        raise UserError(f"with --input-size {size} the patch is {size} {size}; leave --patch-size {patch} out")
    if options.residual or options.gpu_memory_target is not None or options.overwrite_target_spacing:
        raise UserError("--input-size takes --batch-size and -overwrite_plans_name only")
    if options.configuration not in (None, CONFIGURATION):
        raise UserError(f"--input-size makes plans for {CONFIGURATION}, not {options.configuration}")
    if options.batch_size is None:
        raise UserError(
            "--input-size needs --batch-size N; the papers' are 24 (DCAU-Net), 6 and 16 (XAttnRes, EMCAD), 2 (FIAS)"
        )
    name = maybe_convert_to_dataset_name(options.dataset)
    raw, preprocessed = (Path(os.environ[key]) / name for key in ("nnUNet_raw", "nnUNet_preprocessed"))
    plans = plan_input_size(raw, preprocessed, size, options.batch_size, options.overwrite_plans_name)
    report(preprocessed, plans)


def plan_network(options: argparse.Namespace) -> None:
    """Plans for one of our networks."""
    import pydoc
    import sys
    from contextlib import redirect_stdout

    from nnunet_attn import trainers
    from nnunet_attn.errors import UserError
    from nnunet_attn.training.base import PlanDrivenTrainer
    from nnunet_attn.training.planner import FixedShapePlanner, PlainPlanner, ResidualPlanner

    entry = NETWORKS[options.network]
    check_wishes(options, entry.dimensions)
    trainer: Any = getattr(trainers, entry.trainer)
    on_plans = issubclass(trainer, PlanDrivenTrainer)
    if options.residual and not on_plans:
        able = ", ".join(name for name, e in NETWORKS.items() if 3 in e.dimensions)
        raise UserError(f"{options.network} has a shape of its own and no other encoder; --residual goes with {able}")
    planner_class: Any = PlainPlanner
    planned, suffix = trainer, "Plans"
    if not on_plans:
        planner_class = FixedShapePlanner
    elif options.residual:
        planner_class, suffix = ResidualPlanner, "ResEncUNetMPlans"
        planned = pydoc.locate(trainer.networks["ResidualEncoderUNet"])
    else:
        planned = pydoc.locate(trainer.networks["PlainConvUNet"])
    memory = {} if options.gpu_memory_target is None else {"gpu_memory_target_in_gb": options.gpu_memory_target}
    with redirect_stdout(sys.stderr):  # nnU-Net prints what it plans
        planner = planner_class(
            options.dataset,
            planned,
            plans_name=options.overwrite_plans_name or f"{options.network}{suffix}",
            overwrite_target_spacing=options.overwrite_target_spacing,
            preprocessor_name=options.preprocessor_name,
            **memory,
        )
        plans = planner.plan_experiment()
    report(planner.folder, plans, trainer="" if on_plans else f" -tr {entry.trainer}")


def check_wishes(options: argparse.Namespace, dimensions: tuple[int, ...]) -> None:
    """Refuse what does not go with --network.

    Raises:
        UserError: which option, and what to give instead.
    """
    from nnunet_attn.errors import UserError

    if options.configuration is not None:
        if options.configuration.startswith("3d") and 3 not in dimensions:
            able = ", ".join(name for name, entry in NETWORKS.items() if 3 in entry.dimensions)
            raise UserError(f"{options.network} is a 2D network and {options.configuration} is 3D; {able} take both")
        raise UserError("-c goes with --from; with --network every configuration that the network takes is planned")
    if options.patch_size or options.batch_size is not None:
        raise UserError("--patch-size and --batch-size go with --from; with --network give -gpu_memory_target")
    spacing = options.overwrite_target_spacing
    if spacing and len(spacing) != 3:
        raise UserError(f"-overwrite_target_spacing takes three numbers with --network, got {len(spacing)}")


def change(options: argparse.Namespace) -> None:
    """Other plans with changes."""
    import os
    from pathlib import Path

    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_attn.errors import UserError
    from nnunet_attn.training.changed_plans import change_plans, small_settings

    if options.residual or options.gpu_memory_target is not None:
        raise UserError("--residual and -gpu_memory_target go with --network; start --from residual plans instead")
    configuration = options.configuration or "2d"
    source = "nnUNetPlans" if options.debug else options.source
    if options.debug:
        options.overwrite_plans_name = options.overwrite_plans_name or f"{source}Debug"
    if options.overwrite_plans_name is None:
        raise UserError("--from needs a name for the new plans: -overwrite_plans_name NAME")
    folder = Path(os.environ["nnUNet_preprocessed"]) / maybe_convert_to_dataset_name(options.dataset)
    if options.debug:
        small = small_settings(folder, source, configuration)
        options.patch_size = options.patch_size or small.get("patch_size")
        options.overwrite_target_spacing = options.overwrite_target_spacing or small.get("spacing")
        options.batch_size = options.batch_size or 2
    plans = change_plans(
        folder,
        source,
        options.overwrite_plans_name,
        configuration,
        spacing=options.overwrite_target_spacing,
        patch_size=options.patch_size,
        batch_size=options.batch_size,
    )
    network = "DCAUNet" if configuration == "2d" else "XAttnRes"
    trial = f" -tr nnUNetTrainer{network}_1epochs_2iterations -device cpu" if options.debug else ""
    report(folder, plans, configuration if options.debug else None, trial)


def check_dataset(dataset: str) -> None:
    """Raise what nnU-Net's planner would fail with, in one line.

    Raises:
        UserError: nnU-Net's variables, the dataset or its fingerprint are missing.
    """
    import os
    from pathlib import Path

    from nnunet_attn.errors import UserError

    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        if not os.environ.get(variable):
            raise UserError(f"the environment variable {variable} is not set; export it as for nnU-Net's own commands")
    from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id, maybe_convert_to_dataset_name

    try:
        name = maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if not (Path(os.environ["nnUNet_raw"]) / name / "dataset.json").is_file():
        raise UserError(f"there is no dataset {name} in {os.environ['nnUNet_raw']}")
    fingerprint = Path(os.environ["nnUNet_preprocessed"]) / name / "dataset_fingerprint.json"
    if not fingerprint.is_file():
        number = convert_dataset_name_to_id(name)
        raise UserError(f"{fingerprint} is missing; run nnUNetv2_plan_and_preprocess -d {number} first")


def report(folder: Any, plans: dict, first: str | None = None, trainer: str = "") -> None:
    """What was planned, and the commands to go on with; ``first`` to train if not the plans' first."""
    from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

    name, number = plans["plans_name"], convert_dataset_name_to_id(plans["dataset_name"])
    print(folder / f"{name}.json")
    missing = []
    for configuration, plan in plans["configurations"].items():
        if "patch_size" not in plan:
            print(f"  {configuration}: as {plan['inherits_from']}")
            continue
        present = (folder / plan["data_identifier"]).is_dir()
        missing += [] if present else [configuration]
        print(
            f"  {configuration}: patch {'x'.join(map(str, plan['patch_size']))}, batch {plan['batch_size']}, "
            f"data {plan['data_identifier']}{'' if present else ' (to preprocess)'}"
        )
    if missing:
        print(f"nnUNetv2_preprocess -d {number} -plans_name {name} -c {' '.join(missing)}")
    print(f"nnUNetv2_train {number} {first or next(iter(plans['configurations']))} 0 -p {name}{trainer}")
