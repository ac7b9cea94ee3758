from __future__ import annotations

from pathlib import Path

from benchmarks.ledger import fill, night


def test_both_nights_collect_what_was_added(tmp_path: Path) -> None:
    fill(tmp_path, 500, 0, 90)
    first = night(tmp_path)
    assert (first["events"], first["users"], first["new_events"], first["known_events"]) == (500, 20, 500, 0)
    assert first["files"] == ["2025-10.parquet", "2025-11.parquet", "2025-12.parquet"]
    fill(tmp_path, 60, 90, 1)
    second = night(tmp_path)
    assert (second["events"], second["new_events"], second["known_events"]) == (560, 60, 500)
    assert (second["months_rewritten"], second["peak_mb"] > 0) == (1, True)
