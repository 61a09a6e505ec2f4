"""The verdict table, and where a row's difference comes from: the network without the recipe, the attention alone."""

from nnunet_attn.comparison.statistics import Difference
from nnunet_attn.comparison.twins import percent
from nnunet_attn.report.document import Block, Heading, Table, Text
from nnunet_attn.report.tables import Tables, best_cells, cell_number, with_interval

OWN = "network's own, same recipe"
DIFFERENCE = ("Dice per case", "95 % interval", "better / equal / worse")


def verdict_table(tables: Tables) -> Table:
    """One line per row: quality, difference, and where the difference comes from."""
    c = tables.comparison
    said = {verdict.row: verdict for verdict in c.verdicts}
    tested = c.differences[c.differences.primary].set_index("row")
    own = {effect.row: effect.difference for effect in c.own_effects}
    attention = {twin.row: twin.difference for twin in c.twins}
    lines = []
    for row in tables.names:
        verdict = said[row].said if row in said else "baseline" if row == tables.names[0] else "–"
        line = [tables.short[row], verdict, cell_number(tables.summary(row, tables.overall, "Dice")["mean"])]
        if row in said:
            d = tested.loc[row]
            line += [with_interval(d["mean"], d.low, d.high), f"{d.wins} of {d.groups}", said[row].p]
        else:
            line += ["–", "–", "–"]
        for found in (own.get(row), attention.get(row)):
            line.append("–" if found is None else with_interval(found.mean, found.low, found.high))
        lines.append(line)
    groups = c.groups.plural if c.groups.known else "cases"
    header = [
        "", "verdict", "Dice", f"minus {tables.baseline} [95 % interval]", f"better {groups}", "p (Holm)",
        OWN, "attention's own",
    ]  # fmt: skip
    empty = [j for j in (6, 7) if all(line[j] == "–" for line in lines)]
    kept = [j for j in range(len(header)) if j not in empty]
    return Table(
        [header[j] for j in kept],
        [[line[j] for j in kept] for line in lines],
        f"{tables.overall_title()} of Dice, and paired differences in Dice per case; bold: best mean (no test)",
        left=2,
        bold=best_cells([line[1:3] for line in lines], [None, "Dice"]),
    )


def sources(tables: Tables) -> list[str]:
    """Which rows the parts of the verdict table are of."""
    own = [f"{tables.short[e.candidate]} minus {tables.short[e.stock]}" for e in tables.comparison.own_effects]
    attention = [f"{tables.short[t.row]} minus {tables.short[t.twin]}" for t in tables.comparison.twins]
    return [
        *([f"Network's own (both under one recipe): {'; '.join(own)}."] if own else []),
        *([f"Attention's own: {'; '.join(attention)}."] if attention else []),
    ]


def difference_cells(difference: Difference) -> list[str]:
    """The cells below ``DIFFERENCE``."""
    d = difference
    interval = f"{cell_number(d.low, 4, '+')} to {cell_number(d.high, 4, '+')}"
    return [cell_number(d.mean, 4, "+"), interval, f"{d.wins} / {d.ties} / {d.losses}"]


def twins(tables: Tables) -> list[Block]:
    """What each network's attention adds, for networks whose twin without attention is a row, too."""
    lines = [
        [
            tables.short[twin.row], tables.short[twin.twin], *difference_cells(twin.difference),
            percent(twin.parameters), percent(twin.step_time),
        ]
        for twin in tables.comparison.twins
    ]  # fmt: skip
    if not lines:
        return []
    header = ["", "without its attention", *DIFFERENCE, "share of parameters", "share of step time"]
    text = (
        "Each network minus the same network without the paper's own attention, under the same recipe: what the "
        "attention itself adds. Intervals without correction for several networks; no claim is made from them."
    )
    return [Heading("What the attention adds"), Text(text), Table(header, lines, left=2)]


def own_effects(tables: Tables) -> list[Block]:
    """What each network does under the recipe of a stock row, where both are rows."""
    lines = [
        [tables.short[effect.candidate], tables.short[effect.stock], *difference_cells(effect.difference)]
        for effect in tables.comparison.own_effects
    ]
    if not lines:
        return []
    header = ["", "plans' network, same recipe", *DIFFERENCE]
    text = (
        "A row's difference to the baseline mixes network and recipe. Here both have one recipe: what the network "
        "itself adds. Intervals without correction for several networks; no claim is made from them."
    )
    return [Heading("What the network adds"), Text(text), Table(header, lines, left=2)]
