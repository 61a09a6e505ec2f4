"""Check whose predictions a test set folder holds. nnU-Net stores plans and dataset beside them, not the trainer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_attn.comparison.results import DATA_KEYS, DEFAULT_PLANS, PREDICTION_RECORD, Model, read_json
from nnunet_attn.errors import UserError


def check_test_folders(models: Sequence[Model], test: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """The folder of each model, and sentences about what could not be verified.

    Args:
        models: The trained models.
        test: Folder of predictions by row, ``TRAINER``, ``TRAINER:PLANS`` or ``TRAINER:PLANS:CONFIGURATION``.

    Raises:
        UserError: a row has no folder, a folder no row, or a folder holds predictions of other plans, another dataset
            or, according to our own record, of another trainer.
    """
    names = {model.name: model for model in models}
    folders = {_name(row, models): Path(folder) for row, folder in test.items()}
    unknown = sorted(set(folders) - set(names))
    missing = sorted(set(names) - set(folders))
    if unknown or missing:
        parts = [f"no row is called {', '.join(unknown)}"] if unknown else []
        parts += [f"there is none for {', '.join(missing)}"] if missing else []
        raise UserError(f"--test takes ROW=FOLDER for each row of --trainers: {'; '.join(parts)}")
    notes = []
    for name, model in names.items():
        if not folders[name].is_dir():
            raise UserError(f"--test {name}={folders[name]} is not a folder")
        unverified = _contradictions(model, folders[name])
        if unverified:
            notes.append(f"{folders[name]} was taken as {name}'s predictions; {unverified}")
    return folders, notes


def _name(row: str, models: Sequence[Model]) -> str:
    """The name of the model that ``row`` means; ``row`` itself if there is none."""
    trainer, plans, configuration = (*row.split(":"), "", "")[:3]
    for model in models:
        same = (model.trainer, model.plans_name) == (trainer, plans or DEFAULT_PLANS)
        if same and (configuration == model.configuration or (not configuration and not model.named)):
            return model.name
    return row


def _contradictions(model: Model, folder: Path) -> str | None:
    """A sentence on what could not be verified about a folder; None if everything was."""

    def refuse(file: str, what: str) -> None:
        raise UserError(f"--test {model.name}={folder} contradicts the row: {folder / file} {what}")

    seen = [name for name in ("plans.json", "dataset.json", PREDICTION_RECORD) if (folder / name).is_file()]
    content = {name: read_json(folder / name) for name in seen}
    plans, dataset, record = (content.get(name) for name in ("plans.json", "dataset.json", PREDICTION_RECORD))
    if isinstance(plans, dict) and plans != model.plans:
        keys = sorted(key for key in plans.keys() | model.plans.keys() if plans.get(key) != model.plans.get(key))
        refuse("plans.json", f"differs from the plans that the row was trained with in {', '.join(keys)}")
    if isinstance(dataset, dict) and (keys := [k for k in DATA_KEYS if dataset.get(k) != model.dataset.get(k)]):
        refuse("dataset.json", f"differs from the dataset that the row was trained on in {', '.join(keys)}")
    if isinstance(record, dict):
        expected = {"trainer": model.trainer, "plans": model.plans_name, "configuration": model.configuration}
        for key, value in expected.items():
            if record.get(key) != value:
                refuse(PREDICTION_RECORD, f"says {key} {record.get(key)}, the row's is {value}")
        return None
    if plans is None or dataset is None:
        return "neither dataset and plans nor trainer could be verified: the files that nnU-Net writes are missing."
    return "plans and dataset agree; the trainer could not be verified, since nnU-Net does not write its name."
