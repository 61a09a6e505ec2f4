"""YAML with the line of every key and value, so that an error can point at it."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from nnunet_attn.errors import UserError

Place = tuple[str | int, ...]  # keys and positions from the top of the file


class Document:
    """A YAML file: plain values, and where each stands.

    Attributes:
        file: The file.
        content: Its mappings, lists, text and numbers.

    Raises:
        UserError: the file cannot be read, is no YAML, or has a key twice.
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
            raise UserError(f"{self.file} is no text file ({error.reason})") from error
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
            return int(node.value) if decimal else loader.construct_object(node)  # YAML 1.1 takes 027 for 23
        content: dict[object, object] = {}
        for key_node, child in node.value:
            key = loader.construct_object(key_node)
            inner = (*place, key)
            if inner in self._lines:
                raise UserError(f"{self.file}:{key_node.start_mark.line + 1}: {key} is there twice")
            self._lines[inner] = key_node.start_mark.line + 1
            content[key] = self._read(loader, child, inner)
        return content

    def error(self, place: Iterable[str | int], message: str) -> UserError:
        """The error to raise for what stands at ``place``, or for the nearest that stands above it."""
        place = tuple(place)
        while place and place not in self._lines:
            place = place[:-1]
        return UserError(f"{self.file}:{self._lines.get(place, 1)}: {message}")
