"""Splits by group
===============

Frames of one patient look alike. If folds are drawn frame by frame, as nnU-Net does without a split file, nearly
every validation frame has a sibling in training, and the validation score measures memory as well.
"""

# %%
# 24 patients, two to six frames each.

import random
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np

from nnunet_attn.dataset_conversion.folds import balanced

random.seed(1)
frames = [f"patient{n:02d}_frame{f:02d}" for n in range(24) for f in range(random.randint(2, 6))]
patient = {frame: frame.split("_")[0] for frame in frames}
sizes = Counter(patient.values())
print(len(frames), "frames of", len(sizes), "patients")

# %%
# Five folds frame by frame, and five folds by patient.

shuffled = random.sample(frames, len(frames))
by_frame = [set(shuffled[k::5]) for k in range(5)]
by_patient = [{f for f in frames if patient[f] in held_out} for held_out in balanced(sizes, 5)]


def divided(fold):
    """Share of validation frames whose patient is in training, too."""
    training = {patient[f] for f in frames if f not in fold}
    return sum(patient[f] in training for f in fold) / len(fold)


for name, folds in (("by frame", by_frame), ("by patient", by_patient)):
    print(name, "sizes", [len(f) for f in folds], "with a sibling in training", [f"{divided(f):.0%}" for f in folds])

# %%
# What that does to a score: a "method" that knows nothing of anatomy but remembers the nearest training frame. Each
# patient has a feature of its own, each frame a little noise, and the label is the patient's and random.

rng = np.random.default_rng(0)
feature = {p: rng.normal(0, 1, 8) for p in sizes}
label = {p: rng.integers(0, 2) for p in sizes}
points = {f: feature[patient[f]] + rng.normal(0, 0.2, 8) for f in frames}


def accuracy(folds):
    """Of the nearest neighbour, over all folds."""
    right = 0
    for fold in folds:
        training = [f for f in frames if f not in fold]
        known = np.stack([points[f] for f in training])
        for f in fold:
            nearest = training[int(np.linalg.norm(known - points[f], axis=1).argmin())]
            right += label[patient[nearest]] == label[patient[f]]
    return right / len(frames)


result = {"by frame": accuracy(by_frame), "by patient": accuracy(by_patient)}
figure, ax = plt.subplots(figsize=(5, 3))
bars = ax.bar(list(result), list(result.values()), color=["#c0504d", "#4f8fcf"], width=0.5)
ax.bar_label(bars, fmt="{:.2f}")
ax.axhline(0.5, color="grey", linestyle="--", linewidth=0.8)
ax.set(ylabel="accuracy in cross-validation", ylim=(0, 1.1), title="nothing can be learned here")
figure.tight_layout()
plt.show()
