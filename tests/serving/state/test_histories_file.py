"""The histories file is read whole while it is replaced again and again."""

from __future__ import annotations

import threading
from pathlib import Path

import polars as pl

from serving.state.histories import history_of, users_of
from serving.state.histories_reader import open_histories

ROWS = 20_000
READS = 60


def _write(path: Path, rows: int) -> None:
    """Replace the file by one with so many events, as a publication or an erasure does."""
    temporary = path.with_suffix(".new")
    pl.DataFrame(
        {
            "user_id": [f"u{row % 7}" for row in range(rows)],
            "item_id": [f"i{row}" for row in range(rows)],
            "event": ["click"] * rows,
            "timestamp": list(range(rows)),
            "order": list(range(rows)),
        }
    ).write_parquet(temporary)
    temporary.replace(path)


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was_or_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "histories.parquet"
    _write(path, ROWS)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            _write(path, 70)
            _write(path, ROWS)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(READS):
            with open_histories(path) as found:
                assert sum(part.height for part in found.events()) == found.rows
                assert found.rows in (70, ROWS)
            assert len({user for users in users_of(path) for user in users}) == 7
            assert len(history_of(path, "u0")) in (10, ROWS // 7 + 1)
    finally:
        stop.set()
        thread.join()
