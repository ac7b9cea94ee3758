"""Contract of stores of item changes, alone and together with the store of events."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Declaration, ItemChange, TextVector
from serving.state.contracts.item_changes import ItemChanges, StoredChange
from serving.state.contracts.user_state import Outcome, PastEvent, Snapshot
from serving.stores import Stores
from tests.serving.backends import Backend
from tests.serving.state.test_user_state import START, new

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


def test_a_change_is_stored_only_if_the_item_is_as_it_was_read(backend: Backend) -> None:
    price = ItemChange("a", {"price": 4.0, "brand": None}, partial=True)

    async def scenario(changes: ItemChanges) -> None:
        assert await changes.contents(["a", "b"]) == [(0, None), (0, None)]
        first = await changes.replace([price, HAT], [0, 0])
        assert first.conflicts == []
        assert first.revision == await changes.newest()
        assert await changes.contents(["b", "a"]) == [(first.revision, HAT), (first.revision - 1, price)]
        stale = await changes.replace([GONE, BOOT], [0, first.revision])
        assert (stale.revision, stale.conflicts) == (0, [0, 1])
        assert await changes.newest() == first.revision
        mixed = await changes.replace([GONE, HAT], [first.revision - 1, 7])
        assert (mixed.revision > first.revision, mixed.conflicts) == (True, [1])
        assert await changes.contents(["a"]) == [(mixed.revision, GONE)]
        back = await changes.store([BOOT])  # whoever stores without having read wins, and is seen
        assert (await changes.replace([price], [mixed.revision])).conflicts == [0]
        assert (await changes.replace([price], [back])).conflicts == []
        assert [stored.change for stored in await changes.since(0, 9)] == [HAT, price]

    backend.items(scenario)


def test_a_replaced_change_keeps_the_vector_it_came_with(backend: Backend) -> None:
    vector = TextVector(bytes(16), b"1234")

    async def scenario(changes: ItemChanges) -> None:
        await changes.replace([replace(BOOT, encoded=vector), HAT], [0, 0])
        (at, boot), (_, hat) = await changes.contents(["a", "b"])
        assert boot is not None
        assert hat is not None
        assert (boot.encoded, hat.encoded) == (vector, None)
        await changes.replace([BOOT], [at])
        assert [stored.item.encoded for stored in await changes.since(0, 9)] == [None, None]

    backend.items(scenario)


def test_of_many_who_change_an_item_at_once_each_finds_what_the_others_did(backend: Backend) -> None:
    async def scenario(left: Stores) -> None:
        async def add(changes: ItemChanges, name: str) -> None:
            while True:
                [(revision, found)] = await changes.contents(["a"])
                before = {} if found is None else dict(found.attributes or {})
                if not (await changes.replace([ItemChange("a", {**before, name: 1})], [revision])).conflicts:
                    return

        async with backend.opened() as right:
            stores = (left.items, right.items)
            await asyncio.gather(*(add(stores[n % 2], f"n{n}") for n in range(20)))
        [(_, found)] = await left.items.contents(["a"])
        assert found is not None
        assert found.attributes == {f"n{n}": 1 for n in range(20)}

    backend.run(scenario)


def test_declared_attributes_are_changes_in_the_same_order(backend: Backend) -> None:
    stock, launch = (
        Declaration("in_stock", AttributeKind.boolean),
        Declaration("Lager: ä", AttributeKind.time),
    )

    async def write(changes: ItemChanges) -> None:
        assert await changes.declared() == {}
        first = await changes.store([BOOT])
        done = await changes.declare([stock])
        assert done.revision > first
        assert done.conflicts == {}
        assert await changes.newest() == done.revision
        await changes.store([HAT])
        both = await changes.declare([stock, launch, launch])
        assert both.revision == await changes.newest()
        other = Declaration("in_stock", AttributeKind.string)
        refused = await changes.declare([Declaration("new", AttributeKind.list), other])
        assert (refused.revision, refused.conflicts) == (0, {"in_stock": AttributeKind.boolean})
        again = await changes.declare([stock])
        assert again.revision <= await changes.newest()

    async def read(changes: ItemChanges) -> None:
        assert await changes.declared() == {"in_stock": AttributeKind.boolean, "Lager: ä": AttributeKind.time}
        told = await changes.since(0, 9)
        assert [stored.change for stored in told] == [BOOT, stock, HAT, launch]
        assert [stored.revision for stored in told] == sorted({stored.revision for stored in told})
        assert await changes.since(told[0].revision, 2) == told[1:3]
        assert await changes.since(told[-1].revision, 9) == []

    backend.items(write)
    backend.items(read)


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
        assert boot.item.encoded is None
        await changes.store_vectors([(boot, vectors[0]), (hat, vectors[1])])
        assert await encoded(changes) == {"a": vectors[0], "b": vectors[1]}
        await changes.store([BOOT])
        assert await encoded(changes) == {"b": vectors[1], "a": None}
        await changes.store_vectors([(boot, vectors[2]), (hat, vectors[3])])  # the first is superseded by now

    async def encoded(changes: ItemChanges) -> dict[str, TextVector | None]:
        return {stored.item.item_id: stored.item.encoded for stored in await changes.since(0, 10)}

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
                    seen[at] = stored.item.item_id

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
