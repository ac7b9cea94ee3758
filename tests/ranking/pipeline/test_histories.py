"""The file that a server imports: every user's newest events, whatever the blocks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.data.dataset import Events
from features.data.schema import EVENTS_FILE
from ranking.pipeline import histories
from ranking.pipeline.histories import write_histories


def written(folder: Path, lengths: list[int]) -> Events:
    """Write events of users `u0`, `u1`...; the item of each is its position in the table."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    count = len(users)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in users],
            "item_id": [f"i{place}" for place in range(count)],
            "event": ["click" if place % 3 else "purchase" for place in range(count)],
            "timestamp": pl.Series(range(100, 100 + count), dtype=pl.Int64),
            "order": pl.Series([None] * count, dtype=pl.Int64),
            "value": np.ones(count),
        },
        schema_overrides=dict.fromkeys(("user_id", "item_id", "event"), pl.String),
    )
    frame.write_parquet(folder / EVENTS_FILE, row_group_size=max(count // 4, 4))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    zeros = np.zeros(count, np.int32)
    return Events(users.astype(np.int32), zeros, zeros.astype(np.int8), zeros.astype(np.int64), offsets)


@pytest.mark.parametrize("block", [1, 5, 100])
def test_the_newest_events_of_each_user_in_order(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "HISTORY_EVENTS", 3)
    events = written(tmp_path, [2, 5, 1, 4])
    write_histories(tmp_path, tmp_path, events, block)
    frame = pl.read_parquet(tmp_path / "histories.parquet")
    assert frame.columns == ["user_id", "item_id", "event", "timestamp", "order"]
    assert frame["item_id"].to_list() == [f"i{n}" for n in (0, 1, 4, 5, 6, 7, 9, 10, 11)]
    assert frame["user_id"].to_list() == ["u0"] * 2 + ["u1"] * 3 + ["u2"] + ["u3"] * 3
    assert frame["order"].to_list() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert frame["timestamp"].to_list() == [100 + n for n in (0, 1, 4, 5, 6, 7, 9, 10, 11)]
    assert frame["event"].to_list()[:3] == ["purchase", "click", "click"]
    assert frame.schema["order"] == frame.schema["timestamp"] == pl.Int64


def test_without_events_the_file_is_empty(tmp_path: Path) -> None:
    write_histories(tmp_path, tmp_path, written(tmp_path, []))
    frame = pl.read_parquet(tmp_path / "histories.parquet")
    assert frame.is_empty()
    assert frame.schema["user_id"] == pl.String


def test_an_interrupted_writing_leaves_the_former_file(tmp_path: Path) -> None:
    (tmp_path / "histories.parquet").write_bytes(b"former")
    events = written(tmp_path, [2, 2])
    (tmp_path / EVENTS_FILE).write_bytes(b"damaged")
    with pytest.raises(pl.exceptions.ComputeError):
        write_histories(tmp_path, tmp_path, events)
    assert (tmp_path / "histories.parquet").read_bytes() == b"former"
    assert sorted(path.name for path in tmp_path.iterdir()) == [EVENTS_FILE, "histories.parquet"]


def test_of_a_user_with_most_of_the_events_only_the_newest_are_read(tmp_path: Path) -> None:
    events = written(tmp_path, [3, 200_000])
    tracemalloc.start()
    write_histories(tmp_path, tmp_path, events, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    frame = pl.read_parquet(tmp_path / "histories.parquet")
    assert frame["item_id"].to_list() == ["i0", "i1", "i2", *(f"i{n}" for n in range(199_503, 200_003))]
    assert frame["order"].to_list() == [0, 1, 2, *range(199_500, 200_000)]
    assert peak < 8 * 200_000 / 2, "no array of all events"
