"""Loaders and retention at the same time: what another process fills, or has just filled, stays."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pymilvus
import pytest

from conf.errors import InputError
from ranking.milvus.connection import MilvusError
from ranking.milvus.fields import ITEM_VECTOR
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.naming import collection_name
from tests.ranking.milvus.lite import OTHER, VERSION, Lite, settings, spec_for
from tests.synthetic import random_units

FRAME = pl.DataFrame({"item_id": ["a", "b", "c"]})
UNITS = random_units(3, 4, seed=1)


def load(loader: CollectionLoader, config: Any, version: str) -> str:
    spec = spec_for(config, FRAME, 4, version)
    loader.load(spec, FRAME, {ITEM_VECTOR: UNITS}, np.zeros(3, dtype=np.bool_))
    return spec.name


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, loader: CollectionLoader, action: Any, before: str = "flush"
) -> None:
    """Have something happen once before a call, by default between the items' insertion and the indexes."""
    call = loader._call
    done: list[bool] = []

    def calls(method: str, *arguments: Any, **more: Any) -> Any:
        if method == before and not done:
            done.append(True)
            action()
        return call(method, *arguments, **more)

    monkeypatch.setattr(loader, "_call", calls)


def test_retention_leaves_what_another_fills_and_what_is_newer_than_the_store(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="both_loading_x", keep=0)
    with CollectionLoader(config) as other:
        with CollectionLoader(config) as publisher:
            old = load(other, config, VERSION)
            other.make_current(old)
            meanwhile(monkeypatch, publisher, lambda: other.drop_old([old]))
            new = load(publisher, config, OTHER)
        assert other.collections() == [old, new]
        assert other.drop_old([old], newest=old) == []  # the store does not have it yet
        assert other.in_use == []
        assert other.drop_old([old], newest=new) == [new]  # after a rollback


def test_of_two_loaders_of_a_version_both_succeed(server: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(server.uri, prefix="twice")
    with CollectionLoader(config) as one, CollectionLoader(config) as other:
        meanwhile(monkeypatch, one, lambda: load(other, config, VERSION))
        name = load(one, config, VERSION)
        assert one._call("list_collections").count(name) == 1
        assert [found for found in one._call("list_collections") if found.startswith("twice")] == [name]


def test_what_a_killed_loader_leaves_is_dropped_when_its_lease_has_ended(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="dead", load_seconds=50.0)
    with CollectionLoader(config) as killed, CollectionLoader(config) as other:

        def dies() -> None:
            monkeypatch.setattr("ranking.milvus.leases.Lease.release", lambda *_: None)
            raise InputError("killed")

        meanwhile(monkeypatch, killed, dies)
        with pytest.raises(InputError, match="killed"):
            load(killed, config, VERSION)
        newest = collection_name(config, OTHER)
        assert other.drop_old([], newest) == []
        now = time.time()
        monkeypatch.setattr("ranking.milvus.loading.time.time", lambda: now + 3651)
        [dropped] = other.drop_old([], newest)
        assert dropped.startswith("dead_20240531T120000Z_0123456789ab_loading_")


@pytest.mark.parametrize("moment", ["rename_collection", "load_collection"])
def test_what_is_loaded_for_a_rollback_stays_until_the_alias_names_it(
    server: Lite, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config = settings(server.uri, prefix=f"back_{moment}", keep=0)
    with CollectionLoader(config) as other:
        new = load(other, config, OTHER)
        other.make_current(new)
        with CollectionLoader(config) as rollback:
            found: list[list[str]] = []
            meanwhile(monkeypatch, rollback, lambda: found.append(other.drop_old([new], newest=new)), moment)
            old = load(rollback, config, VERSION)
            assert found == [[]]
            assert other.drop_old([new], newest=new) == []
            assert other.in_use == [old]
            rollback.make_current(old)
        assert other.drop_old([], newest=new) == [new]
        assert other.collections() == [old]


def test_a_collection_that_is_there_already_is_held_as_well(server: Lite) -> None:
    config = settings(server.uri, prefix="there", keep=0)
    with CollectionLoader(config) as other:
        old = load(other, config, VERSION)
        with CollectionLoader(config) as rollback:
            load(rollback, config, VERSION)
            assert other.drop_old([]) == []
        assert other.drop_old([]) == [old]


def answers(code: int, message: str) -> Any:
    """A call that Milvus answers with an error."""

    def call(*_: object, **__: object) -> None:
        raise pymilvus.MilvusException(code=code, message=message)

    return call


@pytest.mark.parametrize("method", ["list_aliases", "drop_collection"])
def test_what_another_has_dropped_is_gone(server: Lite, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Milvus Lite answers as if it were there and had no aliases."""
    config = settings(server.uri, prefix=f"gone_{method}")
    with CollectionLoader(config) as loader:
        name = load(loader, config, VERSION)
        monkeypatch.setattr(loader._client, method, answers(100, f"collection not found[{name}]"))
        assert loader.drop_old([]) == ([] if method == "list_aliases" else [name])
        assert loader.in_use == []
        monkeypatch.setattr(loader._client, method, answers(65535, "quota exceeded"))
        with pytest.raises(MilvusError, match=r"quota exceeded"):
            loader.drop_old([])


def test_an_ended_lease_that_another_has_removed_is_gone(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="ended")
    with CollectionLoader(config) as loader:
        name = load(loader, config, VERSION)
    with CollectionLoader(config) as loader:
        loader._call("create_alias", name, "ended_lease_1_0123456789ab")
        monkeypatch.setattr(loader._client, "drop_alias", answers(1600, "alias not found"))
        assert loader.drop_old([]) == [name]


def test_a_collection_that_a_server_marks_just_before_it_is_dropped_stays(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus drops no collection that has aliases; Milvus Lite does."""
    config = settings(server.uri, prefix="late")
    refusal = answers(65535, "unable to drop the collection [x] because it has associated aliases [y], ...")
    with CollectionLoader(config) as loader:
        name = load(loader, config, VERSION)
        monkeypatch.setattr(loader._client, "drop_collection", refusal)
        assert loader.drop_old([]) == []
        assert loader.in_use == [name]


@pytest.mark.parametrize("milvus", [True, False])
def test_a_renaming_whose_answer_is_lost_has_happened(
    server: Lite, monkeypatch: pytest.MonkeyPatch, milvus: bool
) -> None:
    config = settings(server.uri, prefix=f"lost_{milvus}")
    with CollectionLoader(config) as loader, CollectionLoader(config) as other:
        rename = loader._client.rename_collection

        def lost(*arguments: object, **more: object) -> None:
            rename(*arguments, **more)
            if milvus:  # it does not list aliases of a collection that is gone
                monkeypatch.setattr(loader._client, "list_aliases", answers(100, "collection not found"))
            raise pymilvus.MilvusException(code=1, message="deadline exceeded")

        monkeypatch.setattr(loader._client, "rename_collection", lost)
        name = load(loader, config, VERSION)
        monkeypatch.undo()
        assert loader.collections() == [name]
        assert other.drop_old([]) == []
        assert other.in_use == [name]


def test_a_loader_waits_for_the_end_of_its_lease_as_for_a_write(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="waits", timeout_seconds=0.25, write_seconds=20.0)
    with CollectionLoader(config) as loader:
        load(loader, config, VERSION)
        drop, waits = loader._client.drop_alias, []

        def recorded(alias: str, timeout: float) -> None:
            waits.append(timeout)
            drop(alias, timeout=timeout)

        monkeypatch.setattr(loader._client, "drop_alias", recorded)
    assert waits == [20.0]
