"""Failures of Milvus that are no outage: lost collections, refused filters and items, and their races."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from ranking.milvus.collection import Collection, RefusedError, VectorQuery
from ranking.milvus.fields import FRESH, ITEM_VECTOR
from ranking.milvus.leases import Lease, split_leases
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.pending import Pending, Write
from ranking.milvus.searcher import MilvusIndex
from ranking.milvus.writer import Writer
from ranking.retrieval.searcher import QueryGroup
from ranking.retrieval.unavailable import SearchUnavailableError
from tests.ranking.milvus.lite import OTHER, VERSION, Lite, loaded, settings, spec_for
from tests.synthetic import random_units

ITEMS = 40
FRAME = pl.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)], "price": [float(n) for n in range(ITEMS)]})
UNITS = random_units(ITEMS, 4, seed=1)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what this program has logged; Milvus Lite logs, too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("ranking.")]


def index_of(collection: Collection, translate: Callable[[str], str], only: str = "") -> MilvusIndex:
    rows = {item_id: row for row, item_id in enumerate(FRAME["item_id"])}
    return MilvusIndex(
        collection, ITEM_VECTOR, UNITS, lambda ids: [rows.get(one) for one in ids], translate=translate,
        only=only,
    )  # fmt: skip


def test_a_collection_that_is_lost_while_it_is_searched_is_an_outage_and_no_fault(server: Lite) -> None:
    """Milvus answers with an error then, also to searches that have an expression."""
    config = settings(server.uri, prefix="gone")
    collection = loaded(config, FRAME, UNITS)
    index = index_of(collection, str, only=f"{FRESH} == false")
    allowed = np.arange(ITEMS) > 3
    group = QueryGroup(np.arange(2), 5, allowed, "a_price > 3")
    assert (index.search_groups(UNITS[:2], [group])[0][0] >= 0).all()
    collection.keep_connected()
    with CollectionLoader(config) as loader:
        loader._call("drop_collection", collection.spec.name)
        with pytest.raises(SearchUnavailableError, match="does not exist"):
            index.search_groups(UNITS[:2], [group])
        assert not collection.up
        until(lambda: "has no collection gone_" in collection.failure)
        loader.load(collection.spec, FRAME, {ITEM_VECTOR: UNITS}, np.zeros(ITEMS, dtype=np.bool_))
        until(lambda: collection.up)
    assert (index.search_groups(UNITS[:2], [group])[0][0] >= 0).all()
    assert collection.refused == frozenset()
    collection.close()


def test_a_filter_that_is_refused_is_asked_for_once(server: Lite, caplog: pytest.LogCaptureFixture) -> None:
    collection = loaded(settings(server.uri, prefix="refused"), FRAME, UNITS)
    asked: list[list[str]] = []
    search = collection.search

    def recording(queries: Sequence[VectorQuery]) -> Any:
        asked.append([query.expression for query in queries])
        return search(queries)

    collection.search = recording  # type: ignore[method-assign]
    index = index_of(collection, lambda one: "is ( none" if one == "bad" else "a_price > 3")
    allowed = np.arange(ITEMS) > 3
    groups = [QueryGroup(np.array([0]), 5, allowed, "bad"), QueryGroup(np.array([1]), 5, allowed, "good")]
    expected = np.argsort(np.where(allowed, -UNITS[:2] @ UNITS.T, np.inf), axis=1)[:, :5]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = index.search_groups(UNITS[:2], groups)
            assert np.array_equal(np.vstack([rows for rows, _ in found]), expected)
    assert asked[0] == ["is ( none", "a_price > 3"]
    assert asked[-2:] == [["", "a_price > 3"]] * 2
    assert sum("is ( none" in batch for batch in asked) == 2  # with the other filter, and alone
    assert logged(caplog) == [
        f"Milvus at {server.uri} does not take 1 filters that it was asked for; the masks of such filters "
        "are applied to what it finds without them"
    ]
    assert collection.up
    assert collection.failed_searches == 0
    collection.close()


def test_an_outage_between_a_connection_and_its_first_search_is_not_forgotten(server: Lite) -> None:
    collection = loaded(settings(server.uri, prefix="race"), FRAME, UNITS)

    class Racing(threading.Event):
        """The first search fails just before the connection's thread clears the event."""

        def clear(self) -> None:
            collection._mark_down("a search has failed")
            super().clear()

    collection._mark_down("an outage")
    collection._down = Racing()
    collection.connect()
    assert collection.up or collection._down.is_set(), "nothing connects again"
    collection.close()


