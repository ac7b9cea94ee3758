from __future__ import annotations

import sys
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.data.dataset import Catalogue
from ranking.catalogue.filter_language import (
    ENTRY_BYTES,
    MAX_CHARS,
    MAX_DEPTH,
    MAX_TERMS,
    AttributeKind,
    FilterError,
    MaskCache,
    attribute_kinds,
    compile_filter,
)

ITEMS = Catalogue(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "item_text": ["x"] * 4,
            "price": pl.Series([10.5, 19.99, None, float("nan")], dtype=pl.Float32),
            "stock": pl.Series([1, 2, 3, None], dtype=pl.Int8),
            "big": pl.Series([2**63 + 5, 1, 2, 3], dtype=pl.UInt64),
            "category": ["SHOES", "HATS", None, "Über"],
            "colour": pl.Series(["red", "blue", "red", None], dtype=pl.Categorical),
            "in_stock": [True, False, None, True],
            "tags": [["sale", "new"], [], None, ["sale"]],
            "sizes": [[38, 39], [40], [], None],
            "created_at": [datetime(2024, 1, 1), datetime(2024, 6, 1, 12), None, None],
            "season": [date(2024, 3, 1), None, date(2025, 3, 1), None],
            "zoned": pl.Series([datetime(2024, 1, 1, tzinfo=UTC)] * 4).dt.convert_time_zone("Asia/Tokyo"),
            "Product Group": ["a", "b", "c", "d"],
            "blob": [b"1", b"2", b"3", b"4"],
            "order_id": ["1", "2", "3", "4"],
        }
    )
)


def passing(expression: str) -> str:
    mask = MaskCache().mask("v", ITEMS.frame, expression)
    assert mask.shape == (4,)
    assert mask.dtype == np.bool_
    return "".join(np.array(ITEMS.ids)[mask])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('category = "SHOES"', "a"),
        ("category == 'SHOES'", "a"),
        ('category != "SHOES"', "bd"),
        ('category > "SHO"', "ad"),
        ('category IN ("SHOES", "Über")', "ad"),
        ('category NOT IN ["SHOES"]', "bd"),
        ('NOT category IN ("SHOES")', "bd"),
        ('category:"hat"', "b"),
        ('category:"ÜBER"', "d"),
        ('category:"."', ""),
        ('colour = "red"', "ac"),
        ('colour:"E"', "abc"),
        ("price = 19.99", "b"),  # stored in single precision
        ("price != 19.99", "a"),
        ("price < 50", "ab"),
        ("price >= 10.5 AND price <= 10.5", "a"),
        ("NOT price < 15", "b"),
        ("price IN (10.5, 3)", "a"),
        ("price > -1e400", "ab"),
        ("stock > 1", "bc"),
        ("stock < 1.5", "a"),
        ("stock = 1000", ""),
        ("stock = 99999999999999999999999999", ""),
        ("big > 9000000000000000000", "a"),
        ("in_stock", "ad"),
        ("NOT in_stock", "b"),
        ("in_stock = false", "b"),
        ("in_stock != TRUE", "b"),
        ("in_stock IN (true, false)", "abd"),
        ('tags:"sale"', "ad"),
        ('NOT tags:"sale"', "b"),
        ('tags:"sal"', ""),
        ("sizes:39", "a"),
        ("tags:*", "abd"),
        ("price:*", "ab"),
        ("NOT created_at:*", "cd"),
        ('created_at > "2024-02-01"', "b"),
        ('created_at = "2024-06-01T12:00:00Z"', "b"),
        ('created_at <= "2024-06-01T14:00:00+02:00"', "ab"),
        ('season < "2025-01-01"', "a"),
        ('zoned = "2024-01-01T00:00:00Z"', "abcd"),
        ('`Product Group` = "b" OR item_id = "a"', "ab"),
        ('category = "SHOES" AND price < 50 AND in_stock', "a"),
        # AND binds more tightly than OR
        ('item_id = "a" OR item_id = "b" AND item_id = "c"', "a"),
        ('(item_id = "a" OR item_id = "b") AND NOT item_id = "a"', "b"),
        ('price > 15 OR category = "SHOES"', "ab"),
        # a missing value decides nothing, but the other side may
        ('price < 5 OR category = "Über"', "d"),
        ("NOT (price < 5 AND stock = 3)", "ab"),
        ("in_stock\n  and\tstock = 1", "a"),
        ('order_id = "2"', "b"),  # begins with a keyword's letters
        (r'category = "SH\OES"', "a"),
        ("(((((in_stock)))))", "ad"),
    ],
)
def test_what_passes(expression: str, expected: str) -> None:
    assert passing(expression) == expected


