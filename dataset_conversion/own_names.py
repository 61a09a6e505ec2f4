"""Files of the user's own data: chosen by patterns, paired by name, and given names that nnU-Net accepts.

An image and its mask share a name apart from a prefix or suffix that all images, or all masks, have in common:
``img_7.jpg`` and ``mask_7.png``, ``7.jpg`` and ``7_segmentation.png``. Prefixes and suffixes are cut off in whole words
or numbers, and only as many as needed to pair the files. Where that does not do, and each folder holds one image and
one mask, the folder pairs them: ``case_7/imaging.nii.gz`` and ``case_7/segmentation.nii.gz``.
"""

import fnmatch
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from nnunet_attn.dataset_conversion.cases import some
from nnunet_attn.dataset_conversion.sources import File
from nnunet_attn.errors import UserError

_MOST_CUT = 6  # words that may be cut from either end
_BY_FOLDER = 1000  # cost of names that are left out, above that of any words cut
_MAGIC = re.compile(r"[*?\[]")


def split_pattern(given: str) -> tuple[Path, str]:
    """The folder or archive of an argument, and the pattern below it; the pattern is empty where there is none."""
    path = Path(given)
    if path.exists() or not _MAGIC.search(given):
        return path, ""
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return Path(*parts[:first]), "/".join(parts[first:])


def matches(file: File, pattern: str) -> bool:
    """Whether a file's path (or its name, if the pattern has no folder) matches, ignoring case.

    ``**`` stands for any folders.
    """
    if not pattern:
        return True
    text = file.name if "/" in pattern else file.basename
    pattern = pattern.replace("**/", "*")
    return fnmatch.fnmatchcase(text.casefold(), pattern.casefold())


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W\d_]+|\d+|[\W_]", unicodedata.normalize("NFC", text).casefold()))


def _common(names: Sequence[tuple[str, ...]]) -> int:
    """Number of leading words that all names share; at least one word of each name is left."""
    shortest = min(map(len, names)) - 1
    return next((i for i in range(shortest) if len({name[i] for name in names}) > 1), max(shortest, 0))


