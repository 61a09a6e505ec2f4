"""nnU-Net finds our trainers as the very classes that pickle, and nothing of the user's is touched."""

import inspect
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import nnunet_attn
from nnunet_attn import trainers
from nnunet_attn.catalog import FAMILIES
from nnunet_attn.lookup import find_entry, own_trainers
from nnunet_attn.trainer_names import parse_trainer_name, unreadable_suffixes, without_run
from nnunet_attn.training.base import merged

DISCOVERY = str(Path(nnunet_attn.__file__).parent / "_discovery")
COMPOSED = [
    "nnUNetTrainerStockAdamW_SGD",
    "nnUNetTrainerStockAdamW_1epoch",
    "nnUNetTrainerStockAdamW_SGD_2epochs_20iterations",
    "nnUNetTrainer_2epochs_20iterations",
    "nnUNetTrainer_3epochs",
    "nnUNetTrainerDCAUNet_lr1e3",
    "nnUNetTrainerDCAUNet_SGD_lr15e4_8epochs_150iterations_run2",
    "nnUNetTrainer_lr3e3_2epochs",
    "nnUNetTrainer_10epochs_run2",
    "nnUNetTrainerAdam_run12",
    "nnUNetTrainerBenchmark_5epochs_run2",
]


@pytest.fixture
def find(monkeypatch):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    monkeypatch.setenv("nnUNet_extTrainer", DISCOVERY)
    return recursive_find_trainer_class_by_name


@pytest.mark.parametrize("name", [*(n for n, _ in own_trainers()), *COMPOSED])
def test_found_as_the_very_class(find, name):
    cls = find(name)
    assert cls is getattr(trainers, name)
    assert cls.__name__ == name
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_a_schedule_that_nnunet_has_itself_stays_nnunet_s(find):
    assert find("nnUNetTrainer_5epochs").__module__.startswith("nnunetv2.")


@pytest.mark.parametrize("name", [n for n, _ in own_trainers()] + COMPOSED)
def test_signature_is_nnunet_s(name):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    expected = list(inspect.signature(nnUNetTrainer.__init__).parameters)
    assert list(inspect.signature(getattr(trainers, name).__init__).parameters) == expected


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer",
        "nnUNetTrainerFoo",
        "nnUNetTrainerStockAdamW_paper",
        "nnUNetTrainerStockAdamW_0epochs",
        "nnUNetTrainerStockAdamW_2epochs_SGD",
        "nnUNetTrainerStockAdamW_SGD_SGD",
        "nnUNetTrainerStockAdamW_run1",
        "nnUNetTrainerStockAdamW_run2_2epochs",
        "nnUNetTrainer_2epochs_lr1e3",
        "nnUNetTrainer_lr0e3",
    ],
)
def test_names_that_are_not_ours(name):
    assert parse_trainer_name(name) is None
    with pytest.raises(AttributeError, match=name):
        getattr(trainers, name)


def test_schedule_and_recipe_suffixes():
    parsed = parse_trainer_name("nnUNetTrainerStockAdamW_SGD_2epochs_20iterations")
    assert (parsed.base, parsed.recipe, parsed.epochs, parsed.iterations) == ("nnUNetTrainerStockAdamW", "SGD", 2, 20)


def test_rate_and_run_suffixes():
    parsed = parse_trainer_name("nnUNetTrainerDCAUNet_noX_lr3e4_run3")
    assert (parsed.base, parsed.family) == ("nnUNetTrainerDCAUNet_noX", None)  # another package's, as far as we know
    parsed = parse_trainer_name("nnUNetTrainerDCAUNet_lambda05_paper_lr15e5_20epochs_run3")
    assert (parsed.base, parsed.recipe) == ("nnUNetTrainerDCAUNet_lambda05", "paper")
    assert (parsed.initial_lr, parsed.epochs, parsed.iterations, parsed.run) == (15e-5, 20, None, 3)
    assert without_run("nnUNetTrainer_10epochs_run12") == "nnUNetTrainer_10epochs"


def test_suffixes_of_a_trainer_that_nobody_has():
    with pytest.raises(AttributeError, match="nnU-Net finds no nnUNetTrainerNobody"):
        trainers.nnUNetTrainerNobody_run2  # noqa: B018


def test_a_schedule_in_the_name_of_nnunet_s_own_trainer_stays_its_own():
    cls = trainers.nnUNetTrainerBenchmark_5epochs_run2
    assert cls.__mro__[1:4][-1].__name__ == "nnUNetTrainerBenchmark_5epochs"


