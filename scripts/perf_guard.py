"""What speed and memory cost, as ratios from one run beside those committed last. By hand, before a release:

  python scripts/perf_guard.py                      start-up, conversion, every network in 2D (an hour on one core)
  python scripts/perf_guard.py --only start conversion
  python scripts/perf_guard.py --only quickstart    CPU seconds and megabytes of "nnunet-attn quickstart"

Smaller is better in every row. Times are CPU seconds, the least of several runs, each beside what it is divided by, so
that load on the machine and its speed cancel. Rows that are not measured stay as they are in the committed table,
scripts/results/perf_guard.csv, which is rewritten.
"""

import argparse
import csv
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

TABLE = Path(__file__).with_name("results") / "perf_guard.csv"
COLUMNS = ("measure", "value", "unit")
NOISE = 0.05  # a change by less says nothing
Row = tuple[str, float, str]

FIND = """
import contextlib, io
import nnunetv2.run.run_training
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
with contextlib.redirect_stdout(io.StringIO()): find({!r})
"""


def cpu_seconds(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> float:
    """User and system time of a command, with those of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least(functions: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of several results of each function; the functions take turns."""
    results: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            results[name].append(function())
    return {name: min(seconds) for name, seconds in results.items()}


def start(_options: argparse.Namespace) -> Iterator[Row]:
    """The light commands against an empty interpreter, a look-up of ours against one of nnU-Net's own variants."""
    python, ours = [sys.executable, "-c"], [sys.executable, "-m", "nnunet_attn.cli.main"]
    light = {"--help": ["--help"], "list": ["list"], "info": ["info", "nnUNetTrainerDCAUNet_paper"],
             "quickstart --help": ["quickstart", "--help"]}  # fmt: skip
    commands = {name: [*ours, *arguments] for name, arguments in light.items()}
    empty = "python -c pass"
    found = least({n: lambda c=c: cpu_seconds(c) for n, c in ({empty: [*python, "pass"]} | commands).items()}, 7)
    for name in commands:
        yield f"nnunet-attn {name}", found[name] / found[empty], empty
    stock, dcau = (FIND.format(name) for name in ("nnUNetTrainer_5epochs", "nnUNetTrainerDCAUNet"))
    found = least({"stock": lambda: cpu_seconds([*python, stock]), "ours": lambda: cpu_seconds([*python, dcau])}, 3)
    yield "nnUNetv2_train -tr, until the trainer is found", found["ours"] / found["stock"], "a variant of nnU-Net's own"
    yield "start-up file", hook_milliseconds(), "ms"


def hook_milliseconds() -> float:
    """What the start-up file adds to an interpreter that does not use it: module read, compiled, run."""
    from nnunet_attn import _startup

    code = (
        "import os, runpy, time\n"
        "seen = []\n"
        "for _ in range(20):\n"
        "    os.environ.pop('nnUNet_extTrainer', None)\n"
        "    t = time.process_time()\n"
        f"    runpy.run_path({_startup.__file__!r})['register']()\n"
        "    seen.append(time.process_time() - t)\n"
        "print(min(seen) * 1e3)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


PROCESSES: dict[int, tuple[Callable[[], float], str]] = {
    1: (time.process_time, ""),
    2: (time.perf_counter, ", two processes"),
}


def conversion(options: argparse.Namespace) -> Iterator[Row]:
    """A conversion against decoding and encoding the same files with the same libraries.

    In one process by CPU time, in two by the clock, which needs two idle cores.
    """
    from nnunet_attn.dataset_conversion import acdc, isic2017
    from nnunet_attn.dataset_conversion.phantom import write_phantom

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = {"isic2017": (isic2017, options.isic)} if options.isic else {}
        volumes = options.acdc or write_phantom(folder / "phantom", training=10, test=0, size=192, pixel=1.5)
        sources["acdc"] = (acdc, volumes)
        for name, (converter, source) in sources.items():
            for processes, (clock, title) in PROCESSES.items():
                turns = {
                    "convert": partial(seconds, clock, converted(converter, source, folder, processes)),
                    "codec": partial(seconds, clock, partial(codec, source, processes)),
                }
                found = least(turns, 3)
                yield f"convert {name}{title}", found["convert"] / found["codec"], "decode and encode"


def seconds(clock: Callable[[], float], function: Callable[[], object]) -> float:
    before = clock()
    function()
    return clock() - before


def converted(converter: object, source: Path, folder: Path, processes: int) -> Callable[[], None]:
    """A conversion without the contact sheet, which has 16 cases however many there are."""
    from unittest import mock

    def convert() -> None:
        raw = Path(tempfile.mkdtemp(dir=folder))
        with mock.patch("nnunet_attn.dataset_conversion.converter.write_preview"):
            converter.convert(  # type: ignore[attr-defined]
                source, 1, raw_folder=raw, allow_missing=True, processes=processes
            )

    return convert


def codec(source: Path, processes: int) -> None:
    """Decode and encode all images and labels of a folder."""
    from nnunet_attn.workers import in_parallel

    files = sorted(p for p in Path(source).rglob("*") if p.name.endswith((".nii.gz", ".png", ".jpg")))
    files = [p for p in files if "superpixels" not in p.name and "_4d" not in p.name]
    for _ in in_parallel(decode_and_encode, files, processes, "decode and encode", progress=False):
        pass


def decode_and_encode(path: Path) -> None:
    """With the converters' libraries and their compression."""
    import gzip

    import nibabel as nib
    import numpy as np
    from PIL import Image

    if path.name.endswith(".nii.gz"):
        data = gzip.decompress(path.read_bytes())
        np.asanyarray(nib.Nifti1Image.from_bytes(data).dataobj)
        gzip.compress(data, 3)
    else:
        with Image.open(path) as picture:
            picture.save(io.BytesIO(), "PNG", compress_level=1, compress_type=3)


def networks(options: argparse.Namespace) -> Iterator[Row]:
    """Step time and bytes kept for backward of every network in 2D, as ``nnunet-attn benchmark`` measures them.

    Its table, scripts/results/cost_cpu_2d.csv, is written anew; ``python scripts/make_tables.py`` renews the docs.
    """
    command = ["benchmark", "--suite", "2d", "--patch-2d", "256", "224", "--rounds", str(options.rounds)]
    command += ["-o", os.path.relpath(TABLE.parent)]
    subprocess.run([sys.executable, "-m", "nnunet_attn.cli.main", *command], check=True)
    table = TABLE.with_name("cost_cpu_2d.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(line for line in table.splitlines() if not line.startswith("#")):
        if not row["network"].startswith("stock"):
            yield f"{row['network']}: step", float(row["training_ratio"]), "stock nnU-Net"
            yield f"{row['network']}: kept for backward", float(row["saved_ratio"]), "stock nnU-Net"


def quickstart(_options: argparse.Namespace) -> Iterator[Row]:
    """One thread, since waiting threads count as work on a busy machine."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "nnunet_attn.cli.main", "quickstart", "-o", temporary]
        yield "quickstart, one thread", cpu_seconds(command, os.environ | {"OMP_NUM_THREADS": "1"}), "CPU s"
        size = sum(path.stat().st_size for path in Path(temporary).rglob("*") if path.is_file())
        yield "quickstart, its folder", size / 1e6, "MB"


PARTS = {"start": start, "conversion": conversion, "networks": networks, "quickstart": quickstart}


def read(path: Path) -> dict[str, Row]:
    """The rows of a table by measure; none if there is no table yet."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {r["measure"]: (r["measure"], float(r["value"]), r["unit"]) for r in csv.DictReader(file)}


def write(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((measure, f"{value:.4g}", unit) for measure, value, unit in rows)


def beside(rows: Sequence[Row], last: dict[str, Row]) -> list[str]:
    """A line for each row: its value, the last one, and by how much it changed if that is more than noise."""
    lines = []
    for measure, value, unit in rows:
        before = last[measure][1] if measure in last and last[measure][2] == unit else None
        change = "new" if before is None else f"{value / before - 1:+.0%}" if before else "was 0"
        if before and abs(value / before - 1) > NOISE:
            change += " WORSE" if value > before else " better"
        was = "-" if before is None else f"{before:.4g}"
        lines.append(f"{measure:<50}{value:>9.4g}{was:>9}  {change:<13} ({unit})")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=["start", "conversion", "networks"])
    parser.add_argument("--rounds", type=int, default=3, help="of the networks' benchmark (default: 3)")
    parser.add_argument("--acdc", type=Path, help="real ACDC files to convert (default: the phantom)")
    parser.add_argument("--isic", type=Path, help="real ISIC 2017 files to convert, as well")
    options = parser.parse_args()
    last = read(TABLE)
    rows = [row for part in options.only for row in PARTS[part](options)]
    print(f"{'':<50}{'now':>9}{'last':>9}")
    print("\n".join(beside(rows, last)))
    write(TABLE, list((last | {row[0]: row for row in rows}).values()))


if __name__ == "__main__":
    main()
