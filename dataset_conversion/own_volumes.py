"""Any 3D dataset: volumes of one or several channels and label maps that pair by name, as NIfTI, NRRD or MHA.

NIfTI images keep their bytes; NRRD and MHA are written as NIfTI with the geometry that SimpleITK reads. Image and label
map must have the same geometry. A label map whose header differs slightly can be resampled to the image's grid with
``--resample-mask`` (nearest neighbour).
"""

import itertools
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_attn.dataset_conversion.cases import Case, Encoded, Found
from nnunet_attn.dataset_conversion.catalog import OWN_VOLUMES
from nnunet_attn.dataset_conversion.converter import Converter
from nnunet_attn.dataset_conversion.own_names import case_names, matches, pair_by_name, parse_labels, value_lookup
from nnunet_attn.dataset_conversion.own_pictures import choose, left_over
from nnunet_attn.dataset_conversion.sources import Content, File
from nnunet_attn.dataset_conversion.volumes import check_geometry, compressed, encoded, label_file, read_nifti
from nnunet_attn.errors import UserError

SUFFIX = re.compile(r"\.(nii|nii\.gz|nrrd|mha)$", re.IGNORECASE)
SLIGHT = 2.0  # up to this displacement, in voxels, the message suggests --resample-mask
MOST_LOST = 0.2  # share of the foreground's volume that resampling may change


def is_volume(file: File) -> bool:
    """Whether a file of this name holds a whole volume."""
    return SUFFIX.search(file.basename) is not None


def _channel_patterns(channels: Sequence[str]) -> dict[str, str]:
    """Name and file pattern of each channel; several names without patterns stand for nnU-Net's suffixes.

    Raises:
        UserError: A name comes twice, or only some have patterns.
    """
    parts = [part.partition("=") for part in channels]
    if len({name for name, _, _ in parts}) < len(parts) or not all(name for name, _, _ in parts):
        raise UserError(f"--channels takes names, each once, or entries like T1=*_t1.nii.gz; got {' '.join(channels)}")
    if len({bool(equals) for _, equals, _ in parts}) > 1:
        raise UserError(
            "--channels: give a pattern for each channel (T1=*_t1.nii.gz T2=*_t2.nii.gz), or for none of them"
        )
    if parts[0][1]:
        return {name: pattern for name, _, pattern in parts}
    if len(parts) == 1:
        return {parts[0][0]: ""}
    return {name: f"*_{i:04d}.*" for i, (name, _, _) in enumerate(parts)}


def discover(files: list[File], *, patterns: Sequence[str], test: int, channels: Sequence[str]) -> Found:
    """Pair images with label maps (the first two paths), then test images with their label maps."""
    for file in files:
        if re.search(r"\.(mhd|nhdr|hdr|img|raw|dcm|ima)$", file.basename, re.IGNORECASE):
            raise UserError(
                f"{file} is DICOM or one of a pair of files; convert volumes to single files first (.nii.gz, .nrrd or "
                ".mha; dcm2niix does it for DICOM)"
            )
    chosen = choose(files, patterns, is_volume)
    by_channel = _channel_patterns(channels)
    cases: list[Case] = []
    missing: dict[str, Sequence[File]] = {}
    used: list[list[File]] = [[] for _ in patterns]
    for part, first in (("train", 0), ("test", 2)):
        if part == "test" and not test:
            break
        images = [[file for file in chosen[first] if matches(file, pattern)] for pattern in by_channel.values()]
        used[first] = [file for channel in images for file in channel]
        for (name, pattern), found in zip(by_channel.items(), images, strict=True):
            if not found:
                where = f" that fit {pattern}, for the channel {name}" if pattern else ""
                raise UserError(f"there are no .nii, .nii.gz, .nrrd or .mha volumes{where} among the {part} images")
        for one, other in itertools.combinations(images, 2):
            if both := set(one) & set(other):
                raise UserError(
                    f"{min(both, key=str)} matches the patterns of two channels; make the patterns narrower"
                )
        others = [pair_by_name(images[0], channel, missing, "further channel") for channel in images[1:]]
        labels: Mapping[File, File] = {}
        if first + 1 < len(patterns):
            used[first + 1] = chosen[first + 1]
            if not chosen[first + 1]:
                raise UserError(f"there are no .nii, .nii.gz, .nrrd or .mha volumes among the {part} labels")
            labels = pair_by_name(images[0], chosen[first + 1], missing, "label map")
        whole = [
            file
            for file in images[0]
            if all(file in other for other in others) and (file in labels or first + 1 >= len(patterns))
        ]
        for file in (file for file in images[0] if file not in whole):
            rest = [*(other[file] for other in others if file in other), *([labels[file]] if file in labels else [])]
            if rest:
                missing[f"the other files of {file}"] = rest
        for name, file in zip(_names(whole, by_channel), whole, strict=True):
            label = (labels[file],) if file in labels else ()
            cases.append(Case(name, (file, *(other[file] for other in others)), label, name, part))
    return Found(
        "volumes and label maps that pair by name",
        cases,
        channels=tuple(by_channel),
        missing=missing,
        unneeded={"not chosen by the patterns": left_over(files, patterns, used)},
    )


