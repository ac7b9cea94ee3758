"""Application of stored item changes: order, failures, and waiting for revisions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

import pytest

from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import (
    Change,
    Declaration,
    ItemChange,
    LiveItem,
    PreparedItemChanges,
    TextVector,
)
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import Answer, Job, Model
from serving.model.item_updater import ItemUpdater
from serving.scheduling.batcher import Batcher, QueueFullError
from serving.state.contracts.item_changes import Declared, Replaced, StoredChange
from serving.state.contracts.user_state import StateUnavailableError
from tests.serving.fake_bundle import FakeBundle

T = TypeVar("T")


ENCODED = TextVector(b"key", b"values")


class Notebook(FakeBundle):
    """Records applied changes; fails on `poison`."""

    template: ClassVar[dict[str, list[str]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.manifest = {"template": self.template}
        self.applied: list[list[str]] = []
        self.threads: set[str] = set()

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        items = [change for change in changes if isinstance(change, ItemChange)]
        upserts = [LiveItem(c.item_id, f"text of {c.item_id}", {}) for c in items]
        vectors = self.encode_items([item.text for item in upserts])
        fresh = {c.item_id: ENCODED for c in items if c.encoded is None}
        return PreparedItemChanges(upserts, [], list(range(len(upserts))), vectors, fresh=fresh)

    def apply(self, plan: PreparedItemChanges) -> Model:
        if any(item.item_id == "poison" for item in plan.upserts):
            raise ValueError("cannot be applied")
        self.threads.add(threading.current_thread().name)
        self.applied.append([item.item_id for item in plan.upserts])
        return self


class Changes:
    """An in-memory store that can be made to fail."""

    def __init__(self, *item_ids: str) -> None:
        self.stored = [StoredChange(n + 1, ItemChange(i, {})) for n, i in enumerate(item_ids)]
        self.failures: list[Exception] = []
        self.kept: list[str] = []
        self.keeping_fails: Exception | None = None

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        for change in changes:
            self.stored.append(StoredChange(len(self.stored) + 1, change))
        return len(self.stored)

    async def contents(
        self, item_ids: Sequence[str], deadline: float | None = None
    ) -> list[tuple[int, ItemChange | None]]:
        raise AssertionError("following asks for what is later only")

    async def replace(
        self, changes: Sequence[ItemChange], known: Sequence[int], deadline: float | None = None
    ) -> Replaced:
        raise AssertionError("following changes nothing")

    async def declare(self, declarations: Sequence[Declaration], deadline: float | None = None) -> Declared:
        raise AssertionError("following declares nothing")

    async def declared(self) -> dict[str, AttributeKind]:
        return {}

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        if self.failures:
            raise self.failures.pop()
        return self.stored[revision : revision + limit]

    async def store_vectors(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        if self.keeping_fails is not None:
            raise self.keeping_fails
        self.kept += [stored.item.item_id for stored, vector in encoded if vector is ENCODED]

    def encoded_elsewhere(self, *item_ids: str) -> None:
        for item_id in item_ids:
            self.stored.append(StoredChange(len(self.stored) + 1, ItemChange(item_id, {}, ENCODED)))

    async def newest(self) -> int:
        return len(self.stored)

    async def acknowledge(self, revision: int) -> None:
        raise AssertionError("following acknowledges nothing")


def following(
    changes: Changes,
    scenario: Callable[[ItemUpdater, Notebook], Awaitable[T]],
    poll_seconds: float = 0.01,
) -> T:
    async def run() -> T:
        model, jobs = Notebook(), Batcher[Job, Answer](execute_batch, max_batch=8, max_queue=1, name="model")
        upkeep = ThreadPoolExecutor(1, "upkeep")
        follower = ItemUpdater(model, changes, jobs, upkeep, poll_seconds)
        try:
            return await scenario(follower, model)
        finally:
            await follower.stop()
            await jobs.close()
            upkeep.shutdown()

    return asyncio.run(run())


async def prepared(follower: ItemUpdater) -> None:
    with ThreadPoolExecutor(1, "loading") as loading:
        await follower.prepare(loading)


@pytest.mark.parametrize("served", [True, False])
def test_changes_are_applied_in_order_some_at_a_time(served: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.CHUNK", 2)
    monkeypatch.setattr("serving.model.item_updater.START_CHUNK", 3)

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        if served:
            follower.start()
            await follower.wait_for_revision(5)
        else:
            await prepared(follower)
        expected = [["a", "b"], ["c", "d"], ["e"]] if served else [["a", "b", "c"], ["d", "e"]]
        assert model.applied == expected
        assert {name.split("_")[0] for name in model.threads} == ({"model"} if served else {"loading"})
        assert follower.revision == 5

    following(Changes(*"abcde"), scenario)


def test_many_prices_are_applied_together_and_few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.CHUNK", 2)
    monkeypatch.setattr("serving.model.item_updater.LIGHT_CHUNK", 6)
    monkeypatch.setattr(Notebook, "template", {"text_fields": ["title"], "text_fallback_fields": ["colour"]})
    changes = Changes()
    price, title = {"price": 1.0, "brand": "x"}, {"title": "x"}
    for item_id, attributes in zip(
        "abcdefghijkl", [price] * 5 + [title] * 2 + [price] + [title] * 4, strict=True
    ):
        changes.stored.append(
            StoredChange(len(changes.stored) + 1, ItemChange(item_id, attributes, None, True))
        )

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await follower.wait_for_revision(12)
        assert ["".join(items) for items in model.applied] == ["abcdef", "ghi", "jk", "l"]

    following(changes, scenario)


def test_changes_that_come_several_at_a_time_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.COALESCE_SECONDS", 0.2)
    changes = Changes("a", "b")

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await follower.wait_for_revision(2)
        for item_id in "cdefgh":  # faster than one by one
            await changes.store([ItemChange(item_id, {})])
            await asyncio.sleep(0.005)
        await asyncio.wait_for(follower.wait_for_revision(8), 20)
        assert model.applied == [["a", "b"], [*"cdefgh"]]

    following(changes, scenario)


def test_a_change_that_comes_alone_is_applied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.COALESCE_SECONDS", 60.0)
    changes = Changes()

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        for item_id in "abc":
            await asyncio.wait_for(
                follower.wait_for_revision(await changes.store([ItemChange(item_id, {})])), 20
            )
        assert model.applied == [["a"], ["b"], ["c"]]

    following(changes, scenario)


def test_it_stops_while_changes_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.COALESCE_SECONDS", 60.0)

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await follower.wait_for_revision(2)
        await asyncio.wait_for(follower.stop(), 20)
        assert [item for batch in model.applied for item in batch] == ["a", "b"]

    following(Changes("a", "b"), scenario)


def test_who_waits_for_an_answer_is_not_kept_waiting_for_further_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.model.item_updater.COALESCE_SECONDS", 60.0)
    changes = Changes("a", "b")

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await follower.wait_for_revision(2)
        newest = await changes.store([ItemChange("c", {})])
        await asyncio.wait_for(follower.wait_for_revision(newest, at_once=True), 20)
        assert [item for batch in model.applied for item in batch] == ["a", "b", "c"]

    following(changes, scenario)


def test_what_has_been_encoded_is_kept_and_what_was_kept_is_not_encoded_again() -> None:
    changes = Changes("a")

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        changes.encoded_elsewhere("b")
        await prepared(follower)
        assert model.applied == [["a", "b"]]
        assert changes.kept == ["a"]

    following(changes, scenario)


@pytest.mark.parametrize(
    "failure", [StateUnavailableError("disk"), QueueFullError(1.0), RuntimeError("anything")]
)
def test_changes_hold_where_vectors_cannot_be_kept(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    changes = Changes("a", "b")
    changes.keeping_fails = failure

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await asyncio.wait_for(follower.wait_for_revision(2), 20)
        assert model.applied == [["a", "b"]]

    following(changes, scenario)
    assert caplog.text.count("vectors of texts are not kept") == 1


def test_texts_are_left_to_the_server_that_got_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.REMOTE_ENCODING_SECONDS", 60.0)
    changes = Changes("a", "b")

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await asyncio.sleep(0.1)
        assert model.applied == []
        changes.encoded_elsewhere("c")  # what came before it is encoded as well, or has no new text
        while follower.revision < 3:
            await asyncio.sleep(0.005)
        await changes.store([ItemChange("d", {})])
        await asyncio.wait_for(follower.wait_for_revision(4), 20)  # somebody here waits for it

    following(changes, scenario)


def test_texts_that_the_other_server_does_not_encode_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.model.item_updater.REMOTE_ENCODING_SECONDS", 0.1)
    changes = Changes("a", "b")

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        began = asyncio.get_running_loop().time()
        while follower.revision < 2:
            await asyncio.sleep(0.005)
        assert asyncio.get_running_loop().time() - began >= 0.1

    following(changes, scenario)


def test_a_change_that_cannot_be_applied_is_left_out_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        await prepared(follower)
        assert model.applied == [["a"], ["b"]]
        assert follower.revision == 3

    following(Changes("a", "poison", "b"), scenario)
    assert "item change 2 cannot be applied" in caplog.text


@pytest.mark.parametrize("failure", [RuntimeError("anything"), OSError("disk")])
def test_a_store_that_fails_is_asked_again(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes("a")
    changes.failures = [failure, failure]

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await asyncio.wait_for(follower.wait_for_revision(1), 20)
        assert model.applied == [["a"]]
        await changes.store([ItemChange("b", {})])
        await asyncio.wait_for(follower.wait_for_revision(2), 20)

    following(changes, scenario)
    assert caplog.text.count("item changes cannot be read") == 1  # said once, not at every look


def test_changes_of_others_are_found_without_being_told() -> None:
    changes = Changes()

    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await changes.store([ItemChange("a", {})])
        while follower.revision < 1:
            await asyncio.sleep(0.005)
        assert model.applied == [["a"]]

    following(changes, scenario)


def test_who_waits_is_released_by_the_deadline_and_by_the_end() -> None:
    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        with pytest.raises(TimeoutError):
            await follower.wait_for_revision(1, asyncio.get_running_loop().time() + 0.05)
        waiting = asyncio.create_task(follower.wait_for_revision(1))
        await asyncio.sleep(0)
        await follower.stop()
        await asyncio.wait_for(waiting, 20)
        assert follower.revision == 0

    following(Changes(), scenario)


@pytest.mark.parametrize("steps", range(5))
def test_it_stops_however_close_behind_the_news(steps: int) -> None:
    async def scenario(follower: ItemUpdater, model: Notebook) -> None:
        follower.start()
        await asyncio.sleep(0.02)
        waiting = asyncio.create_task(follower.wait_for_revision(1))
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(follower.stop(), 20)
        await asyncio.wait_for(waiting, 20)
        assert (follower.revision, model.applied) == (0, [])

    following(Changes(), scenario, poll_seconds=60.0)