def _cuts(names: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Numbers of words that may be cut from the beginning and end of all names, smallest first."""
    if len(names) == 1:  # a single name shares all its words with itself: any cut that leaves a word
        front = back = len(names[0]) - 1
    else:
        front, back = _common(names), _common([name[::-1] for name in names])
    shortest = min(map(len, names))
    pairs = itertools.product(range(min(front, _MOST_CUT) + 1), range(min(back, _MOST_CUT) + 1))
    return sorted((pair for pair in pairs if sum(pair) < shortest), key=lambda pair: (sum(pair), pair))


def _keys(files: Sequence[File]) -> Iterator[tuple[int, dict[str, File]]]:
    """Possible ways to shorten the names, with the number of words cut; only ways that keep all names different."""
    stems = [_words(file.stem) for file in files]
    folders = [file.parent.casefold() for file in files]
    for cost, (front, back) in enumerate(_cuts(stems)):
        short = [words[front : len(words) - back] for words in stems]
        while any(words and not words[0].strip("_-. ") for words in short) and all(short):
            short = [words[1:] if not words[0].strip("_-. ") else words for words in short]
        while any(words and not words[-1].strip("_-. ") for words in short) and all(short):
            short = [words[:-1] if not words[-1].strip("_-. ") else words for words in short]
        if not all(short):
            continue
        texts = ["".join(words) for words in short]
        for more, names in enumerate((
            texts,
            [f"{folder}/{text}" for folder, text in zip(folders, texts, strict=True)],
            ["".join(w.lstrip("0") or "0" if w.isdigit() else w for w in words) for words in short],
        )):  # fmt: skip
            if len(set(names)) == len(names):
                yield 3 * cost + more, dict(zip(names, files, strict=True))
    if len(set(folders)) == len(files) and "." not in folders:  # case_0/imaging.nii.gz, case_0/segmentation.nii.gz
        yield _BY_FOLDER, dict(zip(folders, files, strict=True))


def pair_by_name(
    images: Sequence[File], masks: Sequence[File], missing: dict[str, Sequence[File]], kind: str
) -> dict[File, File]:
    """The mask of each image; one line for each file without a partner is added to ``missing``.

    Raises:
        UserError: Names do not pair, or pair in two ways.
    """
    ways = [list(_keys(images)), list(_keys(masks))]
    combinations = sorted(
        ((a + b, i, j) for i, (a, _) in enumerate(ways[0]) for j, (b, _) in enumerate(ways[1])), key=lambda way: way[0]
    )
    found: dict[File, File] = {}
    complete = None
    for cost, i, j in combinations:
        if complete is not None and cost > complete:
            break
        by_image, by_mask = ways[0][i][1], ways[1][j][1]
        if not any(key in by_mask for key in itertools.islice(by_image, 20)):
            continue
        common = by_image.keys() & by_mask.keys()
        pairs = {by_image[key]: by_mask[key] for key in sorted(common)}
        if complete is not None and len(pairs) == len(found) and pairs != found:
            one = next(image for image in found if found[image] != pairs[image])
            raise UserError(f"{one} may belong to {found[one]} and to {pairs[one]}: rename the {kind}s")
        if len(pairs) > len(found):
            found = pairs
        if len(found) == len(images) == len(masks):
            complete = cost
    if 2 * len(found) <= min(len(images), len(masks)):
        raise UserError(
            f"images and {kind}s do not pair by name: {len(images)} images such as {images[0]}, {len(masks)} {kind}s "
            f"such as {masks[0]}"
        )
    counts = f"({len(images)} images, {len(masks)} {kind}s)"
    missing |= {f"{file} has no {kind} {counts}": [file] for file in images if file not in found}
    taken = set(found.values())
    missing |= {f"{file} has no image {counts}": [file] for file in masks if file not in taken}
    return found


def case_names(files: Sequence[File]) -> list[str]:
    """Names for nnU-Net, of letters, digits, ``_``, ``-`` and ``.`` only; with folder names if those tell files apart.

    Raises:
        UserError: Two files would have the same name.
    """
    stems = [file.stem for file in files]
    if len({_safe(stem) for stem in stems}) < len(files):
        stems = [str(PurePosixPath(file.parent) / file.stem) for file in files]
    names = [_safe(stem) for stem in stems]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        both = [str(file) for file, name in zip(files, names, strict=True) if name == twice[0]]
        raise UserError(f"{some(both)} would all be called {twice[0]}; rename them")
    return names


def _safe(text: str) -> str:
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() if not text.isascii() else text
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.") or "case"


def parse_labels(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``name=value`` or ``name=value,value`` in order, background first.

    Raises:
        UserError: A part has another form, or a name or value comes twice.
    """
    labels: dict[str, tuple[str, ...]] = {}
    for part in given:
        name, equals, values = part.partition("=")
        if not equals or not name or not values or name in labels:
            raise UserError(f"--labels and --colours take entries like polyp=1, each name once; got {part!r}")
        labels[name] = tuple(values.split(","))
    if list(labels).index("background") if "background" in labels else 0:
        labels = {"background": labels.pop("background")} | labels
    if "ignore" in labels:  # nnU-Net expects it to be the last
        labels["ignore"] = labels.pop("ignore")
    return labels


def value_lookup(labels: dict[str, tuple[str, ...]]) -> dict[int, int]:
    """The new value of each value in the source; background is 0 unless it is named.

    Raises:
        UserError: A value is not a whole number from 0 to 65535, or belongs to two labels.
    """
    lookup: dict[int, int] = {}
    names = ["background", *(name for name in labels if name != "background")]
    for new, name in enumerate(names):
        for text in labels.get(name, ("0",)):
            if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
                raise UserError(f"--labels: {text!r} of {name} is not a whole number from 0 to 65535")
            if int(text) in lookup:
                raise UserError(f"--labels: the value {text} belongs to {names[lookup[int(text)]]} and to {name}")
            lookup[int(text)] = new
    return lookup