def _names(files: Sequence[File], by_channel: Mapping[str, str]) -> list[str]:
    """File names without the end of their channel's pattern, or without nnU-Net's ``_0000`` if all have it."""
    names, pattern = case_names(files), next(iter(by_channel.values()))
    end = re.escape(SUFFIX.sub("", pattern.removesuffix(".*")).rpartition("*")[2].removesuffix("."))
    if not pattern and all(name.endswith("_0000") for name in names):
        end = "_0000"
    short = [re.sub(r"^[_-]+|[_-]+$", "", re.sub(f"{end}$", "", name, flags=re.IGNORECASE)) for name in names]
    return short if len(set(short)) == len(files) and all(short) else names


def _as_nifti(content: Content) -> Content:
    """The bytes of a NIfTI file unchanged, and those of NRRD and MHA converted to NIfTI.

    Raises:
        UserError: The file is truncated, damaged, or not a volume.
    """
    if content.data.startswith(b"NRRD"):
        header, *voxels = re.split(rb"\r?\n\r?\n", content.data, maxsplit=1)
        if re.search(rb"^data ?file:", header, re.IGNORECASE | re.MULTILINE):
            raise UserError(f"{content} is a header whose voxels are in another file; write the volume as one file")
        if re.search(rb"^encoding:\s*(gz|gzip)\s*$", header, re.IGNORECASE | re.MULTILINE):
            _check_compressed(content, b"".join(voxels), zlib.MAX_WBITS | 16)
        return _through_itk(content, ".nrrd")
    if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", content.data):
        _check_mha(content)
        return _through_itk(content, ".mha")
    return content


def _check_mha(content: Content) -> None:
    """Check an .mha file, since ITK reads a damaged one without an error."""
    match = re.search(rb"ElementDataFile\s*=\s*(\S+)\r?\n", content.data)
    if match is None or match[1] != b"LOCAL":
        raise UserError(
            f"{content} is a header whose voxels are in another file, or is truncated; write the volume as one file"
        )
    facts = dict(re.findall(rb"^(\w+)\s*=\s*([^\r\n]*)", content.data[: match.end()], re.MULTILINE))
    sizes = {b"CHAR": 1, b"UCHAR": 1, b"SHORT": 2, b"USHORT": 2, b"INT": 4, b"UINT": 4, b"FLOAT": 4, b"DOUBLE": 8,
             b"LONG": 8, b"ULONG": 8, b"LONG_LONG": 8, b"ULONG_LONG": 8}  # fmt: skip
    try:
        expected = sizes[facts[b"ElementType"].strip().removeprefix(b"MET_")]
        for edge in facts[b"DimSize"].split():
            expected *= int(edge)
    except (KeyError, ValueError) as error:
        raise UserError(f"{content} is truncated or damaged ({error}); write it again") from error
    voxels = content.data[match.end() :]
    if facts.get(b"CompressedData", b"").strip().lower() == b"true":
        _check_compressed(content, voxels, zlib.MAX_WBITS)
    elif len(voxels) < expected:
        raise UserError(f"{content} is truncated or damaged ({len(voxels)} of {expected} bytes); write it again")


