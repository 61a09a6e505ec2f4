import argparse
import json
import re
import subprocess
import sys

import pytest

from nnunet_attn import __version__, trainers
from nnunet_attn.catalog import ENTRIES
from nnunet_attn.cli import doctor
from nnunet_attn.cli.info import memory_text, settings
from nnunet_attn.cli.main import COMMANDS, main, make_parser
from nnunet_attn.cli.terminal import coloured
from nnunet_attn.library_rows import LIBRARY_ENTRIES
from nnunet_attn.lookup import find_family, own_trainers
from nnunet_attn.paper_tables import TABLES
from nnunet_attn.trainer_names import parse_trainer_name
from nnunet_attn.training.base import MutationTrainer, merged


def test_light_commands_import_neither_torch_nor_nnunet():
    """Commands of a tenth of a second: each in turn, in an interpreter of their own."""
    names = ("nnUNetTrainerDCAUNet_lambda05_SGD", "nnUNetTrainerMONAIUNETR_paperFIAS", "nnUNetTrainerStockAdamW_lr1e3")
    light = [
        ["--help"],
        ["list"],
        ["list", "--json"],
        ["info", "--json", names[0]],
        *(["info", name] for name in names),
    ]
    code = (
        "import io, sys\nfrom contextlib import redirect_stdout\nfrom nnunet_attn.cli.main import main\n"
        f"for arguments in {[*light, *([name, '--help'] for name in COMMANDS)]!r}:\n"
        "    try:\n        with redirect_stdout(io.StringIO()) as out: main(arguments)\n"
        "    except SystemExit: pass\n"
        "    heavy = sorted({'torch', 'nnunetv2', 'numpy', 'scipy', 'pandas'} & set(sys.modules))\n"
        "    if heavy or not out.getvalue(): sys.exit(f'{arguments}: {heavy}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name, _ in own_trainers()])
def test_info_s_tables_are_the_classes(name):
    parsed = parse_trainer_name(name)
    assert parsed.network in TABLES, "info would import torch"
    for suffix in ("", "_SGD", *(f"_{recipe}" for recipe in find_family(parsed.family).paper_recipes)):
        cls = getattr(trainers, name + suffix)
        expected = (merged(cls, "network_kwargs"), merged(cls, "recipe"), issubclass(cls, MutationTrainer))
        assert settings(name + suffix) == expected


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_wrong_usage_leaves_with_2():
    with pytest.raises(SystemExit) as stop:
        main(["no-such-command"])
    assert stop.value.code == 2


def test_datasets_may_be_written_as_they_write_themselves(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(["convert", "GlaS", str(tmp_path / "none"), "5"]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", "ACDD", str(tmp_path), "5"])
    assert "invalid choice: 'acdd'" in capsys.readouterr().err


def test_list_json_is_the_catalogue(capsys):
    assert main(["list", "--json"]) == 0
    listed = [row for row in json.loads(capsys.readouterr().out) if row["package"] == "nnunet-attn"]
    entries = (*ENTRIES, *LIBRARY_ENTRIES)
    assert [row["trainer"] for row in listed] == [name for entry in entries for name in entry.trainers]
    assert [row["network"] for row in listed] == [entry.network for entry in entries for _ in entry.trainers]


def test_list_shows_every_trainer(capsys):
    assert main(["list", "--ablations"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for entry in ENTRIES for name in entry.trainers)


@pytest.mark.parametrize("suffix", ["", "_SGD", "_7epochs_3iterations"])
def test_info_of_stock_network(suffix, capsys):
    assert main(["info", f"nnUNetTrainerStockAdamW{suffix}"]) == 0
    out = capsys.readouterr().out
    assert ("SGD" if "SGD" in suffix else "AdamW") in out
    if "epochs" in suffix:
        assert "schedule    7 epochs of 3 iterations; " in out


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("nnUNetTrainerDCAUNet_lr1e3", ("AdamW, betas 0.9 and 0.98, rate 0.001, weight decay 0.05 (not of norms",
                                        "over the first 5% of them, then falls", "augmented   as nnU-Net does\n")),
        ("nnUNetTrainerDCAUNet_SGD", ("SGD, momentum 0.99", "250 iterations; the rate falls", "clipped at norm 12\n")),
        ("nnUNetTrainerEMCAD_paper", ("the sum over the subsets of its prediction maps",)),
        ("nnUNetTrainerFIAS_paper", ("zoom by 0.7 to 1.4", "shift by up to ")),
        ("nnUNetTrainerXAttnResUNet_paperPictures", ("passes over the training slices", "each batch at 0.75, 1, 1.25")),
        ("nnUNetTrainerDCAUNet_paper_2epochs_4iterations", ("schedule    2 epochs of 4 iterations; ",)),
        ("nnUNetTrainerDCAUNet_paper_100epochs", ("schedule    100 epochs of 250 iterations; ",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_info_tells_the_recipe_in_words(name, lines, capsys):
    assert main(["info", name]) == 0
    out = capsys.readouterr().out
    assert [text for text in lines if text not in out] == []


def test_info_of_an_unknown_name_suggests(capsys):
    assert main(["info", "nnUNetTrainerStockAdam"]) == 1
    assert "did you mean nnUNetTrainerStockAdamW" in capsys.readouterr().err


def test_doctor_finds_the_trainers(capsys, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    assert main(["doctor"]) == 0
    assert "nnU-Net finds" in capsys.readouterr().out


def test_doctor_names_a_broken_folder_before_ours(capsys, tmp_path, monkeypatch):
    import os

    (tmp_path / "broken.py").write_text("import a_module_that_does_not_exist\n")
    ours = os.environ["nnUNet_extTrainer"]
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), ours]))
    assert main(["doctor", "--quick"]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path}: module broken does not import (ModuleNotFoundError" in out


def test_doctor_says_what_to_do_when_discovery_is_off(capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "")
    assert main(["doctor", "--quick"]) == 1
    assert 'run: export nnUNet_extTrainer="' in capsys.readouterr().out


def test_doctor_gives_lines_for_an_nnunet_that_it_does_not_know(capsys, monkeypatch):
    """Another module of look-ups, and a network that does not import."""
    monkeypatch.setitem(sys.modules, "nnunetv2.utilities.find_objects", None)
    monkeypatch.setattr("nnunet_attn.trainers.nnUNetTrainerDCAUNet.network", "nnunet_attn.architectures.none.None")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "cannot be imported and 8 more: ImportError: there is no nnunet_attn.architectures.none.None" in out
    assert "this nnunetv2 looks trainers up in another way" in out
    assert "FAIL  discovery" in out


def test_doctor_says_which_check_broke(monkeypatch):
    def versions():
        yield "ok", "python", "3"
        raise AttributeError("metadata")

    lines = list(doctor.without_traceback(versions))
    assert lines[1] == ("FAIL", "versions", "could not be checked: AttributeError: metadata")


def test_doctor_names_folders_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "none"))
    monkeypatch.delenv("nnUNet_results", raising=False)
    lines = {name: (status, text) for status, name, text in doctor.folders()}
    assert lines["nnUNet_raw"] == ("FAIL", f"{tmp_path / 'none'} is not a folder; create it or correct the variable")
    assert lines["nnUNet_results"][0] == "note"


def test_info_tells_twin_citation_memory_and_commands(capsys):
    assert main(["info", "--memory", "nnUNetTrainerXAttnRes_paper"]) == 0
    out = capsys.readouterr().out
    for text in (
        "nnUNetTrainerXAttnRes_noAttention_paper", "kept for backward per sample of 256x256", "@misc{liu2026xattnres,",
        "nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerXAttnRes_paper", "DATASET 3d_fullres 0", "EMCAD's recipe",
    ):  # fmt: skip
        assert text in out
    assert main(["info", "--json", "nnUNetTrainerDCAUNet_paperACDC"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["trainer"] == "nnUNetTrainerDCAUNet_paperACDC"
    assert "3e-4" in content["means"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.trainer)
def test_memory_of_every_network_is_counted(entry):
    assert re.match(r"[1-9]\d* MiB kept", memory_text(entry, entry.trainer))


def test_list_says_what_each_recipe_means(capsys):
    main(["list"])
    out = capsys.readouterr().out
    assert "_paperACDC (DCAU-Net): the paper's recipe for ACDC" in out
    assert "_SGD: stock" in out


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("ok", 32) == "\033[32mok\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("ok", 32) == "ok"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert coloured("ok", 32) == "ok"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    assert "quickstart" in capsys.readouterr().out


def test_an_interruption_leaves_with_130(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_attn.cli.list.run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "nnunet-attn list: interrupted\n"


# One word for different things; each command's help says what it means there.
DIFFERENT = {"--channels", "--configuration", "--fold", "--input-size", "--json", "--labels", "--test", "--trainer"}
DIFFERENT |= {"--trainers"}


def options_of(parser, name=""):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for key, sub in action.choices.items():
                yield from options_of(sub, f"{name} {key}".strip())
        elif action.option_strings and action.dest != "help":
            yield name, action


def test_a_flag_is_the_same_in_every_command():
    """The same short and long form, kind and number of values, wherever a flag occurs."""
    seen = {}
    for command, action in options_of(make_parser()):
        form = tuple(action.option_strings), action.nargs, action.type, action.dest, action.metavar, type(action)
        for flag in action.option_strings:
            if not DIFFERENT & set(action.option_strings):
                first, expected = seen.setdefault(flag, (command, form))
                assert form == expected, f"{flag} of {command} and of {first}"
