"""Loaders and retention at the same time: what another process fills, or has just filled, stays."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
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


def meanwhile(monkeypatch: pytest.MonkeyPatch, loader: CollectionLoader, action: Any) -> None:
    """Have something happen once, while the loader has inserted the items and not finished."""
    call = loader._call
    done: list[bool] = []

    def calls(method: str, *arguments: Any, **more: Any) -> Any:
        if method == "flush" and not done:
            done.append(True)
            action()
        return call(method, *arguments, **more)

    monkeypatch.setattr(loader, "_call", calls)


def test_retention_leaves_what_another_fills_and_what_is_newer_than_the_store(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="both_loading_x", keep=0)
    with CollectionLoader(config) as publisher, CollectionLoader(config) as other:
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
