"""Compare trained models of one dataset: gather, refuse what does not compare, test, and say what to doubt."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnunet_attn.comparison.facts import Facts, measure_network, read_facts
from nnunet_attn.comparison.flags import data_flags, learning_flags, training_flags, unlearned_classes
from nnunet_attn.comparison.gather import Gathered, find_models, from_test_set, from_validation
from nnunet_attn.comparison.paired import (
    Verdict,
    compare_with_baseline,
    long_table,
    patients_of,
    shown_classes,
    summarise,
    verdicts,
)
from nnunet_attn.comparison.results import Model, digest
from nnunet_attn.comparison.same_data import common_folds, hashes, refuse_unequal
from nnunet_attn.comparison.statistics import RESAMPLES
from nnunet_attn.errors import UserError
from nnunet_attn.files import sha256
from nnunet_attn.scoring.cases import Rules
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.scoring.folders import find_dataset, find_splits, nnunet_folder


@dataclass
class Comparison:
    """All that a report shows. The first row is the baseline.

    Attributes:
        gathered: Scores of single cases, and their files.
        labels: The dataset's classes and their label values.
        classes: Quantities shown: class name, or "mean", and title.
        patients: Patient of each case.
        table, summary, differences: See ``paired``.
        images: Folder of the cases' images; None if it is not at hand.
    """

    dataset: str
    configuration: str
    models: list[Model]
    gathered: Gathered
    facts: dict[str, Facts]
    labels: Classes
    classes: dict[str, str]
    tolerance: float
    patients: dict[str, str]
    table: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    verdicts: list[Verdict]
    flags: list[str]
    hashes: dict[str, object]
    images: Path | None

    @property
    def rows(self) -> list[str]:
        return [model.name for model in self.models]

    def to_json(self) -> dict:
        """Everything but the values of single cases, as JSON content."""
        rows = [
            {
                "row": model.name,
                "trainer": model.trainer,
                "plans_name": model.plans_name,
                "folds": {fold.name: fold.problem or "complete" for fold in model.folds.values()},
                **vars(self.facts[model.name]),
            }
            for model in self.models
        ]
        return {
            "dataset": self.dataset,
            "configuration": self.configuration,
            "evaluated": self.gathered.evaluated,
            "cases": len(self.patients),
            "patients": len(set(self.patients.values())),
            "baseline": self.rows[0],
            "rows": rows,
            "unit": self.gathered.unit,
            "nsd_tolerance": self.tolerance,
            "verdicts": [vars(verdict) for verdict in self.verdicts],
            "flags": self.flags,
            "summary": json.loads(self.summary.to_json(orient="records", double_precision=12)),
            "differences": json.loads(self.differences.to_json(orient="records", double_precision=12)),
            "sha256": self.hashes,
        }


def _file_hashes(dataset: str, references: Mapping[str, Path]) -> dict[str, str | None]:
    """Of splits_final.json, and of the names and contents of all references, where they are at hand."""
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
    test: Sequence[Path] | None = None,
    references: Path | None = None,
    patients: str | None = None,
    tolerance: float = 1.0,
    surface: bool = True,
    measure: bool = True,
    processes: int = 1,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare trained models, the first being the baseline.

    Args:
        dataset: Number or name.
        configuration: For example "2d".
        trainers: Rows ``TRAINER`` or ``TRAINER:PLANS``.
        folds: Folds whose validation counts, where it is complete in every row; by default all of the split.
        test: Instead of the validation: one folder of predictions of the test set per row, in their order.
        references: Their references, or the validation's; nnU-Net's own are found.
        patients: See ``paired.patients_of``.
        tolerance: Of NSD.
        surface: Score HD95 and NSD, for which all predictions are read.
        measure: Build each network to count parameters and GMACs.
        processes: Cases scored at the same time.
        resamples: Of the bootstrap.

    Raises:
        UserError: rows were not trained and validated on the same data, nothing is complete, or files do not fit.
    """
    name = find_dataset(dataset)
    if test is None and "all" in (folds or ()):
        raise UserError("fold_all validates on its own training cases; give numbered folds")
    models = find_models(name, configuration, trainers, folds, test=test is not None)
    wanted = list(models[0].folds)
    used = [] if test is not None else common_folds(models, wanted)
    refuse_unequal(models, used, find_splits(name))

    classes = Classes.from_dataset_json(models[0].dataset)
    rules, raw = Rules(classes, tolerance=tolerance), nnunet_folder("nnUNet_raw", name)
    if test is None:
        gathered = from_validation(models, used, references, rules, surface=surface, processes=processes)
    elif references is None and raw is None:
        raise UserError("--test needs references: set nnUNet_raw (its labelsTs is taken), or give --references")
    else:
        gathered = from_test_set(models, test, references or raw / "labelsTs", rules, processes=processes)

    groups, how = patients_of([case for _, case in gathered.scores[models[0].name]], patients)
    shown = shown_classes(list(classes.values))
    everything = long_table(gathered.scores, groups)
    table = everything[everything["class"].isin(shown)]
    differences = compare_with_baseline(table, resamples=resamples)
    facts = {model.name: read_facts(model) for model in models}
    if measure:
        for model in models:
            measure_network(model, facts[model.name])
    unlearned = unlearned_classes(everything, [model.name for model in models], list(classes.values))
    flags = [
        *learning_flags(unlearned),
        *data_flags(models, wanted, used, len(set(groups.values())), how),
        *training_flags(models, facts),
    ]
    if gathered.surface_problem is not None:
        flags.append(f"No HD95 and NSD: {gathered.surface_problem}.")
    images = raw / ("imagesTr" if test is None else "imagesTs") if raw is not None else None
    return Comparison(
        dataset=name,
        configuration=configuration,
        models=models,
        gathered=gathered,
        facts=facts,
        labels=classes,
        classes=shown,
        tolerance=tolerance,
        patients=groups,
        table=everything,
        summary=summarise(table, resamples=resamples),
        differences=differences,
        verdicts=verdicts(differences, models[0].name, unlearned),
        flags=flags,
        hashes=hashes(models, used) | _file_hashes(name, gathered.references),
        images=images if images is not None and images.is_dir() else None,
    )
