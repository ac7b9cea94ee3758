from __future__ import annotations

import polars as pl
import pytest

from conf.errors import InputError
from features.text.text_fields import choose_text_fields, is_id_name, why_uninformative


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


def test_the_title_comes_first_wherever_it_stands_and_whatever_else_is_called_name() -> None:
    shopify = pl.DataFrame(
        {
            "item_id": ["1", "2"],
            "Body (HTML)": ["Warm and soft", "For the sun"],
            "Option1 Name": ["Size", "Colour"],
            "Option1 Value": ["big", "red"],
            "SEO Title": ["Buy boots", "Buy a hat"],
            "Vendor": ["Acme", "Best"],
            "title": ["Boots", "Hat"],
        }
    )
    assert choose_text_fields(shopify, [], "items")[0] == [
        "title", "Option1 Name", "Option1 Value", "SEO Title", "Vendor", "Body (HTML)",
    ]  # fmt: skip
    fashion = pl.DataFrame(
        {
            "item_id": ["1", "2"],
            "garment_group_name": ["Jersey", "Shoes"],
            "prod_name": ["Strap top", "Boots"],
            "product_type_name": ["Vest top", "Boots"],
        }
    )
    assert choose_text_fields(fashion, [], "items")[0][0] == "prod_name"


@pytest.mark.parametrize(
    "name",
    [
        "Name",
        "Product Name",
        "productTitle",
        "Artikelbezeichnung",
        "Nome do produto",
        "título",
        "Nazwa produktu",
    ],
)
def test_titles_of_many_languages(name: str) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "Brand name": ["Acme", "Best"], name: ["Hat", "Boots"]})
    assert choose_text_fields(frame, [], "items")[0] == [name, "Brand name"]


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("vendor", ["Acme"] * 12, "the same for all"),
        ("Preis", ["ab 5", "frei"] * 6, "prices"),
        ("amount", ["15.00 CHF", "1'299.00 CHF"] * 6, "prices"),
        ("Regal", ["in stock", "out of stock", "preorder"] * 4, "stock"),
        ("availability", ["yes", "soon"] * 6, "stock"),
        ("organic", ["organic", None] * 6, ""),
        ("package", ["500 g", "190 ml", "6 x 33 cl"] * 4, ""),
        ("size", ["40", "L", "one size"] * 4, ""),
        ("badge", ["new"] * 3, ""),
    ],
)
def test_columns_that_tell_nothing_about_an_item(name: str, values: list[str | None], why: str) -> None:
    assert why_uninformative(name, pl.Series(name, values)) == why
