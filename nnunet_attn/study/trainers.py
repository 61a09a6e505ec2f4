"""Check whether a trainer exists, from names and source files, without importing nnU-Net (which takes 13 s)."""

import importlib.util
import os
import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from nnunet_attn.lookup import find_written, written_trainers
from nnunet_attn.trainer_names import hint, parse_trainer_name

CLASS = re.compile(r"^class (\w+)\s*\(", re.MULTILINE)


@lru_cache(maxsize=1)
def other_trainers() -> frozenset[str]:
    """The names of all classes in nnU-Net's folder of trainers and in the folders of ``nnUNet_extTrainer``."""
    folders = [Path(f) for f in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if f]
    package = importlib.util.find_spec("nnunetv2")
    if package is not None:
        folders += [Path(p) / "training" / "nnUNetTrainer" for p in package.submodule_search_locations or ()]
    sources = (path for folder in folders for path in folder.rglob("*.py"))
    names = (CLASS.findall(path.read_text(encoding="utf-8", errors="replace")) for path in sources)
    return frozenset(name for found in names for name in found)


def trainer_problem(trainer: str) -> str | None:
    """One line on a trainer that nnU-Net would not find, else None."""
    parsed = parse_trainer_name(trainer)
    if find_written(trainer) or trainer in other_trainers():
        return None
    nearly = hint(trainer)
    if nearly is not None:
        return nearly
    if parsed is not None and (parsed.family is not None or parsed.base in other_trainers()):
        return None
    if parsed is not None and parsed.epochs and f"{parsed.base}_{parsed.epochs}epochs" in other_trainers():
        return None
    base = parsed.base if parsed else trainer
    known = {name for name, _ in written_trainers()} | {n for n in other_trainers() if n.startswith("nnUNetTrainer")}
    near = get_close_matches(base, known, 1, 0.7)
    help_ = f"did you mean {near[0]}?" if near else "nnunet-attn list shows ours"
    return f"there is no trainer {base}; {help_}"
