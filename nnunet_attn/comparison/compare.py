"""Compare trained models of one dataset: gather scores, refuse unequal data, test differences, and list caveats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_attn.comparison.facts import Facts, measure_network, read_facts
from nnunet_attn.comparison.flags import (
    data_flags,
    ensemble_flags,
    fold_flags,
    learning_flags,
    repeat_flags,
    training_flags,
    unlearned_classes,
)
from nnunet_attn.comparison.gather import Gathered, find_models, from_test_set, from_validation, unlisted_runs
from nnunet_attn.comparison.paired import (
    Disagreements,
    Verdict,
    compare_with_baseline,
    disagreeing_folds,
    summarise,
    verdicts,
)
from nnunet_attn.comparison.results import digest
from nnunet_attn.comparison.rows import Row, fold_rows
from nnunet_attn.comparison.same_data import common_folds, hashes, refuse_unequal
from nnunet_attn.comparison.scores import Scores, stack_scores
from nnunet_attn.comparison.twins import OwnEffect, Twin, find_own_effects, find_twins
from nnunet_attn.errors import UserError
from nnunet_attn.files import sha256
from nnunet_attn.scoring.cases import Rules
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.scoring.folders import find_dataset, find_splits, nnunet_folder
from nnunet_attn.scoring.groups import Groups, find_groups


@dataclass
class Comparison:
    """All results of a comparison. The first row is the baseline.

    Attributes:
        rows: Trainers with plans; repeats of a training are one row.
        used: Folds whose scores are compared.
        gathered: Scores as read, and the files they come from.
        facts: Settings and cost of each row, by name.
        labels: The dataset's classes and their label values.
        tolerance: Tolerance of NSD.
        scores: Scores of all cases.
        summary, differences, disagreements: See ``paired``.
        twins: Rows and their twins: the same network without its attention.
        own_effects: Rows' networks beside the plans' network under the same recipe.
        doubts: What a reader must know, by subject.
        images: Folder of the cases' images; None if it was not found.
    """

    dataset: str
    configuration: str
    rows: list[Row]
    used: list[str]
    gathered: Gathered
    facts: dict[str, Facts]
    labels: Classes
    tolerance: float
    scores: Scores
    summary: pd.DataFrame
    differences: pd.DataFrame
    disagreements: Disagreements
    verdicts: list[Verdict]
    twins: list[Twin]
    own_effects: list[OwnEffect]
    doubts: dict[str, list[str]]
    hashes: dict[str, Any]
    images: Path | None

    @property
    def names(self) -> list[str]:
        return [row.name for row in self.rows]

    @property
    def flags(self) -> list[str]:
        """All doubts, those on learning first."""
        return [flag for flags in self.doubts.values() for flag in flags]

    @property
    def groups(self) -> Groups:
        """The group (patient, video, ...) of each case."""
        return self.scores.groups

    def to_json(self) -> dict:
        """The whole comparison as JSON content, without the scores of single cases."""
        rows = [
            {
                "row": row.name,
                "trainer": row.trainer,
                "plans_name": row.model.plans_name,
                "folds": {
                    run.trainer: {fold.name: fold.problem or "complete" for fold in run.folds.values()}
                    for run in row.runs
                },
                **vars(self.facts[row.name]),
            }
            for row in self.rows
        ]
        return {
            "dataset": self.dataset,
            "configuration": self.configuration,
            "evaluated": self.gathered.evaluated,
            "cases": len(self.scores.keys),
            "groups": self.groups.summary(),
            "baseline": self.names[0],
            "rows": rows,
            "unit": self.gathered.unit,
            "nsd_tolerance": self.tolerance,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "twins": [twin.to_json() for twin in self.twins],
            "fold_disagreements": [
                {"row": row, "minus": other} | asdict(folds) for (row, other), folds in self.disagreements.items()
            ],
            "own_effects": [effect.to_json() for effect in self.own_effects],
            "flags": self.flags,
            "summary": json.loads(self.summary.to_json(orient="records", double_precision=12)),
            "differences": json.loads(self.differences.to_json(orient="records", double_precision=12)),
            "sha256": self.hashes,
        }


def _file_hashes(dataset: str, references: Mapping[str, Path]) -> dict[str, str | None]:
    """SHA-256 of splits_final.json, and of names and contents of all references; None for files that were not found."""
    splits = find_splits(dataset)
    complete = bool(references) and all(path.is_file() for path in references.values())
    return {
        "splits_final.json": digest(splits) if splits is not None else None,
        "reference files": digest({case: sha256(path) for case, path in references.items()}) if complete else None,
    }


def compare(
    dataset: str,
    configuration: str,
    trainers: Sequence[str],
    *,
    folds: Sequence[str] | None = None,
    test: Mapping[str, Path] | None = None,
    references: Path | None = None,
    groups: str | None = None,
    tolerance: float = 1.0,
    voxels: bool = False,
    surface: bool = True,
    measure: bool = True,
    processes: int = 1,
) -> Comparison:
    """Compare trained models, the first being the baseline.

    Args:
        dataset: Number or name.
        configuration: For example "2d".
        trainers: Rows ``TRAINER`` or ``TRAINER:PLANS``; those that differ by ``_run<K>`` alone become one.
        folds: Folds to compare, as far as they are complete in every row; by default all folds of the split.
        test: Instead of the validation: a folder of predictions of the test set for each of ``trainers``.
        references: Folder of reference label maps; by default that of nnU-Net's raw dataset.
        groups: Rule that tells which cases belong together, see ``scoring.groups.find_groups``.
        tolerance: Tolerance of NSD.
        voxels: Distances in voxels, whatever spacing the files state.
        surface: Also compute HD95, ASSD and NSD, which requires reading all predictions.
        measure: Build each network to count parameters and GMACs.
        processes: Number of worker processes.

    Raises:
        UserError: rows were not trained and validated on the same data, nothing is complete, or files do not fit.
    """
    name = find_dataset(dataset)
    if test is None and "all" in (folds or ()):
        raise UserError("fold_all is validated on its own training cases; give numbered folds")
    models = find_models(name, configuration, trainers, folds, test=test is not None)
    rows = fold_rows(models)
    wanted = list(models[0].folds)
    used = [] if test is not None else common_folds(models, wanted)
    both = used or [fold for fold in wanted if all(fold in m.folds and not m.folds[fold].problem for m in models)]
    refuse_unequal(models, [fold for fold in both if fold != "all"], find_splits(name))

    classes = Classes.from_dataset_json(models[0].dataset)
    rules, raw = Rules(classes, tolerance=tolerance, voxels=voxels), nnunet_folder("nnUNet_raw", name)
    if test is None:
        gathered = from_validation(models, used, references, rules, surface=surface, processes=processes)
    else:
        where = raw / "labelsTs" if references is None and raw is not None else references
        if where is None:
            raise UserError(
                "--test needs references: set nnUNet_raw (the dataset's labelsTs is used), or give --references"
            )
        gathered = from_test_set(models, test, where, rules, processes=processes)

    found = find_groups([case for _, case in gathered.scores[models[0].name]], groups, dataset=name)
    runs = {row.name: [gathered.scores[run.name] for run in row.runs] for row in rows}
    scores = stack_scores(runs, list(classes.values), found)
    facts = {row.name: read_facts(row, both) for row in rows}
    if measure:
        for row in rows:
            measure_network(row.model, facts[row.name])
    unlearned, twins = unlearned_classes(scores), find_twins(rows, scores, facts)
    pairs = [(row.name, rows[0].name) for row in rows[1:]] + [(twin.row, twin.twin) for twin in twins]
    disagreements = disagreeing_folds(scores, pairs)
    differences = compare_with_baseline(scores, disagreements)
    doubts = {
        "Learning": learning_flags(unlearned),
        "Data": data_flags(rows, wanted, used, found) + (ensemble_flags(rows) if test is not None else []),
        "Repeats": fold_flags(disagreements, scores) + repeat_flags(rows, unlisted_runs(models)),
        "Training": training_flags(rows, facts),
        "Files": list(gathered.unverified),
    }
    if gathered.surface_problem is not None:
        doubts["Files"].append(f"No HD95, ASSD and NSD: {gathered.surface_problem}.")
    images = raw / ("imagesTr" if test is None else "imagesTs") if raw is not None else None
    return Comparison(
        dataset=name,
        configuration=configuration,
        rows=rows,
        used=both,
        gathered=gathered,
        facts=facts,
        labels=classes,
        tolerance=tolerance,
        scores=scores,
        summary=summarise(scores),
        differences=differences,
        disagreements=disagreements,
        verdicts=verdicts(differences, rows[0].name, found, unlearned=unlearned, disagreements=disagreements),
        twins=twins,
        own_effects=find_own_effects(rows, scores, facts),
        doubts={subject: flags for subject, flags in doubts.items() if flags},
        hashes=hashes(models, used) | _file_hashes(name, gathered.references),
        images=images if images is not None and images.is_dir() else None,
    )