def _check_compressed(content: Content, stream: bytes, wbits: int) -> None:
    """Decompress with zlib, which checks end and checksum; ITK reads a damaged stream without an error."""
    try:
        reader = zlib.decompressobj(wbits)
        while stream and not reader.eof:
            reader.decompress(stream, 1 << 24)
            stream = reader.unconsumed_tail
        if not reader.eof:
            raise EOFError("the compressed voxels end too early")
    except (EOFError, zlib.error) as error:
        raise UserError(f"{content} is truncated or damaged ({error}); write it again") from error


def _through_itk(content: Content, suffix: str) -> Content:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as scratch:
        path, new = Path(scratch, f"volume{suffix}"), Path(scratch, "volume.nii")
        path.write_bytes(content.data)
        try:
            sitk.WriteImage(sitk.ReadImage(str(path)), str(new))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip().replace(str(path), content.shown)
            raise UserError(f"{content} is truncated or damaged ({reason}); write it again") from error
        return Content(content.shown, new.read_bytes())


def encode(
    images: tuple[Content, ...], labels: tuple[Content, ...], *, lookup: Mapping[int, int] | None, resample: bool
) -> Encoded:
    """Channels and label map of a case as .nii.gz."""
    volumes = [_as_nifti(content) for content in images]
    arrays = [read_nifti(content).array for content in volumes]
    for content, array in zip(volumes, arrays, strict=True):
        if array.shape != arrays[0].shape:
            raise UserError(f"{content} has shape {array.shape}, {volumes[0]} has {arrays[0].shape}")
    written = [compressed(content.data) for content in volumes]
    if not labels:
        return Encoded(tuple(written), None, arrays[0].shape)
    label = _as_nifti(labels[0])
    notes: Counter[str] = Counter()
    if resample:
        label, moved = _resampled(volumes[0], label)
        notes += Counter({"label maps resampled to the grid of their image": int(moved)})
    mask = read_nifti(label)
    if mask.array.shape != arrays[0].shape:
        raise UserError(
            f"{label} has shape {mask.array.shape}, its image {volumes[0]} has {arrays[0].shape}; if they show the "
            "same place, give --resample-mask"
        )
    values = _new_values(mask.array, label, lookup)
    data = label_file(mask.header, values)
    _compare_places(written[0], data, volumes[0], label)
    result = encoded(written, data, values)
    return Encoded(result.images, result.label, result.shape, result.pixels, result.notes + notes)


def _new_values(array: np.ndarray, label: Content, lookup: Mapping[int, int] | None) -> np.ndarray:
    values = np.unique(array)
    if (values != np.floor(values)).any() or values[0] < 0 or values[-1] > (255 if lookup is None else 65535):
        wrong = next(v for v in values if v != np.floor(v) or v < 0 or v > 255)
        raise UserError(f"{label} holds the label value {wrong:g}; expected whole numbers from 0 to 255")
    if lookup is None:
        return array.astype(np.uint8)
    if unknown := sorted({int(v) for v in values} - lookup.keys()):
        raise UserError(f"{label} holds the values {unknown[:10]}, and --labels names {sorted(lookup)}")
    table = np.zeros(1 << 16, np.uint8)
    for value, new in lookup.items():
        table[value] = new
    return table[array.astype(np.uint16)]


