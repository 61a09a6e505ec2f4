"""The part that all converters share: it turns the files of a download into a dataset in nnU-Net's raw format.

A converter says how it recognises cases (``discover``) and how the bytes of one case become an image and a label file
(``encode``). Everything else happens here and in the modules beside: splits and folds, several processes, checks of
names and geometry, dataset.json, a manifest of groups and checksums, and a dataset folder that appears only when it is
complete.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_attn import __version__
from nnunet_attn.dataset_conversion.case_work import Result, convert_case, verify_case
from nnunet_attn.dataset_conversion.cases import Encoded, Found, account, some
from nnunet_attn.dataset_conversion.catalog import DATASETS, Dataset
from nnunet_attn.dataset_conversion.folds import SEED, SplitRule, about_folds, leaks, make_folds
from nnunet_attn.dataset_conversion.groups import regroup
from nnunet_attn.dataset_conversion.input_size import at_input_size, channel_names, check_input_size
from nnunet_attn.dataset_conversion.listing import Source, open_sources
from nnunet_attn.dataset_conversion.preview import write_preview
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.dataset_conversion.summary import reading, summarise
from nnunet_attn.dataset_conversion.target import (
    one_line,
    read_manifest,
    read_record,
    refuse_other_folds,
    target_folder,
)
from nnunet_attn.errors import UserError
from nnunet_attn.files import complete_folder, refuse_existing, write_json
from nnunet_attn.workers import in_parallel

Folds = list[dict[str, list[str]]]


@dataclass(frozen=True)
class Choices:
    """The user's choices for a conversion.

    Attributes:
        split: One of the official splits; None for the source's own test cases and seeded folds.
        num_folds: Number of folds; None means five; 0 writes no split file.
        groups: Replaces the groups that the dataset publishes: CSV file of case and group, or regular expression.
        allow_missing: Convert what is there if listed cases are missing; make fewer folds for fewer than five groups.
        input_size: Edge in pixels of a paper's fixed input, see ``input_size``; None keeps sizes and spacings.
    """

    split: str | None = None
    num_folds: int | None = None
    groups: str | Path | None = None
    allow_missing: bool = False
    input_size: int | None = None


@dataclass(frozen=True)
class Converter:
    """A dataset's conversion. Its title, licence, and so on are in ``catalog.DATASETS`` under ``key``.

    Attributes:
        key: Name of the dataset on the command line.
        channels: Names of the image channels.
        labels: Names of the labels 1, 2, ...
        file_ending: Of images and labels.
        discover: Recognises the layout and lists the cases, without reading images.
        encode: Makes a case's image and label files from the contents of its source files. It runs in worker processes,
            so it must be a module-level function, or a ``partial`` of one.
        check: Takes the facts of all cases by label file; returns notes, or raises UserError if they conflict.
        splits: The official splits.
        options: Settings that only this dataset has; recorded in dataset.json.
        about: Title, licence, and so on, if the catalogue has no entry for ``key``.
        name_labels: Used instead of ``labels``: names the labels from the values that occur, or raises UserError.
    """

    key: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    file_ending: str
    discover: Callable[[list[File]], Found]
    encode: Callable[[tuple[Content, ...], tuple[Content, ...]], Encoded]
    check: Callable[[Mapping[File, Mapping[str, float | str]]], list[str]] | None = None
    splits: Mapping[str, SplitRule] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    about: Dataset | None = None
    name_labels: Callable[[set[int]], dict[str, int]] | None = None

    @property
    def dataset(self) -> Dataset:
        """Title, licence, and so on."""
        return self.about or DATASETS[self.key]

    def find(self, source: Source, choices: Choices) -> Found:
        """Find the cases of a source, their groups, and their parts (train, val, test) in the split.

        Raises:
            UserError: Nothing is recognised, names clash, or listed cases are missing (unless ``allow_missing``).
        """
        found = self.discover(source.files)
        if found.missing and not choices.allow_missing:
            more = f" (and {len(found.missing) - 1} more like it)" if len(found.missing) > 1 else ""
            raise UserError(
                f"{next(iter(found.missing))}{more}; complete SOURCE, or give --allow-missing to convert the rest"
            )
        if not found.cases:
            raise UserError(f"SOURCE holds no case of {self.key}; it should hold {self.dataset.layouts}")
        counts = Counter(case.name for case in found.cases)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            same = [case for case in found.cases if case.name == twice[0]]
            remedy = "keep one of them"
            if len({case.part for case in same}) > 1:
                remedy += ", or rename the test files if they show something else"
            files = ", ".join(str(case.image[0]) for case in same)
            raise UserError(f"SOURCE holds {twice[0]} more than once: {files}; {remedy}")
        if choices.groups is not None:
            kind, cases = regroup(found.cases, choices.groups)
            found = replace(found, cases=cases, kind=kind, ungrouped="")
        notes = [*found.notes, *account(source, found)]
        found = replace(found, reading=reading(source, found))
        notes += [f"left out: {some(list(found.missing), '; ', most=20)}"] if found.missing else []
        expected = self.dataset.cases
        if expected and len(found.cases) not in expected:
            known = " or ".join(map(str, expected))
            notes.append(f"SOURCE holds {len(found.cases)} cases; the complete dataset has {known}")
        split = choices.split
        if split is None:  # official validation cases take part in the folds
            cases = [replace(case, part="test" if case.part == "test" else "train") for case in found.cases]
            return replace(found, cases=cases, notes=notes + leaks(cases))
        if split not in self.splits:
            raise UserError(f"{self.key} has no split {split!r}; it has: {', '.join(self.splits) or 'none'}")
        if split in found.refused:
            raise UserError(f"split {split}: {found.refused[split]}")
        cases, missing = self.splits[split](found.cases)
        if missing and not choices.allow_missing:
            raise UserError(
                f"SOURCE lacks {some(missing, most=100)} of split {split}; "
                f"complete the download, or give --allow-missing to convert the rest"
            )
        if missing:
            notes.append(f"missing of split {split}: {some(missing)}")
        if left_out := sorted({case.name for case in found.cases} - {case.name for case in cases}):
            notes.append(f"{len(left_out)} cases are not in split {split} and were left out: {some(left_out)}")
        return replace(found, cases=cases, notes=notes + leaks(cases))

    def divide(self, found: Found, choices: Choices) -> Folds:
        """The folds.

        Raises:
            UserError: Groups exist but are unknown, or there are fewer groups than folds.
        """
        folds = make_folds(found.cases, choices.num_folds, shrink=choices.allow_missing)
        if folds and found.ungrouped:
            raise UserError(
                f"{found.ungrouped}; folds might divide groups: give --groups FILE.csv (a header line "
                "case,patient, then lines of case and group), or --num-folds 0 to convert without folds"
            )
        return folds

    def describe(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        raw_folder: Path | None = None,
        preprocessed_folder: Path | None = None,
        overwrite: bool = False,
        **choices: Any,
    ) -> tuple[Path, dict[str, object]]:
        """Run the checks of ``convert`` and return the folder and record it would write, without writing anything."""
        wanted = Choices(**choices)
        name = self.folder_name(name, wanted.input_size)
        target, preprocessed = target_folder(name, dataset_id, raw_folder, preprocessed_folder)
        with one_line(target, kept=""):
            refuse_existing(target, overwrite, _inputs(source, wanted))
            with tempfile.TemporaryDirectory() as scratch:
                found, folds = self._prepare(_paths(source), Path(scratch), target, preprocessed, wanted)
        return target, self._record(found, folds, wanted)

    def convert(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        raw_folder: Path | None = None,
        preprocessed_folder: Path | None = None,
        processes: int = 1,
        overwrite: bool = False,
        **choices: Any,
    ) -> Path:
        """Write the dataset in nnU-Net's raw format and return its folder.

        Args:
            source: The unpacked folder, or the archive(s) as downloaded.
            dataset_id: nnU-Net's number for the dataset, 1 to 999.
            name: The NAME in DatasetXXX_NAME; by default the catalogue's.
            raw_folder: Folder of raw datasets; by default that of the environment variable ``nnUNet_raw``.
            preprocessed_folder: Checked for another splits_final.json of this dataset; by default that of the variable
                ``nnUNet_preprocessed`` if ``raw_folder`` is not given.
            processes: Number of worker processes; with 1 the conversion runs in the calling process.
            overwrite: Replace the dataset if it is there.
            **choices: See ``Choices``.

        Raises:
            UserError: The source or the set-up is wrong; nothing was written.
        """
        if processes < 1:
            raise UserError(f"--processes must be at least 1, got {processes}")
        wanted = Choices(**choices)
        name = self.folder_name(name, wanted.input_size)
        target, preprocessed = target_folder(name, dataset_id, raw_folder, preprocessed_folder)
        with one_line(target), complete_folder(target, overwrite=overwrite, inputs=_inputs(source, wanted)) as folder:
            scratch = folder / ".scratch"
            scratch.mkdir()
            found, folds = self._prepare(_paths(source), scratch, target, preprocessed, wanted)
            self._write(folder, found, folds, wanted, processes)
            shutil.rmtree(scratch)
        return target

    def _prepare(
        self, paths: list[Path], scratch: Path, target: Path, preprocessed: Path | None, choices: Choices
    ) -> tuple[Found, Folds]:
        if choices.input_size is not None:
            check_input_size(choices.input_size, paths)
        found = self.find(open_sources(paths, scratch), choices)
        folds = self.divide(found, choices)
        if preprocessed is not None:
            refuse_other_folds(preprocessed / target.name / "splits_final.json", folds)
        return found, folds

    def _write(self, folder: Path, found: Found, folds: Folds, choices: Choices, processes: int) -> None:
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        if any(case.part == "test" for case in found.cases):
            for part in ("imagesTs", "labelsTs"):
                (folder / part).mkdir()
        resize = None
        if choices.input_size is not None:
            channels = found.channels or self.channels
            resize = partial(at_input_size, size=choices.input_size, channels=channels)
        work = partial(convert_case, found.encode or self.encode, resize, self.file_ending, folder)
        results = list(in_parallel(work, found.cases, processes, f"convert {self.key}"))
        labels = self._labels(results)
        summary = summarise(results, labels)
        if self.check is not None:
            checked = {result.case.label[0]: result.facts for result in results if result.case.label}
            summary["notes"] = self.check(checked) + summary["notes"]
        write_preview(folder, results, labels)
        record = self._record(found, folds, choices, summary)
        manifest = {result.case.name: result.record for result in results}
        groups = {"kind": found.kind, "of": {case.name: case.group for case in found.cases}} if found.kind else None
        if folds:
            write_json(folder / "splits_final.json", folds)
        write_json(folder / "manifest.json", {"algorithm": "SHA-256", "groups": groups, "cases": manifest})
        write_json(folder / "dataset.json", self._dataset_json(found, labels, record))

    def _record(self, found: Found, folds: Folds, choices: Choices, summary: dict | None = None) -> dict[str, object]:
        parts = Counter(case.part for case in found.cases)
        groups = {part: {c.group for c in found.cases if c.part == part} for part in parts}
        notes = [*found.notes, *about_folds(folds, choices.num_folds)]
        return {
            "dataset": self.key,
            "converter_version": __version__,
            "source_layout": found.layout,
            "split": choices.split or ("seeded folds" if folds else "none"),
            "folds": len(folds),
            "seed": SEED if len(folds) > 1 else None,
            "cases": dict(sorted(parts.items())),
            "groups": {part: len(names) for part, names in sorted(groups.items())},
            "group": found.kind,
            "options": dict(self.options),
            "input_size": choices.input_size,
            "reading": found.reading,
            **(summary or {}),
            "notes": notes + (summary["notes"] if summary else []),
        }

    def _labels(self, results: Sequence[Result]) -> dict[str, int]:
        if self.name_labels is not None:
            return self.name_labels({value for result in results for value in result.pixels})
        return {"background": 0} | {name: i for i, name in enumerate(self.labels, 1)}

    def _dataset_json(self, found: Found, labels: dict[str, int], record: dict[str, object]) -> dict[str, object]:
        dataset = self.dataset
        channels, size = found.channels or self.channels, record["input_size"]
        if size:
            channels = channel_names(self.file_ending, channels)
        return {
            "channel_names": {str(i): name for i, name in enumerate(channels)},
            "labels": labels,
            "numTraining": sum(case.part != "test" for case in found.cases),
            "file_ending": self.file_ending,
            "name": dataset.title,
            "reference": dataset.reference,
            "licence": dataset.licence,
            "source": dataset.page,
            **({"input_size": size} if size else {}),
            "converted_by": f"nnunet-attn {__version__}",
            "conversion": record,
        }

    def folder_name(self, name: str | None, input_size: int | None) -> str:
        """The name after nnU-Net's number: as given, or the catalogue's with the input size if there is one."""
        return name or f"{self.dataset.folder}{input_size or ''}"

    def verify(
        self,
        source: Path | Sequence[Path],
        dataset_id: int,
        *,
        name: str | None = None,
        input_size: int | None = None,
        raw_folder: Path | None = None,
        processes: int = 1,
    ) -> int:
        """Compare a converted dataset, and the source, with the manifest; return the number of cases.

        Raises:
            UserError: Something differs; the first cases are named.
        """
        folder, _ = target_folder(self.folder_name(name, input_size), dataset_id, raw_folder, None)
        record, manifest = read_record(folder), read_manifest(folder)
        choices = Choices(split=record["split"] if record["split"] in self.splits else None, allow_missing=True)
        with one_line(folder, kept=""), tempfile.TemporaryDirectory() as scratch:
            cases = self.find(open_sources(_paths(source), Path(scratch)), choices).cases
            problems = [f"{case.name} is not in the dataset" for case in cases if case.name not in manifest]
            problems += [f"{name} is not in SOURCE" for name in sorted(manifest.keys() - {c.name for c in cases})]
            work = partial(verify_case, folder, manifest)
            listed = [case for case in cases if case.name in manifest]
            for found in in_parallel(work, listed, processes, f"verify {self.key}"):
                problems += found
        if problems:
            raise UserError(f"{folder} and SOURCE do not agree with the manifest: {some(problems, '; ')}")
        return len(listed)


def _paths(source: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(source)] if isinstance(source, str | os.PathLike) else [Path(path) for path in source]


def _inputs(source: Path | str | Sequence[Path | str], choices: Choices) -> list[Path | str]:
    return [*_paths(source), *([choices.groups] if choices.groups else [])]
