from __future__ import annotations

import polars as pl
import pytest

from explorer.items import ItemTable, picture_column, shown_value
from explorer.problems import closest_ids
from features.data.dataset import Catalogue

FRAME = pl.DataFrame(
    {
        "item_id": ["a1", "a2", "b1"],
        "item_text": ["Red mug. Brand: Acme", "Blue mug", ""],
        "title": ["Red mug", "Blue mug", None],
        "price": [2.5, None, 1234.0],
        "Image_URL": [
            "https://shop.example/1.jpg",
            "https://shop.example/2.jpg|https://shop.example/3.jpg",
            None,
        ],
        "tags": [["new", "red"], [], None],
        "stock": [3.0, 0.5, None],
    }
)


def table() -> ItemTable:
    return ItemTable(Catalogue(FRAME))


def test_a_card_has_title_price_picture_and_the_attributes_that_are_there() -> None:
    card = table().card(0)
    assert (card.item_id, card.title, card.price) == ("a1", "Red mug", "2.50")
    assert card.picture == "https://shop.example/1.jpg"
    assert card.attributes == (("tags", "new, red"), ("stock", "3"))
    other = table().card(1)
    assert (other.price, other.picture) == ("", "https://shop.example/2.jpg")
    assert other.attributes == (("stock", "0.5"),)


def test_an_item_without_title_and_text_is_shown_by_its_id() -> None:
    assert table().title(2) == "b1"
    assert table().card(2).price == "1,234.00"


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ({"picture": ["https://h/x", "https://h/y"]}, "picture"),
        ({"picture": ["red", "blue"]}, None),
        ({"product_link": ["https://h/p1", "https://h/p2"]}, None),
        ({"media": ["https://h/p1.PNG?w=3", "https://h/p2.webp"]}, "media"),
        ({"images": [["https://h/1.jpg"], []]}, "images"),
        ({"image": [None, None]}, None),
        ({"image": [1, 2]}, None),
    ],
)
def test_a_column_of_pictures_is_detected(column: dict[str, list[object]], found: str | None) -> None:
    assert picture_column(pl.DataFrame(column)) == found


def test_items_are_found_by_the_beginning_of_the_id_first_and_by_title() -> None:
    assert table().find("a") == [0, 1]
    assert table().find("MUG") == [0, 1]
    assert table().find("b") == [2, 1]
    assert table().find("a", limit=1) == [0]
    assert table().find(" ") == []
    assert table().find("[") == []


def test_a_long_value_is_shortened_at_a_words_end() -> None:
    assert shown_value("word " * 30) == "word word word word word word word word word word word…"
    assert shown_value(True) == "True"
    assert shown_value(None) == ""


def test_the_closest_ids_are_those_that_contain_it_then_those_like_it() -> None:
    known = ["22423", "22424", "X2242", "99999"]
    assert closest_ids("2242", known) == ["22423", "22424", "X2242"]
    assert closest_ids("22432", known)[0] in ("22423", "22424")
    assert closest_ids("", known) == []
