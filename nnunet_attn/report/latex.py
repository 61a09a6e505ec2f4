"""The tables of a report in LaTeX, for the package booktabs."""

import re
from collections.abc import Sequence

from nnunet_attn.report.document import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$",
    "−": "$-$", "≥": r"$\geq$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text escaped for LaTeX; the minus sign of a number is typeset as one."""
    escaped = "".join(SPECIAL.get(character, character) for character in text.replace("\n", " "))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def latex_table(table: Table) -> str:
    """One table: caption, header, rows."""
    columns = "".join("l" if i < table.left else "r" for i in range(len(table.header)))
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{latex_text(table.caption)}}}"] if table.caption else []
    head = " & ".join(map(latex_text, table.header)) + r" \\"
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
    for i, row in enumerate(table.rows):
        cells = [rf"\textbf{{{latex_text(c)}}}" if (i, j) in table.bold else latex_text(c) for j, c in enumerate(row)]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def latex_tables(tables: Sequence[Table]) -> str:
    """A file with all tables, for \\input."""
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(latex_table, tables)) + "\n"
