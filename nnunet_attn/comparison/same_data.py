"""Check that the rows of a comparison were trained and validated on the same data."""

from collections import Counter
from collections.abc import Sequence

from nnunet_attn.comparison.results import DATA_KEYS, Model, digest
from nnunet_attn.errors import UserError
from nnunet_attn.scoring.cases import listed


def common_folds(models: Sequence[Model], folds: Sequence[str]) -> list[str]:
    """The folds that are complete in every row.

    Raises:
        UserError: there is none; the message says why.
    """
    common = [fold for fold in folds if all(model.folds[fold].problem is None for model in models)]
    if not common:
        reasons = (
            f"{m.name}: " + ", ".join(f"fold {f.name} {f.problem or 'complete'}" for f in m.folds.values())
            for m in models
        )
        raise UserError("no fold is complete in every row. " + "; ".join(reasons))
    return common


def refuse_unequal(models: Sequence[Model], folds: Sequence[str], splits: list[dict] | None) -> None:
    """Refuse rows that were not trained and validated on the same data.

    Compared are the data part of dataset.json, nnU-Net's fingerprint, the validation cases of each fold (also with
    splits_final.json, if it was found), the number of training cases, and, case by case and class by class, the
    voxels of the reference at the time of validation.

    Raises:
        UserError: something differs; the message says what, and between which rows.
    """
    first = models[0]
    for other in models[1:]:
        pair = f"{first.name} and {other.name}"
        sizes = [model.dataset.get("input_size") for model in (first, other)]
        if sizes[0] != sizes[1]:
            texts = [f"with --input-size {size}" if size else "at its own sizes" for size in sizes]
            raise UserError(
                f"{pair} do not compare: the dataset of the first was converted {texts[0]}, the other's {texts[1]}"
            )
        keys = [key for key in DATA_KEYS if first.dataset.get(key) != other.dataset.get(key)]
        if keys:
            raise UserError(f"{pair} were trained on different data: dataset.json differs in {', '.join(keys)}")
        if None not in (first.fingerprint, other.fingerprint) and first.fingerprint != other.fingerprint:
            raise UserError(f"{pair} were trained on different data: their files dataset_fingerprint.json differ")
        for name in folds:
            a, b = first.folds[name], other.folds[name]
            unequal = sorted(set(a.cases) ^ set(b.cases))
            if unequal:
                raise UserError(f"{pair} have different splits: fold {name} validates {listed(unequal)} only in one")
            if None not in (a.training_cases, b.training_cases) and a.training_cases != b.training_cases:
                raise UserError(
                    f"{pair} have different splits: fold {name} trains on {a.training_cases} and "
                    f"{b.training_cases} cases"
                )
            for case, classes in a.cases.items():
                for label, scores in classes.items():
                    voxels = scores["n_ref"], b.cases[case][label]["n_ref"]
                    if voxels[0] != voxels[1]:
                        raise UserError(
                            f"{pair} were validated against different references: {case}, class {label} had "
                            f"{voxels[0]:.0f} and {voxels[1]:.0f} voxels"
                        )
    for name in folds:
        if splits is not None and name.isdigit() and int(name) < len(splits):
            extra = sorted(set(first.folds[name].cases) - set(splits[int(name)]["val"]))
            if extra:
                raise UserError(f"fold {name} validated {listed(extra)}, which splits_final.json does not list for it")
    cases = [case for name in folds for case in first.folds[name].cases]
    twice = sorted(case for case, count in Counter(cases).items() if count > 1)
    if twice:
        raise UserError(f"folds share validation cases: {listed(twice)}; give --folds")


def hashes(models: Sequence[Model], folds: Sequence[str]) -> dict[str, object]:
    """SHA-256 of the data that all rows must share, and of each row's plans."""
    first = models[0]
    cases = {name: first.folds[name].cases for name in folds}
    voxels = {c: {k: v["n_ref"] for k, v in s.items()} for scores in cases.values() for c, s in scores.items()}
    return {
        "dataset.json, data part": digest({key: first.dataset.get(key) for key in DATA_KEYS}),
        "dataset_fingerprint.json": digest(first.fingerprint) if first.fingerprint is not None else None,
        "validation cases by fold": digest({name: sorted(c) for name, c in cases.items()}) if folds else None,
        "reference voxels by case and class": digest(voxels) if folds else None,
        "plans": {model.name: digest(model.settings) for model in models},
    }
