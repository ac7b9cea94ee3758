"""A table written in parts is one file with all rows in order, or none."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from serving.cli.parquet_parts import parquet_parts

SCHEMA: dict[str, Any] = {"user_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "hour": pl.Int64}


def test_rows_come_in_the_order_of_the_parts(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    with parquet_parts(path, SCHEMA) as parts:
        parts.write({"user_id": ["b", "a"], "timestamp": [2_000_000, 1_000_000], "hour": [None, 3]})
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # user ids are for their owner alone
        for number in range(12):  # more than one digit, so that names have to sort as numbers
            parts.write({"user_id": [f"u{number}"], "timestamp": [number], "hour": [None]})
        assert parts.rows == 14
    found = pl.read_parquet(path)
    assert found.schema == pl.Schema(SCHEMA)
    assert found["user_id"].to_list() == ["b", "a", *(f"u{n}" for n in range(12))]
    assert found["timestamp"].dt.timestamp("us").to_list() == [2_000_000, 1_000_000, *range(12)]
    assert found["hour"].to_list() == [None, 3, *[None] * 12]
    assert [file.name for file in tmp_path.iterdir()] == ["events.parquet"]


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    with parquet_parts(tmp_path / "events.parquet", SCHEMA):
        pass
    found = pl.read_parquet(tmp_path / "events.parquet")
    assert (found.height, found.schema) == (0, pl.Schema(SCHEMA))


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> None:
        with parquet_parts(tmp_path / "events.parquet", SCHEMA) as parts:
            parts.write({"user_id": ["a"], "timestamp": [1], "hour": [None]})
            raise RuntimeError("the store failed")

    with pytest.raises(RuntimeError, match="the store failed"):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        with parquet_parts(tmp_path / "full", SCHEMA) as parts:
            parts.write({"user_id": ["a"], "timestamp": [1], "hour": [None]})
            parts.join(folder)

    with pytest.raises(OSError, match="No space left on device"):
        write(Path("/dev/full"))  # every write to it fails
    assert list(tmp_path.iterdir()) == []
