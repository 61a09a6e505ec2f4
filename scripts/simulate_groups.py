"""How often the comparison errs when cases come in groups, or trainings differ.

    python scripts/simulate_groups.py [-o FILE.csv]

Differences between two rows are drawn as 20 frames of each group with an intra-group correlation of 0.8 and a variance
of 1 over all cases. Reported are, per way of counting,

* error: share of null comparisons (no difference in truth) with p < 0.05; 5 % is right,
* power: the same with a true difference of EFFECT standard deviations of a case,
* claims: share of null comparisons that are claimed, which takes p < 0.05 and an interval without 0 on its side,
* coverage: share of 95 % intervals of the mean that hold the true difference; 95 % is right.

Ways: "ours" is what ``nnunet-attn compare`` does (Wilcoxon and t over groups). "cases" counts every frame as a patient.
"BCa" and "studentised" are bootstraps over groups, for comparison. Draws are normal, heavy-tailed (t with 3 degrees of
freedom) or skewed (shifted gamma, skewness 1.5); group sizes equal or uneven (log-normal, a factor of 2
either way). With repeats, each row is trained so often, and a training shifts all cases of its row (standard deviation
0.2) and each group (0.2) by chance.

With folds, each has one training, of which all groups of the fold share the luck: a shift with the standard deviation
``luck``, in that of a group. "ours without folds" claims by p and interval over groups alone, "ours" demands, where
folds disagree, that each fold alone or the mean over folds shows the difference, too. Power is here the share that is
claimed.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from nnunet_attn.comparison.statistics import ALPHA, find_disagreements, is_significant, paired_difference
from nnunet_attn.files import complete_file

FRAMES, CORRELATION, EFFECT = 20, 0.8, 0.65
RUN_SHIFT = GROUP_SHIFT = 0.2
RESAMPLES = 999


def group_effects(rng: np.random.Generator, groups: int, shape: str) -> np.ndarray:
    """Standardised deviations of groups."""
    if shape == "heavy":
        return rng.standard_t(3, groups) / np.sqrt(3)
    if shape == "skewed":
        return (rng.gamma(16 / 9, 1, groups) - 16 / 9) / np.sqrt(16 / 9)
    return rng.standard_normal(groups)


def draw(rng: np.random.Generator, groups: int, shape: str, sizes: str, repeats: int) -> tuple[np.ndarray, ...]:
    """Scores of a candidate and a baseline without difference in truth, (repeats, cases), and the cases' groups."""
    number = np.full(groups, FRAMES)
    if sizes == "uneven":
        number = np.maximum(1, np.rint(FRAMES * np.exp(0.7 * rng.standard_normal(groups)))).astype(int)
    index = np.repeat(np.arange(groups), number)
    difference = np.sqrt(CORRELATION) * group_effects(rng, groups, shape)[index]
    difference += np.sqrt(1 - CORRELATION) * rng.standard_normal(len(index))
    rows = []
    for part in (difference, np.zeros(len(index))):
        runs = np.tile(part, (repeats, 1))
        if repeats > 1:
            runs += RUN_SHIFT * rng.standard_normal((repeats, 1))
            runs += GROUP_SHIFT * rng.standard_normal((repeats, groups))[:, index]
        rows.append(runs)
    return *rows, index


def bootstraps(rng: np.random.Generator, differences: np.ndarray, index: np.ndarray) -> dict[str, tuple[float, float]]:
    """95 % intervals of the mean over cases by two bootstraps over groups."""
    sums, counts = np.bincount(index, differences), np.bincount(index)
    bca = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="BCa",
        rng=rng,
    ).confidence_interval

    def mean_and_error(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = weights @ counts
        mean = weights @ sums / total
        squares = weights @ sums**2 - 2 * mean * (weights @ (sums * counts)) + mean**2 * (weights @ counts**2)
        return mean, np.sqrt(np.maximum(squares, 1e-30)) / total

    groups = len(sums)
    mean, error = mean_and_error(np.ones(groups))
    means, errors = mean_and_error(rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES).astype(float))
    low, high = np.quantile((means - mean) / errors, (0.025, 0.975))
    return {"BCa": tuple(bca), "studentised": (mean - high * error, mean - low * error)}


