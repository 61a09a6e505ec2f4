"""The papers' tables: complete, as printed, and the same for our trainers in both places."""

import os
from collections import Counter
from pathlib import Path

import pytest

from nnunet_attn.report.published import NUMBERS, all_cells, cells_of

PAPERS = Path(os.environ.get("NNUNET_ATTN_PAPERS", Path(__file__).parents[3] / "shared" / "papers"))
FILES = {"arXiv:2603.09530": "000*", "arXiv:2303.17696": "001*", "arXiv:2604.03297": "002*", "arXiv:2411.10881": "003*"}


def test_all_rows_of_all_tables():
    rows = Counter((paper, table) for paper, table, _ in {(c.paper, c.table, c.row) for c in all_cells()})
    assert [rows["arXiv:2603.09530", f"Table {n}"] for n in ("I", "II", "III", "IV", "V")] == [9, 9, 2, 4, 4]
    assert [rows["arXiv:2604.03297", f"Table {n}"] for n in range(1, 6)] == [14, 14, 8, 4, 4]
    assert [rows["arXiv:2411.10881", f"Table {n}"] for n in range(1, 4)] == [9, 9, 4]


def test_numbers_of_our_trainers_stand_in_the_tables():
    for number in NUMBERS:
        paper = number.source[number.source.index("arXiv:") :].split(",")[0]
        printed = {(c.metric, float(c.value)) for c in all_cells() if c.paper == paper and not c.group}
        assert ("Dice", number.dice) in printed, number
        if number.hd95 is not None:
            assert {("HD95", number.hd95), ("HD", number.hd95)} & printed, number


def test_cells_of_a_trainer_are_its_paper_s():
    cells = cells_of("nnUNetTrainerDCAUNet_paper", "Dataset829_Synapse224")
    assert {cell.table for cell in cells} == {"Table I", "Table III", "Table IV", "Table V"}
    assert cells_of("nnUNetTrainer", "Dataset829_Synapse224") == []


@pytest.mark.skipif(not PAPERS.is_dir(), reason=f"{PAPERS} is not there")
def test_every_number_is_printed_in_the_paper():
    texts = {paper: next(PAPERS.glob(name)).read_text(encoding="utf-8") for paper, name in FILES.items()}
    for cell in all_cells():
        assert cell.value in texts[cell.paper], cell
        if cell.paper != "arXiv:2303.17696" and cell.table in ("Table I", "Table II", "Table 1", "Table 2"):
            name = cell.row.split(" (")[0]
            lines = [line for line in texts[cell.paper].splitlines() if name in line and cell.value in line]
            assert lines, cell
