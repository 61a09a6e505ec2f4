"""Write a comparison into a folder: self-contained report.html, report.md, tables (CSV, LaTeX, BibTeX), figures."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from nnunet_attn.comparison.compare import Comparison
from nnunet_attn.comparison.gather import TEST_SET
from nnunet_attn.comparison.paired import typical_cases
from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json
from nnunet_attn.report.document import (
    Block,
    Folded,
    Heading,
    Items,
    Picture,
    Table,
    Text,
    Verbatim,
    to_html,
    to_markdown,
)
from nnunet_attn.report.figures import draw_figures, with_short_names
from nnunet_attn.report.latex import latex_tables
from nnunet_attn.report.methods import cited, methods_text
from nnunet_attn.report.overlay import overlay
from nnunet_attn.report.tables import Tables
from nnunet_attn.report.verdict import own_effects, sources, twins, verdict_table
from nnunet_attn.scoring.folders import image_files

PACKAGES = ("nnunet-attn", "nnunetv2", "torch", "numpy", "scipy", "pandas", "SimpleITK", "matplotlib")
METHOD = """
Dice and IoU: {source}. A class that is absent from both reference and prediction has no value and is left out.

HD95: 95th percentile of the pooled border distances of both directions (medpy's definition; other tools take the larger
of the two directions' percentiles, which is another number). If only prediction or reference has the class, the value
is the image's diagonal.

ASSD: mean of the same pooled distances (medpy's definition since 0.5), with the same rule for a class that only one
has.

RVD: (predicted - reference volume) / reference volume, signed; negative if the prediction is too small. No value if the
reference lacks the class.

NSD: share of both borders' voxels within {tolerance} of the other border, unweighted.

Mean of classes: each class is averaged over cases, then classes are averaged (nnU-Net's foreground_mean). Mean per
case: each case is averaged over the classes that have a value in it, then cases are averaged; the paired tests use it.
Both are equal if every case has every class.

Groups: {groups}. Intervals: 95 %, of the mean over cases, by Student's t over groups (cluster-robust variance with
the correction of Bell and McCaffrey); with repeats, the variance between them is added.

p: Wilcoxon's signed-rank test, two-sided, over {plural}; a group's value is the mean over its cases and repeats.
Holm's correction over the rows for the mean Dice per case, and over all other tests together. {claim}
"""


def blocks(comparison: Comparison, folder: Path, *, published: bool = False) -> list[Block]:
    """The content of the report; its pictures are drawn into ``folder``."""
    c, tables = comparison, Tables(comparison)
    of = f"{len(c.scores.keys)} cases of {c.groups.counted()}" if c.groups.known else c.groups.counted()
    overview = f"{of}, {c.gathered.evaluated}. Baseline: {tables.baseline}."
    return [
        *(Text(with_short_names(flag, tables.short), warning=True) for flag in c.doubts.get("Learning", ())),
        Text(overview),
        *(Text(with_short_names(verdict.text, tables.short), emphasis=True) for verdict in c.verdicts),
        verdict_table(tables),
        *([Items(cited_in)] if (cited_in := sources(tables)) else []),
        Heading("The rows"),
        tables.overview(),
        Heading("What to doubt"),
        *_doubts(c, tables),
        *tables.results(),
        *tables.differences(),
        *own_effects(tables),
        *twins(tables),
        *_figures(c, folder),
        *tables.costs(),
        *tables.training(),
        *_typical_cases(c, tables, folder),
        *(tables.paper_numbers() if published else ()),
        Heading("Methods, to paste"),
        Verbatim(methods_text(c)),
        Folded("BibTeX", [Verbatim("\n\n".join(citation.bibtex for citation in cited(c)))]),
        *_method(c),
        *_provenance(c),
    ]


def _doubts(c: Comparison, tables: Tables) -> list[Block]:
    """The caveats by subject."""
    result: list[Block] = []
    for subject, flags in c.doubts.items():
        result += [Heading(subject, 3), Items([with_short_names(flag, tables.short) for flag in flags])]
    return result


def _figures(c: Comparison, folder: Path) -> list[Block]:
    drawn = draw_figures(c.rows, c.used, c.scores, c.summary, c.differences, c.facts, folder / "figures")
    return [Heading("Figures"), *(Picture(path.relative_to(folder), words, wide=True) for path, words in drawn)]


def _typical_cases(c: Comparison, tables: Tables, folder: Path) -> list[Block]:
    """The worst, median and best case of each row, with a picture beside the baseline."""
    result: list[Block] = [Heading("Worst, median and best cases")]
    for i, row in enumerate(c.rows):
        chosen = typical_cases(c.scores, row.name)
        result += [Heading(tables.short[row.name], 3), tables.typical(chosen, baseline=i == 0)]
        if c.images is None:
            result.append(Text("No pictures: the dataset's images were not found (nnUNet_raw)."))
            continue
        columns = {"reference": c.gathered.references}
        columns |= {tables.short[r.name]: c.gathered.predictions[r.model.name] for r in (row, c.rows[0])}
        picture = folder / "overlays" / f"cases_{i}.png"
        try:
            cases = [(image_files(c.images, case), case) for case in chosen["case"]]
            titles = dict(zip(chosen["case"], chosen["which"], strict=True))
            overlay(
                cases,
                columns,
                picture,
                labels=c.labels.drawn,
                classes=c.labels,
                titles=titles,
                select="disagreement",
                dpi=110,
            )
        except (UserError, KeyError) as error:
            result.append(Text(f"No pictures: {error}."))
            continue
        words = f"{tables.short[row.name]}, from worst to best; for a volume, the slice with most wrong voxels"
        result.append(Picture(picture.relative_to(folder), words, wide=True))
    return result


def _method(c: Comparison) -> list[Block]:
    from_files = c.gathered.evaluated == TEST_SET
    source = "all metrics from the files" if from_files else "nnU-Net's own final validation (summary.json)"
    claim = (
        "A difference is called significant if the corrected p is below 0.05 and the interval of the mean does not "
        "contain 0; where folds disagree more than their groups explain (Alexander and Govern's test), each fold alone "
        "or the mean over folds must show it as well (95 % intervals without 0)."
        if c.groups.known
        else "It is not known which cases belong to one patient or video, so no difference is claimed."
    )
    filled = METHOD.format(
        source=source,
        tolerance=f"{c.tolerance:g} {c.gathered.unit or 'mm'}",
        groups=f"{c.groups.counted()} ({c.groups.how})",
        plural=c.groups.plural,
        claim=claim,
    )
    items = [" ".join(paragraph.split()) for paragraph in filled.strip().split("\n\n")]
    return [Heading("How the numbers are computed"), Items(items)]


def _provenance(c: Comparison) -> list[Block]:
    rows = [[name, value or "not found"] for name, value in c.hashes.items() if name != "plans"]
    rows += [[f"plans of {name}", value] for name, value in c.hashes["plans"].items()]
    return [
        Heading("Provenance"),
        Text(f"Command: {' '.join(command())}"),
        Text(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES)),
        Folded("SHA-256 of data, splits and plans", [Table(["", "SHA-256"], rows, left=2)]),
    ]


def command() -> list[str]:
    """The command line, with the program's name instead of its path."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def main_tables(comparison: Comparison) -> list[Table]:
    """Verdict, results and differences, as for a paper."""
    tables = Tables(comparison)
    parts = (verdict_table(tables), *tables.results(), *tables.differences())
    return [block for block in parts if isinstance(block, Table)]


def write_report(comparison: Comparison, folder: Path, *, published: bool = False) -> None:
    """Write the report in all its formats into ``folder``."""
    title = f"{comparison.dataset}, {comparison.configuration}: {len(comparison.rows)} trainers compared"
    comparison.scores.long_table().to_csv(folder / "cases.csv", index=False)
    comparison.summary.to_csv(folder / "summary.csv", index=False)
    comparison.differences.to_csv(folder / "differences.csv", index=False)
    (folder / "tables.tex").write_text(latex_tables(main_tables(comparison)), encoding="utf-8")
    packages = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    content = {"format": 1, "command": command(), "packages": packages, **comparison.to_json()}
    write_json(folder / "comparison.json", content)
    (folder / "references.bib").write_text("\n\n".join(c.bibtex for c in cited(comparison)) + "\n", encoding="utf-8")
    document = blocks(comparison, folder, published=published)
    names = {short: name for name, short in Tables(comparison).short.items()}
    (folder / "report.md").write_text(to_markdown(title, document), encoding="utf-8")
    (folder / "report.html").write_text(to_html(title, document, folder, names), encoding="utf-8")
