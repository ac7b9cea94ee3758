"""What every store of item changes promises, by itself and together with the store of events."""

from __future__ import annotations

import asyncio

import pytest

from ranking.live_catalogue import ItemChange, TextVector
from serving.item_changes import ItemChanges, StoredChange
from serving.stores import Stores
from serving.user_state import Outcome, PastEvent, Snapshot
from tests.serving.backends import Backend
from tests.serving.test_user_state import START, new

BOOT = ItemChange(
    "a", {"title": "Boot – größe", "price": 3.0, "tags": ["x", "y"], "new": True, "brand": None}
)
HAT = ItemChange("b", {"title": "Hat"})
GONE = ItemChange("a", None)


def test_a_snapshot_has_the_history_and_what_became_of_items(backend: Backend) -> None:
    async def scenario(stores: Stores) -> None:
        users, items = stores.users, stores.items
        await users.record([new("u", "a", START, "1"), new("u", "b", START + 1, "2")])
        click = PastEvent("b", "click", START + 1)
        assert await users.snapshot("u", 1, 0) == Snapshot([click], [], 0)
        first = await items.store([BOOT, HAT])
        assert await users.snapshot("", 1, 0) == Snapshot([], [], 0)  # nobody has acknowledged it
        await items.acknowledge(first)
        assert (await users.snapshot("u", 1, 0)).acknowledged == first
        second = await items.store([GONE])
        assert await users.snapshot("u", 1, first) == Snapshot([click], ["a"], first)
        assert (await users.snapshot("u", 1, second)).deleted_items == []
        await items.acknowledge(second)
        await items.acknowledge(first)  # late
        assert (await users.snapshot("u", 1, second)).acknowledged == second
        await items.store([BOOT])
        assert (await users.snapshot("u", 1, 0)).deleted_items == []

    backend.run(scenario)


def test_changes_are_told_in_order_and_the_newest_of_an_item_counts(backend: Backend) -> None:
    async def scenario(changes: ItemChanges) -> None:
        assert await changes.newest() == 0
        assert await changes.since(0, 10) == []
        second = await changes.store([BOOT, HAT])
        first = second - 1
        assert first >= 1
        assert await changes.since(0, 10) == [StoredChange(first, BOOT), StoredChange(second, HAT)]
        assert await changes.since(first, 10) == [StoredChange(second, HAT)]
        assert await changes.since(0, 1) == [StoredChange(first, BOOT)]
        last = await changes.store([GONE, HAT, HAT])
        assert last >= second + 3
        assert await changes.since(0, 10) == [StoredChange(last - 2, GONE), StoredChange(last, HAT)]
        assert await changes.newest() == last
        assert await changes.since(last, 10) == []

    backend.items(scenario)


def test_changes_are_there_after_reopening(backend: Backend) -> None:
    async def write(changes: ItemChanges) -> int:
        return await changes.store([BOOT, HAT, ItemChange("b", None)])

    async def read(changes: ItemChanges) -> list[StoredChange]:
        return await changes.since(0, 10)

    last = backend.items(write)
    assert backend.items(read) == [StoredChange(last - 2, BOOT), StoredChange(last, ItemChange("b", None))]


def test_vectors_are_kept_with_the_change_that_they_belong_to(backend: Backend) -> None:
    vectors = [TextVector(bytes([n]) * 16, bytes(range(n, 256))) for n in range(4)]

    async def write(changes: ItemChanges) -> None:
        await changes.store([BOOT, HAT])
        boot, hat = await changes.since(0, 10)
        assert boot.change.encoded is None
        await changes.keep([(boot, vectors[0]), (hat, vectors[1])])
        assert await encoded(changes) == {"a": vectors[0], "b": vectors[1]}
        await changes.store([BOOT])
        assert await encoded(changes) == {"b": vectors[1], "a": None}
        await changes.keep([(boot, vectors[2]), (hat, vectors[3])])  # the first is superseded by now

    async def encoded(changes: ItemChanges) -> dict[str, TextVector | None]:
        return {stored.change.item_id: stored.change.encoded for stored in await changes.since(0, 10)}

    backend.items(write)
    assert backend.items(encoded) == {"b": vectors[3], "a": None}  # reopened


def test_revisions_are_used_once_and_nobody_who_saw_one_missed_another(backend: Backend) -> None:
    async def scenario(left: Stores) -> None:
        seen: dict[int, str] = {}
        done = asyncio.Event()

        async def follow(changes: ItemChanges) -> None:
            at = 0
            while not done.is_set() or await changes.newest() > at:
                for stored in await changes.since(at, 3):
                    assert stored.revision > at
                    at = stored.revision
                    seen[at] = stored.change.item_id

        async with backend.opened() as right:
            following = asyncio.create_task(follow(right.items))
            stores = [left.items, right.items]
            writes = [stores[n % 2].store([ItemChange(f"i{n}", {"n": n})]) for n in range(60)]
            numbers = await asyncio.gather(*writes)
            done.set()
            await asyncio.wait_for(following, 20)
        assert len(set(numbers)) == 60
        assert seen == {number: f"i{n}" for n, number in enumerate(numbers)}

    backend.run(scenario)


def test_work_whose_time_is_up_is_a_timeout(backend: Backend) -> None:
    async def scenario(stores: Stores) -> None:
        past = asyncio.get_running_loop().time() - 1
        with pytest.raises(TimeoutError):
            await stores.users.record([new("u", "a", START, "1")], past)
        with pytest.raises(TimeoutError):
            await stores.users.snapshot("u", 1, 0, deadline=past)
        with pytest.raises(TimeoutError):
            await stores.items.store([HAT], past)
        assert await stores.users.record([new("u", "a", START, "1")]) == [Outcome.new]

    backend.run(scenario)
