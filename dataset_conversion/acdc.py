"""ACDC: cine MRI of the heart, with right ventricle, myocardium and left ventricle at end diastole and end systole.

Every patient has two labelled frames, so the five folds never divide a patient; nnU-Net's own random split would put
one frame of a patient into training and the other into validation. Which frames are ED and ES stands in the patient's
Info.cfg. Patients under ``testing/`` become test cases.

Repackaged layout: SSL4MIS's HDF5 volumes ``patientXXX_frameYY.h5``, or its slices ``patientXXX_frameYY_slice_Z.h5``,
which are put back into volumes. Intensities are rescaled there and the spacing is lost: it is the user's
``--spacing``, or 1 mm and stated as unknown. ED and ES cannot be checked in it.

Two 70/10/20 splits of the 100 training patients circulate, and must not be mixed: ``A`` is the one of TransUNet's and
MT-UNet's successors, ``B`` that of SSL4MIS.

Reference: Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and
Diagnosis: Is the Problem Solved?, IEEE TMI 37(11), 2018.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import SplitRule, split_by_lists
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.dataset_conversion.volumes import check_spacing, encode_arrays, encode_nifti
from nnunet_attn.errors import UserError

LABELS = ("RV", "MYO", "LV")

_VAL = {"A": "019 021 029 033 041 050 061 071 076 080", "B": "002 019 028 030 039 045 078 082 085 087"}
_TEST = {
    "A": "002 003 008 009 012 014 017 024 042 048 049 053 055 064 067 079 081 088 092 095",
    "B": "001 007 008 011 013 022 024 033 052 059 064 065 066 068 075 080 081 083 084 093",
}


def _split(letter: str) -> SplitRule:
    val, test = ({f"patient{number}" for number in numbers[letter].split()} for numbers in (_VAL, _TEST))
    train = {f"patient{number:03d}" for number in range(1, 101)} - val - test
    return split_by_lists(lambda case: case.group, train=sorted(train), val=sorted(val), test=sorted(test))


def discover(files: list[File], *, spacing: Sequence[float] | None) -> Found:
    """Two cases per patient."""
    folders = defaultdict(dict)
    for file in files:
        if re.fullmatch(r"patient\d{3}", PurePosixPath(file.parent).name):
            folders[file.container, file.parent][file.basename] = file
    if not folders:
        return _repackaged([file for file in files if file.basename.endswith(".h5")], spacing)
    if spacing:
        raise UserError("SOURCE holds NIfTI volumes: their spacing is known, do not give one")
    places = defaultdict(list)
    for (_, folder), members in folders.items():
        places[PurePosixPath(folder).name].append(_place(members))
    for patient, found in places.items():
        if len(found) > 1:
            raise UserError(f"SOURCE holds {patient} more than once: {', '.join(found)}; keep one of them")
    cases = [case for (_, folder), members in sorted(folders.items()) for case in _patient(folder, members)]
    return Found("original: patient folders with NIfTI frames", cases, kind="patient")


def _repackaged(files: list[File], spacing: Sequence[float] | None) -> Found:
    volumes, slices = {}, defaultdict(dict)
    for file in files:
        match = re.fullmatch(r"(patient\d{3}_frame\d{2})(?:_slice_(\d+))?\.h5", file.basename)
        if match is None:
            raise UserError(f"{file} has an unexpected name; files are like patient001_frame01.h5")
        parts = volumes if match[2] is None else slices[match[1]]
        key = match[1] if match[2] is None else int(match[2])
        if key in parts:
            raise UserError(f"{file} and {parts[key]} are the same; keep one of them")
        parts[key] = file
    for name, parts in slices.items():
        if missing := sorted(set(range(min(parts), max(parts) + 1)) - parts.keys()):
            raise UserError(f"{name}_slice_{missing[0]}.h5 is missing; slices are put back into volumes")
    whole = {name: (file,) for name, file in volumes.items()} or {
        name: tuple(parts[i] for i in sorted(parts)) for name, parts in slices.items()
    }
    notes = ["slices of the same cases were not needed"] if volumes and slices else []
    notes.append(f"spacing as given: {list(spacing)} mm" if spacing else "spacing unknown: 1 mm was written")
    cases = [Case(name, contents, (), name[:10]) for name, contents in sorted(whole.items())]
    return Found("repackaged: HDF5 volumes or slices", cases, notes, kind="patient")


def _patient(folder: str, members: dict[str, File]) -> list[Case]:
    patient = PurePosixPath(folder).name
    part = "test" if "testing" in PurePosixPath(folder).parts else "train"
    cases, used = [], {f"{patient}_4d.nii.gz", f"{patient}_4d.nii"}
    for phase, frame in _phases(patient, members).items():
        name = f"{patient}_frame{frame:02d}"
        pair = []
        for stem in (name, f"{name}_gt"):
            present = [members[n] for n in (f"{stem}.nii.gz", f"{stem}.nii") if n in members]
            if len(present) != 1:
                problem = "is missing" if not present else "is there both compressed and not"
                raise UserError(f"{_place(members)}/{stem}.nii.gz {problem}; Info.cfg says frame {frame} is {phase}")
            used.add(present[0].basename)
            pair.append(present[0])
        cases.append(Case(name, (pair[0],), (pair[1],), patient, part))
    if strange := sorted(name for name in members if ".nii" in name and name not in used):
        raise UserError(
            f"{members[strange[0]]} belongs to neither the ED nor the ES frame of {patient}; take it out of SOURCE"
        )
    return cases


def _place(members: dict[str, File]) -> str:
    return next(iter(members.values())).place


def _phases(patient: str, members: dict[str, File]) -> dict[str, int]:
    """Frame numbers of ED and ES from Info.cfg, whose lines read like ``ED: 1``."""
    if "Info.cfg" not in members:
        raise UserError(f"{_place(members)}/Info.cfg is missing; it names the ED and ES frames")
    config = members["Info.cfg"]
    text = config.read().decode("utf-8", errors="replace")
    phases = {phase: re.findall(rf"^\s*{phase}\s*:\s*(\d+)\s*$", text, re.MULTILINE) for phase in ("ED", "ES")}
    for phase, frames in phases.items():
        if len(frames) != 1:
            raise UserError(f"{config} should hold one line like '{phase}: 1', and holds {len(frames)}")
    if phases["ED"] == phases["ES"]:
        raise UserError(f"{config} gives the same frame for ED and ES of {patient}")
    return {phase: int(frames[0]) for phase, frames in phases.items()}


def encode(images: tuple[Content, ...], labels: tuple[Content, ...], *, spacing: Sequence[float] | None) -> Encoded:
    if labels:
        return encode_nifti(images[0], labels[0], expected=len(LABELS))
    return encode_arrays(images, spacing=spacing or (1, 1, 1), expected=len(LABELS))


def make_converter(*, spacing: Sequence[float] | None = None) -> Converter:
    """The converter; ``spacing`` are voxel edges along x, y, z in mm, for repackaged files.

    Raises:
        UserError: The spacing is not three positive numbers.
    """
    check_spacing(spacing)
    return Converter(
        key="acdc",
        channels=("cineMRI",),
        labels=LABELS,
        file_ending=".nii.gz",
        discover=partial(discover, spacing=spacing),
        encode=partial(encode, spacing=spacing),
        splits={letter: _split(letter) for letter in "AB"},
        options={"spacing": spacing},
    )


CONVERTER = make_converter()
convert = CONVERTER.convert

if __name__ == "__main__":
    sys.exit(main("acdc"))