def simulate(groups: int, shape: str, sizes: str, repeats: int, draws: int, *, others: bool, seed: int = 0) -> list:
    """Lines of the table for one setting."""
    rng = np.random.default_rng(seed)
    counts: dict[str, np.ndarray] = {}

    def add(way: str, low: float, high: float, tests: tuple[bool, bool, bool] | None = None) -> None:
        hits = np.array([*(tests or (np.nan, np.nan, np.nan)), low <= 0 <= high], dtype=float)
        counts[way] = counts.get(way, np.zeros(4)) + hits

    for _ in tqdm(range(draws), desc=f"{groups} groups, {shape}, {sizes}, {repeats} repeat(s)", disable=None):
        candidate, baseline, index = draw(rng, groups, shape, sizes, repeats)
        for way, by in (("ours", index), ("cases", np.arange(len(index)))) if others else (("ours", index),):
            null = paired_difference(candidate, baseline, by)
            shifted = paired_difference(candidate + EFFECT, baseline, by)
            add(way, null.low, null.high, (null.p < ALPHA, is_significant(null, null.p), shifted.p < ALPHA))
        if others:
            for way, ends in bootstraps(rng, (candidate - baseline).mean(0), index).items():
                add(way, *ends)
    return [
        {"groups": groups, "shape": shape, "sizes": sizes, "repeats": repeats, "draws": draws, "way": way}
        | dict(zip(("error_%", "claims_%", "power_%", "coverage_%"), np.round(100 * hits / draws, 1), strict=True))
        for way, hits in counts.items()
    ]


def simulate_folds(folds: int, groups: int, luck: float, draws: int, seed: int = 0) -> list:
    """Lines of the table for folds of so many groups: shares that are claimed without a difference, and with EFFECT."""
    rng = np.random.default_rng(seed)
    fold = np.repeat(np.arange(folds), groups)
    claimed = np.zeros((2, 2))
    for _ in tqdm(range(draws), desc=f"{folds} folds of {groups} groups, luck {luck}", disable=None):
        scores = rng.standard_normal(len(fold)) + luck * rng.standard_normal(folds)[fold]
        for j, candidate in enumerate((scores, scores + EFFECT)):
            found = paired_difference(candidate, np.zeros(len(fold)), np.arange(len(fold)))
            samples = {str(k): candidate[fold == k] for k in range(folds)}
            disagreement = find_disagreements({("", ""): samples}).get(("", ""))
            claimed[:, j] += [is_significant(found, found.p), is_significant(found, found.p, disagreement)]
    setting = {"folds": folds, "groups": folds * groups, "luck": luck, "draws": draws}
    return [
        setting | {"way": way} | dict(zip(("claims_%", "power_%"), np.round(100 * hits / draws, 1), strict=True))
        for way, hits in zip(("ours without folds", "ours"), claimed, strict=True)
    ]


def main() -> None:
    """Run all settings, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="CSV")
    parser.add_argument("--draws", type=int, default=2000, help="comparisons per setting; default %(default)s")
    options = parser.parse_args()
    settings = [(groups, "normal", "equal", 1) for groups in (10, 20, 60)]
    settings += [(groups, "normal", "uneven", 1) for groups in (10, 20, 60)]
    settings += [(groups, shape, "equal", 1) for shape in ("heavy", "skewed") for groups in (10, 20, 60)]
    settings += [(20, "normal", "equal", repeats) for repeats in (2, 3, 5)]
    lines = [
        line
        for setting in settings
        for line in simulate(*setting, options.draws, others=setting[0] == 20 and setting[3] == 1)
    ]
    lines += [
        line
        for folds, groups in ((2, 30), (5, 12))
        for luck in (0.0, 0.2, 0.5)
        for line in simulate_folds(folds, groups, luck, options.draws)
    ]
    table = pd.DataFrame(lines).convert_dtypes()
    print(table.to_string(index=False))
    if options.output:
        head = f"# python scripts/simulate_groups.py --draws {options.draws}; {FRAMES} cases per group, "
        head += f"correlation {CORRELATION}, effect {EFFECT}\n"
        with complete_file(options.output) as path:
            path.write_text(head + table.to_csv(index=False), encoding="utf-8")


if __name__ == "__main__":
    main()
