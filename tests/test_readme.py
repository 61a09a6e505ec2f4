"""README and documentation tell the truth: tables are current, commands, names and links exist."""

import json
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

from nnunet_attn.cli.main import COMMANDS, parse_arguments
from nnunet_attn.trainer_names import parse_trainer_name

ROOT = Path(__file__).parents[1]
MAKER = runpy.run_path(str(ROOT / "scripts" / "make_tables.py"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in MAKER["pages"]()}
ALL = "\n".join(TEXTS.values())
NOT_OURS = {  # nnU-Net's, and examples
    "nnUNetTrainerNoDeepSupervision", "nnUNetTrainerAttentionUNet", "nnUNetTrainerMyNet", "nnUNetTrainerTheirNet",
    "nnUNetTrainerTheirVNet",
}  # fmt: skip


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_current(page):
    assert MAKER["renewed"](TEXTS[page]) == TEXTS[page], "run python scripts/make_tables.py"


def test_every_table_is_shown():
    shown = re.findall(r"<!-- begin:(\S+) -->", ALL)
    assert sorted(shown) == sorted(set(MAKER["TABLES"]) - {"family:stock"})


def test_the_readme_s_scores_are_those_of_nnu_net():
    """Over all cases of the trained folds and all complete repeats, straight from nnU-Net's own files."""
    trained = ROOT / "results" / "evidence" / "acdc_small" / "nnUNet_results" / "Dataset027_ACDC"
    readme = TEXTS["README.md"].replace("\\", "")
    told = re.findall(r"^\| ([A-Z]\w+|stock)_(lr\de\d) \| \**(0\.\d{4})", readme, flags=re.MULTILINE)
    assert len(told) >= 5
    for name, rate, dice in told:
        row = f"nnUNetTrainer{name.removeprefix('stock')}_{rate}_8epochs_150iterations"
        runs = []
        for trainer in (row, f"{row}_run2"):
            summaries = list((trained / f"{trainer}__ACDCSmall__2d").glob("fold_*/validation/summary.json"))
            cases = [case for path in summaries for case in json.loads(path.read_text())["metric_per_case"]]
            if len(summaries) == 2:
                runs.append([np.nanmean([case["metrics"][c]["Dice"] for case in cases]) for c in "123"])
        assert dice == f"{np.mean(runs):.4f}"


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", ALL, flags=re.DOTALL)
    joined = [block.replace("\\\n", " ") for block in blocks]
    lines = [line.split("  #")[0].strip() for block in joined for line in block.splitlines()]
    return sorted({line for line in lines if "nnunet-attn" in line})


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line):
    words = shlex.split(line.split("&&")[-1])
    if words[0] == "nnunet-attn":
        assert parse_arguments(words[1:]).command in COMMANDS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"nnUNetTrainer\w+", ALL))))
def test_trainers_exist(name):
    if name.partition("_")[0] not in NOT_OURS:
        assert parse_trainer_name(name) is not None


LINKS = sorted(
    {(page, link) for page, text in TEXTS.items() for link in re.findall(r"\]\(((?!http)[^)#\s]+)[^)]*\)", text)}
)


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page, link):
    if link != "api.md":  # the build writes it
        assert (ROOT / page).parent.joinpath(link).exists()
