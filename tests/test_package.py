"""What gets packaged is what is on disk, and an installation carries discovery and nothing at top level but us."""

import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import pytest

from nnunet_attn import __version__

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def folders_with_files(top: Path, name: str) -> set[str]:
    files = [p for p in top.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    found = {p.parent.relative_to(top).parts for p in files}
    return {".".join((name, *parts)) for parts in found}


def test_listed_packages_are_those_on_disk():
    on_disk = folders_with_files(ROOT / "nnunet_attn", "nnunet_attn")
    for name, folder in CONFIG["tool"]["setuptools"]["package-dir"].items():
        on_disk |= folders_with_files(ROOT / folder, name)
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == on_disk


def test_discovery_folder_holds_one_module():
    """nnU-Net imports every module of the folder."""
    assert [p.name for p in (ROOT / "nnunet_attn" / "_discovery").glob("*.py")] == ["nnunet_attn_trainers.py"]


def test_citation_names_this_version():
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()


def test_every_direct_import_is_declared():
    import ast
    import re

    distribution = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
    declared = {re.split(r"[<>=!\[; ]", d)[0].lower() for d in CONFIG["project"]["dependencies"]}
    extras = CONFIG["project"]["optional-dependencies"]
    optional = {re.split(r"[<>=!\[; ]", d)[0].lower() for d in [*extras["hdf5"], *extras["study"], *extras["export"]]}
    used = set()
    for folder in ("nnunet_attn", "trainers", "dataset_conversion", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                used |= {name.split(".")[0] for name in names}
    used -= set(sys.stdlib_module_names) | {"nnunet_attn"} | {path.stem for path in (ROOT / "scripts").glob("*.py")}
    used = {distribution.get(name, name).replace("_", "-").lower() for name in used}
    used -= {"medpy"} & set(extras["test"])  # the benchmark of HD95 in scripts/ compares with it
    assert used <= declared | optional
    assert declared <= used, "declared but never imported"


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning])
def test_what_will_break_is_an_error_in_our_own_files(category):
    def warn_from(module: str) -> None:
        exec("import warnings; warnings.warn('will break', category)", {"__name__": module, "category": category})

    for ours in ("nnunet_attn", "nnunet_attn.trainers.fias", "tests.cli.test_count", __name__):
        with pytest.raises(category, match="will break"):
            warn_from(ours)
    with warnings.catch_warnings(record=True) as others:
        warn_from("nnunet_attn_of_another_package")
    assert not others


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_has_one_package_and_the_startup_files(wheel):
    top = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert top == {"nnunet_attn", "_nnunet_attn_startup.py", "nnunet_attn.pth", "nnunet_attn.start"}
    assert "nnunet_attn/trainers/__init__.py" in wheel.namelist()
    assert "nnunet_attn/dataset_conversion/__init__.py" in wheel.namelist()
    assert "nnunet_attn/dataset_conversion/splits/kvasir_pranet_test.txt" in wheel.namelist()
    assert "nnunet_attn/_discovery/nnunet_attn_trainers.py" in wheel.namelist()
    assert "nnunet_attn/py.typed" in wheel.namelist()
    assert {"nnunet_attn/blocks/__init__.pyi", "nnunet_attn/architectures/__init__.pyi"} <= set(wheel.namelist())


def test_wheel_is_small(wheel):
    assert Path(wheel.filename).stat().st_size < 2**20


USER_CODE = """
from nnunet_attn.architectures import DCAUNet
from nnunet_attn.blocks import ChannelSpatialFusion
network: DCAUNet = DCAUNet(3, 9, depths=(1, 1, 1, 1))
fuse = ChannelSpatialFusion("64")
"""


def test_type_checkers_see_the_wheel(wheel, tmp_path):
    """The code of a user is checked against the annotations of the installed package; its one mistake is found."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                               capture_output=True, text=True, check=True).stdout.strip())  # fmt: skip
    wheel.extractall(site)
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    (tmp_path / "user.py").write_text(USER_CODE)
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")  # 20 s for nothing of ours
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--python-executable", str(python), "user.py"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    wrong = 'Argument 1 to "ChannelSpatialFusion" has incompatible type "str"; expected "int"'
    assert out == f"user.py:5: error: {wrong}  [arg-type]\n"


def test_installed_wheel_registers_at_start_and_its_removal_leaves_nothing(wheel, tmp_path):
    """The wheel's files in a fresh environment without torch: the variable is set at start, in the old and new way."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                               capture_output=True, text=True, check=True).stdout.strip())  # fmt: skip
    (site / "another.pth").touch()  # pip removes a folder that it leaves empty
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel.filename], check=True)
    code = "import os, sys; print(os.environ['nnUNet_extTrainer']); print(*[m for m in sys.modules if 'nnunet' in m])"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env={}).stdout.splitlines()
    assert out == [str(site / "nnunet_attn" / "_discovery"), "_nnunet_attn_startup"]
    assert (site / "nnunet_attn.start").read_text() == "_nnunet_attn_startup:register\n"
    off = subprocess.run([python, "-c", "import os; print('nnUNet_extTrainer' in os.environ)"],
                         capture_output=True, text=True, check=True, env={"NNUNET_ATTN_NO_AUTOLOAD": "1"})  # fmt: skip
    assert off.stdout.strip() == "False"
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "nnunet-attn"], check=True)
    assert [p.name for p in site.iterdir()] == ["another.pth"]
