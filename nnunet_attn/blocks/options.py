"""The check of named options that networks and blocks share."""

from collections.abc import Iterable


def check_option(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError, with the choices, unless ``value`` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
