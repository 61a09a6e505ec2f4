"""What all converters share: from the files of a download to a complete dataset in nnU-Net's raw format.

A converter says how it recognises cases (``discover``) and how the bytes of one case become an image and a label file
(``encode``). Everything else happens here: splits and folds, several processes, checks of names and geometry,
dataset.json, a manifest of checksums, and a dataset folder that appears only when it is complete.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from tqdm import tqdm

from nnunet_attn import __version__
from nnunet_attn.dataset_conversion.catalog import DATASETS
from nnunet_attn.dataset_conversion.sources import Content, File, open_sources
from nnunet_attn.dataset_conversion.volumes import check_geometry
from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_folder, refuse_existing, write_json

SEED = 12345  # of the folds; nnU-Net's own five-fold split uses this number too
FOLDS = 5


@dataclass(frozen=True)
class Case:
    """One image with its label.

    Attributes:
        name: Identifier in nnU-Net's file names.
        image: Files that make the image.
        label: Files that make the label.
        group: What must not be divided between training and validation: patient, video sequence, ...
        part: ``train``, ``val`` or ``test``, as the source has it.
    """

    name: str
    image: tuple[File, ...]
    label: tuple[File, ...]
    group: str
    part: str = "train"


@dataclass(frozen=True)
class Found:
    """What a converter recognised in a source; ``channels`` only where the layout changes them."""

    layout: str
    cases: list[Case]
    notes: list[str] = field(default_factory=list)
    channels: tuple[str, ...] | None = None


Encoded = tuple[bytes, bytes, Counter[str]]
SplitRule = Callable[[Sequence[Case]], tuple[list[Case], list[str]]]


def split_by_lists(
    key: Callable[[Case], str], *, test: Sequence[str] = (), val: Sequence[str] = (), train: Sequence[str] | None = None
) -> SplitRule:
    """A published split: cases whose key is listed go to that part; ``train=None`` means all others.

    The rule returns the cases in the split, with their parts, and the listed keys that no case has; it raises UserError
    if the split has validation cases and none is there.
    """
    listed = dict.fromkeys(train or (), "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")

    def rule(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        parts = [(case, listed.get(key(case), "train" if train is None else None)) for case in cases]
        missing = sorted(listed.keys() - {key(case) for case in cases})
        if val and not any(part == "val" for _, part in parts):
            raise UserError(f"SOURCE holds none of the split's validation cases: {_some(sorted(val))}")
        return [replace(case, part=part) for case, part in parts if part], missing

    return rule


def split_by_parts(**sizes: Sequence[int]) -> SplitRule:
    """The parts as the source has them, each of one of the given sizes when complete."""

    def rule(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        counts = Counter(case.part for case in cases)
        if "val" in sizes and not counts["val"]:
            raise UserError("SOURCE holds no validation cases, which this split needs")
        missing = [
            f"{' or '.join(map(str, size))} {part} cases (it has {counts[part]})"
            for part, size in sizes.items()
            if counts[part] not in size
        ]
        return list(cases), missing

    return rule


def split_by_tenths(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Eight tenths for training, one for validation, one for testing: seeded, never dividing a group; our own draw.

    Raises:
        UserError: There are fewer than ten groups.
    """
    groups = Counter(case.group for case in cases)
    if len(groups) < 10:
        raise UserError(f"the 8-1-1 split needs at least ten groups of cases; SOURCE has {len(groups)}")
    test, val, *_ = balanced(groups, 10)
    parts = dict.fromkeys(test, "test") | dict.fromkeys(val, "val")
    return [replace(case, part=parts.get(case.group, "train")) for case in cases], []


def balanced(groups: Mapping[str, int], count: int) -> list[list[str]]:
    """Divide groups into ``count`` bins of nearly equal numbers of cases: seeded shuffle, then largest first."""
    names = sorted(groups)
    random.Random(SEED).shuffle(names)
    bins, sizes = [[] for _ in range(count)], [0] * count
    for name in sorted(names, key=lambda name: -groups[name]):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(name)
        sizes[smallest] += groups[name]
    return bins


