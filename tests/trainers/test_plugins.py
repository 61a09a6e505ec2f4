"""Trainers of other packages: found, listed and composed by their entry points, harmless where they are broken."""

import json
import pickle
import sys
from pathlib import Path

import pytest

import nnunet_attn
from nnunet_attn import plugins, trainers
from nnunet_attn.cli.main import main
from nnunet_attn.lookup import find_entry, written_trainers
from nnunet_attn.study.trainers import trainer_problem
from nnunet_attn.trainer_names import describe_trainer, parse_trainer_name

TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_attn.training.base import NetworkTrainer

class nnUNetTrainerTheirs(NetworkTrainer):
    network = "their_package.network.Net"
    ablations = {"noGate": {"gate": False}}
    dimensions = (2, 3)

class nnUNetTrainerPlain(nnUNetTrainer):
    pass

class nnUNetTrainerOther(nnUNetTrainer):
    pass
"""
ROW = """
from nnunet_attn.catalog import Cost, Entry, Family

ROW = Entry(
    family=Family("Their network", "arXiv:0000.00000", "their own", ablations={"noGate": "without the gate"}),
    trainer="nnUNetTrainerTheirs", network="their_package.network.Net", cost=Cost(123456, 1.5),
    ablation_costs={"noGate": Cost(100000, 1.25)}, dimensions=(2, 3),
)
"""
POINTS = {
    plugins.TRAINERS: {
        "nnUNetTrainerTheirs": "their_package.trainer:nnUNetTrainerTheirs",
        "nnUNetTrainerPlain": "their_package.trainer:nnUNetTrainerPlain",
    },
    plugins.ROWS: {"nnUNetTrainerTheirs": "their_package.row:ROW"},
}


def install(folder: Path, points: dict[str, dict[str, str]], name: str = "their-package") -> None:
    """A package as an installer would leave it in ``folder``."""
    package, info = folder / name.replace("-", "_"), folder / f"{name.replace('-', '_')}-1.5.dist-info"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "trainer.py").write_text(TRAINER)
    (package / "row.py").write_text(ROW)
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def forget() -> None:
    for cached in (plugins.plugins, plugins.row, plugins.trainer_class, plugins.warn):
        cached.cache_clear()
    for name in [n for n in vars(trainers) if n.startswith(("nnUNetTrainerTheirs", "nnUNetTrainerPlain"))]:
        delattr(trainers, name)
    for name in [n for n in sys.modules if n.startswith("their_package")]:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs packages into a folder on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(nnunet_attn.__file__).parent / "_discovery"))

    def make(points: dict[str, dict[str, str]], name: str = "their-package") -> None:
        install(tmp_path, points, name)
        forget()

    yield make
    forget()


@pytest.fixture
def find():
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    return recursive_find_trainer_class_by_name


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerTheirs",
        "nnUNetTrainerTheirs_noGate",
        "nnUNetTrainerTheirs_noGate_SGD_lr1e3_2epochs_3iterations_run2",
        "nnUNetTrainerPlain",
        "nnUNetTrainerPlain_lr1e3_2epochs_run2",
    ],
)
def test_found_by_nnunet_as_the_very_class(installed, find, name):
    installed(POINTS)
    cls = find(name)
    assert cls.__name__ == name
    assert cls is getattr(trainers, name)
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert trainer_problem(name) is None


def test_suffixes_mean_what_they_do_on_ours(installed):
    installed(POINTS)
    cls = trainers.nnUNetTrainerTheirs_noGate_SGD_2epochs
    assert (cls.network_kwargs, cls.recipe["optimizer"], cls.epochs) == ({"gate": False}, "SGD", 2)
    assert describe_trainer("nnUNetTrainerTheirs_noGate_SGD_2epochs").startswith(
        "Their network; _noGate: without the gate; _SGD: stock"
    )
    assert parse_trainer_name("nnUNetTrainerTheirs_noGate_run2").ablation == "noGate"
    assert find_entry("nnUNetTrainerTheirs_noGate").cost.parameters == 123456


def test_a_recipe_on_a_trainer_without_recipes_is_refused(installed, find, capsys):
    installed(POINTS)
    with pytest.raises(RuntimeError, match="Could not find"):
        find("nnUNetTrainerPlain_SGD")
    assert "nnUNetTrainerPlain is no NetworkTrainer of nnunet-attn, so _SGD does not work" in capsys.readouterr().err


def test_listed_with_and_without_a_row(installed, capsys):
    installed(POINTS)
    assert main(["list", "--json"]) == 0
    rows = {row["trainer"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["nnUNetTrainerTheirs"]["parameters"] == 123456
    assert rows["nnUNetTrainerTheirs_noGate"]["ablation_of"] == "nnUNetTrainerTheirs"
    assert rows["nnUNetTrainerPlain"]["parameters"] is None
    assert rows["nnUNetTrainerPlain"]["package"] == "their-package 1.5"
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("nnUNetTrainerTheirs"))
    assert lines[start].endswith("Their network (arXiv:0000.00000, their-package 1.5)")
    assert lines[start + 1] == "  _noGate"
    assert "their_package.trainer" not in sys.modules, "a row is enough for the list"


def test_info_of_a_trainer_without_a_row(installed, capsys):
    installed(POINTS)
    assert main(["info", "nnUNetTrainerPlain_3epochs"]) == 0
    out = capsys.readouterr().out
    assert "their-package 1.5" in out
    assert "3 epochs" in out


def test_doctor_names_the_packages(installed, capsys):
    installed(POINTS | {plugins.TRAINERS: POINTS[plugins.TRAINERS] | {"nnUNetTrainerGone": "their_package.none:X"}})
    from nnunet_attn.cli.doctor import other_packages

    lines = list(other_packages())
    assert ("ok", "nnUNetTrainerTheirs", "of the package their-package 1.5") in lines
    failed = next(line for line in lines if line[0] == "FAIL")
    assert failed[1] == "nnUNetTrainerGone"
    assert "their-package 1.5" in failed[2]


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("their_package.none:Trainer", "cannot be imported from their_package.none:Trainer (ModuleNotFoundError"),
        ("their_package.trainer:none", "(AttributeError"),
        ("their_package.trainer:nnUNetTrainerOther", "subclass of nnUNetTrainer with the name nnUNetTrainerTheirs"),
        ("their_package.row:ROW", "subclass of nnUNetTrainer with the name nnUNetTrainerTheirs"),
    ],
)
def test_a_broken_trainer_is_one_line_and_breaks_nothing_else(installed, find, capsys, point, told):
    installed({plugins.TRAINERS: {"nnUNetTrainerTheirs": point}})
    assert find("nnUNetTrainerStockAdamW_SGD_3epochs").__name__ == "nnUNetTrainerStockAdamW_SGD_3epochs"
    assert find("nnUNetTrainer_5epochs").__module__.startswith("nnunetv2.")
    assert capsys.readouterr().err == ""
    for name in ("nnUNetTrainerTheirs", "nnUNetTrainerTheirs_2epochs"):
        with pytest.raises(RuntimeError, match="Could not find"):
            find(name)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "the package their-package 1.5" in line
    assert told in line


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("import a_module_that_nobody_has", "cannot be imported from their_package.row:ROW (ModuleNotFoundError"),
        ("raise SystemExit('leave')", "(SystemExit: leave)"),
        ("ROW = None", "should be an Entry with trainer='nnUNetTrainerTheirs'"),
        (ROW.replace("nnUNetTrainerTheirs", "nnUNetTrainerElse"), "should be an Entry with"),
    ],
)
def test_a_broken_row_is_one_line_and_the_trainer_stays(installed, find, capsys, tmp_path, row, told):
    installed(POINTS)
    (tmp_path / "their_package" / "row.py").write_text(row)
    assert main(["list"]) == 0
    out, line = capsys.readouterr()
    assert "nnUNetTrainerTheirs" in out
    assert line.count("\n") == 1
    assert "the package their-package 1.5" in line
    assert told in line
    assert find("nnUNetTrainerTheirs_SGD").__name__ == "nnUNetTrainerTheirs_SGD"


@pytest.mark.parametrize("name", ["nnUNetTrainerDCAUNet", "nnUNetTrainer", "nnUNetTrainerX_3epochs", "X_SGD", "a.b"])
def test_names_that_cannot_be_used(installed, capsys, name):
    installed({plugins.TRAINERS: {name: "their_package.trainer:X"}})
    assert not plugins.plugins()
    assert f"the package their-package 1.5 is left out: {name!r} is" in capsys.readouterr().err
    assert trainers.nnUNetTrainerDCAUNet.__module__ == "nnunet_attn.trainers.dcau_net"


def test_two_packages_with_one_name(installed, capsys):
    installed(POINTS)
    installed({plugins.TRAINERS: {"nnUNetTrainerPlain": "an_other.trainer:X"}}, "z-other")
    assert plugins.plugins()["nnUNetTrainerPlain"].dist.name == "their-package"
    assert "'nnUNetTrainerPlain' is the name of a trainer of their-package 1.5" in capsys.readouterr().err


def test_a_look_up_of_other_names_imports_no_package(installed):
    installed(POINTS)
    assert parse_trainer_name("nnUNetTrainerSomebodyElse_2epochs").family is None
    assert not hasattr(trainers, "nnUNetTrainerSomebodyElse")
    assert not [name for name in sys.modules if name.startswith("their_package")]
    assert "nnUNetTrainerTheirs_noGate" in dict(written_trainers())
