"""A histories file is read in blocks: the same events for any size of block, whatever its order."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from serving.state import histories_reader
from serving.state.histories import history_of, remove_users, users_of
from serving.state.histories_reader import event_slices, open_histories

Row = tuple[str, str, str, int, int]
ROWS: list[Row] = [
    ("b", "x", "click", 5, 0),
    ("b", "y", "click", 5, 1),
    ("b", "x", "click", 5, 2),
    ("a", "x", "click", 5, 0),
    ("c", "x", "buy", 9, 1),
    ("c", "z", "click", 7, 0),
]
"""Each user's in one place, though in no order."""
SCATTERED: list[Row] = [ROWS[i] for i in (4, 0, 3, 1, 5, 2)]
EVENTS = {
    "a": [("import:x\x1fclick\x1f5\x1f0", 5_000_000, 0, "x", "click")],
    "b": [
        ("import:x\x1fclick\x1f5\x1f0", 5_000_000, 0, "x", "click"),
        ("import:y\x1fclick\x1f5\x1f0", 5_000_000, 1, "y", "click"),
        ("import:x\x1fclick\x1f5\x1f1", 5_000_000, 2, "x", "click"),
    ],
    "c": [
        ("import:z\x1fclick\x1f7\x1f0", 7_000_000, 0, "z", "click"),
        ("import:x\x1fbuy\x1f9\x1f0", 9_000_000, 1, "x", "buy"),
    ],
}


def write(path: Path, rows: list[Row]) -> Path:
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path)
    return path


@pytest.fixture(params=[1, 2, 3, 4, 5, 100])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows read at a time, and half of them are collected where users are scattered."""
    monkeypatch.setattr(histories_reader, "BLOCK", request.param)
    monkeypatch.setattr(histories_reader, "PART", max(request.param // 2, 1))
    return int(request.param)


@pytest.mark.parametrize(("rows", "grouped"), [(ROWS, True), (SCATTERED, False)])
def test_events_are_the_same_for_every_block_and_order(
    tmp_path: Path, block: int, rows: list[Row], grouped: bool
) -> None:
    path, found = write(tmp_path / "h.parquet", rows), dict[str, list[tuple[object, ...]]]()
    with open_histories(path) as histories:
        assert (histories.rows, histories.grouped) == (6, grouped)
        for part in histories.events():
            users = part["user_id"].unique().to_list()
            assert not set(users) & set(found)  # users come whole
            for user, *event in part.iter_rows():
                found.setdefault(user, []).append(tuple(event))
    assert found == EVENTS
    assert {user: [(e.event_id, e.time_us) for e in history_of(path, user)] for user in "abc"} == {
        user: [event[:2] for event in events] for user, events in EVENTS.items()
    }
    assert {user for users in users_of(path) for user in users} == {"a", "b", "c"}


def test_slices_have_at_most_so_many_rows(tmp_path: Path, block: int) -> None:
    path = write(tmp_path / "h.parquet", ROWS)

    async def sizes() -> list[int]:
        return [part.height async for part in event_slices(path, 2)]

    found = asyncio.run(sizes())
    assert sum(found) == 6
    assert max(found) <= 2


def test_a_cancelled_import_stops_reading_after_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is stopped waits for its threads: the check of a large file takes minutes."""
    path = write(tmp_path / "h.parquet", ROWS * 50)
    monkeypatch.setattr(histories_reader, "BLOCK", 1)
    read = histories_reader._blocks
    blocks: list[int] = []

    def slow_blocks(*arguments: Any) -> Iterator[tuple[int, pl.DataFrame]]:
        for start, block in read(*arguments):
            blocks.append(start)
            time.sleep(0.02)
            yield start, block

    monkeypatch.setattr(histories_reader, "_blocks", slow_blocks)

    async def cancelled() -> None:
        task = asyncio.ensure_future(anext(event_slices(path, 2)))
        while len(blocks) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())  # waits for its threads
    assert len(blocks) < 20


