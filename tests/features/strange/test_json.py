"""JSON that is no list of objects: objects under ids, under users, in answers of interfaces, and columns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.features.strange.conftest import Shell

HAT, CAP = {"title": "Red hat", "price": 5}, {"title": "Blue cap", "price": 7.5}
ITEMS = [("S-1", "Red hat", 5.0), ("S-2", "Blue cap", 7.5)]
EVENTS_CSV = "user_id,item_id,event,timestamp\nann,S-1,view,100\nben,S-2,view,200\n"


@pytest.mark.parametrize("indent", [None, 1])
def test_items_under_their_ids(shell: Shell, indent: int | None) -> None:
    shell.write(items_json=json.dumps({"S-1": HAT, "S-2": CAP}, indent=indent), events_csv=EVENTS_CSV)
    shell.prepare("data.items=items.json data.events=events.csv 'data.columns={items.item_id: key}'")
    assert shell.table("items", "item_id", "title", "price") == ITEMS
    assert shell.info["events"] == 2
    _, settings = shell.inspect("items.json events.csv")
    assert "items.item_id: key" in settings
    assert shell.table("items", "item_id", "title", "price") == ITEMS


def test_a_field_that_repeats_the_key_needs_no_mapping(shell: Shell) -> None:
    shell.write(items_json={"S-1": HAT | {"item_id": "S-1"}, "S-2": CAP | {"item_id": "S-2"}})
    shell.prepare("data.items=items.json")
    assert shell.table("items", "item_id", "title", "price") == ITEMS
    assert "key" not in shell.info["attributes"]


EVENT_1 = {"user_id": "ann", "item_id": "S-1", "event": "view", "timestamp": 100}
EVENT_2 = {"user_id": "ben", "item_id": "S-2", "event": "view", "timestamp": 200}
FIRST, SECOND = ({k: v for k, v in e.items() if k != "user_id"} for e in (EVENT_1, EVENT_2))


@pytest.mark.parametrize(
    ("document", "columns"),
    [
        ({"-Na1": EVENT_1, "-Na2": EVENT_2}, ""),
        ({"events": {"-Na1": EVENT_1, "-Na2": EVENT_2}, "count": 2}, ""),
        ({"ann": [FIRST], "ben": [SECOND]}, "user_id: key"),
        (
            {
                "ann": {
                    "-Na1": FIRST,
                    "-Na2": FIRST | {"timestamp": 150},
                    "-Na3": FIRST | {"timestamp": 160},
                },
                "ben": {"-Na4": SECOND},
            },
            "user_id: key",
        ),
    ],
)
def test_events_under_their_ids_or_their_users(shell: Shell, document: Any, columns: str) -> None:
    shell.write(items_csv="item_id,title\nS-1,Hat\nS-2,Cap\n", events_json=document)
    shell.prepare(f"data.items=items.csv data.events=events.json 'data.columns={{{columns}}}'")
    rows = shell.table("events", "user_id", "item_id", "event", "timestamp")
    assert {("ann", "S-1", "view", 100), ("ben", "S-2", "view", 200)} <= set(rows)
    assert len(rows) == (4 if "ann" in document and isinstance(document["ann"], dict) else 2)


WITH_IDS = [{"item_id": "S-1"} | HAT, {"item_id": "S-2"} | CAP]


@pytest.mark.parametrize(
    "document",
    [
        {"data": WITH_IDS, "meta": {"total": 2}, "links": {"self": "https://shop.example/api"}},
        {"data": {"products": WITH_IDS}},
        {"took": 3, "hits": {"total": 2, "hits": WITH_IDS}},
        {"item_id": ["S-1", "S-2"], "title": ["Red hat", "Blue cap"], "price": [5, 7.5]},
        {
            "item_id": {"0": "S-1", "1": "S-2"},
            "title": {"0": "Red hat", "1": "Blue cap"},
            "price": {"0": 5, "1": 7.5},
        },
        {
            "columns": ["item_id", "title", "price"],
            "index": [0, 1],
            "data": [["S-1", "Red hat", 5], ["S-2", "Blue cap", 7.5]],
        },
        {"schema": {"fields": []}, "data": WITH_IDS},
        [["item_id", "title", "price"], ["S-1", "Red hat", 5], ["S-2", "Blue cap", 7.5]],
    ],
)  # fmt: skip
def test_tables_in_answers_and_tables_of_columns(shell: Shell, document: Any) -> None:
    shell.write(items_json=document)
    shell.prepare("data.items=items.json")
    assert shell.table("items", "item_id", "title", "price") == ITEMS


def test_one_product_with_objects_inside_is_one_row(shell: Shell) -> None:
    product = {
        "id": "S-1",
        "title": "Red hat",
        "price": {"amount": 5, "currency": "EUR"},
        "brand": {"name": "Acme"},
    }
    shell.write(items_json=product)
    shell.prepare(
        "data.items=items.json 'data.columns={item_id: id, price: price.amount, brand: brand.name}'"
    )
    assert shell.table("items", "item_id", "title", "price", "brand") == [("S-1", "Red hat", 5.0, "Acme")]
