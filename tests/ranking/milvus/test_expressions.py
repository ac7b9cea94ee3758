"""Filters as Milvus expressions: by hand, and against the language's own masks in a Milvus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from ranking.catalogue.filter_language import compile_filter, evaluate
from ranking.milvus.collection import Collection, VectorQuery
from ranking.milvus.expressions import translate, untranslatable
from ranking.milvus.fields import ITEM_VECTOR, attribute_fields
from ranking.milvus.reporting import attributes_without_field
from ranking.milvus.searcher import MilvusIndex
from ranking.retrieval.searcher import QueryGroup
from tests.ranking.milvus.lite import Lite, loaded, settings
from tests.synthetic import random_units

FRAME = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(12)],
        "item_text": ["text"] * 12,
        "brand": ["A", "B", None, 'q"uote', "o'clock", "back\\slash", "ä", "", "A", "b", "A", "C"],
        "price": [1.0, 19.99, None, float("nan"), 50.0, 0.0, -3.5, 7.25, 19.99, 100.0, 2.0, 3.0],
        "stock": [0, 1, 2, None, 4, 5, 6, 7, 8, 9, 10, 11],
        "on sale": [True, False, None, True, False, True, None, False, True, True, False, None],
        "tags": [["x", "y"], ["x"], [], None, ["z"], ["y"], ["x", "z"], [], None, ["x"], ["y"], ["z"]],
        "since": [date(2024, 1, day) if day % 4 else None for day in range(1, 13)],
        "seen": [datetime(2024, 1, 1, hour) for hour in range(12)],
    },
    schema_overrides={"price": pl.Float32, "stock": pl.Int32},
)
FIELDS = attribute_fields(FRAME)
FILTERS = [
    'brand = "A"', 'brand != "A"', 'NOT brand = "A"', 'brand IN ("A", "ä")', 'NOT brand IN ("A", "B")',
    'brand NOT IN ("A", "B")', 'brand = "q\\"uote"', "brand = \"o'clock\"", 'brand = "back\\\\slash"',
    "brand:*", "NOT brand:*", 'brand > "A"', "price < 19.99", "price <= 19.99", "NOT price < 19.99",
    "price = 19.99", "price IN (19.99, 50)", "price NOT IN (19.99)", "price >= -3.5 AND price < 5",
    "stock < 2.5", "stock >= 2.5", "NOT stock > 4", "stock = 4", "stock IN (1, 2, 30)", "`on sale`",
    "NOT `on sale`", "`on sale` = false", "`on sale` != true", "`on sale` IN (true)", "`on sale`:*",
    'tags:"x"', 'tags:"x" OR tags:"y"', 'since >= "2024-01-05"', 'NOT since < "2024-01-05"',
    'seen < "2024-01-01T03:30:00"', 'item_id = "i3"', 'item_id IN ("i1", "i2")', 'NOT item_id = "i3"',
    '(brand = "A" OR price > 40) AND NOT (stock < 3 OR `on sale`)', 'brand = "A" AND tags:"x"',
]  # fmt: skip
IMPRECISE = ['brand:"a"', 'NOT tags:"x"', "stock = 2.5", 'brand = "A" OR brand:"c"']
"""Filters that Milvus is not given, or only a part of."""


@pytest.fixture(scope="module")
def collection(server: Lite) -> Iterator[Collection]:
    found = loaded(settings(server.uri), FRAME, random_units(len(FRAME), 4, seed=1))
    yield found
    found.close()


def found_by(collection: Collection, expression: str) -> set[str]:
    query = VectorQuery(ITEM_VECTOR, np.ones((1, 4), dtype=np.float32), 100, expression)
    return set(collection.search([query])[0][0][0])


def passing(expression: str) -> set[str]:
    mask = evaluate(FRAME, compile_filter(FRAME.schema, expression))
    return {item for item, passes in zip(FRAME["item_id"], mask, strict=True) if passes}


@pytest.mark.parametrize("expression", FILTERS)
def test_milvus_finds_what_passes_the_filter(collection: Collection, expression: str) -> None:
    translated = translate(FIELDS, expression)
    assert translated
    assert untranslatable(FIELDS, expression) == []
    assert found_by(collection, translated) == passing(expression)


@pytest.mark.parametrize("expression", [*IMPRECISE, *(f"NOT ({one})" for one in FILTERS)])
def test_milvus_finds_all_that_pass_at_least(collection: Collection, expression: str) -> None:
    assert found_by(collection, translate(FIELDS, expression)) >= passing(expression)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('brand = "A" AND brand:"c"', '(a_brand == "A")'),
        ('brand = "A" OR brand:"c"', ""),
        ('NOT (brand = "A" OR price < 5)', '(a_brand != "A") and (a_price >= 5.0)'),
        ('NOT (brand = "A" AND tags:"x")', ""),
        ("`on sale` AND stock > 3.5", "(n_4 == true) and (a_stock >= 4)"),
        ("item_id:*", ""),
    ],
)
def test_what_milvus_does_not_test_is_left_out_where_that_is_no_loss(expression: str, expected: str) -> None:
    assert translate(FIELDS, expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('brand = "A" AND (brand:"c" OR price < 5)', 'brand:"...": Milvus compares texts with their case'),
        ('item_id:"1"', 'item_id:"...": Milvus compares texts with their case'),
        ('NOT (tags:"x" AND brand = "A")', 'NOT tags:"...": Milvus does not tell an empty list from none'),
        ("stock = 2.5", "stock = ...: a whole number is compared with a broken one"),
        ("stock IN (1, 2.5)", "stock IN (...): a whole number is compared with a huge or broken one"),
        ("stock > 1e300", "stock > ...: a whole number is compared with a huge or broken one"),
        ("price > 1e999", "price > ...: the number is beyond those of a double"),
        ('brand NOT IN ("a\tb")', "brand NOT IN (...): the text has control characters"),
    ],
)
def test_conditions_that_milvus_does_not_test_are_named_without_their_values(
    expression: str, expected: str
) -> None:
    assert untranslatable(FIELDS, expression) == [expected]


def test_a_condition_on_an_attribute_without_a_field_is_named() -> None:
    [missing] = untranslatable(FIELDS[1:], 'brand = "A" OR brand = "B"')
    assert missing == "brand = ...: the collection has no field for 'brand'"


@pytest.mark.parametrize("share", ["narrow", "wide"])
@pytest.mark.parametrize("expression", IMPRECISE)
def test_a_list_obeys_what_milvus_does_not_test(
    collection: Collection, expression: str, share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the mask of what it finds, and by an exact search where that leaves too little."""
    monkeypatch.setattr("ranking.milvus.searcher.SPARE", 0)
    monkeypatch.setattr("ranking.milvus.searcher.SELECTIVE_SHARE", 0.0 if share == "wide" else 1.1)
    vectors = random_units(len(FRAME), 4, seed=1)
    rows = {item_id: row for row, item_id in enumerate(FRAME["item_id"])}
    index = MilvusIndex(
        collection, ITEM_VECTOR, vectors, lambda ids: [rows.get(one) for one in ids],
        translate=lambda one: translate(FIELDS, one),
    )  # fmt: skip
    mask = evaluate(FRAME, compile_filter(FRAME.schema, expression))
    queries = random_units(3, 4, seed=2)
    [(found, _)] = index.search_groups(queries, [QueryGroup(np.arange(3), 4, mask, expression)])
    scores = np.where(mask, queries @ vectors.T, -np.inf)
    best = np.argsort(-scores, axis=1)[:, :4]
    assert np.array_equal(found, np.where(np.isfinite(np.take_along_axis(scores, best, 1)), best, -1))


def test_fields_of_names_with_other_characters_differ_from_all_others() -> None:
    """A name such as `1` is plain, and must not be the number of an attribute whose name is not."""
    frame = pl.DataFrame({"item_id": ["a"], "item_text": ["t"], "on sale": [True], "1": [2], "n_1": [3]})
    fields = [field.field for field in attribute_fields(frame)]
    assert fields == ["n_1", "a_1", "a_n_1"]


def test_an_attribute_that_milvus_cannot_hold_has_no_field() -> None:
    frame = pl.DataFrame({"item_id": ["a"], "item_text": ["t"], "long": ["x" * 65536], "short": ["y"]})
    assert [field.name for field in attribute_fields(frame)] == ["short"]
    many = pl.DataFrame({"item_id": ["a"], "item_text": ["t"], **{f"n{i}": [1] for i in range(60)}})
    assert len(attribute_fields(many)) == 50


def test_attributes_without_a_field_are_named() -> None:
    frame = pl.DataFrame(
        {"item_id": ["a"], "item_text": ["t"], "long": ["x" * 65536], **{f"n{i}": [1] for i in range(52)}}
    )
    assert attributes_without_field(frame) == ["long", "n50", "n51"]