def test_a_search_of_a_former_connection_does_not_end_the_new_one(server: Lite) -> None:
    collection = loaded(settings(server.uri, prefix="former"), FRAME, UNITS)
    query = VectorQuery(ITEM_VECTOR, UNITS[:1], 3, "")
    send = collection._send

    def late(client: Any, queries: Any, seconds: float) -> Any:
        collection._send = send  # type: ignore[method-assign]
        collection.connect()  # meanwhile
        return send(client, queries, seconds)

    collection._send = late  # type: ignore[method-assign]
    with pytest.raises(SearchUnavailableError):
        collection.search([query])
    assert collection.up
    assert len(collection.search([query])[0][0][0]) == 3
    collection.close()


def test_an_unforeseen_error_does_not_end_the_probes(
    server: Lite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collection = loaded(settings(server.uri, prefix="probe"), FRAME, UNITS)
    connect, tries = collection.connect, iter([KeyError("state"), KeyError("state")])

    def fails() -> None:
        for error in tries:
            raise error
        connect()

    monkeypatch.setattr(collection, "connect", fails)
    collection._mark_down("an outage")
    with caplog.at_level(logging.WARNING):
        collection.keep_connected()
        until(lambda: collection.up)
    assert sum("KeyError: 'state'" in record.getMessage() for record in caplog.records) == 1
    collection.close()


class Stored:
    """A collection in memory, which refuses some items, or has outages."""

    def __init__(self) -> None:
        self.config = settings("http://localhost:1")
        self.rows: dict[str, object] = {}
        self.up = True
        self.looks = 0
        self.faults: list[Exception] = []

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.faults:
            raise self.faults.pop()
        if any(row["a_price"] == "bad" for row in rows):
            raise RefusedError("a price is no number")
        self.rows.update({row["item_id"]: row["a_price"] for row in rows})

    def delete(self, item_ids: Sequence[str]) -> None:
        for item_id in item_ids:
            self.rows.pop(item_id, None)

    def __getattribute__(self, name: str) -> Any:
        if name == "up":
            self.looks += 1
        return super().__getattribute__(name)


def writes(*prices: object) -> list[Write]:
    return [Write(f"w{n}", 100 + n, {"a_price": price}) for n, price in enumerate(prices)]


def test_an_item_that_milvus_refuses_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    stored, pending = Stored(), Pending()
    stored.rows["w2"] = 1.0  # its former state
    writer = Writer(stored, pending)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        pending.put(writes(1.0, 2.0, "bad", 3.0, "bad", 4.0))
        until(lambda: len(pending) == 0)
    assert stored.rows == {"w0": 1.0, "w1": 2.0, "w3": 3.0, "w5": 4.0}
    assert pending.rows.tolist() == [102, 104]  # searched here until they change
    assert pending.kept == 2
    pending.put([Write("w2", 102, {"a_price": 5.0})])
    until(lambda: len(pending) == 0)
    assert (stored.rows["w2"], pending.kept, pending.rows.tolist()) == (5.0, 1, [104])
    writer.close()


def test_an_unforeseen_error_does_not_end_the_writes(caplog: pytest.LogCaptureFixture) -> None:
    stored, pending = Stored(), Pending()
    stored.faults = [TypeError("unforeseen"), SearchUnavailableError("away")]
    writer = Writer(stored, pending)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING):
        pending.put(writes(1.0))
        until(lambda: len(pending) == 0)
    assert stored.rows == {"w0": 1.0}
    writer.close()


def test_changes_wait_for_milvus_without_cpu_time() -> None:
    stored, pending = Stored(), Pending()
    stored.up = False
    writer = Writer(stored, pending)  # type: ignore[arg-type]
    pending.put(writes(1.0))
    time.sleep(0.3)
    assert stored.looks < 10
    assert pending.oldest_seconds() >= 0.25
    stored.up = True
    until(lambda: len(pending) == 0)
    assert pending.oldest_seconds() == 0.0
    writer.close()


