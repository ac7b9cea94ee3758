"""The conditions of a filter: together they are the filter, and each is a filter of its own."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ranking.catalogue.filter_clauses import clauses_of, joined
from ranking.catalogue.filter_language import FilterError, compile_filter, evaluate

TABLE = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "price": [1.0, 5.0, None, 9.0],
        "brand": ["x AND y", "z", "z", None],
        "sale": [True, False, None, True],
    }
)


@pytest.mark.parametrize(
    ("expression", "clauses"),
    [
        ("price < 6", ["price < 6"]),
        ('price < 6 AND brand = "x AND y"', ["price < 6", 'brand = "x AND y"']),
        (
            "(price < 6 and (sale or price > 3)) AND NOT (sale)",
            ["price < 6", "sale or price > 3", "NOT (sale)"],
        ),
        ("sale OR price < 6 AND price > 1", ["sale OR price < 6 AND price > 1"]),
        ("NOT (sale AND price < 2)", ["NOT (sale AND price < 2)"]),
    ],
)
def test_clauses_are_demanded_together(expression: str, clauses: list[str]) -> None:
    assert clauses_of(expression) == clauses
    whole = evaluate(TABLE, compile_filter(TABLE.schema, expression))
    each = [evaluate(TABLE, compile_filter(TABLE.schema, clause)) for clause in clauses]
    np.testing.assert_array_equal(np.logical_and.reduce(each), whole)
    again = evaluate(TABLE, compile_filter(TABLE.schema, joined(clauses)))
    np.testing.assert_array_equal(again, whole)


def test_no_clauses_are_no_filter() -> None:
    assert joined([]) == ""


def test_a_wrong_filter_is_refused_at_its_column() -> None:
    with pytest.raises(FilterError, match="column 9"):
        clauses_of("price < ")
