"""The paragraph on methods for a paper, with versions, and the entries that it cites."""

from collections.abc import Callable
from importlib.metadata import version

from nnunet_attn.citations import CITATIONS, Citation
from nnunet_attn.comparison.compare import Comparison
from nnunet_attn.comparison.gather import TEST_SET
from nnunet_attn.comparison.results import NOT_RECORDED
from nnunet_attn.comparison.statistics import ALPHA, smallest_p
from nnunet_attn.lookup import find_entry, find_family
from nnunet_attn.trainer_names import parse_trainer_name


def cited(comparison: Comparison) -> list[Citation]:
    """nnU-Net and the papers of the rows' networks."""
    parsed = (parse_trainer_name(row.trainer) for row in comparison.rows)
    families = [p.family for p in parsed if p and p.family and find_entry(p.base)]
    known = [CITATIONS[family] for family in ("stock", *families) if family in CITATIONS]
    return list({citation.key: citation for citation in known}.values())


def _recorded(comparison: Comparison, read: Callable[[str], str]) -> str:
    """What all rows recorded of something, joined; empty if none did."""
    values = dict.fromkeys(read(row) for row in comparison.names)
    return " and ".join(value for value in values if value != NOT_RECORDED)


def methods_text(comparison: Comparison) -> str:
    """Ready to paste: training, data, statistics, versions."""
    c = comparison
    parsed = [parse_trainer_name(row.trainer) for row in c.rows]
    families = dict.fromkeys(p.family for p in parsed if p and p.family and find_entry(p.base))
    networks = [
        f"{find_family(family).title} ({CITATIONS[family].short})" for family in families if family in CITATIONS
    ]
    schedules = dict.fromkeys(c.facts[row].schedule for row in c.names)
    training = [f"{s[0]} epochs of {s[1]} iterations" for s in schedules if s]
    repeats = max(len(row.runs) for row in c.rows)
    nnunet = _recorded(c, lambda row: c.facts[row].environment["nnunetv2"]) or version("nnunetv2")
    torch = _recorded(c, lambda row: c.facts[row].environment["torch"])
    groups, compared = len(set(c.groups.of.values())), len(c.rows) - 1

    versions = f"nnunetv2 {nnunet}" + (f", PyTorch {torch}" if torch else "")
    data = f"{c.dataset}, configuration {c.configuration}, with the same cases and splits"
    text = [f"All networks were trained within nnU-Net v2 ({CITATIONS['stock'].short}; {versions}) on {data}."]
    if networks:
        ours = _recorded(c, lambda row: c.facts[row].environment["nnunet-attn"]) or version("nnunet-attn")
        text.append(f"{', '.join(networks)} came from nnunet-attn {ours}.")
    if training:
        text.append(f"Training took {' or '.join(training)}{f', up to {repeats} times' if repeats > 1 else ''}.")
    text.append(
        f"We report Dice per case (mean over the classes that have a value) on {len(c.scores.keys)} cases"
        f"{f' of {c.groups.counted()}' if c.groups.known else ''} ({c.gathered.evaluated}), as paired mean differences "
        f"to {c.names[0]} with 95 % confidence intervals (Student's t over {c.groups.plural}, cluster-robust variance)."
    )
    if not c.groups.known:
        text.append("Which cases belong together was not known, so no difference was tested.")
    elif smallest_p(groups, compared) >= ALPHA:
        text.append(f"With {c.groups.counted()} no test could reach p < {ALPHA}, so none was used.")
    else:
        text.append(
            f"Differences were tested over {c.groups.counted()} by Wilcoxon's signed-rank test, two-sided, with Holm's "
            f"correction for {compared} comparison{'s' * (compared > 1)}, and called significant if p < {ALPHA} and "
            "the interval did not hold 0."
        )
        if c.gathered.evaluated != TEST_SET and len(c.used) > 1:
            text.append(
                "Where folds disagreed more than their groups explain (Alexander and Govern's test), each fold "
                "alone, or the mean over folds, had to show the difference as well (95 % intervals without 0)."
            )
    if {"HD95", "NSD"} <= set(c.scores.metrics):
        text.append(
            "HD95 is the 95th percentile of both directed border distances pooled; NSD has a tolerance of "
            f"{c.tolerance:g} {c.gathered.unit or 'mm'}."
        )
    return " ".join(text)