def test_wrong_order_is_told(find, capsys):
    with pytest.raises(RuntimeError):
        find("nnUNetTrainerDCAUNet_8epochs_lr1e3")
    assert "suffixes come in the order <name>[_SGD|_paper][_lr<M>e<N>]" in capsys.readouterr().err
    assert unreadable_suffixes("nnUNetTrainerDCAUNet_run2") is None
    assert unreadable_suffixes("somethingElse_run1") is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nnUNetTrainerDCAUnet", "nnUNetTrainerDCAUNet"),
        ("nnUNetTrainerXAttnres_skipOnly_run1", "nnUNetTrainerXAttnRes_skipOnly_run1"),
        ("nnUNetTrainerDCAUnet_2epochs", "nnUNetTrainerDCAUNet"),
        ("nnUNetTrainerMine", None),
        ("SomethingElse", None),
    ],
)
def test_did_you_mean(find, capsys, name, meant):
    with pytest.raises(RuntimeError):
        find(name)
    error = capsys.readouterr().err
    assert error.count("did you mean") == (meant is not None)
    assert meant is None or f"did you mean {meant}?" in error


def name_in_another_process(cls: type) -> str:
    return cls.__name__


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_composed_classes_reach_workers(method):
    cls = trainers.nnUNetTrainerStockAdamW_SGD_2epochs_20iterations
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        assert pool.submit(pickle.dumps, cls).result(timeout=300) == pickle.dumps(cls)


def in_fresh_python(code: str, **environment: str) -> str:
    """Run ``code`` in a new interpreter with the start-up module on, whatever is installed; returns its stdout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_ext", "NNUNET_ATTN"))} | environment
    startup = "import runpy; m = runpy.run_path({!r}); m['register']()\n".format(
        str(Path(nnunet_attn.__file__).parent / "_startup.py")
    )
    done = subprocess.run([sys.executable, "-c", startup + code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


PRINT = "import os; print(os.environ.get('nnUNet_extTrainer'))"


def test_startup_appends_once_and_keeps_the_user_s_value():
    assert in_fresh_python(PRINT) == DISCOVERY
    kept = in_fresh_python(PRINT, nnUNet_extTrainer="/mine")
    assert kept == os.pathsep.join(["/mine", DISCOVERY])
    assert in_fresh_python(PRINT, nnUNet_extTrainer=kept) == kept


def test_startup_can_be_switched_off():
    code = "import os; print(os.environ.get('nnUNet_extTrainer'))"
    env = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"} | {"NNUNET_ATTN_NO_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_startup_imports_only_os():
    source = (Path(nnunet_attn.__file__).parent / "_startup.py").read_text()
    assert [line for line in source.splitlines() if line.startswith(("import", "from"))] == ["import os"]


def test_look_ups_of_others_import_nothing_of_ours():
    code = (
        f"import sys; sys.path.insert(0, {DISCOVERY!r}); import nnunet_attn_trainers as m\n"
        "print(hasattr(m, 'nnUNetTrainerSomebodyElse'), sorted(n for n in sys.modules if n in ('torch', 'nnunetv2', "
        "'nnunet_attn.trainers')))"
    )
    assert in_fresh_python(code) == "False []"


def test_the_user_s_own_trainer_folder_keeps_working(find, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMine(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), DISCOVERY]))
    assert find("nnUNetTrainerMine").__name__ == "nnUNetTrainerMine"
    assert find("nnUNetTrainerStockAdamW").__module__ == "nnunet_attn.trainers.stock"


def test_an_ablation_is_an_entry_of_the_trainer_s_table():
    cls = trainers.nnUNetTrainerDCAUNet_lambda05
    assert cls.__bases__ == (trainers.nnUNetTrainerDCAUNet,)
    assert cls.network_kwargs == {"lambda_init": 0.5}
    assert "lambda_init fixed at 0.5" in cls.__doc__
    parsed = parse_trainer_name("nnUNetTrainerDCAUNet_lambda05_paper_run2")
    assert (parsed.network, parsed.ablation) == ("nnUNetTrainerDCAUNet", "lambda05")


def test_a_second_name_of_an_ablation_is_a_subclass_of_it(find, monkeypatch):
    monkeypatch.setitem(FAMILIES["dual_cross_attention"].same, "hostAlone", "noDCA")
    name = "nnUNetTrainerDualCAUNet_hostAlone"
    cls = find(name)
    assert cls.__bases__ == (trainers.nnUNetTrainerDualCAUNet_noDCA,)
    assert merged(cls, "network_kwargs") == {"dca": False}
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert find(f"{name}_SGD_2epochs").__bases__[-1] is cls
    entry = find_entry(name)
    assert entry.trainers[name] == entry.trainers["nnUNetTrainerDualCAUNet_noDCA"]
    assert (
        FAMILIES[entry.family].describe("hostAlone")
        == "the same network as _noDCA: the host alone, under the same recipe"
    )
    for made in [key for key in vars(trainers) if key.startswith(name)]:
        delattr(trainers, made)


def test_an_ablation_without_arguments_is_told(monkeypatch):
    monkeypatch.setitem(find_entry("nnUNetTrainerEMCAD").ablation_costs, "noGate", None)
    with pytest.raises(AttributeError, match=r"EMCAD\.ablations has no 'noGate'"):
        trainers.nnUNetTrainerEMCAD_noGate  # noqa: B018
