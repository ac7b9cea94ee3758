from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest

from conf.errors import InputError
from serving.histories import read_histories
from serving.sqlite_file import SqliteFile
from serving.sqlite_state import SqliteUserState
from serving.user_state import (
    MICROS,
    ImportResult,
    NewEvent,
    Outcome,
    PastEvent,
    StateUnavailable,
    UserState,
    content_id,
    log_name,
)

T = TypeVar("T")
DAY = 86_400 * MICROS
START = 1_700_000_000 * MICROS


def with_state(path: Path, scenario: Callable[[SqliteUserState], Awaitable[T]]) -> T:
    async def run() -> T:
        file = SqliteFile(path)
        try:
            return await scenario(SqliteUserState(file))
        finally:
            await file.close()

    return asyncio.run(run())


def new(user: str, item: str, time_us: int, event_id: str, kind: str = "click") -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{event_id}")


def histories(path: Path, rows: list[tuple[str, str, str, int, int]], **changes: Any) -> Path:
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    pl.DataFrame(rows, schema=columns, orient="row").with_columns(**changes).write_parquet(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def test_the_store_fulfils_the_contract(file: Path) -> None:
    async def scenario(state: UserState) -> list[Outcome]:
        return await state.record([new("u", "a", START, "1")])

    assert with_state(file, scenario) == [Outcome.new]


def test_history_is_ordered_by_time_then_arrival_and_limited_to_the_latest(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> tuple[list[PastEvent], ...]:
        await state.record([new("u", "b", START, "2"), new("u", "c", START, "3"), new("v", "x", START, "1")])
        await state.record([new("u", "d", START, "4"), new("u", "a", START - 1, "5")])
        return (
            await state.history("u", 10),
            await state.history("u", 2),
            await state.history("u", 10, before_us=START),
            await state.history("nobody", 10),
        )

    everything, latest, before, nobody = with_state(file, scenario)
    assert [e.item_id for e in everything] == ["a", "b", "c", "d"]
    assert everything[0] == PastEvent("a", "click", START - 1)
    assert [e.item_id for e in latest] == ["c", "d"]
    assert [e.item_id for e in before] == ["a"]
    assert nobody == []


def test_events_are_stored_once_per_user_and_id(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> tuple[list[Outcome], list[Outcome], int]:
        first = await state.record([new("u", "a", START, "1"), new("u", "b", START, "1")])
        second = await state.record([new("v", "a", START, "1"), new("u", "a", START, "1")])
        return first, second, (await state.stats()).events

    assert with_state(file, scenario) == (
        [Outcome.new, Outcome.duplicate],
        [Outcome.new, Outcome.duplicate],
        2,
    )


def test_everything_is_there_after_reopening(file: Path) -> None:
    async def write(state: SqliteUserState) -> None:
        await asyncio.gather(*(state.record([new(f"u{n % 7}", "a", START + n, str(n))]) for n in range(100)))
        await state.delete_user("u0")

    async def read(state: SqliteUserState) -> tuple[int, int, int | None, int]:
        stats = await state.stats()
        return stats.users, stats.events, stats.last_record_us, len(await state.history("u1", 100))

    with_state(file, write)
    # 100 events: users u0 and u1 have 15, the others 14
    assert with_state(file, read) == (6, 85, None, 15)


def test_sizes_are_kept_without_counting(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> list[tuple[int, int]]:
        sizes = []
        await state.record([new("u", "a", START, "1"), new("v", "a", START, "1"), new("u", "a", START, "1")])
        sizes.append(await state.stats())
        await state.delete_user("u")
        sizes.append(await state.stats())
        return [(s.users, s.events) for s in sizes]

    assert with_state(file, scenario) == [(2, 2), (1, 1)]


def test_a_deleted_user_leaves_no_bytes_in_any_file(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> tuple[int, bytes]:
        await state.record([new("alice@example.com", "secret-item", START + n, str(n)) for n in range(300)])
        await state.record([new("bob", "other-item", START, "1")])
        deleted = await state.delete_user("alice@example.com")
        return deleted, b"".join(path.read_bytes() for path in file.parent.iterdir())

    deleted, content = with_state(file, scenario)
    assert deleted == 300
    assert b"other-item" in content
    assert b"alice" not in content
    assert b"secret-item" not in content


def test_a_deleted_user_stays_deleted_through_imports_and_late_events(tmp_path: Path, file: Path) -> None:
    path = histories(
        tmp_path / "h.parquet", [("u", "a", "click", 1_600_000_000, 0), ("v", "b", "click", 1_600_000_000, 0)]
    )

    async def scenario(state: SqliteUserState) -> tuple[Any, ...]:
        assert await state.delete_user("u") == 0  # never seen: still remembered
        imported = await state.import_histories(path)
        late = await state.record([new("u", "a", START, "1")])
        afterwards = await state.record([new("u", "b", 4_000_000_000 * MICROS, "2")])
        return imported, late, afterwards, await state.history("u", 10), await state.history("v", 10)

    imported, late, afterwards, u, v = with_state(file, scenario)
    assert imported == ImportResult(already_imported=False, rows=1, new=1)
    assert late == [Outcome.user_deleted]
    assert afterwards == [Outcome.new]
    assert [e.item_id for e in u] == ["b"]
    assert [e.item_id for e in v] == ["b"]


def test_an_import_happens_once_per_content(tmp_path: Path, file: Path) -> None:
    rows = [("u", "a", "purchase", 100, 0), ("u", "a", "purchase", 100, 1), ("u", "b", "click", 200, 2)]
    path = histories(tmp_path / "h.parquet", rows)

    async def scenario(state: SqliteUserState) -> tuple[Any, ...]:
        first = await state.import_histories(path)
        again = await state.import_histories(path)
        # A later file tells the same events in other positions, and one more.
        longer = histories(path, [("u", "c", "click", 50, 0)] + [(*row[:4], row[4] + 1) for row in rows])
        second = await state.import_histories(longer)
        return first, again, second, [(e.item_id, e.time_us) for e in await state.history("u", 10)]

    first, again, second, events = with_state(file, scenario)
    assert first == ImportResult(already_imported=False, rows=3, new=3)
    assert again.already_imported
    assert second == ImportResult(already_imported=False, rows=4, new=1)
    assert events == [("c", 50 * MICROS), ("a", 100 * MICROS), ("a", 100 * MICROS), ("b", 200 * MICROS)]


def test_an_import_does_not_repeat_recorded_events(tmp_path: Path, file: Path) -> None:
    path = histories(
        tmp_path / "h.parquet",
        [("u", "a", "click", 1_700_000_000, 0), ("u", "a", "purchase", 1_700_000_000, 1)],
    )

    async def scenario(state: SqliteUserState) -> tuple[int, list[str]]:
        await state.record([new("u", "a", START + 700_000, "1")])
        result = await state.import_histories(path)
        return result.new, [e.kind for e in await state.history("u", 10)]

    assert with_state(file, scenario) == (1, ["purchase", "click"])


def test_histories_without_times_keep_their_order(tmp_path: Path, file: Path) -> None:
    path = histories(tmp_path / "h.parquet", [("u", item, "click", 0, n) for n, item in enumerate("cabca")])

    async def scenario(state: SqliteUserState) -> list[str]:
        await state.import_histories(path)
        return [e.item_id for e in await state.history("u", 10)]

    assert with_state(file, scenario) == list("cabca")


def test_a_failing_import_leaves_nothing_behind(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = histories(tmp_path / "h.parquet", [(f"u{n}", "a", "click", n, n) for n in range(10)])
    broken = read_histories(path).with_columns(
        kind=pl.when(pl.col("time_us") < 7 * MICROS).then(pl.col("kind"))
    )
    monkeypatch.setattr("serving.sqlite_state.read_histories", lambda _: broken)

    async def scenario(state: SqliteUserState) -> tuple[int, int]:
        with pytest.raises(StateUnavailable):
            await state.import_histories(path)
        monkeypatch.undo()
        stats = await state.stats()
        return stats.events, (await state.import_histories(path)).new

    assert with_state(file, scenario) == (0, 10)


def test_an_import_that_is_cut_off_is_completed_later(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = histories(tmp_path / "h.parquet", [(f"u{n}", "a", "click", n, n) for n in range(10)])
    monkeypatch.setattr("serving.sqlite_state._IMPORT_SLICE", 3)

    async def scenario(state: SqliteUserState) -> tuple[int, ImportResult, int]:
        whole, calls = state._import_slice, []

        def slice_(db: sqlite3.Connection, frame: pl.DataFrame) -> tuple[int, int]:
            calls.append(frame.height)
            if len(calls) == 3:
                raise sqlite3.OperationalError("disk full")
            return whole(db, frame)

        monkeypatch.setattr(state, "_import_slice", slice_)
        with pytest.raises(StateUnavailable, match="disk full"):
            await state.import_histories(path)
        between = (await state.stats()).events
        return between, await state.import_histories(path), (await state.stats()).events

    assert with_state(file, scenario) == (6, ImportResult(already_imported=False, rows=10, new=4), 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"order": pl.lit("first")}, "not a histories table"),
        ({"item_id": pl.lit(None, dtype=pl.String)}, "row 0: 'item_id' is missing"),
    ],
)
def test_wrong_histories_are_named(tmp_path: Path, file: Path, change: dict[str, pl.Expr], says: str) -> None:
    path = histories(tmp_path / "h.parquet", [("u", "a", "click", 1, 0)], **change)

    async def scenario(state: SqliteUserState) -> None:
        with pytest.raises(InputError, match=says):
            await state.import_histories(path)

    with_state(file, scenario)


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}).write_parquet(path)
    with pytest.raises(InputError, match="no column 'event'"):
        read_histories(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a histories table"):
        read_histories(path)


@pytest.mark.parametrize("content", ["database", "newer", "folder"])
def test_files_that_are_no_user_state_are_refused(tmp_path: Path, file: Path, content: str) -> None:
    if content == "folder":
        file = tmp_path / "missing" / "state.sqlite"
    else:
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE mine (x)" if content == "database" else "PRAGMA user_version = 99")
        db.close()

    async def opening() -> None:
        SqliteFile(file)

    with pytest.raises(InputError, match=r"state\.sqlite"):
        asyncio.run(opening())


def test_a_locked_file_is_unavailable_not_a_crash(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> list[Outcome]:
        state._file.writer.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateUnavailable):
            await state.record([new("u", "a", START, "1")])
        other.execute("ROLLBACK")
        other.close()
        return await state.record([new("u", "a", START, "1")])

    assert with_state(file, scenario) == [Outcome.new]


def test_content_ids_differ_when_the_content_does() -> None:
    names = {
        content_id("a", "click", 1),
        content_id("a", "click", 2),
        content_id("a", "buy", 1),
        content_id("b", "click", 1),
    }
    assert len(names) == 4
    assert content_id("a", "click", 1) == content_id("a", "click", 1)


def test_log_names_are_short_hashes() -> None:
    assert log_name("alice@example.com") == "ff8d9819"
