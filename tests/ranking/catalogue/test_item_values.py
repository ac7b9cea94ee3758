"""Values of changed items: brought to the types of the columns, and named where they do not fit."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from ranking.catalogue.item_values import overlay_schema, typed_values


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"titel": "x"}, "unknown attribute 'titel'; did you mean 'title'?"),
        ({"title": 3.0}, "attribute 'title': expected text"),
        ({"price": "cheap"}, "attribute 'price': expected a number"),
        ({"price": True}, "attribute 'price': expected a number"),
        ({"price": float("nan")}, "attribute 'price': expected a number"),
        ({"stock": 1.5}, "attribute 'stock': expected a whole number"),
        ({"stock": 1e300}, "attribute 'stock': expected a whole number from"),
        ({"new": "yes"}, "attribute 'new': expected true or false"),
        ({"tags": "sale"}, "attribute 'tags': expected a list"),
        ({"tags": [1.0]}, "attribute 'tags': expected text"),
        ({"since": "yesterday"}, "attribute 'since': expected an ISO date"),
        ({"item_text": "x"}, "unknown attribute 'item_text'"),
    ],
)
def test_values_that_do_not_fit_are_named(attributes: dict[str, object], says: str) -> None:
    values, faults = typed(attributes)
    assert len(faults) == 1
    assert faults[0].startswith(says)
    assert set(values.values()) == {None}


def test_values_are_brought_to_the_columns_types() -> None:
    given = {
        "title": "Boots", "price": 3.0, "stock": 4.0, "new": True, "tags": ["a"], "colour": None,
        "since": "2024-05-31T12:00:00+02:00",
    }  # fmt: skip
    values, faults = typed(given)
    assert faults == []
    assert (values["stock"], type(values["stock"])) == (4, int)
    assert str(values["since"]) == "2024-05-31 10:00:00"
    assert values["colour"] is None


def typed(attributes: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    columns: dict[str, Any] = {
        "item_id": pl.String, "item_text": pl.String, "title": pl.String, "colour": pl.Categorical(),
        "price": pl.Float32, "stock": pl.Int64, "new": pl.Boolean, "tags": pl.List(pl.String),
        "since": pl.Datetime("ns", "UTC"),
    }  # fmt: skip
    return typed_values(attributes, overlay_schema(pl.Schema(columns)))
