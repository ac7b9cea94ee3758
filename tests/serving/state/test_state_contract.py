"""Contract of stores of events: events and users."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from ranking.catalogue.live_catalogue import ItemChange
from serving.state.contracts.user_state import (
    MICROS,
    Exposure,
    ImportResult,
    NewEvent,
    Outcome,
    PastEvent,
    StoredEvent,
    UserState,
)
from serving.stores import Stores
from tests.serving.backends import Backend
from tests.serving.state.test_user_state import START, histories, new

SHOWN = Exposure("r-1", 3, "home", "v1", "phone", 17, 0.5, "layout=wide;ranking=new")


async def everything(state: UserState, imported: bool = True) -> list[StoredEvent]:
    return [event async for piece in state.stored(imported) for event in piece]


def test_history_is_ordered_by_time_then_arrival_and_limited_to_the_latest(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[list[PastEvent], ...]:
        await state.record([new("u", "b", START, "2"), new("u", "c", START, "3"), new("v", "x", START, "1")])
        await state.record([new("u", "d", START, "4"), new("u", "a", START - 1, "5")])
        return (
            await state.history("u", 10),
            await state.history("u", 2),
            await state.history("u", 10, before_us=START),
            await state.history("nobody", 10),
        )

    every, latest, before, nobody = backend.users(scenario)
    assert [e.item_id for e in every] == ["a", "b", "c", "d"]
    assert every[0] == PastEvent("a", "click", START - 1)
    assert [e.item_id for e in latest] == ["c", "d"]
    assert [e.item_id for e in before] == ["a"]
    assert nobody == []


def test_ids_of_any_characters_come_back_as_they_were(backend: Backend) -> None:
    odd = ['"', "'", "\\", "a\nb", "\t", "\x01", "\u2028", "größe", "👟", "[1,2]", "x" * 128]

    async def scenario(stores: Stores) -> None:
        for user in odd:
            await stores.users.record([new(user, item, START + n, str(n)) for n, item in enumerate(odd)])
            assert [e.item_id for e in await stores.users.history(user, 20)] == odd
        revision = await stores.items.store([ItemChange(item, None) for item in odd])
        await stores.items.acknowledge(revision)
        found = await stores.users.snapshot(odd[0], 20, 0)
        assert [e.item_id for e in found.events] == odd
        assert sorted(found.deleted_items) == sorted(odd)

    backend.run(scenario)


def test_equal_times_keep_the_order_of_one_large_batch(backend: Backend) -> None:
    async def scenario(state: UserState) -> list[str]:
        await state.record([new("u", f"i{n}", START, f"{n * 7919 % 1000}") for n in range(1000)])
        return [e.item_id for e in await state.history("u", 2000)]

    assert backend.users(scenario) == [f"i{n}" for n in range(1000)]


def test_events_are_stored_once_per_user_and_id(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[list[Outcome], list[Outcome], int]:
        first = await state.record([new("u", "a", START, "1"), new("u", "b", START, "1")])
        second = await state.record([new("v", "a", START, "1"), new("u", "a", START, "1")])
        return first, second, (await state.stats()).events

    assert backend.users(scenario) == (
        [Outcome.new, Outcome.duplicate],
        [Outcome.new, Outcome.duplicate],
        2,
    )


def test_outcomes_come_in_the_order_of_the_batch(backend: Backend) -> None:
    async def scenario(state: UserState) -> list[Outcome]:
        await state.record([new("v", "a", START, "old")])
        await state.delete_user("w")
        batch = [
            new("u", "a", START, "1"),
            new("v", "a", START, "old"),
            new("w", "a", START, "1"),
            new("u", "a", START, "1"),
            new("v", "a", START, "2"),
        ]
        return await state.record(batch)

    assert [o.value for o in backend.users(scenario)] == [
        "new",
        "duplicate",
        "user_deleted",
        "duplicate",
        "new",
    ]


def test_everything_is_there_after_reopening(backend: Backend) -> None:
    async def write(state: UserState) -> None:
        await asyncio.gather(*(state.record([new(f"u{n % 7}", "a", START + n, str(n))]) for n in range(100)))
        await state.delete_user("u0")

    async def read(state: UserState) -> tuple[int, int, int]:
        stats = await state.stats()
        return stats.users, stats.events, len(await state.history("u1", 100))

    backend.users(write)
    # 100 events: users u0 and u1 have 15, the others 14
    assert backend.users(read) == (6, 85, 15)


def test_sizes_follow_what_is_stored_and_erased(backend: Backend) -> None:
    async def scenario(state: UserState) -> list[tuple[int, int, bool]]:
        sizes = [await state.stats()]
        await state.record([new("u", "a", START, "1"), new("v", "a", START, "1"), new("u", "a", START, "1")])
        sizes.append(await state.stats())
        await state.delete_user("u")
        sizes.append(await state.stats())
        return [(s.users, s.events, s.last_record_us is not None) for s in sizes]

    assert backend.users(scenario) == [(0, 0, False), (2, 2, True), (1, 1, True)]


def test_a_deleted_user_leaves_no_bytes_in_any_file(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[int, bytes, bytes]:
        await state.record([new("alice@example.com", "secret-item", START + n, str(n)) for n in range(300)])
        await state.record([new("bob", "other-item", START, "1")])
        files = [path for path in backend.folder.rglob("*") if path.is_file()]
        before = b"".join(path.read_bytes() for path in files)
        deleted = await state.delete_user("alice@example.com")
        files = [path for path in backend.folder.rglob("*") if path.is_file()]
        return deleted, before, b"".join(path.read_bytes() for path in files)

    deleted, before, content = backend.users(scenario)
    assert deleted == 300
    assert b"alice" in before
    assert b"secret-item" in before
    assert b"other-item" in content
    assert b"alice" not in content
    assert b"secret-item" not in content


def test_events_that_lay_ahead_of_the_clock_do_not_come_back_after_a_deletion(backend: Backend) -> None:
    ahead = time.time_ns() // 1000 + 3600 * MICROS

    async def scenario(state: UserState) -> tuple[list[Outcome], list[Outcome]]:
        await state.record([new("u", "a", ahead, "1")])
        await state.delete_user("u")
        await state.delete_user("u")  # the second one, with nothing left, must not forget what the first knew
        return (
            await state.record([new("u", "a", ahead, "1")]),
            await state.record([new("u", "a", ahead + MICROS, "2")]),
        )

    again, later = backend.users(scenario)
    assert again == [Outcome.user_deleted]
    assert later == [Outcome.new]


def test_a_deleted_user_stays_deleted_through_imports_and_late_events(
    tmp_path: Path, backend: Backend
) -> None:
    path = histories(
        tmp_path / "h.parquet", [("u", "a", "click", 1_600_000_000, 0), ("v", "b", "click", 1_600_000_000, 0)]
    )

    async def scenario(state: UserState) -> tuple[Any, ...]:
        assert await state.delete_user("u") == 0  # never seen: still remembered
        imported = await state.import_histories(path)
        late = await state.record([new("u", "a", START, "1")])
        afterwards = await state.record([new("u", "b", 4_000_000_000 * MICROS, "2")])
        return imported, late, afterwards, await state.history("u", 10), await state.history("v", 10)

    imported, late, afterwards, u, v = backend.users(scenario)
    assert imported == ImportResult(already_imported=False, rows=1, new=1)
    assert late == [Outcome.user_deleted]
    assert afterwards == [Outcome.new]
    assert [e.item_id for e in u] == ["b"]
    assert [e.item_id for e in v] == ["b"]


def test_deletions_are_counted_and_found_among_users(backend: Backend) -> None:
    async def scenario(state: UserState) -> None:
        before = await state.deletions()
        await state.record([new("u", "a", START, "1"), new("v", "a", START, "1")])
        assert await state.deletions() == before
        await state.delete_user("u")
        assert await state.deletions() > before
        assert await state.deleted_among(["v", "u", "w"]) == {"u"}
        assert await state.deleted_among([]) == set()

    backend.users(scenario)


def test_impressions_do_not_use_up_the_limit_of_a_history_without_them(backend: Backend) -> None:
    async def scenario(state: UserState) -> tuple[list[str], list[str]]:
        seen = [new("u", f"s{n}", START + 10 + n, f"s{n}", "impression") for n in range(50)]
        interactions = [new("u", "a", START, "1"), new("u", "b", START + 30, "2", "purchase")]
        await state.record([*interactions, *seen])
        every = await state.history("u", 32)
        without = await state.history("u", 3, impressions=False)
        return [e.item_id for e in every], [e.item_id for e in without]

    every, without = backend.users(scenario)
    assert every == ["s19", "b", *(f"s{n}" for n in range(20, 50))]
    assert without == ["a", "b"]


def test_users_are_listed_in_the_order_of_their_bytes_from_any_id_on(backend: Backend) -> None:
    ids = ["z", "a", "é", "B", "ab", "a\u0000", "\U0001f600", "～"]  # in UTF-16 the last two change places

    async def scenario(state: UserState) -> tuple[list[str], list[str], list[str]]:
        await state.record([new(user, "a", START, "1") for user in ids])
        paged: list[str] = []
        while page := await state.users(paged[-1] if paged else "", 3):
            paged += page
        await state.delete_user("ab")
        return paged, await state.users("ab", 2), await state.users("aa", 1)

    paged, after_erased, between = backend.users(scenario)
    assert paged == sorted(ids, key=lambda user: user.encode())
    assert after_erased == paged[paged.index("ab") + 1 :][:2]
    assert between == ["z"]


def test_stored_events_are_told_whole_and_once(tmp_path: Path, backend: Backend) -> None:
    path = histories(
        tmp_path / "h.parquet", [("u", "a\u001fb", "click", 5, 3), ("u", "a\u001fb", "click", 5, 4)]
    )
    shown = NewEvent("u", 'i"7', "impression", 6 * MICROS, "client:e1", SHOWN)

    async def scenario(state: UserState) -> tuple[list[StoredEvent], list[StoredEvent]]:
        await state.import_histories(path)
        await state.record([shown, new("ö", "c", 7 * MICROS, "e1")])
        await state.record([new(f"m{n:02}", "d", START, "1") for n in range(40)])
        return await everything(state), await everything(state, imported=False)

    every, recorded = backend.users(scenario)
    told = {"u": [e for e in every if e.user_id == "u"], "ö": [e for e in every if e.user_id == "ö"]}
    assert told["u"] == [
        StoredEvent("u", "a\u001fb", "click", 5 * MICROS, "import:a\x1fb\x1fclick\x1f5\x1f0"),
        StoredEvent("u", "a\u001fb", "click", 5 * MICROS, "import:a\x1fb\x1fclick\x1f5\x1f1"),
        StoredEvent("u", 'i"7', "impression", 6 * MICROS, "client:e1", SHOWN),
    ]
    assert told["ö"] == [StoredEvent("ö", "c", "click", 7 * MICROS, "client:e1")]
    assert len(every) == 44
    assert sorted((e.user_id, e.item_id) for e in recorded) == sorted(
        [("u", 'i"7'), ("ö", "c"), *((f"m{n:02}", "d") for n in range(40))]
    )


def test_what_one_server_stores_another_one_reads_at_once(tmp_path: Path, backend: Backend) -> None:
    path = histories(tmp_path / "h.parquet", [("u", "a", "click", 1, 0)])

    async def scenario(left: Stores) -> None:
        async with backend.opened() as right:
            await left.users.record([new("u", "a", START, "1")])
            assert (await right.users.record([new("u", "a", START, "1")])) == [Outcome.duplicate]
            assert [e.item_id for e in await right.users.history("u", 5)] == ["a"]
            imports = await asyncio.gather(*(s.users.import_histories(path) for s in (left, right)))
            assert sum(result.new for result in imports) == 1
            assert await right.users.delete_user("u") == 2
            assert await left.users.history("u", 5) == []
            assert await left.users.record([new("u", "a", START, "2")]) == [Outcome.user_deleted]

    backend.run(scenario)
