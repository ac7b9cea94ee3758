"""What is stored of an item, in insertions of bounded size, with indexes that are built."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from ranking.milvus import entities, loading
from ranking.milvus.fields import ITEM_VECTOR, attribute_fields, stored_bytes, stored_rows
from ranking.milvus.leases import Lease
from ranking.milvus.loading import CollectionLoader
from tests.ranking.milvus.lite import Lite, loaded, settings, spec_for
from tests.synthetic import random_units

FRAME = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "price": [1.0, math.inf, -math.inf, math.nan],
        "sizes": [[1.0, math.inf], [math.nan, None], [], None],
        "notes": ["x" * 1000, None, "ä" * 500, ""],
        "tags": [["y" * 100, "z"], [], None, ["w" * 300]],
    }
)
UNITS = random_units(4, 4, seed=1)


def test_infinities_are_the_largest_numbers_and_nan_is_missing(server: Lite) -> None:
    rows = stored_rows(FRAME, attribute_fields(FRAME))
    most = 1.7976931348623157e308
    assert [row["a_price"] for row in rows] == [1.0, most, -most, None]
    assert [row["a_sizes"] for row in rows] == [[1.0, most], [], [], None]
    collection = loaded(settings(server.uri, prefix="inf"), FRAME, UNITS)
    found = collection._client.query(
        collection.spec.name, filter="a_price > 1e300", output_fields=["item_id"]
    )
    assert [row["item_id"] for row in found] == ["b"]
    collection.close()


def test_insertions_are_bounded_by_what_items_hold(server: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = stored_bytes(FRAME, attribute_fields(FRAME))
    assert (sizes >= [1102, 1, 1001, 301]).all()
    assert (sizes < 1600).all()
    monkeypatch.setattr(entities, "_BATCH_BYTES", 1600)
    assert [(p.start, p.stop) for p in entities.parts(np.array([9000, 800, 800, 1, 0]))] == [
        (0, 1), (1, 3), (3, 5)
    ]  # fmt: skip
    assert list(entities.parts(np.zeros(0, dtype=np.int64))) == []
    config = settings(server.uri, prefix="parts")
    inserted: list[int] = []
    with CollectionLoader(config) as loader:
        call = loader._call

        def recorded(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "insert":
                inserted.append(len(arguments[1]))
            return call(method, *arguments, **more)

        monkeypatch.setattr(loader, "_call", recorded)
        loader.load(spec_for(config, FRAME, 4), FRAME, {ITEM_VECTOR: UNITS}, np.zeros(4, dtype=np.bool_))
    assert sum(inserted) == 4
    assert len(inserted) > 1


def test_a_collection_has_its_name_once_its_indexes_are_built(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="built")
    spec = spec_for(config, FRAME, 4)
    monkeypatch.setattr(loading, "_POLL_SECONDS", 0.01)
    states: list[dict[str, Any]] = []
    asked: list[list[str]] = []

    with CollectionLoader(config) as loader:
        call = loader._call

        def answering(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "describe_index":
                asked.append(loader.collections())
                return states.pop(0)
            return call(method, *arguments, **more)

        monkeypatch.setattr(loader, "_call", answering)
        states += [{"state": "InProgress", "pending_index_rows": left} for left in (3, 1, 0)]
        loader.load(spec, FRAME, {ITEM_VECTOR: UNITS}, np.zeros(4, dtype=np.bool_))
        assert asked == [[], [], []]
        lease = Lease(config, spec.name)
        loader._config = replace(config, load_seconds=0.05)
        states += [{"state": "Failed", "pending_index_rows": 3}]
        with pytest.raises(InputError, match=r"the index item of built_.* failed"):
            loader._await_indexes(spec.name, lease)
        states += [{"state": "InProgress", "pending_index_rows": 2}] * 99
        with pytest.raises(InputError, match=r"item of built_.* not built after 0.05 s.*\(2 rows are left\)"):
            loader._await_indexes(spec.name, lease)
        states[:] = [{"index_name": "item"}]
        loader._await_indexes(spec.name, lease)
        lease.release(loader._client, 5.0)
