"""A small document (headings, text, lists, tables, pictures) and its forms: self-contained HTML, Markdown, terminal."""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from nnunet_attn.report.page import SCRIPT, STYLE


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; ``emphasis`` for what the document says, ``warning`` for what must be read before it."""

    text: str
    emphasis: bool = False
    warning: bool = False


@dataclass(frozen=True)
class Verbatim:
    """Text to copy, line by line."""

    text: str


@dataclass(frozen=True)
class Items:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """``left`` columns hold text, the others numbers; ``bold`` are the line and column of cells that stand out."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1
    bold: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Picture:
    """``path`` is relative to the document's folder; ``wide`` pictures scroll on narrow screens and do not shrink."""

    path: Path
    words: str
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when the reader clicks the title."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Links:
    """Links to other pages: path, relative to the document's folder, and text of each."""

    pages: Sequence[tuple[str, str]]


Block = Heading | Text | Verbatim | Items | Table | Picture | Folded | Links

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}

LARGE = 100_000  # bytes of a PNG from which a page holds it as WebP


def _breakable(text: str) -> str:
    """HTML-escaped text in which long names, such as a trainer's, may be broken into lines."""
    return "<wbr>".join(html.escape(part) for part in re.split(r"(?<=\w[_:/])(?=\w)", text))


def _cell(text: str, tag: str, is_text: bool, names: Mapping[str, str], bold: bool = False) -> str:
    value, bracket, interval = text.partition(" [") if tag == "td" else (text, "", "")
    shown = f"<b>{_breakable(value)}</b>" if bold else _breakable(value)
    if bracket:  # may stand below the value where the table is wide
        shown += f" <span class=interval>[{html.escape(interval)}</span>"
    if text in names and names[text] != text:
        shown = f'<span title="{html.escape(names[text], quote=True)}">{shown}</span>'
    kind = " class=text" if is_text else " class=wrapped" if bracket else ""
    return f"<{tag}{kind}>{shown}</{tag}>"


def _anchor(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _html(block: Block, folder: Path, names: Mapping[str, str]) -> str:
    match block:
        case Heading(text, 2):
            return f'<h2 id="{_anchor(text)}">{_breakable(text)}</h2>'
        case Heading(text, level):
            return f"<h{level}>{_breakable(text)}</h{level}>"
        case Text(text, emphasis, warning):
            kind = " class=warning" if warning else " class=emphasis" if emphasis else ""
            return f"<p{kind}>{_breakable(text)}</p>"
        case Verbatim(text):
            return f'<pre tabindex="0">{html.escape(text)}</pre>'
        case Items(items):
            return "<ul>" + "".join(f"<li>{_breakable(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _html_table(block, names)
        case Picture(path, words, wide):
            words = html.escape(words, quote=True)
            return (
                f'<figure{" class=wide" if wide else ""} tabindex="0"><figcaption>{words}</figcaption>'
                f'<img alt="{words}" src="{_embedded(folder / path)}"></figure>'
            )
        case Links(pages):
            links = (
                f'<li><a href="{html.escape(path, quote=True)}">{_breakable(words)}</a></li>' for path, words in pages
            )
            return "<ul>" + "".join(links) + "</ul>"
        case Folded(title, blocks):
            inner = "\n".join(_html(b, folder, names) for b in blocks)
            return f"<details><summary>{html.escape(title)}</summary>\n{inner}\n</details>"


def _html_table(table: Table, names: Mapping[str, str]) -> str:
    head = "".join(_cell(text, "th", i < table.left, names) for i, text in enumerate(table.header))
    lines = (
        "".join(_cell(text, "td", j < table.left, names, (i, j) in table.bold) for j, text in enumerate(row))
        for i, row in enumerate(table.rows)
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    title = f"<p class=caption>{html.escape(table.caption)}</p>\n" if table.caption else ""
    return (
        f'{title}<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _embedded(path: Path) -> str:
    """A picture as an address that holds it; large PNG become WebP, a tenth of the size."""
    content, kind = path.read_bytes(), MEDIA[path.suffix]
    if path.suffix == ".png" and len(content) > LARGE:
        smaller = io.BytesIO()
        with Image.open(path) as picture:
            picture.convert("RGB").save(smaller, "WEBP", quality=80)
        content, kind = smaller.getvalue(), "image/webp"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def to_html(title: str, blocks: Sequence[Block], folder: Path, names: Mapping[str, str] | None = None) -> str:
    """One file that needs no network: style, script and pictures are inside, and the script may be off.

    Args:
        title: Title of the page.
        blocks: The document.
        folder: That its pictures lie below.
        names: Full names, shown when the pointer rests on a cell that holds the short one.
    """
    body = "\n".join(_html(block, folder, names or {}) for block in blocks)
    titles = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<li><a href="#{_anchor(text)}">{html.escape(text)}</a></li>' for text in titles)
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if len(titles) > 2 else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{contents}<main>\n<h1>{html.escape(title)}</h1>\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _markdown_text(text: str) -> str:
    """Text escaped for Markdown."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_markdown_text(text)}"
        case Text(text, emphasis, warning):
            return f"**{_markdown_text(text)}**" if emphasis or warning else _markdown_text(text)
        case Verbatim(text):
            return f"```\n{text}\n```"
        case Items(items):
            return "\n".join(f"- {_markdown_text(item)}" for item in items)
        case Table(header, rows, caption, left, bold):
            rule = [":--" if i < left else "--:" for i in range(len(header))]
            marked = [
                [f"**{_markdown_text(c)}**" if (i, j) in bold else _markdown_text(c) for j, c in enumerate(row)]
                for i, row in enumerate(rows)
            ]
            lines = [[*map(_markdown_text, header)], rule, *marked]
            cells = ("| " + " | ".join(line) + " |" for line in lines)
            return (f"{_markdown_text(caption)}\n\n" if caption else "") + "\n".join(cells)
        case Picture(path, words, _):
            return f"![{_markdown_text(words)}]({path.as_posix()})\n\n{_markdown_text(words)}"
        case Links(pages):
            return "\n".join(f"- [{_markdown_text(words)}]({path})" for path, words in pages)
        case Folded(title, blocks):
            return f"### {_markdown_text(title)}\n\n" + "\n\n".join(map(_markdown, blocks))


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The document as Markdown, with links to the picture files."""
    return f"# {_markdown_text(title)}\n\n{markdown_of(blocks)}\n"


def markdown_of(blocks: Sequence[Block]) -> str:
    """Blocks as Markdown, to stand in another page."""
    return "\n\n".join(map(_markdown, blocks))


def to_text(table: Table, width: int) -> str:
    """A table for a terminal: aligned, or one line a cell where it would be wider than ``width``."""
    rows = [[f"{c}*" if (i, j) in table.bold else c for j, c in enumerate(row)] for i, row in enumerate(table.rows)]
    widths = [max(len(line[j]) for line in (table.header, *rows)) for j in range(len(table.header))]
    caption = [table.caption] if table.caption else []
    if sum(widths) + 2 * len(widths) <= width:
        lines = [
            "  ".join(
                c.ljust(n) if j < table.left else c.rjust(n) for j, (c, n) in enumerate(zip(line, widths, strict=True))
            )
            for line in (table.header, *rows)
        ]
        return "\n".join(line.rstrip() for line in [*caption, *lines])
    longest = max(map(len, table.header))

    def listed(row: Sequence[str]) -> list[str]:
        cells = zip(table.header[1:], row[1:], strict=True)
        return [row[0], *(f"  {title:{longest}}  {cell}" for title, cell in cells if cell != "–")]

    return "\n".join([*caption, *(line for row in rows for line in listed(row))])
