"""Exposures of stored events, in new files and in files of older formats."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

import pytest

from serving.state.contracts.user_state import NO_EXPOSURE, Exposure, NewEvent, Outcome, PastEvent
from serving.state.sqlite.file import _MIGRATIONS
from serving.state.sqlite.users import SqliteUserState
from tests.serving.state.test_user_state import with_state

T = TypeVar("T")
SHOWN = Exposure("r-1", 3, "home", "v1", "phone", 17, 0.5, "layout=wide;ranking=new")
COLUMNS = "request_id, list_position, surface, model_version, device, hour, propensity, experiments"


def event(
    item: str, time_us: int, kind: str = "click", shown: Exposure = NO_EXPOSURE, user: str = "u"
) -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{kind}{item}{time_us}", shown)


def stored(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as db:
        rows = db.execute(f"SELECT item_id, {COLUMNS} FROM events ORDER BY time_us").fetchall()
    db.close()
    return rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def test_an_event_keeps_the_list_that_it_came_from(file: Path) -> None:
    with_state(file, lambda state: state.record([event("a", 1, shown=SHOWN), event("b", 2)]))
    assert stored(file) == [("a", *astuple(SHOWN)), ("b", None, None, None, None, None, None, None, None)]


def test_the_first_telling_of_an_event_counts(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> list[Outcome]:
        await state.record([event("a", 1, shown=SHOWN)])
        return await state.record([event("a", 1)])

    assert with_state(file, scenario) == [Outcome.duplicate]
    assert stored(file) == [("a", *astuple(SHOWN))]


@pytest.mark.parametrize("known", [1, 2, 3, 4, 5, 6, 7])
def test_files_of_former_formats_get_what_they_lack_and_keep_what_they_have(file: Path, known: int) -> None:
    with sqlite3.connect(file) as db:
        db.executescript("".join(_MIGRATIONS[:known]))
        db.execute("INSERT INTO settings VALUES ('salt', x'00')")
        db.execute("INSERT INTO users VALUES (1, 'u')")
        columns = "user, event_id, time_us, position, item_id, kind, recorded"
        db.execute(f"INSERT INTO events ({columns}) VALUES (1, 'client:1', 5, 1, 'a', 'click', 1)")
        db.execute(f"PRAGMA user_version = {known}")
    db.close()

    async def scenario(state: SqliteUserState) -> tuple[list[Outcome], list[PastEvent]]:
        again = NewEvent("u", "a", "click", 5, "client:1", SHOWN)
        return await state.record([again, event("b", 6, shown=SHOWN)]), await state.history("u", 10)

    outcomes, history = with_state(file, scenario)
    assert outcomes == [Outcome.duplicate, Outcome.new]
    assert history == [PastEvent("a", "click", 5), PastEvent("b", "click", 6)]
    assert stored(file) == [("a", *astuple(NO_EXPOSURE)), ("b", *astuple(SHOWN))]
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT count(text_vector) FROM item_changes").fetchone() == (0,)
    db.close()


def test_impressions_do_not_use_up_the_limit_of_a_history_without_them(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> tuple[list[PastEvent], list[PastEvent]]:
        seen = [event(f"s{n}", 10 + n, "impression") for n in range(50)]
        await state.record([event("a", 1), event("b", 2, "purchase"), *seen])
        every = await state.history("u", 3)
        interactions = await state.history("u", 3, impressions=False)
        return every, interactions

    every, interactions = with_state(file, scenario)
    assert [e.item_id for e in every] == ["s47", "s48", "s49"]
    assert [e.item_id for e in interactions] == ["a", "b"]


def test_users_are_listed_in_the_order_of_their_bytes_from_any_id_on(file: Path) -> None:
    ids = ["z", "a", "é", "B", "ab", "a\u0000", "\U0001f600", "～"]  # in UTF-16 the last two change places

    async def scenario(state: SqliteUserState) -> tuple[list[str], list[str], list[str]]:
        await state.record([event("a", 1, user=user) for user in ids])
        paged: list[str] = []
        while page := await state.users(paged[-1] if paged else "", 3):
            paged += page
        await state.delete_user("ab")
        return paged, await state.users("ab", 2), await state.users("aa", 1)

    paged, after_erased, between = with_state(file, scenario)
    assert paged == sorted(ids, key=lambda user: user.encode())
    assert after_erased == paged[paged.index("ab") + 1 :][:2]
    assert between == ["z"]
