"""The command line of the converters: ``nnunet-attn convert``, ``python -m`` of a converter, and ``scripts/``."""

import argparse
import importlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_attn import command_options as shared
from nnunet_attn.dataset_conversion.catalog import DATASETS, Dataset
from nnunet_attn.errors import UserError


def about(key: str) -> str:
    """The text shown about a dataset before it is converted."""
    dataset = DATASETS[key]
    facts = {
        "get it": f"{dataset.page} ({dataset.access})",
        "licence": dataset.licence,
        "cite": dataset.reference,
        "holds": dataset.contents,
        "layouts": dataset.layouts,
        **{f"--split {name}": text for name, text in dataset.splits.items()},
        "command": dataset.command(key),
    }
    wrap = partial(textwrap.fill, width=110, subsequent_indent="      ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([dataset.title, *(wrap(f"  {name}: {text}") for name, text in facts.items())])


def add_arguments(parser: argparse.ArgumentParser, dataset: Dataset) -> None:
    add = parser.add_argument
    add("source", nargs="+", type=Path, metavar="SOURCE", help="the unpacked folder, or the archive(s) as downloaded")
    add("dataset_id", type=int, metavar="DATASET_ID", help="nnU-Net's number for the dataset, 1 to 999")
    add("--name", help=f"the NAME in DatasetXXX_NAME (default: {dataset.folder}, and the input size if there is one)")
    if dataset.splits:
        add(
            "--split",
            choices=sorted(dataset.splits),
            help="an official split (default: folds drawn with a fixed seed that divide no group)",
        )
    for option in dataset.options:
        add(option.flag, **option.arguments)
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every conversion."""
    add = parser.add_argument
    add("--num-folds", type=int, metavar="K", help="number of folds (default: 5); 0 writes no split file")
    shared.add_groups(
        parser,
        "a CSV file with the header line case,patient and then lines of case and group, or a regular expression whose "
        "parentheses enclose the group in the image's path; default: the groups that the dataset publishes",
    )
    add(
        "--input-size",
        type=int,
        metavar="PIXELS",
        help="resize every slice or picture to a paper's fixed input, for example 224, 256 or 352: volumes by their "
        "spacing, pictures here (CT is clipped to -125 to 275 HU); go on with nnunet-attn plan --input-size",
    )
    shared.add_processes(parser)
    shared.add_overwrite(parser)
    add("--allow-missing", action="store_true", help="if files or cases of the split are missing, convert the others")
    add("--dry-run", action="store_true", help="print how each folder is read and what would be done; write nothing")
    add(
        "--verify",
        action="store_true",
        help="compare a converted dataset, and the source, with the SHA-256 checksums of its manifest",
    )


def run(key: str, options: argparse.Namespace) -> int:
    """Convert, describe or verify.

    Raises:
        UserError: The source or the set-up is wrong, or Ctrl-C was pressed.
    """
    from nnunet_attn.dataset_conversion.target import read_record, target_folder

    module = importlib.import_module(f"nnunet_attn.dataset_conversion.{key}")
    names = [option.flag.strip("-").replace("-", "_") for option in DATASETS[key].options]
    settings = {name: getattr(options, name) for name in names}
    if names and options.verify:
        name = options.name or f"{DATASETS[key].folder}{options.input_size or ''}"
        settings = read_record(target_folder(name, options.dataset_id, None, None)[0])["options"]
    return run_converter(module.make_converter if names else lambda: module.CONVERTER, settings, options)


def run_converter(make: Callable[..., Any], settings: dict[str, object], options: argparse.Namespace) -> int:
    """Convert, describe or verify with the converter that ``make`` returns for the settings.

    Raises:
        UserError: The source or the set-up is wrong, or Ctrl-C was pressed.
    """
    from nnunet_attn.dataset_conversion.target import read_record

    converter = make(**settings)
    place = {"name": options.name}
    start = time.monotonic()
    try:
        if options.verify:
            place["input_size"] = options.input_size
            count = converter.verify(options.source, options.dataset_id, processes=options.processes, **place)
            print(f"{count} cases: SOURCE and dataset agree with the manifest")
            return 0
        wanted = {
            **place,
            "split": getattr(options, "split", None),
            "overwrite": options.overwrite,
            "allow_missing": options.allow_missing,
            "num_folds": options.num_folds,
            "groups": options.groups,
            "input_size": options.input_size,
        }
        if options.dry_run:
            folder, record = converter.describe(options.source, options.dataset_id, **wanted)
        else:
            folder = converter.convert(options.source, options.dataset_id, processes=options.processes, **wanted)
            record = read_record(folder)
    except KeyboardInterrupt:
        raise UserError("interrupted; nothing was written") from None
    _report(record, None if options.dry_run else time.monotonic() - start)
    if not options.dry_run and not record["input_size"]:
        number = int(folder.name.removeprefix("Dataset")[:3])
        clean = ""
        if (stale := _old_fingerprint(folder)) is not None:
            print(f"note: {stale} is of the data before; nnU-Net keeps it unless given --clean", file=sys.stderr)
            clean = " --clean"
        print(f"next: nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity{clean}", file=sys.stderr)
    print(folder)
    return 0


def _old_fingerprint(folder: Path) -> Path | None:
    """The fingerprint that nnU-Net made of an earlier version of a dataset; None if there is none."""
    preprocessed = os.environ.get("nnUNet_preprocessed")
    path = Path(preprocessed, folder.name, "dataset_fingerprint.json") if preprocessed else None
    return path if path is not None and path.is_file() else None


def _report(record: dict, seconds: float | None) -> None:
    known = record["group"] is not None
    groups = {part: f"{count} groups" if known else "groups unknown" for part, count in record["groups"].items()}
    parts = ", ".join(f"{count} {part} ({groups[part]})" for part, count in record["cases"].items())
    rate = "" if seconds is None else f" in {seconds:.1f} s, {sum(record['cases'].values()) / seconds:.1f} cases/s"
    verb = "would convert" if seconds is None else "converted"
    lines = [f"{verb} {parts}{rate}; layout: {record['source_layout']}; folds: {record['folds']}"]
    if seconds is None:
        lines += [f"read {line}" for line in record["reading"]]
    else:
        sizes, shares = record["sizes"], record["shares"]
        size = sizes["smallest"] if sizes["different"] == 1 else f"{sizes['smallest']} to {sizes['largest']}"
        lines.append(f"size: {size}; share of pixels: {', '.join(f'{n} {share:.2%}' for n, share in shares.items())}")
    if record["input_size"]:
        number = f"nnunet-attn plan DATASET_ID --input-size {record['input_size']}"
        lines.append(f"input size: {record['input_size']}; preprocess with the plans of {number} --batch-size N")
    lines.append(f"group: {record['group'] if known else 'unknown, cases count as independent'}")
    lines += [f"note: {note}" for note in record["notes"]]
    if seconds is not None:
        lines.append(
            "preview.png in the dataset's folder shows up to 16 cases with the outlines of their labels: look at it"
        )
    print("\n".join(lines), file=sys.stderr)


def main(key: str, arguments: Sequence[str] | None = None) -> int:
    """The command line of a single dataset."""
    parser = argparse.ArgumentParser(
        prog=f"convert {key}", description=about(key), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, DATASETS[key])
    try:
        return run(key, parser.parse_args(arguments))
    except UserError as error:
        print(f"convert {key}: error: {error}", file=sys.stderr)
        return 1
