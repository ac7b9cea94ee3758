"""Which answers of Milvus are refusals of a filter, and that such filters are reported without values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pymilvus
import pytest

from ranking.live.milvus_indexes import MilvusIndexes
from ranking.milvus.collection import Collection, CollectionSpec
from ranking.milvus.error_kinds import refused
from ranking.milvus.expressions import without_values
from tests.ranking.milvus.lite import settings


@pytest.mark.parametrize(
    ("code", "message", "more", "expected"),
    [
        (6, "unknown field", {}, True),
        (1100, "failed to create query plan: invalid parameter", {}, True),
        (65535, "failed to create query plan: cannot parse expression", {}, True),
        (2000, "wrong", {"is_input_error": True}, True),
        (8, "request is rejected by grpc RateLimiter middleware, please retry later", {}, False),
        (503, "channel not available", {"retriable": True}, False),
        (100, "collection not found", {}, False),
        (106, "collection not fully loaded", {}, False),
        (1, "DEADLINE_EXCEEDED", {}, False),
    ],
)
def test_only_what_is_wrong_with_the_search_is_a_refusal(
    code: int, message: str, more: dict[str, Any], expected: bool
) -> None:
    assert refused(pymilvus.MilvusException(code, message, **more)) is expected
    assert not refused(OSError(message))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ('a_brand == "Ac\\"me 7" and a_b2 > -1.5e-07', "a_brand == ... and a_b2 > ..."),
        ('(a_x in [1, 2, 3]) or n_4 in ["a, b"]', "(a_x in [...]) or n_4 in [...]"),
        ('array_contains(a_tags, "x")', "array_contains(a_tags, ...)"),
        ("a_sale == true and a_x is not null", "a_sale == true and a_x is not null"),
    ],
)
def test_values_are_left_out(made: str, expected: str) -> None:
    assert without_values(made) == expected


def test_refused_filters_are_among_the_conditions_that_this_process_tests() -> None:
    collection = Collection(settings("http://localhost:1"), CollectionSpec("x", {"item": 4}, (), 1))
    none: Any = SimpleNamespace()
    indexes = MilvusIndexes(collection, none, none, np.ones(1, np.bool_), np.zeros(0, np.int32))
    assert indexes.status().untested == ()
    collection.refuse({'a_brand == "a"', 'a_brand == "b"', "a_price > 1"})
    assert indexes.status().untested == (
        "a_brand == ...: this Milvus does not take it",
        "a_price > ...: this Milvus does not take it",
    )
    indexes.close()
    assert cast(Any, collection)._client is None
