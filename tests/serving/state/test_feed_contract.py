"""Contract of the feed of recorded events, for every store: order, pages, and content."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ranking.live.recorded_events import MAX_PRECEDING, Interaction, RecordedEvent
from serving.state.contracts.user_state import MICROS, FeedPage, UserState
from tests.serving.backends import Backend
from tests.serving.state.test_user_state import START, histories, new


async def everything(state: UserState, limit: int = 1000, after_us: int = 0) -> list[RecordedEvent]:
    """Read all pages of the feed."""
    events: list[RecordedEvent] = []
    position = 0
    while (page := await state.recorded_since(position, limit, after_us)).position != position:
        assert len(page.events) <= limit
        events += page.events
        position = page.position
    assert page.events == []
    return events


def test_events_come_in_the_order_of_arrival_with_what_the_shopper_did_before(backend: Backend) -> None:
    async def scenario(state: UserState) -> list[RecordedEvent]:
        await state.record([new("u", "a", START + 5, "1"), new("v", "x", START, "1", "purchase")])
        await state.record([new("u", "b", START + 9, "2", "purchase"), new("u", "a", START + 5, "1")])
        # late: it happened before what has been recorded already
        await state.record([new("u", "c", START + 7, "3"), new("u", "c", START + 9, "4")])
        return await everything(state)

    a, b, c = Interaction("a", "click"), Interaction("b", "purchase"), Interaction("c", "click")
    assert backend.users(scenario) == [
        RecordedEvent("a", "click", START + 5, ()),
        RecordedEvent("x", "purchase", START, ()),
        # one store looks at what came before when the event is recorded, the other when it is read
        RecordedEvent("b", "purchase", START + 9, (a,) if "redis" in backend.state else (c, a)),
        RecordedEvent("c", "click", START + 7, (a,)),
        RecordedEvent("c", "click", START + 9, (b, c, a)),
    ]


def test_pages_go_on_where_the_last_one_ended(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[list[list[str]], FeedPage]:
        await state.record([new("u", f"i{n}", START + n, str(n)) for n in range(5)])
        pages, position = [], 0
        for _ in range(3):
            page = await state.recorded_since(position, 2, 0)
            pages.append([event.item_id for event in page.events])
            position = page.position
        assert await state.recorded_since(position, 2, 0) == FeedPage([], position)
        await state.record([new("v", "later", START - 1, "1")])
        return pages, await state.recorded_since(position, 2, 0)

    pages, last = backend.users(scenario)
    assert pages == [["i0", "i1"], ["i2", "i3"], ["i4"]]
    assert [event.item_id for event in last.events] == ["later"]


def test_imports_and_impressions_are_not_in_it_but_imports_stand_before(
    tmp_path: Path, backend: Backend
) -> None:
    path = histories(tmp_path / "h.parquet", [("u", "old", "click", 1_600_000_000, 0)])

    async def scenario(state: UserState) -> list[RecordedEvent]:
        await state.import_histories(path)
        await state.record([new("u", "seen", START, "1", "impression"), new("u", "a", START + 1, "2")])
        return await everything(state)

    assert backend.users(scenario) == [RecordedEvent("a", "click", START + 1, (Interaction("old", "click"),))]


def test_no_more_stands_before_an_event_than_is_wanted(backend: Backend) -> None:
    async def scenario(state: UserState) -> list[RecordedEvent]:
        await state.record([new("u", f"i{n}", START + n, str(n)) for n in range(30)])
        return await everything(state, limit=7)

    events = backend.users(scenario)
    assert [event.item_id for event in events] == [f"i{n}" for n in range(30)]
    assert [interaction.item_id for interaction in events[29].before] == [
        f"i{28 - n}" for n in range(MAX_PRECEDING)
    ]
    assert [interaction.item_id for interaction in events[3].before] == ["i2", "i1", "i0"]


def test_what_happened_before_a_moment_is_left_out(backend: Backend) -> None:
    now = time.time_ns() // 1000

    async def scenario(state: UserState) -> list[str]:
        times = [now - 40 * 86_400 * MICROS, now, now - MICROS, now + MICROS]
        await state.record([new(f"u{n}", f"i{n}", when, "1") for n, when in enumerate(times)])
        assert [e.item_id for e in await everything(state, limit=1, after_us=now)] == ["i3"]
        return [e.item_id for e in await everything(state, after_us=now - MICROS)]

    assert backend.users(scenario) == ["i1", "i3"]


def test_a_deleted_user_is_not_in_it(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[list[RecordedEvent], list[RecordedEvent]]:
        await state.record([new("u", "a", START, "1"), new("v", "a", START, "1"), new("u", "b", START, "2")])
        await state.delete_user("u")
        left = await everything(state)
        await state.delete_user("v")
        await state.record([new("w", "c", START, "1")])
        return left, await everything(state)

    left, later = backend.users(scenario)
    assert left == [RecordedEvent("a", "click", START, ())]
    assert later == [RecordedEvent("c", "click", START, ())]


def test_it_goes_on_after_reopening_and_follows_others_on_the_same_store(backend: Backend) -> None:
    async def first(state: UserState) -> int:
        await state.record([new("u", "a", START, "1")])
        return (await state.recorded_since(0, 10, 0)).position

    position = backend.users(first)

    async def two() -> list[str]:
        async with backend.opened() as left, backend.opened() as right:
            for n in range(20):
                sender = (left, right)[n % 2].users
                await sender.record([new("u", f"i{n}", START + n + 1, f"b{n}")])
            page = await right.users.recorded_since(position, 100, 0)
            assert page == await left.users.recorded_since(position, 100, 0)
            assert page.events[19].before[0] == Interaction("i18", "click")
            return [event.item_id for event in page.events]

    assert asyncio.run(two()) == [f"i{n}" for n in range(20)]


def test_a_clock_that_is_set_back_hides_nothing_from_who_has_read_so_far(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In SQLite arrivals follow the writer's clock; in Redis the clock step is a client's."""

    async def two() -> list[str]:
        async with backend.opened() as left, backend.opened() as right:
            await left.users.record([new("u", "a", START, "1")])
            position = (await right.users.recorded_since(0, 9, 0)).position
            hour_ago = time.time_ns() - 3_600_000_000_000
            monkeypatch.setattr("serving.state.sqlite.users.time.time_ns", lambda: hour_ago)
            await right.users.record([new("u", "b", START + 1, "2")])
            page = await left.users.recorded_since(position, 9, 0)
            assert page.position > position
            return [event.item_id for event in page.events]

    assert asyncio.run(two()) == ["b"]


def test_ids_of_any_characters_come_back_as_they_were(backend: Backend) -> None:
    odd = ['"', "\\", "a\nb", "\x01", "\u2028", "größe", "👟", "[1,2]", "a/b", "x" * 128]

    async def scenario(state: UserState) -> list[RecordedEvent]:
        await state.record([new("u", item, START + n, str(n)) for n, item in enumerate(odd)])
        return await everything(state)

    events = backend.users(scenario)
    assert [event.item_id for event in events] == odd
    assert [interaction.item_id for interaction in events[9].before] == odd[8::-1]
