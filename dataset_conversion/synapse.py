"""Synapse multi-organ CT (BTCV): 30 abdominal volumes, as 8 organs (default, every paper's benchmark) or all 13.

Original layout: NIfTI with geometry and the organs' own ids 1 to 13. Repackaged (TransUNet): slices ``.npz`` for
training and volumes ``.h5`` for testing, clipped to [-125, 275] HU and scaled to [0, 1], without spacing. Slices are
stacked into volumes; the spacing written is the user's ``--spacing``, or else 1 mm with a note that it is unknown.

Repackaged files come in three label orders, and published tables have swapped columns because of it. ``btcv`` has the
ids 1 to 13 and is recognised by an id above 8. The other two have ids 0 to 8 and cannot be told apart by the files:
``transunet`` (aorta, gallbladder, left kidney, right kidney, liver, pancreas, spleen, stomach) and ``cascade`` (spleen,
right kidney, left kidney, gallbladder, pancreas, liver, stomach, aorta). For these, ``--label-order`` is required.
Labels are written in TransUNet's order, with names in dataset.json.

``--split transunet`` is TransUNet's 18/12 division.

Reference: Landman et al., MICCAI 2015 multi-atlas labeling beyond the cranial vault: workshop and challenge,
https://www.synapse.org/Synapse:syn3193805.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import split_by_lists
from nnunet_attn.dataset_conversion.pairing import index, pair
from nnunet_attn.dataset_conversion.sources import Content, File, plain
from nnunet_attn.dataset_conversion.volumes import check_spacing, encode_arrays, encode_nifti, read_arrays
from nnunet_attn.errors import UserError

ORGANS = {  # BTCV's ids
    "spleen": 1, "right_kidney": 2, "left_kidney": 3, "gallbladder": 4, "esophagus": 5, "liver": 6, "stomach": 7,
    "aorta": 8, "inferior_vena_cava": 9, "portal_and_splenic_vein": 10, "pancreas": 11, "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}  # fmt: skip
EIGHT = ("aorta", "gallbladder", "left_kidney", "right_kidney", "liver", "pancreas", "spleen", "stomach")
ORDERS = {
    "transunet": EIGHT,
    "cascade": ("spleen", "right_kidney", "left_kidney", "gallbladder", "pancreas", "liver", "stomach", "aorta"),
    "btcv": tuple(ORGANS),
}
TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
SLICES = {  # of the training cases
    5: 117, 6: 131, 7: 163, 9: 149, 10: 148, 21: 143, 23: 96, 24: 124, 26: 131, 27: 88, 28: 89, 30: 153, 31: 93,
    33: 104, 34: 98, 37: 99, 39: 90, 40: 195,
}  # fmt: skip


def _name(number: str | int) -> str:
    return f"synapse_{int(number):04d}"


KNOWN = {*TEST, *SLICES}  # the 30 labelled volumes
_VOLUME = r"(?P<kind>img|label)(?P<id>\d{4})(_avg)?\.nii(\.gz)?"
_SLICE = r"case_?(?P<case>\d{4})_slice_?(?P<slice>\d{3,})\.npz"
_UNKNOWN = "is not a labelled volume of BTCV; those are 0001 to 0010 and 0021 to 0040"


def discover(files: list[File], *, repackaged_order: str | None, spacing: Sequence[float] | None) -> Found:
    volumes = [f for f in files if re.search(r"\.nii(\.gz)?$", f.basename, re.IGNORECASE)]
    arrays = [f for f in files if re.search(r"\.(npz|h5|hdf5)$", f.basename, re.IGNORECASE)]
    if volumes and arrays:
        raise UserError(
            f"SOURCE holds NIfTI volumes ({volumes[0]}) and preprocessed ones ({arrays[0]}), which are the "
            "same cases; give the folder of one kind as SOURCE"
        )
    if volumes:
        if repackaged_order or spacing:
            raise UserError(
                "SOURCE holds NIfTI volumes, whose label order and spacing are known; leave out --label-order and "
                "--spacing"
            )
        return _original(volumes)
    if arrays:
        found = _repackaged(arrays)
        order = repackaged_order or _recognised_order(found.cases)
        notes = [*found.notes, f"labels of the source in the order of {order}"]
        notes.append(f"spacing as given: {list(spacing)} mm" if spacing else "spacing unknown; 1 mm was written")
        return Found(found.layout, found.cases, notes, ("CT_clipped",), kind="patient")
    raise UserError(
        "SOURCE holds neither img/imgXXXX.nii.gz with label/labelXXXX.nii.gz (original) nor caseXXXX_sliceYYY.npz or "
        "caseXXXX.npy.h5 (TransUNet's files)"
    )


def _original(volumes: list[File]) -> Found:
    """Pair files by name, whatever the folders are called; volumes of the test set have no labels."""
    kinds: dict[str, list[File]] = {"img": [], "label": []}
    testing: list[File] = []
    for file in volumes:
        match = re.fullmatch(_VOLUME, file.basename, re.IGNORECASE)
        if match is None:
            raise UserError(
                f"{file} has an unexpected name; names should look like img0001.nii.gz and label0001.nii.gz"
            )
        kind = match["kind"].lower()
        tested = {plain(folder) for folder in file.folders} & {"testing", "imagest"} or int(match["id"]) > 40
        (testing if kind == "img" and tested else kinds[kind]).append(file)
    images, labels = (index(kinds[kind], _VOLUME, f"{kind}0001.nii.gz") for kind in kinds)
    cases: list[Case] = []
    missing: dict[str, Sequence[File]] = {}
    for number, (image, label) in pair(images, labels, missing, "label").items():
        if int(number) not in KNOWN:
            raise UserError(f"{image} {_UNKNOWN}")
        cases.append(Case(_name(number), (image,), (label,), _name(number)))
    return Found(
        "original: NIfTI volumes imgXXXX and labelXXXX",
        sorted(cases, key=lambda case: case.name),
        kind="patient",
        missing=missing,
        unneeded={"volumes of the test set, which have no labels": testing},
    )


def _repackaged(files: list[File]) -> Found:
    slices: dict[str, dict[int, File]] = defaultdict(dict)
    cases, notes = [], []
    for file in files:
        if file.basename.lower().endswith(".npz"):
            match = re.fullmatch(_SLICE, file.basename, re.IGNORECASE)
            if match is None:
                raise UserError(
                    f"{file} has an unexpected name; names of slices should look like case0005_slice000.npz"
                )
            other = slices[match["case"]].setdefault(int(match["slice"]), file)
            if other is not file:
                which = "keep one of them" if file.place == other.place else "give one of the folders as SOURCE"
                raise UserError(f"{file} and {other} are the same slice; {which}")
    for number, parts in sorted(slices.items()):
        place = next(iter(parts.values())).place
        if missing := sorted(set(range(max(parts) + 1)) - parts.keys()):
            absent = f"{place}/case{number}_slice{missing[0]:03d}.npz"
            raise UserError(f"{absent} is missing; a volume needs all of its slices")
        if len(parts) != SLICES.get(int(number), len(parts)) or len(parts) == 1:
            raise UserError(
                f"case{number} has {len(parts)} slices in {place}, and {SLICES.get(int(number), 'more')} when "
                "complete; download it again"
            )
        cases.append(Case(_name(number), tuple(parts[i] for i in sorted(parts)), (), _name(number)))
    volumes = [file for file in files if not file.basename.lower().endswith(".npz")]
    for number, file in index(volumes, r"case_?(?P<id>\d{4})(\.npy)?\.h(df)?5", "case0001.npy.h5").items():
        cases.append(Case(_name(number), (file,), (), _name(number), "test"))
    cases.sort(key=lambda case: case.name)
    if unknown := [case for case in cases if int(case.name[-4:]) not in KNOWN]:
        raise UserError(f"{unknown[0].image[0]} {_UNKNOWN}")
    if any("224" in file.folders[-1] for file in files):
        notes.append("the authors of the files resized training slices to 224x224, but not test volumes")
    return Found("repackaged: slices .npz for training, volumes .h5 for testing", cases, notes)


def _recognised_order(cases: list[Case]) -> str:
    for case in cases:
        for file in case.image:
            if read_arrays(Content(str(file), file.read()))[1].max() > len(EIGHT):
                return "btcv"
    raise UserError(
        "the files hold the label ids 0 to 8, which are used in two orders that the files do not tell apart; "
        "give --label-order transunet (TransUNet's own files) or cascade (spleen first)"
    )


def encode(
    images: tuple[Content, ...],
    labels: tuple[Content, ...],
    *,
    organs: Sequence[str],
    repackaged_order: str | None,
    spacing: Sequence[float] | None,
) -> Encoded:
    if labels:
        return encode_nifti(images[0], labels[0], expected=13, lookup=_lookup("btcv", organs))
    order = repackaged_order or "btcv"  # ``discover`` found an id above 8
    return encode_arrays(
        images, spacing=spacing or (1, 1, 1), expected=len(ORDERS[order]), lookup=_lookup(order, organs)
    )


def _lookup(order: str, organs: Sequence[str]) -> list[int]:
    return [0, *(organs.index(name) + 1 if name in organs else 0 for name in ORDERS[order])]


def make_converter(
    *, organs: int = 8, label_order: str | None = None, spacing: Sequence[float] | None = None
) -> Converter:
    """The converter for 8 or 13 organs.

    Args:
        organs: 8 or 13.
        label_order: Key of ``ORDERS``, the order of labels in repackaged files.
        spacing: Voxel edges along x, y, z in mm, for repackaged files.

    Raises:
        UserError: The arguments do not fit together.
    """
    if organs not in (8, 13) or label_order not in (None, *ORDERS):
        raise UserError(f"--organs is 8 or 13, --label-order one of {', '.join(ORDERS)}; got {organs}, {label_order}")
    if organs == 13 and label_order not in (None, "btcv"):
        raise UserError(f"files in the order of {label_order} hold 8 organs, not 13; give --organs 8")
    check_spacing(spacing)
    names = EIGHT if organs == 8 else tuple(ORGANS)
    settings: dict[str, Any] = {"repackaged_order": label_order, "spacing": spacing}
    return Converter(
        key="synapse",
        channels=("CT",),
        labels=names,
        file_ending=".nii.gz",
        discover=partial(discover, **settings),
        encode=partial(encode, organs=names, **settings),
        splits={
            "transunet": split_by_lists(lambda c: c.name, train=list(map(_name, SLICES)), test=list(map(_name, TEST)))
        },
        options={"organs": organs, "label_order": label_order, "spacing": spacing},
    )


CONVERTER = make_converter()
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("synapse"))