def _compare_places(image: bytes, label: bytes, shown: Content, shown_label: Content) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        paths = Path(scratch, "image.nii.gz"), Path(scratch, "label.nii.gz")
        for path, data in zip(paths, (image, label), strict=True):
            path.write_bytes(data)
        try:
            check_geometry(*paths, (str(shown), str(shown_label)))
        except UserError as error:
            raise UserError(f"{error}; if only the header is wrong, give --resample-mask") from error


def _resampled(image: Content, label: Content) -> tuple[Content, bool]:
    """The label map resampled to the image's grid (nearest neighbour), and whether any voxel changed.

    Raises:
        UserError: Much of the foreground would be lost: the two do not show the same region.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as scratch:
        volumes = []
        for name, content in (("image", image), ("label", label)):
            read_nifti(content)  # raises unless it is complete and holds numbers
            path = Path(scratch, f"{name}.nii.gz" if content.data.startswith(b"\x1f\x8b") else f"{name}.nii")
            path.write_bytes(content.data)
            try:
                volumes.append(sitk.ReadImage(str(path)))
            except RuntimeError as error:
                raise UserError(f"{content} cannot be read by SimpleITK") from error
        grid, old = volumes
        new = sitk.Resample(old, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        before, after = (
            float((sitk.GetArrayViewFromImage(v) > 0).sum()) * float(np.prod(v.GetSpacing())) for v in (old, new)
        )
        if abs(before - after) > MOST_LOST * before:
            raise UserError(
                f"{label} and its image {image} do not show the same region: of {before:.0f} mm3 of foreground, "
                f"{after:.0f} would be left on the image's grid"
            )
        path = Path(scratch, "new.nii")
        sitk.WriteImage(new, str(path))
        same = old.GetSize() == new.GetSize() and np.allclose(
            [*old.GetOrigin(), *old.GetSpacing(), *old.GetDirection()],
            [*new.GetOrigin(), *new.GetSpacing(), *new.GetDirection()],
        )
        return Content(label.shown, path.read_bytes()), not same


def name_labels(values: set[int]) -> dict[str, int]:
    """Names for labels if the user gave none: nnU-Net expects the values 1, 2, ...

    Raises:
        UserError: The values are not consecutive.
    """
    highest = max(values, default=0)
    if absent := sorted(set(range(1, highest + 1)) - values):
        raise UserError(
            f"the label maps hold the values {sorted(values | {0})}, without {absent[:5]}: nnU-Net expects consecutive "
            "ones; give --labels with a name for each, such as liver=2 tumour=4"
        )
    if not highest:
        raise UserError("all label maps are empty; are these the right files?")
    return {"background": 0} | {f"label{value}": value for value in range(1, highest + 1)}


def make_converter(
    *,
    patterns: Sequence[str] = ("", ""),
    test: int = 0,
    labels: Sequence[str] = (),
    channels: Sequence[str] = ("image",),
    resample_mask: bool = False,
) -> Converter:
    """The converter for volumes and label maps of the user's own.

    Args:
        patterns: One for each path: images, label maps, test images, test label maps.
        test: How many of the paths are for testing.
        labels: ``name=value``; if not given, labels are named after the values that occur.
        channels: Names, or ``name=pattern`` for each channel.
        resample_mask: Resample label maps to the grids of their images.

    Raises:
        UserError: The arguments do not fit together.
    """
    named = parse_labels(labels)
    return Converter(
        key="volumes",
        channels=tuple(_channel_patterns(channels)),
        labels=tuple(name for name in named if name != "background"),
        file_ending=".nii.gz",
        discover=partial(discover, patterns=tuple(patterns), test=test, channels=tuple(channels)),
        encode=partial(encode, lookup=value_lookup(named) if labels else None, resample=resample_mask),
        options={
            "patterns": list(patterns),
            "test": test,
            "labels": list(labels),
            "channels": list(channels),
            "resample_mask": resample_mask,
        },
        about=OWN_VOLUMES,
        name_labels=None if labels else name_labels,
    )
