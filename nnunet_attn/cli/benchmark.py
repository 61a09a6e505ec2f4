"""Cost of our networks beside stock nnU-Net's network, measured in one run and given as ratios.

For each trainer: parameters, GMACs, seconds of a training step and of an inference pass, bytes kept for backward, and
peak memory. The stock network is the one that nnU-Net plans for the same patch (isotropic spacing). Each network has a
process of its own, in which it takes turns with a stock network; the best round of each counts, and the ratio of times
is between these two. Stock nnU-Net itself is a row first and last: its ratios' distance from 1 is how far off the
others may be. On the CPU the time is the process's CPU time; on a GPU it is wall time under fp16 autocast with a
GradScaler, as nnU-Net trains.

  nnunet-attn benchmark nnUNetTrainerDCAUNet --patch 256 224 --batch 2 -o dcau.csv
  nnunet-attn benchmark --suite all -o FOLDER       every network, in 2D and where it has one in 3D

With --plain each network is measured once more in its plain formulation, the formulas as they are written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_attn import command_options as shared

PLAIN, LAST = " (plain)", "stock (last)"

HELP = "cost of networks beside stock nnU-Net's, as ratios in one run"
SUITES = {"all": (2, 3), "2d": (2,), "3d": (3,)}

COLUMNS = (
    "network", "parameters", "gmacs", "training_s", "inference_s", "saved_mib", "peak_mib",
    "training_ratio", "inference_ratio", "saved_ratio", "peak_ratio",
)  # fmt: skip
MEMORY = {"saved_ratio": "saved_mib", "peak_ratio": "peak_mib"}  # times have their ratio from their own process
DRIFTING = ("training_s", "inference_s", *MEMORY.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to measure").add_mutually_exclusive_group(required=True)
    what.add_argument("trainers", nargs="*", default=[], metavar="TRAINER", help="names (see nnunet-attn list)")
    what.add_argument("--suite", choices=SUITES, help="all networks; one table for 2D, one for 3D")
    parser.add_argument("--patch", type=int, nargs="+", default=[256, 224], help="patch size, 2 or 3 numbers")
    parser.add_argument("--patch-2d", type=int, nargs=2, default=[128, 128], help="of a suite (default: 128 128)")
    parser.add_argument("--patch-3d", type=int, nargs=3, default=[32, 64, 64], help="of a suite (default: 32 64 64)")
    parser.add_argument("--batch", type=int, default=2, help="batch size (default: 2)")
    parser.add_argument("--channels", type=int, default=1, help="input channels (default: 1)")
    parser.add_argument("--classes", type=int, default=4, help="classes with background (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--plain", action="store_true", help="measure the plain formulation of each network, too")
    parser.add_argument("--compile", action="store_true", help="torch.compile all networks, as nnU-Net does on a GPU")
    shared.add_device(parser)
    shared.add_output(parser, "CSV file for the table, command and versions; for a suite, a folder of tables")


def run(options: argparse.Namespace) -> None:
    from nnunet_attn.catalog import ENTRIES
    from nnunet_attn.errors import UserError
    from nnunet_attn.files import check_writable

    if options.suite is None:
        if options.output is not None:
            check_writable(options.output)
        run_table(options, options.trainers, options.output)
        return
    if options.output is not None:
        if options.output.exists() and not options.output.is_dir():
            raise UserError(f"{options.output} is a file; a suite writes its tables into a folder")
        options.output.mkdir(parents=True, exist_ok=True)
    for dim in SUITES[options.suite]:
        options.patch = {2: options.patch_2d, 3: options.patch_3d}[dim]
        output = options.output and options.output / f"cost_{options.device}_{dim}d.csv"
        if output is not None:
            check_writable(output)
        run_table(options, [entry.trainer for entry in ENTRIES if dim in entry.dimensions], output)


def run_table(options: argparse.Namespace, trainers: Sequence[str], output: Path | None) -> None:
    import sys

    from tqdm import tqdm

    from nnunet_attn.workers import in_own_process

    makers = {name: NetworkMaker(name, options) for name in ("stock", *trainers)}
    if options.plain:
        makers |= {f"{name}{PLAIN}": NetworkMaker(name, options, plain=True) for name in trainers}
    makers[LAST] = makers["stock"]
    for make in makers.values():
        make.check()
    rows = []
    for name, make in tqdm(makers.items(), unit="network", file=sys.stderr):
        rows.append({"network": name} | in_own_process(measured, make))
    for ratio, column in MEMORY.items():
        stock = (rows[0][column] + rows[-1][column]) / 2
        for row in rows:
            row[ratio] = row[column] / stock
    report(rows, options, output)


def measured(make: "NetworkMaker") -> dict[str, Any]:
    """Everything about one network; for a process of its own, whose first training step shows the peak memory."""
    import torch

    from nnunet_attn import complexity

    options = make.options
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    shape = (options.batch, options.channels, *options.patch)
    peak = complexity.peak_rss(make, shape) if device.type == "cpu" else None
    image = torch.randn(shape, device=device)

    def built(maker: NetworkMaker) -> Any:
        network = maker().to(device)
        return torch.compile(network) if options.compile else network

    network = built(make)
    memory = complexity.measure([network], image, 1)[0].peak_memory if peak is None else peak  # alone on its GPU
    stock = built(NetworkMaker("stock", options))
    own, beside = complexity.measure([network, stock], image, options.rounds)
    del network, stock
    with torch.device("meta"):
        counted = make()
    return {
        "parameters": sum(p.numel() for p in counted.parameters()),
        "gmacs": round(complexity.gmacs(counted, options.patch, options.channels), 3),
        "training_s": own.training,
        "inference_s": own.inference,
        "training_ratio": own.training / beside.training,
        "inference_ratio": own.inference / beside.inference,
        "saved_mib": complexity.saved_bytes(make().to(device), image) / 2**20,
        "peak_mib": memory / 2**20,
    }


class NetworkMaker:
    """Builds a trainer's network for the options' patch (nnU-Net's own for "stock"); pickles into a process."""

    def __init__(self, trainer: str, options: argparse.Namespace, *, plain: bool = False):
        from nnunet_attn.errors import UserError
        from nnunet_attn.trainer_names import parse_trainer_name

        if trainer != "stock" and parse_trainer_name(trainer) is None:
            raise UserError(f"{trainer} is not one of our trainers; see nnunet-attn list")
        self.trainer, self.options, self.plain = trainer, options, plain

    def trainer_class(self) -> Any:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        from nnunet_attn import trainers

        return nnUNetTrainer if self.trainer == "stock" else getattr(trainers, self.trainer)

    def check(self) -> None:
        """Raise UserError unless nnU-Net would plan the patch and the trainer takes it."""
        from nnunet_attn.errors import UserError
        from nnunet_attn.training.default_plans import default_configuration

        try:
            default_configuration(self.options.patch)
        except ValueError as error:
            raise UserError(str(error)) from error
        if self.trainer != "stock" and len(self.options.patch) not in self.trainer_class().dimensions:
            raise UserError(f"{self.trainer} does not take a {len(self.options.patch)}D patch {self.options.patch}")

    def __call__(self) -> Any:
        from nnunet_attn.complexity import use_plain_path
        from nnunet_attn.training.default_plans import default_configuration

        cls, configuration = self.trainer_class(), default_configuration(self.options.patch)
        network = cls.build_network_architecture(None, configuration, self.options.channels, self.options.classes, True)
        return use_plain_path(network, ("implementation", "form")) if self.plain else network


def report(rows: list[dict], options: argparse.Namespace, output: Path | None) -> None:
    import platform
    import shlex
    import sys
    from importlib.metadata import version

    import pandas as pd
    import torch

    from nnunet_attn.files import complete_file

    table = pd.DataFrame(rows, columns=COLUMNS)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    drift = ", ".join(f"{column.split('_')[0]} x{rows[-1][column] / rows[0][column]:.3f}" for column in DRIFTING)
    drift = f"drift of stock nnU-Net from first to last: {drift}"
    print(drift)
    if output is None:
        return
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} thread(s)"
    size = f"patch {'x'.join(map(str, options.patch))}, batch {options.batch}"
    facts = [
        f"# nnunet-attn {shlex.join(sys.argv[1:])}",
        "# " + ", ".join(f"{name} {version(name)}" for name in ("nnunet-attn", "nnunetv2", "torch")),
        f"# python {platform.python_version()}, {where}; {size}",
        f"# {drift}",
    ]
    with complete_file(output) as path:
        path.write_text("\n".join(facts) + "\n" + table.to_csv(index=False, float_format="%.4g"), encoding="utf-8")
