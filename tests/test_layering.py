"""Imports point down only, and are absolute."""

import ast
from pathlib import Path

import pytest

from nnunet_attn.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
BOTTOM = {
    "catalog",
    "citations",
    "command_options",
    "errors",
    "files",
    "groups",
    "library_rows",
    "lookup",
    "paper_tables",
    "plugins",
    "recipe",
    "trainer_names",
    "workers",
}
MAY_IMPORT = {
    "catalog": set(),
    "command_options": set(),
    "citations": set(),
    "recipe": set(),
    "paper_tables": {"recipe"},
    "library_rows": {"catalog"},
    "plugins": {"catalog", "library_rows"},
    "lookup": {"catalog", "library_rows", "plugins"},
    "trainer_names": {"catalog", "lookup", "plugins"},
    "errors": set(),
    "files": {"errors"},
    "groups": {"errors"},
    "workers": {"errors"},
    "_startup": set(),
    "_discovery": {"trainer_names", "trainers"},
    "blocks": {"blocks"},
    "architectures": {"blocks", "architectures"},
    "training": BOTTOM | {"architectures", "training"},
    "complexity": set(),
    "scoring": BOTTOM | {"scoring"},
    "comparison": BOTTOM | {"complexity", "scoring", "comparison"},
    "report": BOTTOM | {"scoring", "comparison", "report"},
    "dataset_conversion": BOTTOM | {"dataset_conversion"},
    "study": BOTTOM | {"dataset_conversion", "scoring", "comparison", "report", "study"},
    "export": BOTTOM | {"training", "export"},
    "maps": BOTTOM | {"blocks", "scoring", "report", "training", "export", "maps"},
    "testing": BOTTOM | {"complexity", "training", "testing"},
    "api": {"catalog", "recipe", "testing", "training"},
    "trainers": BOTTOM | {"training", "trainers"},
}
WITHOUT_NNUNET = BOTTOM - {"plugins"} | {"complexity", "_startup", "_discovery", "blocks", "architectures"}


def layer_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] != "nnunet_attn" else parts[1]


def imports_of(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module == "nnunet_attn":
                yield from (f"nnunet_attn.{alias.name}" for alias in node.names)
            else:
                yield node.module


SOURCES = [
    p for folder in ("nnunet_attn", "trainers", "dataset_conversion") for p in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    layer = layer_of(path)
    for name in imports_of(path):
        if name.startswith("nnunet_attn.") and layer not in ("cli", "__init__"):
            target = name.split(".")[1]
            assert target in MAY_IMPORT[layer] or target == "__version__", f"{layer} may not import {name}"
        if name.split(".")[0] == "nnunetv2":
            assert layer not in WITHOUT_NNUNET, f"{layer} may not import {name}"


HEAVY = ["torch", "nnunetv2", "numpy", "scipy", "pandas", "matplotlib", "SimpleITK", "timm", "PIL", "skimage", "tqdm"]
HEAVY_LAYERS = tuple(
    f"nnunet_attn.{layer}"
    for layer in (
        "training",
        "architectures",
        "blocks",
        "complexity",
        "scoring",
        "comparison",
        "report",
        "study",
        "export",
        "maps",
        "testing",
    )
)


@pytest.mark.parametrize("command", ["main", *COMMANDS])
def test_commands_import_lightly(command):
    """Everything heavy is imported inside functions, so that --help stays fast."""
    source = (ROOT / "nnunet_attn" / "cli" / f"{command}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not [n for n in names if n.split(".")[0] in HEAVY or n.startswith(HEAVY_LAYERS)]
