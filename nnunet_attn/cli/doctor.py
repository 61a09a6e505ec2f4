"""Check the set-up: versions, nnU-Net's three folders, the GPU, and whether nnU-Net finds our trainers.

Each line is ok, note or FAIL; a FAIL comes with its remedy. The exit code is 1 if anything failed.

With a DATASET, also what training on its plans takes on this machine, before anything is started: memory and time of
an epoch for each configuration, and the command that writes plans which fit where they do not.

  nnunet-attn doctor 27 -tr nnUNetTrainerDCAUNet

Memory comes from the network's own counts by a formula that gave 0.72 to 1.06 of what was measured for 21 networks on a
CPU (on a GPU it is halved for autocast, which was not calibrated). Time comes from one step on one sample,
scaled; how far it is off was not measured, and time to load data comes on top.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_attn import command_options as shared
from nnunet_attn.cli.terminal import coloured

HELP = "check versions, folders, GPU and that nnU-Net finds the trainers"

Line = tuple[str, str, str]
COLOURS = {"ok": 32, "note": 33, "FAIL": 31}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="also estimate memory and time of a dataset")
    parser.add_argument("--plans", default="nnUNetPlans", metavar="NAME", help="plans (default: %(default)s)")
    parser.add_argument("-tr", "--trainer", default="nnUNetTrainer", metavar="NAME", help="default: %(default)s")
    parser.add_argument("-c", "--configurations", nargs="+", metavar="NAME", help="default: all of the plans")
    shared.add_device(parser, None)
    parser.add_argument("--json", action="store_true", help="print a list of objects, one per line")
    parser.add_argument("--quick", action="store_true", help="leave out what needs torch (GPU, the look-up itself)")


def versions() -> Iterator[Line]:
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    yield "ok", "python", sys.version.split()[0]
    for name in ("nnunet-attn", "nnunetv2", "torch", "dynamic-network-architectures", "timm"):
        try:
            found = version(name)
        except PackageNotFoundError:
            yield "FAIL", name, f"not installed; run: {sys.executable} -m pip install {name}"
            continue
        yield "ok", name, found
    for line in requires("nnunet-attn") or ():
        requirement = Requirement(line)
        if requirement.marker is not None or not requirement.specifier:  # an extra's, or any version serves
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield "FAIL", requirement.name, f"not installed; run: {sys.executable} -m pip install '{line}'"
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield "FAIL", requirement.name, f"{found}, but {requirement.specifier} is needed: pip install -U '{line}'"


def folders() -> Iterator[Line]:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        path = os.environ.get(name)
        if not path:
            yield "note", name, f"not set; before using nnU-Net: export {name}=/a/folder"
        elif not os.path.isdir(path):
            yield "FAIL", name, f"{path} is not a folder; create it or correct the variable"
        elif not os.access(path, os.W_OK):
            yield "FAIL", name, f"{path} is not writable"
        else:
            yield "ok", name, path


def discovery() -> Iterator[Line]:
    import nnunet_attn

    ours = str(Path(nnunet_attn.__file__).parent / "_discovery")
    listed = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    here = [i for i, folder in enumerate(listed) if os.path.realpath(folder) == os.path.realpath(ours)]
    if here:
        yield "ok", "nnUNet_extTrainer", f"lists {ours}"
    else:
        why = "NNUNET_ATTN_NO_AUTOLOAD=1 is set" if os.environ.get("NNUNET_ATTN_NO_AUTOLOAD") == "1" else (
            "the start-up file did not run, or the variable was assigned after Python started"
        )  # fmt: skip
        remedy = f'export nnUNet_extTrainer="{os.pathsep.join([*listed, ours])}"'
        yield "FAIL", "nnUNet_extTrainer", f"does not list our folder ({why}); run: {remedy}"
    for folder in listed[: here[0] if here else None]:
        yield from other_folder(folder)


def other_folder(folder: str) -> Iterator[Line]:
    """nnU-Net imports every module of the folders before ours; one that fails to import ends its whole search."""
    import pkgutil
    import subprocess

    if not os.path.isdir(folder):
        yield "note", "nnUNet_extTrainer", f"{folder} does not exist; nnU-Net skips it"
        return
    for module in pkgutil.iter_modules([folder]):
        code = f"import importlib, sys; sys.path.insert(0, {folder!r}); importlib.import_module({module.name!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1]
            stops = "which ends nnU-Net's search before it reaches our trainers; mend it or take the folder out"
            yield "FAIL", "nnUNet_extTrainer", f"{folder}: module {module.name} does not import ({reason}), {stops}"


def other_packages() -> Iterator[Line]:
    """The trainers that other packages bring; a broken one is left out by the look-up, and breaks nothing."""
    from nnunet_attn.plugins import package_of, plugins, trainer_class

    for name, point in plugins().items():
        if trainer_class(name) is None:
            yield "FAIL", name, f"of the package {package_of(point)} cannot be used; the reason stands above"
        else:
            yield "ok", name, f"of the package {package_of(point)}"


def libraries() -> Iterator[Line]:
    """The libraries whose networks have trainers; those that are not installed are no fault."""
    from importlib.util import find_spec

    from nnunet_attn.library_rows import LIBRARY_ENTRIES

    for package, extra in {(e.network.split(".")[0], e.file.removesuffix("_networks")): 0 for e in LIBRARY_ENTRIES}:
        if find_spec(package) is None:
            remedy = f"{sys.executable} -m pip install 'nnunet-attn[{extra}]'"
            yield "note", package, f"not installed; for the trainers of its networks: {remedy}"
        else:
            yield "ok", package, "installed; its networks have trainers"


def look_up() -> Iterator[Line]:
    import contextlib
    import io
    import pydoc

    import torch

    if torch.cuda.is_available():
        yield "ok", "GPU", f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    else:
        yield "note", "GPU", "none that torch can use; train with -device cpu"
    from nnunet_attn import trainers
    from nnunet_attn.library_rows import LIBRARY_ENTRIES

    broken: dict[str, list[str]] = {}
    yield from libraries()
    others = {name for entry in LIBRARY_ENTRIES for name in entry.trainers}
    for name in [n for n in dir(trainers) if n not in others]:
        try:
            network = getattr(getattr(trainers, name), "network", None)
            if network is not None and pydoc.locate(network) is None:
                raise ImportError(f"there is no {network}")
        except Exception as error:  # a version that we do not know may break an import in any way
            broken.setdefault(f"{type(error).__name__}: {error}", []).append(name)
    for reason, names in broken.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield "FAIL", names[0], f"cannot be imported{more}: {' '.join(reason.split())}"
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except ImportError as error:
        yield "FAIL", "discovery", f"this nnunetv2 looks trainers up in another way ({error}); 2.8 or newer is needed"
        return
    if broken:
        return
    name = dir(trainers)[0]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            found = recursive_find_trainer_class_by_name(name)
    except Exception as error:  # whatever another folder's module raises ends nnU-Net's search, and is the finding
        yield "FAIL", "discovery", f"nnU-Net does not find {name}: {type(error).__name__}: {error}"
        return
    if found is getattr(trainers, name):
        yield "ok", "discovery", f"nnU-Net finds {name} and {len(dir(trainers)) - 1} more"
    else:
        yield "FAIL", "discovery", f"nnU-Net finds another {name} first, in {found.__module__}; rename that one"


def dataset_lines(options: argparse.Namespace) -> Iterator[Line]:
    """Memory and time of each configuration of a dataset's plans."""
    import json

    import torch
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_attn.cli.estimate import advice, duration, estimate
    from nnunet_attn.cli.plan import check_dataset
    from nnunet_attn.errors import UserError
    from nnunet_attn.trainer_names import parse_trainer_name

    check_dataset(options.dataset)
    name = maybe_convert_to_dataset_name(options.dataset)
    folder = Path(os.environ["nnUNet_preprocessed"]) / name
    file = folder / f"{options.plans}.json"
    if not file.is_file():
        there = sorted(p.stem for p in folder.glob("*Plans*.json")) or ["none; run nnUNetv2_plan_experiment"]
        raise UserError(f"{file} is missing; plans that are there: {', '.join(there)}")
    plans = json.loads(file.read_text(encoding="utf-8"))
    dataset = json.loads((Path(os.environ["nnUNet_raw"]) / name / "dataset.json").read_text(encoding="utf-8"))
    known = plans["configurations"]
    if unknown := [c for c in options.configurations or () if c not in known]:
        raise UserError(f"{options.plans} has no configuration {unknown[0]}, but {', '.join(known)}")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    parsed = parse_trainer_name(options.trainer)
    iterations = (parsed.iterations if parsed else None) or 250
    if device == "cpu" and hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1):
        yield "note", "load", f"{os.getloadavg()[0]:.0f} processes want this machine's cores: times come out too long"
    for configuration in options.configurations or known:
        try:
            found = estimate(options.trainer, plans, dataset, configuration, device, iterations)
        except ValueError as error:  # a 2D network on 3D plans
            yield "note", configuration, f"{options.trainer}: {str(error).splitlines()[0]}"
            continue
        patch = "x".join(map(str, found.patch))
        if found.seconds is None:
            time = found.problem
        else:
            time = f"about {duration(found.seconds)} an epoch of {iterations} iterations"
        text = (
            f"patch {patch}, batch {found.batch}: about {found.memory / 2**30:.1f} GiB of "
            f"{found.available / 2**30:.1f} free on {device}, {time}"
        )
        if found.fits:
            yield "ok", configuration, text
            continue
        inherits = known[configuration].get("inherits_from")
        spacing = known[inherits or configuration]["spacing"]
        yield "FAIL", configuration, f"{text}; run: {advice(found, options.dataset, options.plans, spacing, inherits)}"


def without_traceback(check: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a check; where a version that we do not know breaks the check itself, that is its last line."""
    from nnunet_attn.errors import UserError

    try:
        yield from check()
    except UserError:
        raise
    except Exception as error:
        name = getattr(check, "__name__", "dataset")
        yield "FAIL", name, f"could not be checked: {type(error).__name__}: {error}"


def run(options: argparse.Namespace) -> int:
    import json
    from functools import partial

    checks: list[Callable[[], Iterator[Line]]] = [versions, folders, discovery]
    checks += [] if options.quick else [look_up, other_packages]
    checks += [partial(dataset_lines, options)] if options.dataset else []
    found = []
    for check in checks:
        for status, name, text in without_traceback(check):
            found.append({"status": status, "name": name, "text": text})
            if not options.json:
                print(f"{coloured(f'{status:<5}', COLOURS[status])} {name:<30} {text}", flush=True)
    if options.json:
        print(json.dumps(found, indent=2))
    return 1 if any(line["status"] == "FAIL" for line in found) else 0
