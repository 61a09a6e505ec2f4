"""Cost of our networks beside stock nnU-Net's network, measured in one run and given as ratios.

For each trainer: parameters, GMACs, seconds of a training step and of an inference pass, bytes kept for backward, and
peak memory. The stock network is the one that nnU-Net plans for the same patch (isotropic spacing). Networks take turns
in each round and the best round counts. On the CPU the time is the process's CPU time; on a GPU it is wall time under
fp16 autocast with a GradScaler, as nnU-Net trains.

  nnunet-attn benchmark nnUNetTrainerDCAUNet --patch 256 224 --batch 2 -o dcau.csv

With --plain each network is measured once more in its plain formulation, the formulas as they are written.
"""

import argparse
from pathlib import Path
from typing import Any

PLAIN = " (plain)"
HELP = "cost of networks beside stock nnU-Net's, as ratios in one run"

COLUMNS = (
    "network", "parameters", "gmacs", "training_s", "inference_s", "saved_mib", "peak_mib",
    "training_ratio", "inference_ratio", "saved_ratio", "peak_ratio",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trainers", nargs="+", metavar="TRAINER", help="names of trainers (see nnunet-attn list)")
    parser.add_argument("--patch", type=int, nargs="+", default=[256, 224], help="patch size, 2 or 3 numbers")
    parser.add_argument("--batch", type=int, default=2, help="batch size (default: 2)")
    parser.add_argument("--channels", type=int, default=1, help="input channels (default: 1)")
    parser.add_argument("--classes", type=int, default=4, help="classes with background (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--plain", action="store_true", help="measure the plain formulation of each network, too")
    parser.add_argument("--compile", action="store_true", help="torch.compile all networks, as nnU-Net does on a GPU")
    parser.add_argument("-device", choices=("cpu", "cuda"), default="cpu", help="where to measure (default: cpu)")
    parser.add_argument(
        "-o", dest="output", metavar="CSV", type=Path, help="also write the table, command and versions"
    )


def run(options: argparse.Namespace) -> None:
    import sys

    import torch
    from tqdm import tqdm

    from nnunet_attn import complexity
    from nnunet_attn.files import check_writable
    from nnunet_attn.workers import in_own_process

    if options.output is not None:
        check_writable(options.output)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    makers = {name: NetworkMaker(name, options) for name in ("stock", *options.trainers)}
    if options.plain:
        makers |= {f"{name}{PLAIN}": NetworkMaker(name, options, plain=True) for name in options.trainers}
    image = torch.randn(options.batch, options.channels, *options.patch, device=device)
    subjects = []
    for name, make in makers.items():
        network: Any = make().to(device)
        if options.compile:
            network = torch.compile(network)
        subjects.append(complexity.Subject(name, network))
    with tqdm(total=len(subjects) * (options.rounds + 1), unit="round", file=sys.stderr) as bar:
        complexity.measure(subjects, image, options.rounds, bar.update)
    rows = []
    for subject in subjects:
        with torch.device("meta"):
            counted = makers[subject.name]()
        if device.type == "cpu":
            shape = (options.batch, options.channels, *options.patch)
            subject.peak_memory = in_own_process(complexity.peak_rss, makers[subject.name], shape)
        rows.append({
            "network": subject.name,
            "parameters": sum(p.numel() for p in counted.parameters()),
            "gmacs": round(complexity.gmacs(counted, options.patch, options.channels), 3),
            "training_s": min(subject.training),
            "inference_s": min(subject.inference),
            "saved_mib": complexity.saved_bytes(makers[subject.name]().to(device), image) / 2**20,
            "peak_mib": subject.peak_memory / 2**20,
        })  # fmt: skip
    for row in rows:
        for key in ("training", "inference", "saved", "peak"):
            measured = next(k for k in row if k.startswith(key) and not k.endswith("ratio"))
            row[f"{key}_ratio"] = row[measured] / rows[0][measured]
    report(rows, options, device)


class NetworkMaker:
    """Builds a trainer's network for the options' patch (nnU-Net's own for "stock"); pickles into a process."""

    def __init__(self, trainer: str, options: argparse.Namespace, *, plain: bool = False):
        from nnunet_attn.errors import UserError
        from nnunet_attn.trainer_names import parse_trainer_name

        if trainer != "stock" and parse_trainer_name(trainer) is None:
            raise UserError(f"{trainer} is not one of our trainers; see nnunet-attn list")
        self.trainer, self.options, self.plain = trainer, options, plain

    def __call__(self) -> Any:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        from nnunet_attn import trainers
        from nnunet_attn.complexity import use_plain_path
        from nnunet_attn.errors import UserError

        cls = nnUNetTrainer if self.trainer == "stock" else getattr(trainers, self.trainer)
        configuration = planned_configuration(self.options.patch)
        if self.trainer != "stock" and len(self.options.patch) not in cls.dimensions:
            raise UserError(f"{self.trainer} does not take a {len(self.options.patch)}D patch {self.options.patch}")
        network = cls.build_network_architecture(None, configuration, self.options.channels, self.options.classes, True)
        return use_plain_path(network, ("implementation", "form")) if self.plain else network


def planned_configuration(patch: list[int]) -> Any:
    """nnU-Net's configuration of its default network for a patch of isotropic spacing."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    from nnunet_attn.errors import UserError

    dim = len(patch)
    _, strides, kernels, rounded, _ = get_pool_and_conv_props([1.0] * dim, patch, 4, 999999)
    if list(rounded) != list(patch):
        raise UserError(
            f"nnU-Net would not plan the patch {patch}; the nearest that it plans is {list(map(int, rounded))}"
        )
    stages = len(strides)
    return ConfigurationManager({
        "patch_size": patch,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(512 if dim == 2 else 320, 32 * 2**i) for i in range(stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": kernels,
                "strides": strides,
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    })  # fmt: skip


def report(rows: list[dict], options: argparse.Namespace, device: Any) -> None:
    import platform
    import shlex
    import sys
    from importlib.metadata import version

    import pandas as pd
    import torch

    from nnunet_attn.files import complete_file

    table = pd.DataFrame(rows, columns=COLUMNS)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if options.output is None:
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {options.threads} thread(s)"
    facts = [
        f"# nnunet-attn {shlex.join(sys.argv[1:])}",
        "# " + ", ".join(f"{name} {version(name)}" for name in ("nnunet-attn", "nnunetv2", "torch")),
        f"# python {platform.python_version()}, {where}",
    ]
    with complete_file(options.output) as path:
        path.write_text("\n".join(facts) + "\n" + table.to_csv(index=False, float_format="%.4g"), encoding="utf-8")
