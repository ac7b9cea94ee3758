from __future__ import annotations

import polars as pl
import pytest

from conf.errors import InputError
from features.text_fields import choose_text_fields, is_id_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", True),
        ("ID", True),
        ("item_id", True),
        ("manufacturer_ids", True),
        ("productId", True),
        ("productID", True),
        ("liquid", False),
        ("grid", False),
        ("paid", False),
        ("identity", False),
    ],
)
def test_id_names(name: str, expected: bool) -> None:
    assert is_id_name(name) is expected


FRAME = pl.DataFrame(
    {
        "item_id": ["1", "2", "3"],
        "description": ["A boot for rain", "A hat", "A scarf"],
        "tags": [["rain"], ["sun"], None],
        "brand_name": ["Acme", "Acme", "Best"],
        "asin": ["B004756YJA", "B004ZT0SSG", "B0020YLEYK"],
        "supplier_id": ["s1", "s1", "s2"],
        "image_url": ["http://x/1.png", None, None],
        "picture_of_it": ["https://x/1.png", "www.x.org/2", None],
        "since": ["2020-01-01", "2021-02-03", None],
        "part_number": ["AX-100", "AX-101", "BX-7"],
        "updated_at": ["now", "then", "now"],
        "empty": pl.Series([None, None, None], dtype=pl.String),
        "price": [1.0, 2.0, 3.0],
        "product_name": ["Boots", "Hat", "Scarf"],
        "size": ["40", "L", "one size"],
    }
)


def test_default_takes_what_reads_names_first_descriptions_last() -> None:
    fields, fallback = choose_text_fields(FRAME, [], "items")
    assert fields == ["product_name", "brand_name", "size", "tags", "description"]
    assert fallback == []


def test_a_title_of_codes_stays_a_title() -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "title": ["X100", "X200"]})
    assert choose_text_fields(frame, [], "items") == (["title"], [])


def test_configured_fields_keep_their_order_and_the_rest_stands_in() -> None:
    fields, fallback = choose_text_fields(FRAME, ["size", "product_name"], "items")
    assert fields == ["size", "product_name"]
    assert fallback == ["description", "tags", "brand_name"]


def test_an_unknown_field_names_the_closest() -> None:
    with pytest.raises(InputError, match="no column 'titel' in items; did you mean 'title'"):
        choose_text_fields(pl.DataFrame({"item_id": ["1"], "title": ["x"]}), ["titel"], "items")
