"""The ``nnunet-attn`` command. A sub-command is a module here with ``HELP``, ``add_arguments`` and ``run``."""

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from nnunet_attn import __version__
from nnunet_attn.errors import UserError

COMMANDS = (
    "convert",
    "plan",
    "quickstart",
    "list",
    "info",
    "count",
    "doctor",
    "evaluate",
    "compare",
    "study",
    "overlay",
    "benchmark",
    "export",
    "maps",
)

DESCRIPTION = """\
Attention networks as trainers of unmodified nnU-Net. Train with nnU-Net's own command:
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerDCAUNet
This command lists the networks, converts datasets, checks the set-up, measures and compares.

Exit codes: 0 done; 1 an error, said in one line on stderr; 2 wrong usage; 130 interrupted. NO_COLOR=1: no colours."""


class PrintCompletion(argparse.Action):
    """Prints shtab's script for a shell, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("tab completion needs shtab: pip install shtab")
        print(shtab.complete(parser, given[1]))
        parser.exit(0)


def make_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser, with these commands only: a command is quicker without the others' modules."""
    parser = argparse.ArgumentParser(
        prog="nnunet-attn", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        help='print a script for tab completion: eval "$(nnunet-attn --print-completion bash)" in ~/.bashrc',
    )
    parser.add_argument("--version", action="version", version=f"nnunet-attn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        module = importlib.import_module(f"nnunet_attn.cli.{name}")
        command = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; ``more`` is what ``study run`` hands on to Snakemake, behind ``--``."""
    words: list[str] = list(arguments)
    more: list[str] = []
    if words[:2] == ["study", "run"] and "--" in words:  # argparse would take it apart
        words, more = words[: words.index("--")], words[words.index("--") + 1 :]
    if words[:1] == ["convert"] and len(words) > 1:  # datasets write themselves ACDC, GlaS, MoNuSeg
        words[1] = words[1].lower()
    options = make_parser(words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS).parse_args(words)
    options.more = more
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 0: done; 1: an error, said in one line on stderr; 2: wrong usage."""
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    # torch warns of deprecated functions that torch itself calls
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"nnunet-attn {options.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnunet-attn {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, missing rights, a name that is too long
        print(f"nnunet-attn {options.command}: error: {in_one_line(error)}", file=sys.stderr)
        return 1


def in_one_line(error: OSError) -> str:
    """The file first, then what the operating system says of it."""
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{' -> '.join(files)}: {reason}" if files else reason


if __name__ == "__main__":
    sys.exit(main())
