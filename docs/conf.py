"""Configuration of the documentation. ``.ci/docs site`` builds it."""

import os
import re
import sys
from itertools import groupby
from pathlib import Path

from sphinx.application import Sphinx

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the gallery's networks are small

import nnunet_attn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "nnunet_attn"
copyright = "the nnunet_attn contributors"
version = release = nnunet_attn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["examples", "generated"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|np|numpy|pd|pandas|pathlib|Path|collections|Callable|Sequence|Iterable).*")
]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
napoleon_numpy_docstring = False
autodoc_typehints = "none"  # the signature names the types; text does not repeat them
autodoc_member_order = "bysource"

html_theme = "pydata_sphinx_theme"
html_title = "nnunet_attn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {"*": []}  # one level only; the folders have a list of their pages
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 5,
    "remove_config_comments": True,
}


LITERAL = re.compile(r"(``.*?``|:\w+:`.*?`)", re.DOTALL)
SECTION = re.compile(r"\s*(Args|Attributes|Raises|Returns)\b.*:$")


def readable(text: list[str]) -> list[str]:
    """Lines of one of our docstrings as reStructuredText: formulas and tables become literal, no character is special.

    In the source a formula is an indented block below a paragraph, a table is Markdown's, and a shape reads
    ``(B, C, *size)``.
    """
    result: list[str] = []
    paragraphs = [list(lines) for empty, lines in groupby(text, key=lambda line: not line.strip()) if not empty]
    literal_from: int | None = None  # indentation above which text belongs to a formula
    section = False
    for lines in paragraphs:
        indent = min(len(line) - len(line.lstrip()) for line in lines)
        if literal_from is not None and indent <= literal_from:
            literal_from = None
        section = bool(SECTION.match(lines[0])) or (section and indent > 0)
        table = lines[0].lstrip().startswith("|")
        example = lines[0].lstrip().startswith(">>>")
        if table or (literal_from is None and indent > 0 and not section and not example):
            if not (result and "::" in "".join(result[-2:])):
                result += [" " * (indent if table else 0) + "::", ""]
            literal_from = indent if table else 0
        if table:
            lines = ["    " + line for line in lines]
        elif literal_from is None and not example:
            lines = escaped("\n".join(lines)).split("\n")
        result += [*lines, ""]
    return result


def escaped(text: str) -> str:
    """The text with characters that reStructuredText would read as markup made plain, code left alone."""
    parts = LITERAL.split(text)
    special = r"[*|](?! )|_(?=\W)"
    return "".join(part if LITERAL.fullmatch(part) else re.sub(special, r"\\\g<0>", part) for part in parts)


def on_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hook of autodoc, before napoleon sees the lines."""
    if what in ("class", "function", "method", "property", "module"):
        lines[:] = readable(lines)


def prepare(app: Sphinx) -> None:
    """Draw the figures of the papers' pages, write the page of the API, and make the report of the evidence."""
    import diagrams
    import make_api
    import make_evidence

    diagrams.draw_all(HERE / "generated")
    make_api.write(HERE / "api.rst")
    make_evidence.write(HERE / "generated" / "evidence")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", on_docstring, priority=100)
    app.connect("builder-inited", prepare, priority=100)
