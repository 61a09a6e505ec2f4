"""Tables of a report for LaTeX, with the rules of the package booktabs."""

import re
from collections.abc import Sequence

from nnunet_attn.report.document import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$",
    "−": "$-$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is; minus signs of numbers as such."""
    escaped = "".join(SPECIAL.get(character, character) for character in text.replace("\n", " "))
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def latex_table(table: Table) -> str:
    """One table: caption, head between rules, lines."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex_text, cells)) + r" \\"

    columns = "".join("l" if i < table.left else "r" for i in range(len(table.header)))
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{latex_text(table.caption)}}}"] if table.caption else []
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.header), r"\midrule"]
    lines += [line(row) for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def latex_tables(tables: Sequence[Table]) -> str:
    """A file for LaTeX to read in."""
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(latex_table, tables)) + "\n"
