from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from explorer.catalogue.colours import NONE, OTHER, Colouring, choices, colour, days_on_sale
from features.data.statistics import Statistics


def statistics(count: list[float], first: list[int], width: int = 12) -> Statistics:
    made: Any = SimpleNamespace(
        count=np.array(count, dtype=np.float32),
        demand_first=np.array(first),
        demand_calendar=np.array([0, width]),
    )
    return cast(Statistics, made)


def of_column(values: pl.Series) -> Colouring:
    frame = pl.DataFrame({"a": values})
    return colour("attribute:a", "A", frame, statistics([], []))


def test_choices_are_what_groups_items() -> None:
    frame = pl.DataFrame(
        {
            "title": [f"title {i}" for i in range(20)],
            "brand": ["x", "y"] * 10,
            "one": ["same"] * 20,
            "price": np.arange(20.0),
            "tags": [["a"], ["b"]] * 10,
            "added": pl.date_range(
                pl.date(2024, 1, 1), pl.date(2024, 1, 20), eager=True
            ),
        }
    )  # fmt: skip
    names = [name for name, _ in choices(frame, frame.columns)]
    assert names == ["sales", "novelty", "attribute:brand", "attribute:price", "attribute:added"]


def test_values_are_coloured_by_frequency_ties_by_name_and_the_rest_together() -> None:
    values = ["b", "b", "a", "c", "d", "e", "f", "g", "h", "i", None]
    found = of_column(pl.Series(values))
    # b is first; a, c, d, e, f, g, h follow by name; i is the ninth value.
    assert found.codes.tolist() == [1, 1, 2, 3, 4, 5, 6, 7, 8, OTHER, NONE]
    assert [(e.label, e.count) for e in found.legend[:2]] == [("b", 2), ("a", 1)]
    assert [(e.code, e.label, e.count) for e in found.legend[-2:]] == [
        (OTHER, "1 other values", 1), (NONE, "no value", 1),
    ]  # fmt: skip
    assert not found.scale


def test_numbers_are_in_steps_of_their_logarithm() -> None:
    # log1p of 0 .. 127 is 0 .. 7 log 2: the edges are 0, 1, 3, 7, 15, 31, 63, 127.
    found = of_column(pl.Series([0.0, 0.9, 1.0, 6.9, 7.0, 126.0, 127.0, None]))
    assert found.codes.tolist() == [1, 1, 2, 3, 4, 7, 7, NONE]
    assert [e.label for e in found.legend] == [
        "0 to 1", "1 to 3", "3 to 7", "7 to 15", "15 to 31", "31 to 63", "63 to 127", "no value",
    ]  # fmt: skip
    assert [e.count for e in found.legend] == [2, 1, 1, 1, 0, 0, 2, 1]


def test_numbers_below_zero_are_in_equal_steps_and_equal_ones_in_one() -> None:
    found = of_column(pl.Series([-7.0, -6.5, 0.0, 7.0]))
    assert found.codes.tolist() == [1, 1, 4, 7]
    assert [e.label for e in of_column(pl.Series([3.0, 3.0])).legend] == ["3 to 3"]
    assert of_column(pl.Series([None, None], dtype=pl.Float64)).codes.tolist() == [NONE, NONE]


def test_sales_and_newness() -> None:
    known = statistics([0, 1, 10], [12, 10, 0])
    assert days_on_sale(known) == pytest.approx([np.nan, 1, 11], nan_ok=True)
    sales = colour("sales", "Sales", pl.DataFrame(), known)
    assert sales.codes.tolist() == [NONE, 1, 7]
    assert sales.legend[-1].label == "no event"
    newness = colour("novelty", "Days", pl.DataFrame(), known)
    assert newness.codes.tolist() == [NONE, 7, 1], "the newest stands out"
    assert [(e.code, e.label) for e in newness.legend][:2] == [(7, "1 to 2"), (6, "2 to 2")]
    assert [e.code for e in newness.legend] == [7, 6, 5, 4, 3, 2, 1, NONE]