def test_the_check_of_a_scattered_file_remembers_users_and_not_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories_reader, "BLOCK", 10)
    sizes: list[int] = []
    join = np.concatenate

    def counted(arrays: Any) -> Any:
        sizes.append(sum(len(array) for array in arrays))
        return join(arrays)

    monkeypatch.setattr(np, "concatenate", counted)
    with open_histories(write(tmp_path / "h.parquet", SCATTERED * 100)) as found:
        assert (found.rows, found.grouped) == (600, False)
    assert max(sizes) <= 30  # three users; every row begins another one's
    each = [(f"u{number}", "x", "click", 5, 0) for number in range(600)]
    with open_histories(write(tmp_path / "h.parquet", each)) as found:
        assert found.grouped
    with open_histories(write(tmp_path / "h.parquet", [*each, each[0]])) as found:
        assert not found.grouped


def test_a_missing_value_of_one_user_is_named_by_its_row_in_the_file(tmp_path: Path, block: int) -> None:
    path = write(tmp_path / "h.parquet", ROWS)
    frame = pl.read_parquet(path)
    frame.with_columns(event=pl.when(pl.int_range(pl.len()) != 4).then(pl.col("event"))).write_parquet(path)
    with pytest.raises(InputError, match="row 4: 'event' is missing"):
        history_of(path, "c")
    assert len(history_of(path, "b")) == 3


def test_a_missing_value_is_named_by_its_row_in_the_file(tmp_path: Path, block: int) -> None:
    path = tmp_path / "h.parquet"
    write(path, ROWS)
    frame = pl.read_parquet(path)
    holed = frame.with_columns(event=pl.when(pl.int_range(pl.len()) != 4).then(pl.col("event")))
    holed.write_parquet(path)
    says = "row 4: 'event' is missing; publish the bundle again"
    with pytest.raises(InputError, match=says), open_histories(path):
        pytest.fail("nothing of it may be used")


def test_a_file_without_rows_has_no_events(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    pl.read_parquet(write(path, ROWS)).clear().write_parquet(path)
    with open_histories(path) as found:
        assert (found.rows, found.grouped, list(found.events())) == (0, True, [])
    assert history_of(path, "a") == []
    assert list(users_of(path)) == []


def test_a_file_that_is_replaced_while_it_is_open_is_read_as_it_was(tmp_path: Path, block: int) -> None:
    path = write(tmp_path / "h.parquet", ROWS)
    with open_histories(path) as found:
        write(tmp_path / "new.parquet", ROWS[:1]).replace(path)
        assert sum(part.height for part in found.events()) == 6


def test_users_are_removed_and_the_order_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "h.parquet", SCATTERED)
    before = path.stat().st_ino
    remove_users(path, ["nobody"])
    assert path.stat().st_ino == before
    remove_users(path, ["b", "nobody"])
    assert pl.read_parquet(path).rows() == [row for row in SCATTERED if row[0] != "b"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["h.parquet"]


PEAK = """
import re, sys
from pathlib import Path
from serving.state.histories_reader import open_histories
with open_histories(Path(sys.argv[1])) as found:
    print(sum(part.height for part in found.events()), found.grouped)
print(int(re.search("VmHWM:\\s*(.*) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""
"""Prints the peak of the process's own memory; that of `getrusage` begins with its parent's."""


@pytest.mark.parametrize(("scattered", "more"), [(False, 50), (True, 150)])
def test_memory_does_not_grow_with_the_events(tmp_path: Path, scattered: bool, more: int) -> None:
    """Eight times as many events take some MiB more at most; whole, they would take some 900."""
    peaks = []
    for rows in (400_000, 3_200_000):
        users = np.arange(rows) // 50
        number = pl.Series(np.random.default_rng(0).permutation(users) if scattered else users)
        path = tmp_path / f"{rows}.parquet"
        pl.DataFrame(
            {
                "user_id": pl.select(pl.lit("user-") + number.cast(pl.String)).to_series(),
                "item_id": pl.select(pl.lit("item-") + (number % 977).cast(pl.String)).to_series(),
                "event": ["click"] * rows,
                "timestamp": range(rows),
                "order": range(rows),
            }
        ).write_parquet(path)
        command = [sys.executable, "-c", PEAK, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        counted, peak = done.stdout.splitlines()
        assert counted == f"{rows} {not scattered}"
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + more
