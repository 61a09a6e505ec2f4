"""Work on one case, in a worker process: convert it, or compare it with the manifest."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_attn.dataset_conversion.cases import Case, Encoded
from nnunet_attn.dataset_conversion.sources import Content
from nnunet_attn.dataset_conversion.volumes import check_geometry


def write_bytes(path: Path, data: bytes) -> None:
    """All image and label files are written here."""
    path.write_bytes(data)


@dataclass(frozen=True)
class Result:
    """The files written for a case, and what to report about it.

    Attributes:
        case: The case.
        record: Entry of the manifest: checksums of the files read and written, and facts.
        image: Path of the first channel's image file, relative to the dataset's folder.
        label: Path of the label file, likewise; None if there is none.
        shape: Shape of the image.
        pixels: How many pixels have each label value.
        notes: Remarks for the user, each with a count.
        facts: See ``Encoded``.
    """

    case: Case
    record: dict[str, Any]
    image: str
    label: str | None
    shape: tuple[int, ...]
    pixels: Mapping[int, int]
    notes: Counter[str]
    facts: Mapping[str, float | str]


def convert_case(
    encode: Callable[..., Encoded],
    resize: Callable[[Encoded, str], Encoded] | None,
    file_ending: str,
    folder: Path,
    case: Case,
) -> Result:
    """Convert one case into ``folder``; ``resize`` brings it to an input size, after image and label were compared."""
    images, labels = (tuple(Content(str(f), f.read()) for f in files) for files in (case.image, case.label))
    encoded = encode(images, labels)
    outputs = _write(folder, case, file_ending, encoded)
    image = next(iter(outputs))
    label = f"labels{_part(case)}/{case.name}{file_ending}" if encoded.label is not None else None
    if file_ending == ".nii.gz":
        shown = [*(str(file) for file in case.image[: len(encoded.images)]), str((case.label or case.image)[0])]
        for other, name in list(zip(outputs, shown, strict=False))[1:]:
            check_geometry(folder / image, folder / other, (shown[0], name))
    if resize is not None:
        encoded = resize(encoded, str(case.image[0]))
        outputs = _write(folder, case, file_ending, encoded)
    contents = zip(case.image + case.label, images + labels, strict=True)
    record = {
        "inputs": [[file.name, hashlib.sha256(content.data).hexdigest()] for file, content in contents],
        "outputs": {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()},
        **encoded.recorded,
    }
    if grey := encoded.facts.get("grey"):
        record["grey"] = grey
    return Result(case, record, image, label, encoded.shape, encoded.pixels, encoded.notes, encoded.facts)


def _part(case: Case) -> str:
    return "Ts" if case.part == "test" else "Tr"


def _write(folder: Path, case: Case, file_ending: str, encoded: Encoded) -> dict[str, bytes]:
    """Write the files of a case and return them by path."""
    part = _part(case)
    outputs = {f"images{part}/{case.name}_{i:04d}{file_ending}": data for i, data in enumerate(encoded.images)}
    if encoded.label is not None:
        outputs[f"labels{part}/{case.name}{file_ending}"] = encoded.label
    if encoded.original_label is not None:
        outputs[f"labels{part}_original/{case.name}{file_ending}"] = encoded.original_label
    for name, data in outputs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_bytes(folder / name, data)
    return outputs


def verify_case(folder: Path, manifest: Mapping[str, dict], case: Case) -> list[str]:
    """Differences of one case from the manifest. Paths in the source may differ (archive or unpacked folder)."""
    recorded, files = manifest[case.name], case.image + case.label
    if len(files) != len(recorded["inputs"]):
        return [f"{case.name} has {len(files)} files in SOURCE and had {len(recorded['inputs'])}"]
    pairs = zip(files, recorded["inputs"], strict=True)
    problems = [f"{f} has changed" for f, (_, then) in pairs if hashlib.sha256(f.read()).hexdigest() != then]
    for name, then in recorded["outputs"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != then:
            problems.append(f"{path} has changed")
    return problems
