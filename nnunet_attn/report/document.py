"""A small document (headings, text, lists, tables, pictures) and its two forms: Markdown and self-contained HTML."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str
    emphasis: bool = False


@dataclass(frozen=True)
class Items:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """``left`` columns hold text, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1


@dataclass(frozen=True)
class Picture:
    """``path`` lies below the document's folder; ``wide`` pictures scroll on a narrow screen instead of shrinking."""

    path: Path
    words: str
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks behind a title that opens."""

    title: str
    blocks: Sequence["Block"]


@dataclass(frozen=True)
class Links:
    """Pages that lie beside the document: path and words of each."""

    pages: Sequence[tuple[str, str]]


Block = Heading | Text | Items | Table | Picture | Folded | Links

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 58rem; padding: 1rem 1.25rem 4rem; color: #1c1c1e; background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #d8d8dc; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; overflow-wrap: anywhere; }
p, li { max-width: 50rem; overflow-wrap: anywhere; }
p.emphasis { font-size: 1.05rem; background: #eef3f8; border-left: 4px solid #3b6ea5; padding: .6rem .9rem;
             max-width: none; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; }
figure, .scroll { margin: .8rem 0 1.2rem; overflow-x: auto; }
figcaption, p.caption { color: #55555c; font-size: .85rem; margin: 1rem 0 .2rem; }
p.caption + .scroll { margin-top: 0; }
figure img { max-width: 100%; height: auto; }
figure.wide img { max-width: max(100%, 44rem); }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .65rem; text-align: right; border-bottom: 1px solid #e4e4e8; white-space: nowrap; }
th { border-bottom: 2px solid #b8b8c0; vertical-align: bottom; font-weight: 600; }
.text { text-align: left; }
td:first-child, th:first-child { position: sticky; left: 0; background: #fff; text-align: left; padding-left: 0;
       white-space: normal; min-width: 6.5rem; max-width: 14rem; overflow-wrap: break-word; }
th { white-space: normal; }
td.text:not(:first-child) { white-space: normal; min-width: 6rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: #2a5a8c; }
@media (max-width: 40rem) { body { padding: .5rem .8rem 3rem; } td:first-child, th:first-child { max-width: 8rem; } }
@media print { .scroll, figure { overflow: visible; } }
"""


def _breakable(text: str) -> str:
    """Escaped, with places where a long name like a trainer's may go on in the next line."""
    return "<wbr>".join(html.escape(part) for part in re.split(r"(?<=\w[_:/])(?=\w)", text))


def _cell(text: str, tag: str, is_text: bool) -> str:
    return f"<{tag}{' class=text' if is_text else ''}>{_breakable(text)}</{tag}>"


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_breakable(text)}</h{level}>"
        case Text(text, emphasis):
            return f"<p{' class=emphasis' if emphasis else ''}>{_breakable(text)}</p>"
        case Items(items):
            return "<ul>" + "".join(f"<li>{_breakable(item)}</li>" for item in items) + "</ul>"
        case Table(header, rows, caption, left):
            head = "".join(_cell(text, "th", i < left) for i, text in enumerate(header))
            body = "".join(
                "<tr>" + "".join(_cell(text, "td", i < left) for i, text in enumerate(row)) + "</tr>" for row in rows
            )
            title = f"<p class=caption>{html.escape(caption)}</p>\n" if caption else ""
            return (
                f'{title}<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
                f"<tbody>{body}</tbody></table></div>"
            )
        case Picture(path, words, wide):
            data = base64.b64encode((folder / path).read_bytes()).decode()
            words = html.escape(words, quote=True)
            return (
                f'<figure{" class=wide" if wide else ""} tabindex="0"><figcaption>{words}</figcaption>'
                f'<img alt="{words}" src="data:{MEDIA[path.suffix]};base64,{data}"></figure>'
            )
        case Links(pages):
            links = (
                f'<li><a href="{html.escape(path, quote=True)}">{_breakable(words)}</a></li>' for path, words in pages
            )
            return "<ul>" + "".join(links) + "</ul>"
        case Folded(title, blocks):
            inner = "\n".join(_html(b, folder) for b in blocks)
            return f"<details><summary>{html.escape(title)}</summary>\n{inner}\n</details>"


def to_html(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """One file that needs no network: style and pictures are inside. No script."""
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{html.escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _markdown_text(text: str) -> str:
    """Text in which Markdown finds no mark-up."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_markdown_text(text)}"
        case Text(text, emphasis):
            return f"**{_markdown_text(text)}**" if emphasis else _markdown_text(text)
        case Items(items):
            return "\n".join(f"- {_markdown_text(item)}" for item in items)
        case Table(header, rows, caption, left):
            rule = [":--" if i < left else "--:" for i in range(len(header))]
            lines = [header, rule, *rows]
            cells = (
                "| " + " | ".join(c if i == 1 else _markdown_text(c) for c in line) + " |"
                for i, line in enumerate(lines)
            )
            return (f"{_markdown_text(caption)}\n\n" if caption else "") + "\n".join(cells)
        case Picture(path, words, _):
            return f"![{_markdown_text(words)}]({path.as_posix()})\n\n{_markdown_text(words)}"
        case Links(pages):
            return "\n".join(f"- [{_markdown_text(words)}]({path})" for path, words in pages)
        case Folded(title, blocks):
            return f"### {_markdown_text(title)}\n\n" + "\n\n".join(map(_markdown, blocks))


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same document in Markdown; pictures are links to files beside it."""
    return f"# {_markdown_text(title)}\n\n" + "\n\n".join(map(_markdown, blocks)) + "\n"
