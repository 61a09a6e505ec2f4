"""Which file belongs to which case: names taken apart, pictures paired with their masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from nnunet_attn.dataset_conversion.pictures import SUFFIX
from nnunet_attn.dataset_conversion.sources import File
from nnunet_attn.errors import UserError


def index(files: Iterable[File], pattern: str, example: str, *, skip: str = r"(?!)") -> dict[str, File]:
    """Files by the part of their name that the group ``id`` of ``pattern`` finds; leading zeros of a number are cut.

    Args:
        files: The files of one kind.
        pattern: Of a whole file name, in any case of letters.
        example: A right name, for messages.
        skip: Names to pass over.

    Raises:
        UserError: A file has another name, or two have the same id.
    """
    found = {}
    for file in files:
        if re.fullmatch(skip, file.basename, re.IGNORECASE):
            continue
        match = re.fullmatch(pattern, file.basename, re.IGNORECASE)
        if match is None:
            raise UserError(f"{file} has an unexpected name; names here are like {example}: rename it or take it out")
        key = str(int(match["id"])) if match["id"].isdecimal() else match["id"]
        if key in found:
            raise UserError(f"{file} and {found[key]} are both {key}; keep one of them")
        found[key] = file
    return found


def pair(images: Mapping[str, File], labels: Mapping[str, File], kind: str = "mask") -> dict[str, tuple[File, File]]:
    """Image and label of each id.

    Raises:
        UserError: An image has no label, or a label no image.
    """
    for key in sorted(images.keys() - labels.keys()):
        where = next(iter(labels.values())).place if labels else "SOURCE"
        raise UserError(f"{images[key]} has no {kind} in {where} ({len(images)} images, {len(labels)} {kind}s)")
    for key in sorted(labels.keys() - images.keys()):
        where = next(iter(images.values())).place if images else "SOURCE"
        raise UserError(f"{labels[key]} has no image in {where} ({len(images)} images, {len(labels)} {kind}s)")
    return {key: (images[key], labels[key]) for key in images}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def find_pairs(
    files: Sequence[File], folders: Sequence[tuple[str, str]], ids: str, example: str, prefer: Sequence[str] = ()
) -> tuple[str, dict[str, tuple[File, File]]]:
    """Pictures and masks of the same names in two folders side by side.

    Args:
        files: The source.
        folders: Names of such pairs of folders; case, spaces, - and _ do not matter.
        ids: Pattern of file names without suffix.
        example: A right file name, for messages.
        prefer: Patterns; of several pairs of folders, the one whose path the earliest of them finds is taken.

    Raises:
        UserError: No pair or too many are found, or files do not pair.
    """
    by_folder = defaultdict(list)
    for file in files:
        if re.search(SUFFIX + "$", file.basename, re.IGNORECASE):
            by_folder[file.parent].append(file)
    candidates = []
    for one in by_folder:
        for other in by_folder:
            names = (_plain(PurePosixPath(one).name), _plain(PurePosixPath(other).name))
            side_by_side = one != other and PurePosixPath(one).parent == PurePosixPath(other).parent
            if side_by_side and names in [(_plain(a), _plain(b)) for a, b in folders]:
                rank = next((i for i, p in enumerate(prefer) if re.search(p, one, re.IGNORECASE)), len(prefer))
                candidates.append((rank, one, other))
    looked_for = ", ".join(f"{a}/ with {b}/" for a, b in folders)
    if not candidates:
        raise UserError(f"SOURCE holds no pair of folders with pictures and masks; looked for {looked_for}")
    best = [c for c in sorted(candidates) if c[0] == min(candidates)[0]]
    if len(best) > 1:
        raise UserError(
            f"SOURCE holds several pairs of folders: {', '.join(c[1] for c in best)}; give the one you mean as SOURCE"
        )
    _, image_folder, mask_folder = best[0]
    images, masks = (
        index(by_folder[folder], rf"(?P<id>{ids}){SUFFIX}", example) for folder in (image_folder, mask_folder)
    )
    return f"{image_folder}/ with {mask_folder}/", pair(images, masks)
