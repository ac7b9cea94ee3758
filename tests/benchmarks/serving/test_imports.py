"""The benchmark of imports: what it generates, and what it says about growth."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from benchmarks.serving.imports import EVENTS_EACH, ITEMS, exponent, generate, main
from serving.state.histories_reader import open_histories


def test_a_generated_file_has_every_user_in_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.serving.imports._USERS_AT_A_TIME", 7)
    generate(tmp_path / "h.parquet", 20 * EVENTS_EACH)
    with open_histories(tmp_path / "h.parquet") as found:
        assert (found.rows, found.grouped) == (20 * EVENTS_EACH, True)
    frame = pl.read_parquet(tmp_path / "h.parquet")
    assert frame["user_id"].unique(maintain_order=True).to_list() == [f"user-{n}" for n in range(20)]
    assert frame["item_id"].str.strip_prefix("item-").cast(pl.Int64).is_between(0, ITEMS - 1).all()


@pytest.mark.parametrize(("peak", "expected"), [(150.0, 0.0), (600.0, 1.0), (200.0, 0.30103)])
def test_the_exponent_is_that_of_the_memory_beyond_the_libraries(peak: float, expected: float) -> None:
    """From 100 to 1,000 events, 50 MiB become 50, 500 or 100: 0, 1, or log 2 / log 10."""
    before = {"new": 100, "mib_before": 100.0, "mib_peak": 150.0}
    after = {"new": 1_000, "mib_before": 100.0, "mib_peak": peak}
    assert exponent(before, after) == pytest.approx(expected, abs=1e-4)


def test_every_event_is_imported_and_the_files_are_removed(tmp_path: Path) -> None:
    assert main(["--work-dir", str(tmp_path), "--events", "500", "1000"]) == 0
    measured = json.loads((tmp_path / "imports.json").read_text())
    assert [each["new"] for each in measured] == [500, 1000]
    assert all(each["mib_peak"] > each["mib_before"] > 20 for each in measured)
    assert [file.name for file in tmp_path.iterdir()] == ["imports.json"]
