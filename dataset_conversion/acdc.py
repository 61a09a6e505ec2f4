"""ACDC: cine MRI of the heart, with right ventricle, myocardium and left ventricle at end diastole and end systole.

Every patient has two labelled frames, so the five folds never divide a patient; nnU-Net's own random split would put
one frame of a patient into training and the other into validation. The patient's Info.cfg says which frames are
ED (end diastole) and ES (end systole). Patients under ``testing/`` become test cases.

Repackaged layout: SSL4MIS's HDF5 volumes ``patientXXX_frameYY.h5``, or its slices ``patientXXX_frameYY_slice_Z.h5``,
which are stacked into volumes again. Patients 101 to 150, or those in a folder such as ``ACDC_testing_volumes``, become
test cases here, too. These files hold rescaled intensities and no spacing: the spacing written is the
user's ``--spacing``, or else 1 mm with a note that it is unknown. Which frames are ED and ES cannot be checked.

Two 70/10/20 splits of the 100 training patients are in use, and results on one cannot be compared with results on the
other: ``A`` is used by TransUNet's and MT-UNet's successors, ``B`` by SSL4MIS.

Reference: Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and
Diagnosis: Is the Problem Solved?, IEEE TMI 37(11), 2018.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.command import main
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.folds import SplitRule, split_by_lists
from nnunet_attn.dataset_conversion.sources import Content, File, plain
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
    return split_by_lists(lambda case: case.name[:10], train=sorted(train), val=sorted(val), test=sorted(test))


_PATIENT = r"patient[\s_-]*0*(?P<patient>\d{1,3})"
_FRAME = _PATIENT + r"[\s_-]*frame[\s_-]*(?P<frame>\d{1,2})(?P<gt>[\s_-]*gt)?\.nii(\.gz)?"
_CONFIG = rf"({_PATIENT}[\s_-]*)?(info)?\.cfg"
_WHOLE = _PATIENT + r"[\s_-]*4d\.nii(\.gz)?"


@dataclass
class _Patient:
    """The files of one patient."""

    number: int
    place: str
    part: str
    config: File | None = None
    images: dict[int, File] = field(default_factory=dict)
    labels: dict[int, File] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"patient{self.number:03d}"


def discover(files: list[File], *, spacing: Sequence[float] | None) -> Found:
    """Two cases per patient."""
    h5 = [file for file in files if file.basename.lower().endswith((".h5", ".hdf5"))]
    patients, whole, configs = _patients(files)
    if not patients and not any(_own_patient(file)[0] for file in files):
        return _repackaged(h5, spacing)
    if spacing:
        raise UserError("SOURCE holds NIfTI volumes, whose spacing is known; leave out --spacing")
    cases: list[Case] = []
    missing: dict[str, Sequence[File]] = {}
    notes = [] if configs else ["no Info.cfg in SOURCE: which frames are ED and ES was not checked"]
    for patient in patients:
        cases += _cases(patient, missing, checked=bool(configs))
    return Found(
        "original: patient folders with NIfTI frames",
        cases,
        notes,
        kind="patient",
        missing=missing,
        used=configs,
        unneeded={"whole cine series": whole},
    )


def _own_patient(file: File) -> tuple[int | None, tuple[str, ...]]:
    """Number and path of the nearest patient folder above the file; if there is none, None and the file's folder.

    Some programs unpack each file into its own folder: ``patient001/patient001_frame01.nii/patient001_frame01.nii``.
    """
    for depth in range(len(file.folders), 0, -1):
        match = re.fullmatch(_PATIENT, file.folders[depth - 1], re.IGNORECASE)
        if match:
            return int(match["patient"]), file.folders[:depth]
    return None, file.folders


def _part(file: File, number: int) -> str:
    """Either "train" or "test": by the nearest folder so named, else by the number (test patients are 101 to 150).

    Folders are called ``testing``, or ``ACDC_testing_volumes`` in a repackaged copy.
    """
    for folder in reversed(file.folders):
        if match := re.fullmatch(r"(?:acdc)?(test|train)(?:ing)?(?:volume|slice)?", plain(folder)):
            return match[1]
    return "test" if number > 100 else "train"


def _patients(files: list[File]) -> tuple[list[_Patient], list[File], list[File]]:
    """The patients, the whole cine series (which are not needed), and the Info.cfg files."""
    found: dict[tuple, _Patient] = {}
    whole, configs = [], []
    for file in files:
        own, folder = _own_patient(file)
        frame, series = (re.fullmatch(p, file.basename, re.IGNORECASE) for p in (_FRAME, _WHOLE))
        is_config = re.fullmatch(_CONFIG, file.basename, re.IGNORECASE) is not None
        if own is None and frame is None:
            if series:
                whole.append(file)
            continue
        match = frame or series
        number = int(match["patient"]) if match else own or 0
        if own is not None and number != own:
            raise UserError(f"{file} lies in another patient's folder; rename it or move it")
        key = (file.container, folder, number)
        patient = found.setdefault(key, _Patient(number, file.place, _part(file, number)))
        if series:
            whole.append(file)
        elif is_config:
            patient.config = file
            configs.append(file)
        elif frame:
            _add(patient.labels if frame["gt"] else patient.images, int(frame["frame"]), file)
    places: dict[int, list[_Patient]] = {}
    for patient in found.values():
        places.setdefault(patient.number, []).append(patient)
    for same in places.values():
        if len(same) > 1:
            raise UserError(
                f"SOURCE holds {same[0]} more than once: {', '.join(patient.place for patient in same)}; "
                "keep one of them"
            )
    return sorted(found.values(), key=lambda patient: patient.number), whole, configs


def _add(frames: dict[int, File], number: int, file: File) -> None:
    if number in frames:
        compressed = {name.basename.lower().endswith(".gz") for name in (frames[number], file)}
        what = "is there both compressed and not" if len(compressed) == 2 else "is there twice"
        raise UserError(f"{file} {what} (see {frames[number]}); keep one of them")
    frames[number] = file


def _cases(patient: _Patient, missing: dict[str, Sequence[File]], *, checked: bool) -> list[Case]:
    """The labelled frames of a patient; what they lack is added to ``missing``."""
    if checked:
        if patient.config is None:
            files = [*patient.images.values(), *patient.labels.values()]
            missing[f"{patient.place}/Info.cfg is missing; it names the ED and ES frames"] = files
            return []
        phases = _phases(patient)
        reason = {frame: f"Info.cfg says frame {frame} is {phase}" for phase, frame in phases.items()}
    else:
        wanted = sorted(patient.labels.keys() | patient.images.keys())
        if len(wanted) != 2:
            missing[f"{patient.place} should hold two frames of {patient} with _gt, and holds {len(wanted)}"] = []
        reason = dict.fromkeys(wanted, "each frame has an image and a _gt")
    cases = []
    for frame, why in reason.items():
        name = f"{patient}_frame{frame:02d}"
        for kind, frames in (("", patient.images), ("_gt", patient.labels)):
            if frame not in frames:
                other = [f[frame] for f in (patient.images, patient.labels) if frame in f]
                missing[f"{patient.place}/{name}{kind}.nii.gz is missing; {why}"] = other
        if frame in patient.images and frame in patient.labels:
            cases.append(Case(name, (patient.images[frame],), (patient.labels[frame],), str(patient), patient.part))
    for frames in (patient.images, patient.labels):
        strange = [frames[number] for number in sorted(frames.keys() - reason.keys())]
        missing |= {f"{f} belongs to neither the ED nor the ES frame of {patient}": [f] for f in strange}
    return sorted(cases, key=lambda case: case.name)


def _phases(patient: _Patient) -> dict[str, int]:
    """Frame numbers of ED and ES from Info.cfg, whose lines read like ``ED: 1``."""
    assert patient.config is not None  # ``_cases`` looked
    text = patient.config.read().decode("utf-8", errors="replace")
    flags = re.MULTILINE | re.IGNORECASE
    phases = {phase: re.findall(rf"^\s*{phase}\s*[:=]\s*(\d+)\s*$", text, flags) for phase in ("ED", "ES")}
    for phase, frames in phases.items():
        if len(frames) != 1:
            raise UserError(f"{patient.config} should hold one line like '{phase}: 1', and holds {len(frames)}")
    if phases["ED"] == phases["ES"]:
        raise UserError(f"{patient.config} gives the same frame for ED and ES of {patient}")
    return {phase: int(frames[0]) for phase, frames in phases.items()}


def _repackaged(files: list[File], spacing: Sequence[float] | None) -> Found:
    volumes: dict[str, File] = {}
    slices: defaultdict[str, dict[int, File]] = defaultdict(dict)
    for file in files:
        match = re.fullmatch(r"(patient\d{3}_frame\d{2})(?:_slice_?(\d+))?\.h(?:df)?5", file.basename)
        if match is None:
            raise UserError(f"{file} has an unexpected name; files are like patient001_frame01.h5")
        name, index = match[1], match[2]
        same = volumes.get(name) if index is None else slices[name].get(int(index))
        if same is not None:
            raise UserError(f"{file} and {same} hold the same data; keep one of them")
        if index is None:
            volumes[name] = file
        else:
            slices[name][int(index)] = file
    for name, parts in slices.items():
        if missing := sorted(set(range(min(parts), max(parts) + 1)) - parts.keys()):
            raise UserError(f"{name}_slice_{missing[0]}.h5 is missing; a volume needs all of its slices")
    whole = {name: tuple(parts[i] for i in sorted(parts)) for name, parts in slices.items()}
    whole |= {name: (file,) for name, file in volumes.items()}
    notes = [f"spacing as given: {list(spacing)} mm" if spacing else "spacing unknown; 1 mm was written"]
    cases = [
        Case(name, contents, (), name[:10], _part(contents[0], int(name[7:10])))
        for name, contents in sorted(whole.items())
    ]
    extra = [file for name, parts in slices.items() if name in volumes for file in parts.values()]
    unneeded = {"slices of the same cases": extra}
    return Found("repackaged: HDF5 volumes or slices", cases, notes, kind="patient", unneeded=unneeded)


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
