"""Check the types of the whole package with mypy, as it looks when installed: python scripts/check_types.py

mypy cannot see that ``trainers/`` and ``dataset_conversion/`` become parts of ``nnunet_attn``, so it gets a folder of
links that shows them in their places. Further arguments go to mypy. Its configuration stands in pyproject.toml.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def linked_package(folder: Path) -> None:
    """Make ``folder/nnunet_attn`` of links into the checkout, the mapped folders in their places."""
    mapped = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    sources = {path.name: path for path in (ROOT / "nnunet_attn").iterdir() if path.name != "__pycache__"}
    sources |= {name.removeprefix("nnunet_attn."): ROOT / path for name, path in mapped.items()}
    package = folder / "nnunet_attn"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    for name, source in sources.items():
        (package / name).symlink_to(source)


def main() -> int:
    tree = ROOT / ".mypy_cache" / "tree"
    linked_package(tree)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "nnunet_attn"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), *sys.argv[1:]]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True)
    for name in ("trainers", "dataset_conversion"):
        done.stdout = done.stdout.replace(f"nnunet_attn/{name}/", f"{name}/")
    print(done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
