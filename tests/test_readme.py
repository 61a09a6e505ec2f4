"""The README tells the truth: tables are current, commands and names exist."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from nnunet_attn.cli.main import COMMANDS, make_parser
from nnunet_attn.trainer_names import parse_trainer_name

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_current():
    renewed = runpy.run_path(str(ROOT / "scripts" / "make_tables.py"))["renewed"]
    assert renewed(README) == README, "run python scripts/make_tables.py"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    joined = [block.replace("\\\n", " ") for block in blocks]
    lines = [line.split("  #")[0].strip() for block in joined for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("line", [c for c in commands() if "nnunet-attn" in c])
def test_commands_parse(line):
    words = shlex.split(line.split("&&")[-1])
    if words[0] == "nnunet-attn":
        assert make_parser().parse_args(words[1:]).command in COMMANDS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"nnUNetTrainer\w+", README))))
def test_trainers_exist(name):
    if "MyNet" not in name:
        assert parse_trainer_name(name) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)\)", README))))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()
