"""Output on a terminal. Standard library only."""

import os
import sys


def coloured(text: str, colour: int) -> str:
    """Text in an ANSI colour on a terminal; plain with NO_COLOR (no-color.org) or without a terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\033[{colour}m{text}\033[0m"
