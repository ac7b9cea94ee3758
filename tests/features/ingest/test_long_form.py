"""Items in long form: a row per item and property."""

from __future__ import annotations

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from tests.features.conftest import Prepared, Shop

ROWS = (
    "9,a,title,Old boots",
    "30,a,title,New boots",
    "30,b,title,Hat",
    "2,b,colour,red",
    "2,a,colour,green",
    "1,,colour,blue",
)


def _prepare(shop: Shop, *rows: str, properties: str = "name: property, value: value, time: at") -> Prepared:
    path = shop.write("properties.csv", "\n".join(("at,sku,property,value", *rows)) + "\n")
    config = compose_command(
        "prepare",
        [
            f"data.items={path}",
            f"data.properties={{{properties}}}",
            "data.columns={items.item_id: sku}",
            "data.max_reject_fraction=0.5",
        ],
    )
    return shop.prepare(config.data)


def test_a_row_per_item_with_the_newest_values(shop: Shop) -> None:
    done = _prepare(shop, *ROWS)
    assert done.table("items").select("item_id", "title", "colour").rows() == [
        ("a", "New boots", "green"),  # 30 is later than 9, though not as text
        ("b", "Hat", "red"),
    ]
    assert done.info["rejects"]["items"] == {"missing item_id": 1}


def test_without_a_time_the_last_row_counts(shop: Shop) -> None:
    rows = (*ROWS[:5], "0,a,title,Last boots")
    done = _prepare(shop, *rows, properties="name: property, value: value")
    assert done.table("items")["title"].to_list() == ["Last boots", "Hat"]


def test_rare_properties_are_left_out(shop: Shop) -> None:
    rows = [f"1,{item},title,Thing {item}" for item in range(201)]
    done = _prepare(shop, *rows, "1,0,rare,x", "1,1,rare,y", "1,0,common,x", "1,1,common,y", "1,2,common,z")
    assert done.info["attributes"] == {"title": "string", "common": "string"}


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ("name: property", "data.properties: expected name, value and perhaps time, not name;"),
        ("name: property, value: value, when: at", "not name, value, when;"),
        (
            "name: propertie, value: value",
            "data.properties.name: no column 'propertie' .*did you mean 'property'",
        ),
    ],
)
def test_wrong_settings_are_named(properties: str, message: str, shop: Shop) -> None:
    with pytest.raises(InputError, match=message):
        _prepare(shop, *ROWS, properties=properties)