def _warnings(cases: Sequence[Case]) -> list[str]:
    """Warn of test cases whose group is trained on, and of nothing to train on."""
    learned = {case.group for case in cases if case.part != "test"}
    if not learned:
        return ["test cases only: predict on them with a model of another dataset"]
    shared = {case.group for case in cases if case.part == "test"} & learned
    if not shared:
        return []
    count = sum(case.part == "test" and case.group in shared for case in cases)
    text = f"{count} test cases belong to {len(shared)} groups (patients, sequences, ...) of training cases"
    return [f"this split leaks: {text}"]


def make_folds(cases: Sequence[Case]) -> list[dict[str, list[str]]]:
    """nnU-Net's ``splits_final``: one fold if the split has validation cases, else five, never dividing a group.

    Raises:
        UserError: There are fewer than five groups.
    """
    learning = [case for case in cases if case.part != "test"]
    if not learning:
        return []
    if any(case.part == "val" for case in learning):
        held_out = [{case.name for case in learning if case.part == "val"}]
    else:
        groups = Counter(case.group for case in learning)
        if len(groups) < FOLDS:
            raise UserError(
                f"five folds need at least five groups (patients, sequences, ...) of training cases; "
                f"SOURCE has {len(groups)}: {', '.join(sorted(groups))}"
            )
        held_out = [{case.name for case in learning if case.group in fold} for fold in balanced(groups, FOLDS)]
    names = sorted(case.name for case in learning)
    return [{"train": [n for n in names if n not in val], "val": sorted(val)} for val in held_out]


def write_bytes(path: Path, data: bytes) -> None:
    """All image and label files are written here."""
    path.write_bytes(data)


