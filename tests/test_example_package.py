"""The example package, copied and renamed, is built, installed, tested, trained by nnU-Net's command and compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_network"
NAMES = {"my_network": "their_net", "my-network": "their-net", "MyNetwork": "TheirNet", "my network": "their network"}


def renamed_copy(folder: Path) -> Path:
    """The example as somebody's own package."""
    for path in sorted(EXAMPLE.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".toml", ".md") and "build" not in path.parts:
            text, name = path.read_text(encoding="utf-8"), str(path.relative_to(EXAMPLE))
            for old, new in NAMES.items():
                text, name = text.replace(old, new), name.replace(old, new)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_copy_is_built_installed_tested_trained_and_compared(images_2d, tmp_path):
    source, site, data = renamed_copy(tmp_path / "source"), tmp_path / "site", images_2d.copy(tmp_path / "nnunet")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", site, source], check=True)
    shutil.rmtree(source / "their_net")  # what follows is of what is installed
    folders = {name: str(data.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    settings = {"PYTHONPATH": str(site), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    scripts = Path(sys.executable).parent

    def run(*words: str) -> str:
        done = subprocess.run(
            [scripts / words[0], *words[1:]],
            env=os.environ | folders | settings,
            cwd=source,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert "nnUNetTrainerTheirNet " in run("nnunet-attn", "list")
    schedule = "_2epochs_3iterations"
    for trainer in ("nnUNetTrainer", "nnUNetTrainerTheirNet", "nnUNetTrainerTheirNet_noGate_SGD"):
        run("nnUNetv2_train", "901", "2d", "0", "-tr", f"{trainer}{schedule}", "-device", "cpu")
    rows = [f"{t}{schedule}" for t in ("nnUNetTrainer", "nnUNetTrainerTheirNet")]
    told = run("nnunet-attn", "compare", "901", "-c", "2d", "-tr", *rows, "-o", str(tmp_path / "report"))
    assert "TheirNet" in told
