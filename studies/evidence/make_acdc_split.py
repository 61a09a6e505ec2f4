"""Draw the split of the small ACDC study: 20 tuning patients that always train, and 60 in two folds of 30.

  python make_acdc_split.py RAW_DATASET -o acdc_small_splits.json

Of 5,000 seeded draws the one is taken whose three groups differ least in what is known of the patients: number of
slices, in-plane size, number of frames between end diastole and end systole, and the volumes of the three structures
in both frames. No result of any network is looked at. A patient whose images are those of an earlier one (patient076's
are patient074's) is then left out: it would be in the training of one fold and in the validation of the other.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

SEED, DRAWS, TUNING, FOLD = 20261124, 5000, 20, 30


def describe(labels: list[Path]) -> list[float]:
    """What is known of a patient from its two label volumes."""
    numbers: list[float] = []
    for path in labels:
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayViewFromImage(image)
        numbers += [float((array == label).sum()) for label in (1, 2, 3)]
    frames = [int(path.name.split("frame")[1].split(".")[0]) for path in labels]
    return [*array.shape, abs(frames[1] - frames[0]), *numbers]


def imbalance(standardised: np.ndarray, order: np.ndarray) -> float:
    """The largest difference between any two groups' means, in standard deviations over the patients."""
    groups = np.split(standardised[order], [TUNING, TUNING + FOLD])
    means = np.stack([group.mean(axis=0) for group in groups])
    return float(np.ptp(means, axis=0).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="raw dataset that nnunet-attn convert acdc wrote")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    options = parser.parse_args()

    cases: dict[str, list[Path]] = {}
    for path in sorted((options.dataset / "labelsTr").glob("*.nii.gz")):
        cases.setdefault(path.name.split("_")[0], []).append(path)
    patients = sorted(cases)
    if len(patients) != TUNING + 2 * FOLD or any(len(found) != 2 for found in cases.values()):
        raise SystemExit(f"expected {TUNING + 2 * FOLD} patients with two frames each in {options.dataset}/labelsTr")
    table = np.array([describe(cases[patient]) for patient in patients])
    standardised = (table - table.mean(axis=0)) / np.maximum(table.std(axis=0), 1e-9)
    rng = np.random.default_rng(SEED)
    order = min((rng.permutation(len(patients)) for _ in range(DRAWS)), key=lambda o: imbalance(standardised, o))

    def images(patient: str) -> bytes:
        paths = [options.dataset / "imagesTr" / p.name.replace(".nii.gz", "_0000.nii.gz") for p in cases[patient]]
        return hashlib.sha256(
            b"".join(sitk.GetArrayFromImage(sitk.ReadImage(str(p))).tobytes() for p in paths)
        ).digest()

    contents = [images(patient) for patient in patients]
    copies = {i for i, content in enumerate(contents) if content in contents[:i]}

    def names(chosen: np.ndarray) -> list[str]:
        kept = [i for i in chosen if i not in copies]
        return sorted(path.name.removesuffix(".nii.gz") for i in kept for path in cases[patients[i]])

    tuning, first, second = (names(part) for part in np.split(order, [TUNING, TUNING + FOLD]))
    look = names(order[:TUNING][14:])
    content = {
        "seed": SEED,
        "largest_imbalance_in_standard_deviations": round(imbalance(standardised, order), 3),
        "left_out": [patients[i] for i in sorted(copies)],
        "splits_final": [
            {"train": sorted(tuning + second), "val": first},
            {"train": sorted(tuning + first), "val": second},
        ],
        "tuning_splits_final": [{"train": sorted(set(tuning) - set(look)), "val": look}],
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"imbalance {content['largest_imbalance_in_standard_deviations']} standard deviations")


if __name__ == "__main__":
    main()
