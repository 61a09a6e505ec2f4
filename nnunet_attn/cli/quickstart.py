"""The whole job in one command: convert, plan, preprocess, train, predict, score, draw, compare.

Stock nnU-Net and DCAU-Net train with the same short schedule, on data that is made on the spot: a cardiac phantom in
ACDC's own layout, so that the real converter runs. About four minutes on two CPU cores. It shows that the set-up
works and that both networks learn; a run this short compares nothing.

Everything happens in one folder (-o; by default a fresh one, which is printed): nnU-Net's three folders, the log of all
that nnU-Net says, the scores (scores.json), a figure of three cases (overlay.png) and the report that "nnunet-attn
compare" writes (report/report.html). Nothing else is touched, your nnU-Net variables included. A run that was stopped
goes on when it is started again with the same folder.
"""

import argparse
import os
from pathlib import Path

from nnunet_attn import command_options as shared

HELP = "the whole job on made-up data, from conversion to the report (about four minutes, no GPU needed)"
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerDCAUNet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_output(parser, "folder to work in (default: a fresh one)")
    parser.add_argument(
        "--trainers", nargs="+", metavar="NAME", default=list(TRAINERS),
        help="two or more trainers, without a schedule (default: nnUNetTrainer and nnUNetTrainerDCAUNet)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help="check that everything runs in under a minute: few cases, a tiny plan, one epoch; nothing is learned",
    )  # fmt: skip
    parser.add_argument(
        "--source", metavar="PATH", type=Path,
        help="a real ACDC download (folder or archive) in place of the phantom; split B with absent patients left out, "
        "batch size cut to 2; takes an hour or more without a GPU",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the phantom and of the training (default: 0)")
    parser.add_argument("--epochs", type=int, help="epochs (default: 10; 1 with --quick)")
    parser.add_argument("--iterations", type=int, help="iterations per epoch (default: 15; 2 with --quick)")
    shared.add_device(parser)


def run(options: argparse.Namespace) -> None:
    import tempfile

    check_trainers(options.trainers)
    options.epochs = options.epochs or (1 if options.quick else 10)
    options.iterations = options.iterations or (2 if options.quick else 15)
    os.environ.setdefault("nnUNet_def_n_proc", str(os.cpu_count() or 2))  # nnU-Net reads it when it is imported

    from nnunet_attn.cli.quickstart_job import Job, check_found

    check_found(options.trainers)
    folder = options.output or Path(tempfile.mkdtemp(prefix="nnunet_attn_quickstart_"))
    folder.mkdir(parents=True, exist_ok=True)
    kept = ("source", "seed", "epochs", "iterations", "trainers", "quick")
    claim(folder, {k: str(v) for k, v in vars(options).items() if k in kept})
    Job(folder.resolve(), options).run()


def check_trainers(names: list[str]) -> None:
    """Refuse what cannot be compared or trained, before anything is written.

    Raises:
        UserError: fewer than two names, one twice, one with a schedule or a run.
    """
    from nnunet_attn.errors import UserError
    from nnunet_attn.trainer_names import parse_trainer_name

    if len(set(names)) < max(2, len(names)):
        raise UserError(f"--trainers takes two or more different names, got {' '.join(names)}")
    for name in names:
        parsed = parse_trainer_name(name)
        if parsed and (parsed.epochs or parsed.run):
            raise UserError(f"--trainers takes names without a schedule (use --epochs, --iterations), got {name}")


def claim(folder: Path, settings: dict[str, str]) -> None:
    """Mark ``folder`` as this run's, or continue in it if it holds a run with the same settings.

    Raises:
        UserError: the folder holds something else, or a run with other settings.
    """
    import json

    from nnunet_attn.errors import UserError
    from nnunet_attn.files import write_json

    marker = folder / "quickstart.json"
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) != settings:
            raise UserError(f"{folder} holds a quickstart with other settings ({marker}); name another folder with -o")
    elif any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and no quickstart of ours; name another folder with -o")
    else:
        write_json(marker, settings)
