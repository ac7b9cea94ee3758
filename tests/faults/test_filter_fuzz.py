"""Filters against a plain Python evaluator of the same expressions, and pathologically slow filters."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.dataset import Catalogue
from ranking.catalogue.filter_language import FilterError, MaskCache
from ranking.catalogue.live_catalogue import LiveCatalogue, LiveItem

Row = dict[str, Any]
Truth = bool | None
"""Result of a test; None (unknown) for a missing value, as in SQL."""
TEXTS = ["", "a", "A", "SHOES", "shoes", "Straße", "größe", '"', "\\", "it's", "a.b", "(", "x\ny", "é", "0"]
NUMBERS = [-3, 0, 1, 2, 7, 0.5, -0.25, 1e6]
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(TEXTS),
    "price": st.sampled_from([float(n) for n in NUMBERS]),
    "stock": st.sampled_from([n for n in NUMBERS if isinstance(n, int)]),
    "open": st.booleans(),
    "tags": st.lists(st.sampled_from(TEXTS), max_size=3),
    "sizes": st.lists(st.sampled_from([1, 2, 38]), max_size=3),
}
TYPES = {
    "name": pl.String(), "price": pl.Float64(), "stock": pl.Int32(), "open": pl.Boolean(),
    "tags": pl.List(pl.String()), "sizes": pl.List(pl.Int64()),
}  # fmt: skip
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """An expression, as text and as a function of a row."""

    text: str
    of: Callable[[Row], Truth]


def quoted(value: str, quote: str) -> str:
    return quote + value.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def literal(value: Any, quote: str) -> str:
    if isinstance(value, str):
        return quoted(value, quote)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def known(name: str, says: Callable[[Any], bool]) -> Callable[[Row], Truth]:
    """A missing value makes every test unknown except that of its presence."""
    return lambda row: None if row[name] is None else says(row[name])


@st.composite
def single(draw: st.DrawFn) -> Expression:
    """One test of one attribute."""
    name = draw(st.sampled_from(list(COLUMNS)))
    written = draw(st.sampled_from([name, f"`{name}`"]))
    quote = draw(st.sampled_from("\"'"))
    if draw(st.integers(0, 9)) == 0:
        return Expression(f"{written}:*", lambda row: row[name] is not None)
    if name in ("tags", "sizes"):
        sought = draw(st.sampled_from(TEXTS) if name == "tags" else st.sampled_from([1, 2, 3]))
        return Expression(f"{written}:{literal(sought, quote)}", known(name, lambda value: sought in value))
    if name == "open" and draw(st.booleans()):
        return Expression(written, known(name, bool))
    if name == "name" and draw(st.integers(0, 3)) == 0:
        part = draw(st.sampled_from(TEXTS))
        return Expression(
            f"{written}:{quoted(part, quote)}", known(name, lambda value: part.lower() in value.lower())
        )
    if draw(st.integers(0, 3)) == 0:
        values = draw(st.lists(COLUMNS[name], min_size=1, max_size=3))
        negated, brackets = draw(st.booleans()), draw(st.sampled_from(["()", "[]"]))
        listed = ", ".join(literal(value, quote) for value in values)
        text = f"{written} {'NOT ' if negated else ''}IN {brackets[0]}{listed}{brackets[1]}"
        return Expression(text, known(name, lambda value: (value in values) != negated))
    sign = draw(st.sampled_from(["=", "==", "!="] if name == "open" else list(OPERATORS)))
    other = draw(COLUMNS[name] if name in ("name", "open") else st.sampled_from(NUMBERS))
    return Expression(
        f"{written} {sign} {literal(other, quote)}", known(name, lambda v: OPERATORS[sign](v, other))
    )


def negated(inner: Expression) -> Expression:
    def of(row: Row) -> Truth:
        found = inner.of(row)
        return None if found is None else not found

    return Expression(f"NOT ({inner.text})", of)


def joined(word: str, parts: list[Expression]) -> Expression:
    """AND and OR of SQL: a missing value decides only where the others do not."""
    decisive = word.upper() == "OR"

    def of(row: Row) -> Truth:
        found = [part.of(row) for part in parts]
        return decisive if decisive in found else None if None in found else not decisive

    return Expression(f" {word} ".join(f"({part.text})" for part in parts), of)


EXPRESSIONS = st.recursive(
    single(),
    lambda inner: st.one_of(
        inner.map(negated),
        st.builds(
            joined, st.sampled_from(["AND", "OR", "and", "Or"]), st.lists(inner, min_size=2, max_size=3)
        ),
    ),
    max_leaves=8,
)
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in COLUMNS.items()}),
    min_size=1,
    max_size=8,
)


def catalogue(rows: list[Row]) -> Catalogue:
    frame = pl.DataFrame([[row[name] for name in TYPES] for row in rows], schema=TYPES, orient="row")
    ids = pl.DataFrame({"item_id": [f"i{n}" for n in range(len(rows))], "item_text": ["x"] * len(rows)})
    return Catalogue(pl.concat([ids, frame], how="horizontal"))


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, ROWS)
def test_a_filter_passes_what_plain_python_says(expression: Expression, rows: list[Row]) -> None:
    if len(expression.text) > 2000:
        return
    mask = MaskCache().mask("v", catalogue(rows).frame, expression.text)
    assert mask.tolist() == [expression.of(row) is True for row in rows], expression.text


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, ROWS, ROWS)
def test_items_that_change_are_filtered_as_if_they_had_always_been_so(
    expression: Expression, rows: list[Row], later: list[Row]
) -> None:
    """Every other item is changed and the rest of the later ones are added."""
    if len(expression.text) > 2000:
        return
    live, masks = LiveCatalogue(catalogue(rows)), MaskCache()
    before = live.mask(masks, "v", expression.text)
    places = [2 * n if 2 * n < len(rows) else len(rows) + n - (len(rows) + 1) // 2 for n in range(len(later))]
    items = [LiveItem(f"i{place}", "x", row) for place, row in zip(places, later, strict=True)]
    now = [*rows, *([{}] * sum(place >= len(rows) for place in places))]
    for place, row in zip(places, later, strict=True):
        now[place] = row
    after = live.next(items, places, np.zeros(len(now), dtype=np.bool_))
    assert after.mask(masks, "v", expression.text).tolist() == [expression.of(row) is True for row in now]
    assert live.mask(masks, "v", expression.text).tolist() == before.tolist()


@pytest.fixture(scope="module")
def large() -> Catalogue:
    rows = 50_000
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(rows)],
            "item_text": ["x"] * rows,
            "name": ["a" * 200 + ("b" if n % 2 else "c") for n in range(rows)],
            "tags": [["aaaaaaaa", "b"]] * rows,
        }
    )
    return Catalogue(frame)


@pytest.mark.parametrize(
    ("expression", "passing"),
    [
        ('name:"' + "a" * 100 + 'b"', 25_000),
        ('name:"(a+)+$"', 0),  # text, not a pattern
        ('name:"(a|a)*b"', 0),
        (" OR ".join(['name:"aab"'] * 90), 25_000),
        (" AND ".join(['NOT name:"abc"'] * 90), 50_000),
        (" OR ".join(['tags:"zz"'] * 100), 0),
        ("NOT " * 30 + 'name:"b"', 25_000),
        ('name:"' + "ß" * 1900 + '"', 0),
        ('name:"' + "K" * 1900 + '"', 0),
        ("name IN (" + ", ".join(["'a'"] * 300) + ")", 0),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_filter_takes_long(large: Catalogue, expression: str, passing: int) -> None:
    """The limit is generous for busy machines; a pattern that backtracks would take years."""
    assert len(expression) <= 2000
    started = time.process_time()
    assert int(MaskCache().mask("v", large.frame, expression).sum()) == passing
    assert time.process_time() - started < 20


def test_text_that_looks_alike_is_not_alike() -> None:
    rows = catalogue(
        [dict.fromkeys(TYPES) | {"name": name} for name in ("SHOES", "ЅHOES", "SHOES\u200b", "SH\0OES")]
    )
    assert MaskCache().mask("v", rows.frame, 'name = "SHOES"').tolist() == [True, False, False, False]
    for trick in (
        'name＝"SHOES"',
        "name = ＂SHOES＂",
        'name\u00a0=\u00a0"SHOES" \u202eDNA',
        "name = “SHOES”",
    ):
        with pytest.raises(FilterError):
            MaskCache().mask("v", rows.frame, trick)
