"""Contract of the import of histories, for every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conf.errors import InputError
from serving.state.contracts.user_state import MICROS, ImportResult, PastEvent, StateStats, UserState
from tests.serving.backends import Backend
from tests.serving.state.test_user_state import START, histories, new


def test_an_import_happens_once_per_content(tmp_path: Path, backend: Backend) -> None:
    rows = [("u", "a", "purchase", 100, 0), ("u", "a", "purchase", 100, 1), ("u", "b", "click", 200, 2)]
    path = histories(tmp_path / "h.parquet", rows)

    async def scenario(state: UserState) -> tuple[Any, ...]:
        first = await state.import_histories(path)
        again = await state.import_histories(path)
        # A later file tells the same events in other positions, and one more.
        longer = histories(path, [("u", "c", "click", 50, 0)] + [(*row[:4], row[4] + 1) for row in rows])
        second = await state.import_histories(longer)
        return first, again, second, [(e.item_id, e.time_us) for e in await state.history("u", 10)]

    first, again, second, events = backend.users(scenario)
    assert first == ImportResult(already_imported=False, rows=3, new=3)
    assert again.already_imported
    assert second == ImportResult(already_imported=False, rows=4, new=1)
    assert events == [("c", 50 * MICROS), ("a", 100 * MICROS), ("a", 100 * MICROS), ("b", 200 * MICROS)]


def test_an_import_does_not_repeat_recorded_events(tmp_path: Path, backend: Backend) -> None:
    path = histories(
        tmp_path / "h.parquet",
        [("u", "a", "click", 1_700_000_000, 0), ("u", "a", "purchase", 1_700_000_000, 1)],
    )

    async def scenario(state: UserState) -> tuple[int, list[str]]:
        await state.record([new("u", "a", START + 700_000, "1")])
        result = await state.import_histories(path)
        return result.new, [e.kind for e in await state.history("u", 10)]

    assert backend.users(scenario) == (1, ["purchase", "click"])


def test_imported_events_come_before_recorded_ones_of_the_same_time(tmp_path: Path, backend: Backend) -> None:
    path = histories(
        tmp_path / "h.parquet", [("u", item, "click", 1_700_000_000, n) for n, item in enumerate("ba")]
    )

    async def scenario(state: UserState) -> list[str]:
        await state.record([new("u", "x", START, "1")])
        await state.import_histories(path)
        return [e.item_id for e in await state.history("u", 10)]

    assert backend.users(scenario) == list("bax")


def test_histories_without_times_keep_their_order(tmp_path: Path, backend: Backend) -> None:
    path = histories(tmp_path / "h.parquet", [("u", item, "click", 0, n) for n, item in enumerate("cabca")])

    async def scenario(state: UserState) -> list[str]:
        await state.import_histories(path)
        return [e.item_id for e in await state.history("u", 10)]

    assert backend.users(scenario) == list("cabca")


def test_a_long_import_is_whole(tmp_path: Path, backend: Backend) -> None:
    rows = [(f"u{n % 90}", f"i{n % 7}", "click", n, n) for n in range(12_000)]
    path = histories(tmp_path / "h.parquet", rows)

    async def scenario(state: UserState) -> tuple[ImportResult, StateStats, list[PastEvent]]:
        result = await state.import_histories(path)
        return result, await state.stats(), await state.history("u3", 2)

    result, stats, latest = backend.users(scenario)
    assert result == ImportResult(already_imported=False, rows=12_000, new=12_000)
    assert (stats.users, stats.events) == (90, 12_000)
    # Rows 3 + 90 k of user u3; the last two are 11,883 and 11,973.
    assert [e.time_us for e in latest] == [11_883 * MICROS, 11_973 * MICROS]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"order": pl.lit("first")}, "not a histories table"),
        ({"item_id": pl.lit(None, dtype=pl.String)}, "row 0: 'item_id' is missing"),
    ],
)
def test_wrong_histories_are_named_and_can_be_put_right(
    tmp_path: Path, backend: Backend, change: dict[str, pl.Expr], says: str
) -> None:
    path = histories(tmp_path / "h.parquet", [("u", "a", "click", 1, 0)], **change)

    async def scenario(state: UserState) -> int:
        with pytest.raises(InputError, match=says):
            await state.import_histories(path)
        return (await state.import_histories(histories(path, [("u", "a", "click", 1, 0)]))).new

    assert backend.users(scenario) == 1