@pytest.mark.parametrize(
    ("expression", "column", "says"),
    [
        (
            "colr = 1",
            1,
            "unknown attribute 'colr'; did you mean 'colour'?; known: Product Group, big, category",
        ),
        ("in_stock AND item_text = 'x'", 14, "unknown attribute 'item_text'"),
        ("blob = 'x'", 1, "unknown attribute 'blob'"),
        ("category = SHOES", 12, 'needs text in quotes, not SHOES; put text in quotes: "SHOES"'),
        ("category = 3", 12, "attribute 'category' needs text in quotes, not 3"),
        ('price < "3"', 9, "attribute 'price' needs a number"),
        ("price = true", 9, "attribute 'price' needs a number"),
        ("in_stock = 1", 12, "needs true or false"),
        ("in_stock > true", 12, "only = and != apply"),
        ("stock IN (1, 'x')", 14, "needs a number"),
        ("price", 1, "is not true/false; compare it with a number"),
        ("NOT category", 5, "is not true/false"),
        ('tags = "sale"', 1, "is a list; test it with tags:VALUE"),
        ('tags IN ("sale")', 1, "is a list"),
        ("tags:1", 6, "needs text in quotes"),
        ("sizes:'x'", 7, "needs a number"),
        ("price:3", 7, "':' tests lists and texts"),
        ('created_at > "soon"', 14, "needs an ISO date or time"),
        ("created_at > 5", 14, "needs an ISO date or time"),
        ("", 1, "the expression ends here; expected an attribute, '(', NOT"),
        ("price <", 8, "the expression ends here; expected text in quotes, a number, true or false"),
        ("(in_stock", 10, "expected ')'"),
        ("in_stock)", 9, "unexpected ')'"),
        ("in_stock in_stock", 10, "unexpected 'in_stock'; expected ':'"),
        ("in_stock AND", 13, "the expression ends here"),
        ("price ! 3", 7, "unexpected character '!'"),
        ('category = "SHOES', 12, 'the quote " is never closed'),
        ("`category = 1", 1, "the quote ` is never closed"),
        ("in_stock\nAND colr", 14, "unknown attribute 'colr'"),
        ("x" * (MAX_CHARS + 1), MAX_CHARS + 1, "longer than 2000"),
        ("NOT " * (MAX_DEPTH + 1) + "in_stock", 4 * (MAX_DEPTH + 1) + 1, "nested deeper than 32"),
        (" OR ".join(["in_stock"] * (MAX_TERMS + 1)), 12 * MAX_TERMS + 1, "more than 100 tests"),
    ],
)
def test_what_is_refused_and_where(expression: str, column: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(ITEMS.frame.schema, expression)
    assert caught.value.column == column
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"column {column}: ")
    assert "\n" not in str(caught.value)


def test_limits_themselves_are_allowed() -> None:
    assert passing("NOT " * MAX_DEPTH + "in_stock") == "ad"
    assert passing(" OR ".join(["in_stock"] * MAX_TERMS)) == "ad"
    opened = (MAX_CHARS - len("in_stock")) // 2
    assert passing("(" * opened + "in_stock" + ")" * opened) == "ad"


def test_attributes_and_their_kinds() -> None:
    kinds = attribute_kinds(ITEMS.frame.schema)
    assert kinds["item_id"] is AttributeKind.string
    assert kinds["colour"] is AttributeKind.string
    assert kinds["price"] is kinds["big"] is AttributeKind.number
    assert kinds["season"] is kinds["created_at"] is AttributeKind.time
    assert kinds["sizes"] is AttributeKind.list
    assert kinds["in_stock"] is AttributeKind.boolean
    assert not {"item_text", "blob"} & set(kinds)


@given(st.text(alphabet="abctagsprice in_stock():\"<>=!*[],0123.ANDORNOT'`\\ ", max_size=60))
def test_any_text_gives_a_mask_or_a_filter_error(expression: str) -> None:
    try:
        mask = MaskCache().mask("v", ITEMS.frame, expression)
    except FilterError as error:
        column = error.column
    else:
        assert mask.shape == (4,)
        return
    assert 1 <= column <= len(expression) + 1


@given(st.text(max_size=20))
def test_any_text_can_be_quoted(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    catalogue = Catalogue(
        pl.DataFrame({"item_id": ["a", "b"], "item_text": ["", ""], "name": [value, value + "!"]})
    )
    assert MaskCache().mask("v", catalogue.frame, f'name = "{quoted}"').tolist() == [True, False]
    assert MaskCache().mask("v", catalogue.frame, f'name:"{quoted}"').tolist() == [True, True]


def test_masks_are_kept_per_version_and_expression_and_cannot_be_changed() -> None:
    cache = MaskCache()
    first = cache.mask("v1", ITEMS.frame, "in_stock")
    assert cache.mask("v1", ITEMS.frame, "in_stock") is first
    assert cache.cached("v1", "in_stock") is first
    assert cache.cached("v2", "in_stock") is None
    assert cache.mask("v2", ITEMS.frame, "in_stock") is not first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = False


def test_the_cache_forgets_the_least_recently_used_beyond_its_size() -> None:
    cache = MaskCache(max_bytes=3 * (len(ITEMS) + sys.getsizeof("stock = 1") + ENTRY_BYTES))
    for stock in (1, 2, 3):
        cache.mask("v", ITEMS.frame, f"stock = {stock}")
    assert cache.cached("v", "stock = 1") is not None  # now the most recent
    cache.mask("v", ITEMS.frame, "stock = 4")
    assert [cache.cached("v", f"stock = {s}") is not None for s in (1, 2, 3, 4)] == [True, False, True, True]
    small = MaskCache(max_bytes=1)
    small.mask("v", ITEMS.frame, "in_stock")
    assert small.cached("v", "in_stock") is not None  # one mask always fits


def test_long_expressions_over_few_items_count_too() -> None:
    cache = MaskCache(max_bytes=100_000)
    expressions = [f'category = "{"x" * 1900}{number}"' for number in range(200)]
    for expression in expressions:
        cache.mask("v", ITEMS.frame, expression)
    kept = sum(cache.cached("v", expression) is not None for expression in expressions)
    assert 100_000 / 3000 < kept < 100_000 / 1900