def test_a_change_of_an_item_that_waits_keeps_its_age() -> None:
    pending = Pending()
    pending.put(writes(1.0))
    time.sleep(0.05)
    pending.put(writes(2.0))
    assert pending.oldest_seconds() >= 0.05
    assert [write.entity for write in pending.batch(5)] == [{"a_price": 2.0}]


def test_milvus_itself_refuses_what_an_item_holds(server: Lite) -> None:
    collection = loaded(settings(server.uri, prefix="unfit"), FRAME, UNITS)
    row = {"item_id": "new", FRESH: True, ITEM_VECTOR: UNITS[0]}
    with pytest.raises(RefusedError, match="a_price"):
        collection.upsert([{**row, "a_price": "text"}])
    with pytest.raises(RefusedError, match="max_length"):
        collection.upsert([{**row, "item_id": "x" * 5000, "a_price": 1.0}])
    with CollectionLoader(collection.config) as loader:
        loader._call("drop_collection", collection.spec.name)
    with pytest.raises(SearchUnavailableError):  # no fault of the item
        collection.upsert([{**row, "a_price": 1.0}])
    collection.close()


def test_a_collection_that_a_server_searches_is_not_dropped(server: Lite) -> None:
    config = settings(server.uri, prefix="lease", keep=0)
    serving = loaded(config, FRAME, UNITS, VERSION)
    loaded(config, FRAME, UNITS, OTHER).close()
    with CollectionLoader(config) as loader:
        current = spec_for(config, FRAME, 4, OTHER).name
        loader.make_current(current)
        assert loader.drop_old([current]) == []
        assert loader.in_use == [serving.spec.name]
        serving.close()
        assert loader.drop_old([current]) == [serving.spec.name]
        assert loader.collections() == [current]


def test_the_lease_of_a_killed_server_expires(server: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(server.uri, prefix="killed", keep=0)
    killed = loaded(config, FRAME, UNITS, VERSION)
    with CollectionLoader(config) as loader:
        assert loader.drop_old([]) == []
        now = time.time()
        monkeypatch.setattr("ranking.milvus.loading.time.time", lambda: now + 3601)
        assert loader.drop_old([]) == [killed.spec.name]
    killed.close()


def test_a_lease_is_renewed_in_place_of_the_former(server: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = loaded(settings(server.uri, prefix="renew"), FRAME, UNITS)
    client = collection._client
    [first] = client.list_aliases(collection.spec.name)["aliases"]
    collection._lease.renew(client)  # not due
    assert client.list_aliases(collection.spec.name)["aliases"] == [first]
    monkeypatch.setattr("ranking.milvus.leases.RENEW_SECONDS", 0.0)
    now = time.time()
    monkeypatch.setattr("ranking.milvus.leases.time.time", lambda: now + 1000)
    collection._lease.renew(client, again=True)
    [second] = client.list_aliases(collection.spec.name)["aliases"]
    assert split_leases("renew", [first, second, "renew", "renew_lease_x"], now + 3700) == ([second], [first])
    collection.close()


def test_without_a_lease_searches_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Forbidden:
        def create_alias(self, *_: object, **__: object) -> None:
            raise RuntimeError("permission deny")

    lease = Lease(settings("http://h:1"), "shelfwise_x")
    with caplog.at_level(logging.WARNING):
        lease.renew(Forbidden())
        lease.renew(Forbidden(), again=True)
    assert logged(caplog) == [
        "Milvus at http://h:1: collection shelfwise_x cannot be marked as in use (permission deny); "
        "a publication may drop it"
    ]


def test_an_alias_that_cannot_be_read_is_not_taken_for_none(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its collection could be dropped."""
    import pymilvus

    config = settings(server.uri, prefix="unread", keep=0)
    loaded(config, FRAME, UNITS).close()
    with CollectionLoader(config) as loader:
        assert loader.current() is None
        loader.make_current(spec_for(config, FRAME, 4).name)

        def times_out(*_: object, **__: object) -> None:
            raise pymilvus.MilvusException(code=1, message="deadline exceeded")

        monkeypatch.setattr(loader._client, "describe_alias", times_out)
        with pytest.raises(InputError, match=r"describe alias failed \(deadline exceeded\)"):
            loader.drop_old([])
        monkeypatch.undo()
        assert loader.collections() == [spec_for(config, FRAME, 4).name]
