"""Deletions of items, whatever characters are in their ids, and those that Milvus refuses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest

from ranking.milvus.collection import RefusedError
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.pending import Pending, Write
from ranking.milvus.writer import Writer
from tests.ranking.milvus.lite import Lite, loaded, settings
from tests.ranking.milvus.test_failures import Stored, logged, until
from tests.synthetic import random_units

IDS = [
    "x", "y", "men's-shirt", "a\\d", "x','y", '"q"', "line\nbreak", "tab\tbed", "bell\x07", "end\\", "é'",
    "'", "a\\nb",
]  # fmt: skip


def test_the_items_that_are_named_are_deleted_and_no_others(server: Lite) -> None:
    frame = pl.DataFrame({"item_id": IDS})
    collection = loaded(settings(server.uri, prefix="ids"), frame, random_units(len(IDS), 4, seed=1))
    name = collection.spec.name
    with CollectionLoader(collection.config) as loader:

        def stored() -> set[str]:
            rows = loader._call("query", name, filter="", limit=50, consistency_level="Strong")
            return {row["item_id"] for row in rows}

        left = set(IDS)
        for item_id in reversed(IDS[2:]):
            collection.delete([item_id])
            left.remove(item_id)
            assert stored() == left
        collection.delete([*IDS, "never there"])
        assert stored() == set()
    collection.close()


class Refusing(Stored):
    """Neither takes nor deletes an item."""

    def delete(self, item_ids: Sequence[str]) -> None:
        if "bad" in item_ids:
            raise RefusedError("no such literal")
        super().delete(item_ids)

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if any(row["item_id"] == "bad" for row in rows):
            raise RefusedError("no such value")
        super().upsert(rows)


def test_a_deletion_that_milvus_refuses_keeps_no_other_waiting() -> None:
    stored, pending = Refusing(), Pending()
    stored.rows = {"w0": 1.0, "w1": 1.0}
    pending.put([Write(item_id, 7, None) for item_id in ("w0", "bad", "w1")])
    pending.put([Write("w2", 9, {"a_price": 2.0})])
    writer = Writer(stored, pending)  # type: ignore[arg-type]
    until(lambda: len(pending) == 0)
    assert stored.rows == {"w2": 2.0}
    assert pending.kept == 1
    assert pending.rows.tolist() == [7]  # what Milvus says of it is ignored
    writer.close()


@pytest.mark.parametrize(
    ("entity", "lines"),
    [
        (None, ["Milvus does not delete an item, which this process leaves out: no such literal"]),
        (
            {"a_price": 2.0},
            [
                "Milvus does not take an item, which is searched in this process: no such value",
                "Milvus does not delete the former state of an item, whose newest one is searched in this "
                "process: no such literal",
            ],
        ),
    ],
)
def test_the_log_says_what_becomes_of_an_item_that_is_refused(
    caplog: pytest.LogCaptureFixture, entity: dict[str, float] | None, lines: list[str]
) -> None:
    pending = Pending()
    pending.put([Write("bad", 7, entity)])
    with caplog.at_level(logging.WARNING):
        writer = Writer(Refusing(), pending)  # type: ignore[arg-type]
        until(lambda: pending.kept == 1)
        writer.close()
    assert logged(caplog) == lines
