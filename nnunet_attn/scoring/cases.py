"""Score many cases in worker processes, one case at a time in each. Imports little, since the workers import it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_attn.errors import UserError
from nnunet_attn.scoring.classes import Classes
from nnunet_attn.scoring.input_size import at_input_size, at_original_size
from nnunet_attn.scoring.metrics import score
from nnunet_attn.scoring.volumes import read_labels, values_of
from nnunet_attn.workers import in_parallel

VOXEL = "voxels"  # the unit of distances by the rule of that name
LISTED = 10  # number of cases named in a message


@dataclass(frozen=True)
class Job:
    """One case to score.

    Attributes:
        at_size: Bring both maps to this network's input size, see ``scoring.input_size``.
        original: Bring the prediction to the reference's size, or give both volumes the true ``spacing`` (x, y, z).
    """

    case: str
    fold: str
    prediction: Path
    reference: Path
    at_size: int | None = None
    original: bool = False
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Rules:
    """Scoring rules: classes, protocol for empty masks, tolerance of NSD in the unit of the spacing.

    With ``voxels`` distances are in voxels, whatever spacing the files state: for files that lost the true one.
    """

    classes: Classes
    protocol: str = "nnunet"
    tolerance: float = 1.0
    voxels: bool = False


@dataclass(frozen=True)
class Scores:
    """Metrics of one case: class -> metric -> value, with ``n_pred`` and ``n_ref``, the voxel counts of both masks.

    If the file states a spacing in mm, ``ml_pred`` and ``ml_ref`` are the volumes in millilitres.
    """

    job: Job
    values: dict[str, dict[str, float]]
    unit: str


def listed(items: Sequence[str]) -> str:
    """The first items of a list as text, and how many more there are."""
    rest = len(items) - LISTED
    return ", ".join(items[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def score_case(job: Job, rules: Rules) -> Scores | str:
    """Score one case; returns a string if it cannot be scored, with the reason.

    Voxels with the ignore label in the reference are left out of the counts, as in nnU-Net. For surface metrics they
    are background in both masks (our choice), so that both have the same artificial border there.
    """
    try:
        prediction, reference = read_labels(job.prediction), read_labels(job.reference)
    except UserError as error:
        return str(error)
    if job.original and job.spacing is None:
        prediction, reference = at_original_size(prediction, reference, None)
    difference = prediction.differs_from(reference)
    if difference:
        return f"{job.case}: prediction and reference differ in {difference}"
    if job.at_size:
        prediction, reference = at_input_size(prediction, job.at_size), at_input_size(reference, job.at_size)
    if job.spacing is not None:
        prediction, reference = at_original_size(prediction, reference, job.spacing)
    classes = rules.classes
    for name, volume, allowed in (
        ("prediction", prediction, classes.known),
        ("reference", reference, classes.known | {classes.ignore}),
    ):
        unknown = sorted(values_of(volume.array) - allowed)
        if unknown:
            return f"{job.case}: the {name} holds {unknown[:5]}, which are not labels in dataset.json"

    unit, spacing = prediction.unit, tuple(prediction.spacing)
    if rules.voxels:
        unit, spacing = VOXEL, (1.0,) * len(spacing)
    scored = True if classes.ignore is None else reference.array != classes.ignore
    values = {}
    for name, labels in classes.values.items():
        masks = [np.isin(v.array, labels) if len(labels) > 1 else v.array == labels[0] for v in (prediction, reference)]
        masks = [mask & scored for mask in masks]
        values[name] = score(masks[0], masks[1], spacing, tolerance=rules.tolerance, protocol=rules.protocol)
        counts = {key: int(np.count_nonzero(mask)) for key, mask in zip(("n_pred", "n_ref"), masks, strict=True)}
        values[name] |= counts
        if unit == "mm" and reference.array.ndim == 3:
            voxel = float(np.prod(spacing)) / 1000
            values[name] |= {"ml_pred": counts["n_pred"] * voxel, "ml_ref": counts["n_ref"] * voxel}
    return Scores(job, values, unit)


def score_cases(
    jobs: Sequence[Job], rules: Rules, *, processes: int = 1, progress: bool = True, title: str = "scoring"
) -> list[Scores]:
    """Score cases, in the order given; with several processes, each holds one case at a time.

    Raises:
        UserError: cases cannot be scored (all are named), or a worker process died.
    """
    results = list(in_parallel(partial(score_case, rules=rules), jobs, processes, title, progress=progress))
    problems = [result for result in results if isinstance(result, str)]
    if problems:
        raise UserError(f"{len(problems)} of {len(jobs)} cases cannot be scored: " + "; ".join(problems[:LISTED]))
    return [result for result in results if not isinstance(result, str)]
