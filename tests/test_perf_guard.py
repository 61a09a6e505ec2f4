"""The table of scripts/perf_guard.py: what is read, kept, and called better or worse."""

import importlib.util
from argparse import Namespace
from pathlib import Path

spec = importlib.util.spec_from_file_location("perf_guard", Path(__file__).parents[1] / "scripts" / "perf_guard.py")
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)


def test_values_stand_beside_the_last_ones(tmp_path):
    guard.write(tmp_path / "table.csv", [("a", 1.0, "s"), ("b", 2.0, "s"), ("c", 3.0, "s"), ("unit", 1.0, "s")])
    last = guard.read(tmp_path / "table.csv")
    now = [("a", 1.2, "s"), ("b", 1.5, "s"), ("c", 3.03, "s"), ("d", 1.0, "s"), ("unit", 9.0, "ms")]
    changes = [line[68:].split("(")[0].split() for line in guard.beside(now, last)]
    assert changes == [["+20%", "WORSE"], ["-25%", "better"], ["+1%"], ["new"], ["new"]]


def test_rows_that_are_not_measured_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard, "TABLE", tmp_path / "table.csv")
    monkeypatch.setitem(guard.PARTS, "start", lambda options: iter([("a", 5.0, "s")]))
    monkeypatch.setattr("sys.argv", ["perf_guard.py", "--only", "start"])
    guard.write(guard.TABLE, [("a", 1.0, "s"), ("b", 2.0, "s")])
    guard.main()
    assert "WORSE" in capsys.readouterr().out
    assert guard.read(guard.TABLE) == {"a": ("a", 5.0, "s"), "b": ("b", 2.0, "s")}


def test_the_committed_table_has_what_the_script_measures():
    measures = guard.read(guard.TABLE)
    assert {"nnunet-attn info", "start-up file", "convert acdc"} <= measures.keys()


def test_the_least_of_the_rounds_counts():
    values = iter([3.0, 1.0, 2.0])
    assert guard.least({"x": lambda: next(values)}, 3) == {"x": 1.0}


def test_conversion_is_divided_by_decoding_and_encoding(tmp_path, monkeypatch):
    from nnunet_attn.dataset_conversion.phantom import write_phantom

    source = write_phantom(tmp_path, training=5, test=0, size=32)
    monkeypatch.setattr(guard, "PROCESSES", {1: guard.PROCESSES[1]})
    ((measure, ratio, unit),) = guard.conversion(Namespace(isic=None, acdc=source))
    assert (measure, unit) == ("convert acdc", "decode and encode")
    assert ratio > 0
