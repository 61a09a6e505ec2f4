"""A comparison, and what its statistics do
========================================

Two methods segment the same 60 frames of 30 patients. The scores here are drawn at random, so that the truth is
known: method B is better by 0.01 Dice, method C is not better at all, and the two frames of a patient are alike.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np

from nnunet_attn.comparison.statistics import holm, is_significant, paired_difference, smallest_p
from nnunet_attn.scoring.intervals import group_index

rng = np.random.default_rng(3)
patients = [f"patient{n:02d}" for n in range(30) for _ in range(2)]
difficulty = np.repeat(rng.normal(0.88, 0.05, 30), 2)  # shared by the frames of a patient
baseline = difficulty + rng.normal(0, 0.01, 60)
scores = {
    "B": difficulty + np.repeat(rng.normal(0.010, 0.015, 30), 2) + rng.normal(0, 0.01, 60),
    "C": difficulty + np.repeat(rng.normal(0.000, 0.015, 30), 2) + rng.normal(0, 0.01, 60),
}

# %%
# Differences are taken case by case, averaged per patient, tested with Wilcoxon's signed-rank test, and corrected for
# the number of rows by Holm's method. The variance behind the interval is formed from patients, too.

differences = {name: paired_difference(values, baseline, group_index(patients)) for name, values in scores.items()}
corrected = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))
for name, d in differences.items():
    verdict = "significant" if is_significant(d, corrected[name]) else "no significant difference"
    print(
        f"{name}: {d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}], p = {corrected[name]:.4f}, "
        f"{d.wins} wins, {d.losses} losses: {verdict}"
    )

# %%
# The mean scores of all three differ far less than the patients do, which is why differences are paired.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
axes[0].boxplot([baseline, *scores.values()], tick_labels=["baseline", *scores])
axes[0].set(ylabel="Dice", title="scores: the patients differ")
for position, (name, values) in enumerate(scores.items()):
    per_patient = (values - baseline).reshape(30, 2).mean(1)
    axes[1].plot(per_patient, position + rng.uniform(-0.1, 0.1, 30), "o", alpha=0.4, markersize=4)
    d = differences[name]
    axes[1].plot([d.low, d.high], [position, position], "k-", linewidth=2)
    axes[1].plot(d.mean, position, "kD", markersize=5)
axes[1].axvline(0, color="grey", linewidth=0.8)
axes[1].set(
    yticks=range(len(scores)),
    yticklabels=list(scores),
    xlabel="difference to the baseline, per patient",
    title="differences: mean and 95 % interval",
)
figure.tight_layout()
plt.show()

# %%
# Treating frames as independent would count every patient twice and make intervals too narrow:

wrong = paired_difference(scores["C"], baseline, np.arange(60))
right = differences["C"]
print(f"interval of C: {right.high - right.low:.4f} by patients, {wrong.high - wrong.low:.4f} by frames")

# %%
# And with few patients no test can find anything:

for n in (4, 5, 6, 10):
    print(n, "patients: smallest possible p", smallest_p(n))
