"""Digests of a training's inputs: the dataset's files, its fingerprint, the plans and the fold's cases.

A training reads preprocessed data, so its images and labels are those that were preprocessed, whatever lies in the raw
dataset now. Files are hashed once, and again only if their size or time changed, so that checking a study takes
seconds.
"""

import hashlib
import json
from pathlib import Path

from nnunet_attn.comparison.results import DATA_KEYS, digest
from nnunet_attn.files import sha256, write_json
from nnunet_attn.study.matrix import Job, Matrix

FILES = ("imagesTr", "labelsTr")
WORDS = {
    "dataset.json": "dataset.json",
    "files": "images or labels",
    "fingerprint": "the dataset's fingerprint",
    "plans": "the plans",
    "preprocessing": "how the plans preprocess",
    "fold": "the cases of the fold",
}
# The keys of a configuration, and of the plans, that preprocessing reads.
PREPROCESSING = (
    "preprocessor_name", "spacing", "normalization_schemes", "use_mask_for_norm", "resampling_fn_data",
    "resampling_fn_data_kwargs", "resampling_fn_seg", "resampling_fn_seg_kwargs",
)  # fmt: skip
OF_PLANS = ("transpose_forward", "foreground_intensity_properties_per_channel")


class Inputs:
    """Digests of a study's inputs, each computed once.

    Args:
        matrix: The study.
        hash_files: Whether to read files that were never hashed; if False, their digest is left out.
    """

    def __init__(self, matrix: Matrix, *, hash_files: bool):
        self.matrix, self.hash_files = matrix, hash_files
        self._datasets: dict[str, dict[str, str | None]] = {}
        self._plans: dict[tuple[str, str, str], dict[str, str | None]] = {}
        self._folds: dict[tuple[int, int], str] = {}

    def of(self, job: Job) -> dict[str, str]:
        """Digests of the inputs of a preprocessing or a training; missing ones are left out."""
        name, layout = self.matrix.names[job.dataset], self.matrix.layout
        if name not in self._datasets:
            self._datasets[name] = self._dataset(name)
        plans, configuration = (job.model or job).plans, (job.model or job).configuration
        key = (name, str(plans), str(configuration))
        if key not in self._plans:
            self._plans[key] = _plans_digests(layout.preprocessed / name / f"{plans}.json", str(configuration))
        found = self._datasets[name] | self._plans[key]
        if job.kind == "preprocess":
            found = {word: found.get(word) for word in ("dataset.json", "files", "preprocessing")}
        splits = self.matrix.splits[job.dataset]
        if job.fold is not None and splits is not None:
            place = (job.dataset, job.fold)
            if place not in self._folds:
                self._folds[place] = digest(splits[job.fold])
            found["fold"] = self._folds[place]
        return {name: value for name, value in found.items() if value is not None}

    def _dataset(self, name: str) -> dict[str, str | None]:
        layout = self.matrix.layout
        description = _read(layout.raw / name / "dataset.json") or _read(layout.preprocessed / name / "dataset.json")
        fingerprint = _read(layout.preprocessed / name / "dataset_fingerprint.json")
        return {
            "dataset.json": digest({key: description.get(key) for key in DATA_KEYS}) if description else None,
            "fingerprint": digest(fingerprint) if fingerprint else None,
            "files": self._files(name),
        }

    def _files(self, name: str) -> str | None:
        """A digest of the names and contents of all images and labels."""
        raw = self.matrix.layout.raw / name
        cache = self.matrix.layout.folder / "inputs" / f"{name}.json"
        known = _read(cache) or {}
        present: dict[str, list] = {}
        for part in FILES:
            if not (raw / part).is_dir():
                return None
            for path in sorted((raw / part).iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    stat, key = path.stat(), f"{part}/{path.name}"
                    before = known.get(key)
                    if before is None and not self.hash_files:
                        return None
                    now = [stat.st_size, stat.st_mtime_ns]
                    present[key] = before if before and before[:2] == now else [*now, sha256(path)]
        if present != known and self.hash_files:
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, present)
        joined = "\n".join(f"{key} {entry[2]}" for key, entry in present.items())
        return hashlib.sha256(joined.encode()).hexdigest()


def changed_inputs(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Descriptions of the inputs that differ, among those known at both times."""
    return [WORDS.get(key, key) for key, value in before.items() if key in now and now[key] != value]


def _read(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _plans_digests(path: Path, configuration: str) -> dict[str, str | None]:
    """Digests of a configuration's settings, all and those of preprocessing; empty if there are no plans."""
    plans = _read(path)
    if plans is None or configuration not in plans.get("configurations", {}):
        return {}
    levels: list[dict] = []
    name: str | None = configuration
    while name is not None:
        levels.append(plans["configurations"][name])
        name = levels[-1].get("inherits_from")
    used = {key: plans.get(key) for key in OF_PLANS}
    used |= {key: next((level[key] for level in levels if key in level), None) for key in PREPROCESSING}
    return {"plans": digest(levels), "preprocessing": digest(used)}
