"""Style and script of the pages. The script sorts tables and unfolds all before printing; nothing needs it."""

# Text on each ground has a contrast of at least 4.5 (WCAG AA), which a test computes from these names.
LIGHT = {
    "ground": "#ffffff", "text": "#1c1c1e", "muted": "#55555c", "link": "#1f5a99", "line": "#d8d8dc",
    "verdict": "#eef3f8", "warning": "#fdf1e3", "mark": "#3b6ea5", "alarm": "#b45309",
}  # fmt: skip
DARK = {
    "ground": "#16181c", "text": "#e6e6ea", "muted": "#a9abb4", "link": "#8ab8ec", "line": "#3a3d45",
    "verdict": "#1f2a38", "warning": "#3a2a15", "mark": "#6fa3d8", "alarm": "#f0a860",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ color-scheme: light; {_variables(LIGHT)} }} }}
"""
    """
body { margin: 0 auto; max-width: 66rem; padding: 1rem 1.25rem 4rem; color: var(--text); background: var(--ground);
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; overflow-wrap: anywhere; }
p, li { max-width: 50rem; overflow-wrap: anywhere; }
a, summary { color: var(--link); }
p.emphasis, p.warning { background: var(--verdict); border-left: 4px solid var(--mark); padding: .6rem .9rem;
       margin: .5rem 0; max-width: none; }
p.warning { background: var(--warning); border-color: var(--alarm); font-weight: 600; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; }
nav { font-size: .85rem; margin: .8rem 0; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: 0; }
figure, .scroll { margin: .8rem 0 1.2rem; overflow-x: auto; }
figcaption, p.caption { color: var(--muted); font-size: .85rem; margin: 1rem 0 .2rem; max-width: none; }
p.caption + .scroll { margin-top: 0; }
figure img { max-width: 100%; height: auto; background: #fff; }
figure.wide img { max-width: max(100%, 44rem); }
pre { white-space: pre-wrap; font-size: .8rem; }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .65rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { border-bottom-width: 2px; vertical-align: bottom; font-weight: 600; white-space: normal; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.text { text-align: left; }
[title] { text-decoration: underline dotted var(--muted); text-underline-offset: .2em; cursor: help; }
td:first-child, th:first-child { position: sticky; left: 0; background: var(--ground); text-align: left;
       padding-left: 0; white-space: normal; min-width: 6.5rem; max-width: 14rem; overflow-wrap: break-word; }
td.text:not(:first-child) { white-space: normal; min-width: 6rem; }
td.wrapped { white-space: normal; }
.interval { white-space: nowrap; color: var(--muted); }
details { margin: .6rem 0; }
summary { cursor: pointer; }
@media (min-width: 86rem) {
  nav { position: fixed; top: 1.5rem; left: max(.6rem, calc(50vw - 44.5rem)); width: 9.6rem; }
  nav ul { display: block; }
}
@media (max-width: 40rem) { body { padding: .5rem .8rem 3rem; } td:first-child, th:first-child { max-width: 8rem; } }
@media (prefers-color-scheme: dark) { figure img { border-radius: 4px; filter: brightness(.9); } }
@page { size: A4; margin: 14mm 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll, figure { overflow: visible; }
  table { font-size: 7pt; width: 100%; }
  th, td { padding: .6mm 1mm; white-space: normal; }
  td:first-child, th:first-child { position: static; min-width: 0; }
  td.text:not(:first-child) { min-width: 0; }
  figure, tr, p.emphasis, p.warning { break-inside: avoid; }
  figure img, figure.wide img { max-width: 100%; max-height: 240mm; filter: none; }
  h2, h3, p.caption, figcaption { break-after: avoid; }
  p.emphasis, p.warning { print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; height: auto; opacity: 1; }
  [title] { text-decoration: none; }
}
"""
)

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], original = [...body.rows];
  if (original.length < 3) continue;
  const value = (row, i) => {
    const text = row.cells[i].textContent, found = text.match(/[-+]?\\d[\\d,]*(\\.\\d+)?/);
    return table.tHead.rows[0].cells[i].className === "text" || !found ? text : Number(found[0].replace(/,/g, ""));
  };
  const missing = (v) => v === "" || v === "–" || (typeof v === "string" && v.startsWith("not "));
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button"; button.append(...head.childNodes); head.append(button);
    if (!button.textContent) button.setAttribute("aria-label", "sort by name");
    button.onclick = () => {
      const now = head.getAttribute("aria-sort");
      const next = now === "descending" ? "ascending" : now === "ascending" ? null : "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      const rows = next === null ? original : [...original].sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return next === "ascending" ? order : -order;
      });
      body.append(...rows);
    };
  });
}
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
"""
