"""Find out which file belongs to which case, by names; pair pictures with their masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from nnunet_attn.dataset_conversion.pictures import SUFFIX
from nnunet_attn.dataset_conversion.sources import File, plain
from nnunet_attn.errors import UserError

# names of folders, as returned by ``plain``
IMAGES = {"image", "img", "original", "orig", "originalimage", "picture", "frame", "photo", "data", "input"}
MASKS = {"mask", "groundtruth", "gt", "label", "annotation", "segmentation", "seg", "target", "output"}  # fmt: skip
RENUMBERED = (
    "this is a repackaged copy whose frames may be renumbered, so their sequences are unknown (if they "
    "have the original's numbers, {}, give --original-numbers)"
)
# folders of figures that show images and masks together, as returned by ``plain``
_DRAWN = {
    "annotatedimage",
    "overlay",
    "bbox",
    "boundingbox",
    "boundboxe",
    "boundingboxe",
    "contour",
    "edge",
    "boundarie",
}
_MARK = r"(mask|gt|label|seg|segmentation|groundtruth|ground_truth|annotation|anno)"


def index(files: Iterable[File], pattern: str, example: str, *, skip: str = r"(?!)") -> dict[str, File]:
    """Files by their id: the part of the name that matches the group ``id`` of ``pattern``, without leading zeros.

    Args:
        files: The files of one kind.
        pattern: Matches whole file names, ignoring case.
        example: A valid name, for messages.
        skip: Names to ignore.

    Raises:
        UserError: A file has another name, or two have the same id.
    """
    found: dict[str, File] = {}
    for file in files:
        if re.fullmatch(skip, file.basename, re.IGNORECASE):
            continue
        match = re.fullmatch(pattern, file.basename, re.IGNORECASE)
        if match is None:
            raise UserError(
                f"{file} has an unexpected name; names should look like {example}: rename it or take it out of SOURCE"
            )
        key = str(int(match["id"])) if match["id"].isdecimal() else match["id"]
        if key in found:
            raise UserError(f"{file} and {found[key]} both have the id {key}; keep one of them")
        found[key] = file
    return found


def pair(
    images: Mapping[str, File], labels: Mapping[str, File], missing: dict[str, Sequence[File]], kind: str = "mask"
) -> dict[str, tuple[File, File]]:
    """Image and label of each id that has both; for others, a line of text and the file are added to ``missing``."""
    counts = f"({len(images)} images, {len(labels)} {kind}s)"
    for have, lack, what in ((images, labels, kind), (labels, images, "image")):
        where = next(iter(lack.values())).place if lack else "SOURCE"
        for key in sorted(have.keys() - lack.keys()):
            missing[f"{have[key]} has no {what} in {where} {counts}"] = [have[key]]
    return {key: (images[key], labels[key]) for key in images if key in labels}


# folders of other datasets in the same download (such as PraNet's test sets), as returned by ``plain``
_DATASETS = {"cvc300", "cvcclinicdb", "cvccolondb", "etislaribpolypdb", "etis", "kvasir", "kvasirseg", "endoscene"}


def other_datasets(files: Iterable[File], own: set[str]) -> list[File]:
    """Files below folders that are named like other polyp datasets."""
    return [file for file in files if {plain(folder) for folder in file.folders[1:]} & (_DATASETS - own)]


def _stems(pairs: Mapping[str, tuple[File, File]]) -> set[str]:
    return {file.stem for pair in pairs.values() for file in pair}


def is_picture(file: File) -> bool:
    """Whether a file of this name is a picture."""
    return re.search(SUFFIX + "$", file.basename, re.IGNORECASE) is not None


def find_pairs(
    files: Sequence[File],
    missing: dict[str, Sequence[File]],
    ids: str,
    example: str,
    *,
    images: set[str] = IMAGES,
    masks: set[str] = MASKS,
    prefer: Sequence[str] = (),
) -> tuple[str, dict[str, tuple[File, File]], list[File]]:
    """Pair pictures and masks of the same names in two folders (side by side, or the only two of their kinds).

    Args:
        files: The source.
        missing: Receives a line for each picture without mask and each mask without picture.
        ids: Pattern of file names without suffix.
        example: A right file name, for messages.
        images: Names of folders of pictures, as returned by ``plain``.
        masks: Names of folders of masks.
        prefer: Patterns that choose between several pairs of folders: the first one that matches a pair's path decides.

    Returns:
        The folders, the pairs, and redundant pictures (from other pairs of folders, or figures).

    Raises:
        UserError: No pair of folders is found, or several, or a file has an unexpected name.
    """
    by_folder = defaultdict(list)
    for file in files:
        if is_picture(file):
            by_folder[file.container, file.folders].append(file)
    kinds = [[key for key in by_folder if plain(key[1][-1]) in names] for names in (images, masks)]
    pairs = [(one, other) for one in kinds[0] for other in kinds[1] if one[1][:-1] == other[1][:-1]]
    if not pairs and len(kinds[0]) == len(kinds[1]) == 1:
        pairs = [(kinds[0][0], kinds[1][0])]
    if not pairs:
        raise UserError(
            "SOURCE holds no pair of folders with pictures and masks; looked for folders like images/ with masks/, or "
            "Original/ with Ground Truth/"
        )
    ranked = []
    for one, other in pairs:
        path = "/".join(one[1])
        rank = next((i for i, p in enumerate(prefer) if re.search(p, path, re.IGNORECASE)), len(prefer))
        ranked.append((rank, path, one, other))
    best = [entry for entry in sorted(ranked, key=lambda e: e[:2]) if entry[0] == min(e[0] for e in ranked)]
    if len(best) > 1:
        places = ", ".join(by_folder[entry[2]][0].place for entry in best)
        raise UserError(f"SOURCE holds several pairs of folders: {places}; give the one you mean as SOURCE")

    def indexed(folders: tuple) -> tuple[dict[str, File], dict[str, File]]:
        mask = rf"({_MARK}[\s_-]*)?(?P<id>{ids})([\s_-]*{_MARK})?{SUFFIX}"
        return index(by_folder[folders[0]], rf"(?P<id>{ids}){SUFFIX}", example), index(
            by_folder[folders[1]], mask, example
        )

    chosen = best[0][2:]
    found = pair(*indexed(chosen), missing)
    again = [f for f in files if is_picture(f) and plain(f.folders[-1]) in _DRAWN and f.stem in _stems(found)]
    for _, _, one, other in ranked:
        if (one, other) != tuple(chosen) and all(ids.keys() <= found.keys() for ids in indexed((one, other))):
            again += by_folder[one] + by_folder[other]
    shown = (by_folder[folder][0].parent for folder in chosen)
    return "{}/ with {}/".format(*shown), found, again