@dataclass(frozen=True)
class Converter:
    """A dataset's conversion. Its title, licence, and so on stand in ``catalog.DATASETS`` under ``key``.

    Attributes:
        key: Name of the dataset for the command.
        channels: Names of the image channels.
        labels: Names of the labels 1, 2, ...
        file_ending: Of images and labels.
        discover: Recognises the layout and lists the cases, without reading images.
        encode: Image and label file of a case from the contents of its source files, with counts of what is worth
            telling. Runs in worker processes: a function at the top of a module, or a ``partial`` of one.
        splits: The official splits.
        options: Settings of this dataset alone, recorded in dataset.json.
    """

    key: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    file_ending: str
    discover: Callable[[list[File]], Found]
    encode: Callable[[tuple[Content, ...], tuple[Content, ...]], Encoded]
    splits: Mapping[str, SplitRule] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)

    def find(self, files: list[File], split: str | None, allow_missing: bool) -> Found:
        """Discover the cases of a source and put them into the parts of a split.

        Raises:
            UserError: Nothing is recognised, names clash, or listed cases are absent (unless ``allow_missing``).
        """
        found = self.discover(files)
        if not found.cases:
            raise UserError(f"SOURCE holds no case of {self.key}; it should hold {DATASETS[self.key].layouts}")
        counts = Counter(case.name for case in found.cases)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            files = ", ".join(str(case.image[0]) for case in found.cases if case.name == twice[0])
            raise UserError(f"SOURCE holds {twice[0]} more than once: {files}; keep one of them")
        notes = list(found.notes)
        expected = DATASETS[self.key].cases
        if len(found.cases) not in expected:
            known = " or ".join(map(str, expected))
            notes.append(f"SOURCE holds {len(found.cases)} cases; the complete dataset has {known}")
        if split is None:  # official validation cases take part in the five folds
            cases = [replace(case, part="test" if case.part == "test" else "train") for case in found.cases]
            return replace(found, cases=cases, notes=notes + _warnings(cases))
        if split not in self.splits:
            raise UserError(f"{self.key} has no split {split!r}; it has: {', '.join(self.splits) or 'none'}")
        cases, missing = self.splits[split](found.cases)
        if missing and not allow_missing:
            raise UserError(
                f"SOURCE lacks {_some(missing, most=100)} of split {split}; "
                f"complete the download, or give --allow-missing to convert the rest"
            )
        if missing:
            notes.append(f"missing of split {split}: {_some(missing)}")
        if left_out := sorted({case.name for case in found.cases} - {case.name for case in cases}):
            notes.append(f"{len(left_out)} cases are not in split {split} and were left out: {_some(left_out)}")
        return replace(found, cases=cases, notes=notes + _warnings(cases))

    def describe(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        raw_folder: Path | None = None,
        preprocessed_folder: Path | None = None,
        split: str | None = None,
        overwrite: bool = False,
        allow_missing: bool = False,
    ) -> tuple[Path, dict[str, object]]:
        """Where ``convert`` would put this source and what it would record, after the same checks; writes nothing."""
        target, preprocessed = target_folder(self.key, dataset_id, name, raw_folder, preprocessed_folder)
        refuse_existing(target, overwrite)
        with tempfile.TemporaryDirectory() as scratch:
            found, folds = self._prepare(_paths(source), Path(scratch), target, preprocessed, split, allow_missing)
        return target, self._record(found, folds, split, Counter())

    def convert(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        raw_folder: Path | None = None,
        preprocessed_folder: Path | None = None,
        split: str | None = None,
        processes: int = 1,
        overwrite: bool = False,
        allow_missing: bool = False,
    ) -> Path:
        """Write the dataset in nnU-Net's raw format and return its folder.

        Args:
            source: The unpacked folder, or the archive(s) as downloaded.
            dataset_id: nnU-Net's number for the dataset, 1 to 999.
            name: Name after the number; by default the catalogue's.
            raw_folder: Where to put it; by default nnU-Net's own folder, from the variable ``nnUNet_raw``.
            preprocessed_folder: Where older folds would lie; by default from ``nnUNet_preprocessed`` if ``raw_folder``
                is not given.
            split: One of the official splits; None for the source's own test cases and five seeded folds.
            processes: Worker processes; 1 converts in this one.
            overwrite: Replace the dataset if it is there.
            allow_missing: Convert the rest if listed cases are absent.

        Raises:
            UserError: The source or the set-up is wrong; nothing was written.
        """
        if processes < 1:
            raise UserError(f"--processes must be at least 1, got {processes}")
        target, preprocessed = target_folder(self.key, dataset_id, name, raw_folder, preprocessed_folder)
        try:
            with complete_folder(target, overwrite=overwrite) as folder:
                scratch = folder / ".scratch"
                scratch.mkdir()
                found, folds = self._prepare(_paths(source), scratch, target, preprocessed, split, allow_missing)
                self._write(folder, found, folds, split, processes)
                shutil.rmtree(scratch)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"no space left for {target}; nothing was kept, free some and start again") from error
            raise UserError(f"{error}; nothing was kept") from error
        return target

    def _prepare(
        self,
        paths: list[Path],
        scratch: Path,
        target: Path,
        preprocessed: Path | None,
        split: str | None,
        allow_missing: bool,
    ) -> tuple[Found, list[dict[str, list[str]]]]:
        if any(path.resolve().is_relative_to(target.resolve()) for path in paths):
            raise UserError(f"SOURCE lies in {target}, which is where the dataset goes; move it elsewhere first")
        found = self.find(open_sources(paths, scratch), split, allow_missing)
        folds = make_folds(found.cases)
        if preprocessed is not None:
            _refuse_other_folds(preprocessed / target.name / "splits_final.json", folds)
        return found, folds

    def _write(
        self, folder: Path, found: Found, folds: list[dict[str, list[str]]], split: str | None, processes: int
    ) -> None:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        if any(case.part == "test" for case in found.cases):
            for part in ("imagesTs", "labelsTs"):
                (folder / part).mkdir()
        work = partial(_convert_case, self.encode, self.file_ending, folder)
        counts, manifest = Counter(), {}
        for case, hashes, notes in _in_parallel(work, found.cases, processes, f"convert {self.key}"):
            manifest[case] = hashes
            counts += notes
        record = self._record(found, folds, split, counts)
        if folds:
            write_json(folder / "splits_final.json", folds)
        write_json(folder / "manifest.json", {"algorithm": "SHA-256", "cases": manifest})
        write_json(folder / "dataset.json", self._dataset_json(found, record))

    def _record(
        self, found: Found, folds: list[dict[str, list[str]]], split: str | None, counts: Counter[str]
    ) -> dict[str, object]:
        parts = Counter(case.part for case in found.cases)
        groups = {part: {c.group for c in found.cases if c.part == part} for part in parts}
        return {
            "dataset": self.key,
            "converter_version": __version__,
            "source_layout": found.layout,
            "split": split or ("seeded folds" if folds else "none"),
            "folds": len(folds),
            "seed": SEED if len(folds) > 1 else None,
            "cases": dict(sorted(parts.items())),
            "groups": {part: len(names) for part, names in sorted(groups.items())},
            "options": dict(self.options),
            "notes": [*found.notes, *(f"{text}: {count}" for text, count in sorted(counts.items()))],
        }

    def _dataset_json(self, found: Found, record: dict[str, object]) -> dict[str, object]:
        dataset = DATASETS[self.key]
        return {
            "channel_names": {str(i): name for i, name in enumerate(found.channels or self.channels)},
            "labels": {"background": 0} | {name: i for i, name in enumerate(self.labels, 1)},
            "numTraining": sum(case.part != "test" for case in found.cases),
            "file_ending": self.file_ending,
            "name": dataset.title,
            "reference": dataset.reference,
            "licence": dataset.licence,
            "source": dataset.page,
            "converted_by": f"nnunet-attn {__version__}",
            "conversion": record,
        }

    def verify(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        raw_folder: Path | None = None,
        processes: int = 1,
    ) -> int:
        """Compare a converted dataset, and the source, with the manifest; return the number of cases.

        Raises:
            UserError: Something differs; the first cases are named.
        """
        folder, _ = target_folder(self.key, dataset_id, name, raw_folder, None)
        record = read_record(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
        split = record["split"] if record["split"] in self.splits else None
        with tempfile.TemporaryDirectory() as scratch:
            cases = self.find(open_sources(_paths(source), Path(scratch)), split, allow_missing=True).cases
            problems = [f"{case.name} is not in the dataset" for case in cases if case.name not in manifest]
            problems += [f"{name} is not in SOURCE" for name in sorted(manifest.keys() - {c.name for c in cases})]
            work = partial(_verify_case, folder, manifest)
            listed = [case for case in cases if case.name in manifest]
            for found in _in_parallel(work, listed, processes, f"verify {self.key}"):
                problems += found
        if problems:
            raise UserError(f"{folder} and SOURCE do not agree with the manifest: {_some(problems, '; ')}")
        return len(listed)


def read_record(folder: Path) -> dict:
    """What dataset.json says of the conversion.

    Raises:
        UserError: There is no complete conversion.
    """
    try:
        return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["conversion"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no conversion of this package ({error})") from error


def _convert_case(
    encode: Callable[..., Encoded], file_ending: str, folder: Path, case: Case
) -> tuple[str, dict[str, object], Counter[str]]:
    """Convert one case into ``folder``; return its name, the checksums of what was read and written, and counts."""
    images, labels = (tuple(Content(str(f), f.read()) for f in files) for files in (case.image, case.label))
    image, label, notes = encode(images, labels)
    part = "Ts" if case.part == "test" else "Tr"
    outputs = {f"images{part}/{case.name}_0000{file_ending}": image, f"labels{part}/{case.name}{file_ending}": label}
    for name, data in outputs.items():
        write_bytes(folder / name, data)
    if file_ending == ".nii.gz":
        check_geometry(*(folder / name for name in outputs), (str(case.image[0]), str((case.label or case.image)[0])))
    contents = zip(case.image + case.label, images + labels, strict=True)
    return (
        case.name,
        {
            "inputs": [[file.name, hashlib.sha256(content.data).hexdigest()] for file, content in contents],
            "outputs": {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()},
        },
        notes,
    )


def _verify_case(folder: Path, manifest: Mapping[str, dict], case: Case) -> list[str]:
    """Problems of one case; names in the source may differ (an archive now, its folder then), contents may not."""
    recorded, files = manifest[case.name], case.image + case.label
    if len(files) != len(recorded["inputs"]):
        return [f"{case.name} has {len(files)} files in SOURCE, had {len(recorded['inputs'])}"]
    pairs = zip(files, recorded["inputs"], strict=True)
    problems = [f"{f} has changed" for f, (_, then) in pairs if hashlib.sha256(f.read()).hexdigest() != then]
    for name, then in recorded["outputs"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != then:
            problems.append(f"{path} has changed")
    return problems


def _in_parallel(function: Callable, items: Sequence, processes: int, title: str) -> Iterator:
    """Map in order, with a progress bar on a terminal; the first error stops everything."""
    bar = partial(tqdm, total=len(items), desc=title, unit="case", disable=None, file=sys.stderr)
    if processes == 1:
        yield from bar(map(function, items))
        return
    pool = ProcessPoolExecutor(
        min(processes, max(1, len(items))),
        mp_context=multiprocessing.get_context("spawn"),  # forking a process that runs threads can hang
        initializer=_start_worker,
    )
    try:
        yield from bar(pool.map(function, items))
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed, perhaps for want of memory; give fewer --processes") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _paths(source: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(source)] if isinstance(source, str | os.PathLike) else [Path(path) for path in source]


def _some(names: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    more = f"{separator}and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def target_folder(
    key: str, dataset_id: int, name: str | None, raw_folder: Path | None, preprocessed_folder: Path | None
) -> tuple[Path, Path | None]:
    """The dataset's folder, and nnU-Net's preprocessed folder if it is known.

    Raises:
        UserError: ``nnUNet_raw`` is not set, or number or name cannot be nnU-Net's.
    """
    name = DATASETS[key].folder if name is None else name
    if not 1 <= dataset_id <= 999:
        raise UserError(f"DATASET_ID must be between 1 and 999, got {dataset_id}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"--name may hold letters, digits, - and _ only, got {name!r}")
    results = None
    if raw_folder is None:
        if not os.environ.get("nnUNet_raw"):
            raise UserError("the variable nnUNet_raw is not set; set it to the folder of nnU-Net's raw datasets")
        raw_folder = Path(os.environ["nnUNet_raw"])
        preprocessed_folder = preprocessed_folder or os.environ.get("nnUNet_preprocessed")
        results = os.environ.get("nnUNet_results")
    target = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    for folder in filter(None, (raw_folder, preprocessed_folder, results)):
        for other in sorted(Path(folder).glob(f"Dataset{dataset_id:03d}*")):
            if other.name != target.name:
                raise UserError(
                    f"{other} has the number {dataset_id} too, and nnU-Net allows it only once; "
                    f"choose another DATASET_ID, or give --name {other.name[11:]}"
                )
    return target, Path(preprocessed_folder) if preprocessed_folder else None


def _refuse_other_folds(path: Path, folds: list[dict[str, list[str]]]) -> None:
    if not path.is_file():
        return
    try:
        older = [{part: sorted(fold[part]) for part in ("train", "val")} for fold in json.loads(path.read_text())]
    except (ValueError, KeyError, TypeError):
        older = None
    if older != folds:
        raise UserError(
            f"{path} holds other folds than this conversion; nnU-Net would keep using those. "
            f"Remove that file's folder, or choose another DATASET_ID"
        )
