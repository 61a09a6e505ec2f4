"""The public API is frozen: names, and what they are called with. New names: python tests/test_api_surface.py"""

import dataclasses
import enum
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_attn import api, architectures, blocks

SURFACE = Path(__file__).with_name("api_surface.json")
MODULES = (api, architectures, blocks)


def default(value: object) -> str:
    """A default as text that is the same in every process and version of Python."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__qualname__
    return value.name if isinstance(value, enum.Enum) else repr(value)


def written(p: inspect.Parameter) -> str:
    value = "" if p.default is p.empty else f"={default(p.default)}"
    return f"{p.name}{value} ({p.kind.description})"


def described(found: object) -> dict:
    """Parameters, and of a class the public attributes that it defines itself."""
    parameters = inspect.signature(found).parameters.values()
    surface: dict = {"parameters": [written(p) for p in parameters]}
    if inspect.isclass(found) and found.__name__ in api.__all__ and not dataclasses.is_dataclass(found):
        surface["attributes"] = sorted(name for name in vars(found) if not name.startswith("_"))
    return surface


def surface() -> dict[str, dict]:
    return {
        f"{module.__name__}.{name}": described(getattr(module, name)) for module in MODULES for name in module.__all__
    }


def frozen() -> dict[str, dict]:
    return json.loads(SURFACE.read_text(encoding="utf-8")) if SURFACE.is_file() else {}


@pytest.mark.parametrize("name", frozen())
def test_a_public_name_stays_what_it_is(name):
    module, _, attribute = name.rpartition(".")
    assert described(getattr(importlib.import_module(module), attribute)) == frozen()[name]


def test_every_public_name_is_frozen():
    assert set(surface()) == set(frozen()), f"python tests/{Path(__file__).name} adds what is new"


def test_a_row_imports_neither_torch_nor_nnunet():
    code = (
        "import sys; from nnunet_attn.api import Cost, Entry, Family; print({'torch', 'nnunetv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_name_that_is_not_public():
    with pytest.raises(ImportError, match="nnUNetTrainer"):
        from nnunet_attn.api import nnUNetTrainer  # noqa: F401


def add_what_is_new() -> None:
    SURFACE.write_text(json.dumps(surface() | frozen(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    add_what_is_new()
