"""What Dice, HD95 and NSD see
===========================

One reference, four predictions with different mistakes. Overlap and surface metrics disagree about which is worst,
which is why a comparison reports both.
"""

# %%

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from nnunet_attn.scoring.metrics import dice, hd95, nsd

y, x = np.mgrid[:96, :96]
reference = (x - 48) ** 2 + (y - 48) ** 2 < 24**2
speck = reference.copy()
speck[6:9, 6:9] = True
bite = reference & ~((x - 70) ** 2 + (y - 48) ** 2 < 12**2)
predictions = {
    "one pixel smaller": ndimage.binary_erosion(reference),
    "shifted by 3": np.roll(reference, 3, axis=1),
    "a bite": bite,
    "a speck far away": speck,
}

# %%
# Spacing is 1 mm, the tolerance of NSD 1 mm.

figure, axes = plt.subplots(1, 4, figsize=(10, 3))
for ax, (name, prediction) in zip(axes, predictions.items(), strict=True):
    values = dice(prediction, reference), hd95(prediction, reference), nsd(prediction, reference, tolerance=1.0)
    print(f"{name:18} Dice {values[0]:.3f}  HD95 {values[1]:5.2f} mm  NSD {values[2]:.3f}")
    ax.imshow(prediction.astype(int) + 2 * reference, cmap="viridis")
    ax.set_title(f"{name}\nDice {values[0]:.3f}\nHD95 {values[1]:.1f}, NSD {values[2]:.2f}", fontsize=9)
    ax.axis("off")
figure.tight_layout()
plt.show()

# %%
# A few stray pixels hardly touch Dice, and HD95 only when they are more than 5 % of the border pixels. Where a class
# is absent from both, Dice and HD95 have no value (NaN); where it is absent from one, HD95 is infinite. Reports state
# how such cases are counted.

empty = np.zeros_like(reference)
print(dice(empty, empty), hd95(empty, empty), hd95(empty, reference))
