"""Read YAML and check what it holds; errors are one line that names the file and the line number."""

import os
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from nnunet_attn.errors import UserError

Place = tuple[str | int, ...]  # keys and positions from the top of the file


class Document:
    """A YAML file: its values, and the line of each.

    Attributes:
        file: The file.
        content: Its mappings, lists, text and numbers.

    Raises:
        UserError: the file cannot be read, is not YAML, or has a key twice.
    """

    def __init__(self, file: Path):
        self.file = Path(file)
        self._lines: dict[Place, int] = {}
        try:
            loader = yaml.SafeLoader(self.file.read_text(encoding="utf-8"))
            node = loader.get_single_node()
            self.content = None if node is None else self._read(loader, node, ())
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self.file} is not a text file ({error.reason})") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UserError(f"{self.file}:{line}: {' '.join(str(error.problem).split())}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{self.file}: {' '.join(str(error).split())}") from error

    def _read(self, loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> object:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(loader, child, (*place, i)) for i, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            decimal = node.tag == "tag:yaml.org,2002:int" and node.value.isdecimal()
            return int(node.value) if decimal else loader.construct_object(node)  # YAML 1.1 reads 027 as octal, 23
        content: dict[object, object] = {}
        for key_node, child in node.value:
            key = loader.construct_object(key_node)
            inner = (*place, key)
            if inner in self._lines:
                raise UserError(f"{self.file}:{key_node.start_mark.line + 1}: {key} occurs twice")
            self._lines[inner] = key_node.start_mark.line + 1
            content[key] = self._read(loader, child, inner)
        return content

    def error(self, place: Iterable[str | int], message: str) -> UserError:
        """The error to raise about the entry at ``place``, or the nearest entry above it that has a line."""
        place = tuple(place)
        while place and place not in self._lines:
            place = place[:-1]
        return UserError(f"{self.file}:{self._lines.get(place, 1)}: {message}")


class Reader:
    """Reads one mapping of the file, and raises an error for any unexpected content."""

    def __init__(self, document: Document, content: Any, place: Place, keys: Collection[str]):
        self.document, self.place = document, place
        if not isinstance(content, dict):
            raise self.error((), f"expected the keys {', '.join(keys)}, got {shown(content)}")
        self.content = content
        for key in content:
            if key not in keys:
                near = get_close_matches(str(key), keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(keys)}"
                raise self.error((key,), f"unknown key {key}; {hint}")

    def error(self, place: Sequence[str | int], message: str) -> UserError:
        return self.document.error((*self.place, *place), message)

    def get(self, key: str, kind: type | tuple[type, ...], what: str, default: object = None) -> Any:
        """The value of a key, which must be of type ``kind``; ``default`` if the key is missing."""
        value = self.content.get(key, default)
        if value is None and key not in self.content:
            return None
        wrong_bool = isinstance(value, bool) and kind is not bool
        if wrong_bool or not isinstance(value, kind):
            raise self.error((key,), f"{key} must be {what}, got {shown(value)}")
        return value

    def count(self, key: str, default: int, least: int = 1) -> int:
        """A whole number."""
        value = self.get(key, int, f"a whole number from {least}", default)
        if value < least:
            raise self.error((key,), f"{key} must be a whole number from {least}, got {value}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self.get(key, str, " or ".join(choices), default)
        if value not in choices:
            raise self.error((key,), f"{key} must be {' or '.join(choices)}, got {shown(value)}")
        return value

    def numbers(self, key: str, kind: Any, what: str) -> tuple | None:
        values: list[Any] | None = self.get(key, list, what)
        if values is None:
            return None
        if not values or not all(isinstance(v, kind) and not isinstance(v, bool) and float(v) > 0 for v in values):
            raise self.error((key,), f"{key} must be {what}, got {shown(values)}")
        return tuple(values)

    def located(self, text: str) -> Path:
        """A path, relative to the study file, with ``$VARIABLES`` of the environment."""
        path = Path(os.path.expandvars(text)).expanduser()
        return path if text.startswith("$") else (self.document.file.parent / path).resolve()

    def path(self, key: str) -> Path | None:
        """The path at a key; it need not exist."""
        value = self.get(key, str, "a path")
        return None if value is None else self.located(value)


def shown(value: object) -> str:
    """A value as messages show it."""
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)
