"""Objects and lists: paths lead into them, lists become rows, and what is left nested says what to set."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from tests.features.conftest import Prepared, Shop


def _lines(shop: Shop, name: str, rows: list[dict[str, Any]]) -> str:
    return shop.write(name, "".join(json.dumps(row) + "\n" for row in rows))


def _prepare(shop: Shop, *overrides: str) -> Prepared:
    return shop.prepare(compose_command("prepare", list(overrides)).data)


def _fix(error: InputError) -> str:
    return next(w for w in shlex.split(str(error).partition("): ")[2]) if w.startswith("data."))


def test_lists_of_objects_become_rows_of_both_tables(shop: Shop) -> None:
    log = _lines(
        shop,
        "ga4.jsonl",
        [
            {
                "user_pseudo_id": "1.1", "event_timestamp": 1_700_000_000_000_000, "event_name": "view_item",
                "items": [{"item_id": "a", "item_name": "Hat", "price": 5.0}],
            },
            {
                "user_pseudo_id": "1.2", "event_timestamp": 1_700_000_060_000_000, "event_name": "purchase",
                "items": [
                    {"item_id": "b", "item_name": "Cap", "price": 7.5},
                    {"item_id": "a", "item_name": "Hat", "price": 5.0},
                ],
            },
            {"user_pseudo_id": "2", "event_timestamp": 1_700_000_070_000_000, "event_name": "x", "items": []},
        ],
    )  # fmt: skip
    columns = {
        "item_id": "items.item_id", "user_id": "user_pseudo_id", "timestamp": "event_timestamp",
        "event": "event_name", "items.title": "items.item_name", "items.price": "items.price",
    }  # fmt: skip
    written = ", ".join(f"{key}: {value}" for key, value in columns.items())
    done = _prepare(shop, f"data.items={log}", f"data.events={log}", f"data.columns={{{written}}}")
    assert done.table("items").select("item_id", "title", "price").rows() == [
        ("a", "Hat", 5.0),
        ("b", "Cap", 7.5),
    ]
    assert done.table("events").select("user_id", "item_id", "event", "timestamp").rows() == [
        ("1.1", "a", "view_item", 1_700_000_000),
        ("1.2", "b", "purchase", 1_700_000_060),
        ("1.2", "a", "purchase", 1_700_000_060),
    ]


def test_a_list_of_ids_is_an_event_each(shop: Shop, items: str) -> None:
    events = _lines(shop, "e.jsonl", [{"user_id": "u", "item_id": ["2", "1"], "timestamp": 5}])
    done = _prepare(shop, f"data.items={items}", f"data.events={events}")
    assert done.table("events")["item_id"].to_list() == ["2", "1"]


@pytest.mark.parametrize(
    ("row", "column", "read"),
    [
        ({"item_id": {"$oid": "s1"}, "title": "Hat"}, "item_id", {"item_id": "s1"}),
        ({"item_id": "s", "title": "Hat", "price": {"sum": "5.00", "unit": "EUR"}}, "price", {"price": 5.0}),
    ],
)  # fmt: skip
def test_an_object_in_the_items_stops_with_a_path_that_reads_it(
    shop: Shop, row: dict[str, Any], column: str, read: dict[str, Any]
) -> None:
    path = _lines(shop, "i.jsonl", [row])
    with pytest.raises(InputError, match=f"column '{column}' holds objects with the fields ") as caught:
        _prepare(shop, f"data.items={path}")
    assert "\n" not in str(caught.value)
    done = _prepare(shop, f"data.items={path}", _fix(caught.value))
    assert {name: done.table("items")[name][0] for name in read} == read


def test_an_object_in_the_events_stops_with_a_path_that_reads_it(shop: Shop, items: str) -> None:
    row = {"user_id": {"id": "u", "kind": "guest"}, "item_id": "1", "timestamp": 5}
    events = _lines(shop, "e.jsonl", [row])
    with pytest.raises(
        InputError, match="column 'user_id' holds objects with the fields id, kind; "
    ) as caught:
        _prepare(shop, f"data.items={items}", f"data.events={events}")
    done = _prepare(shop, f"data.items={items}", f"data.events={events}", _fix(caught.value))
    assert done.table("events")["user_id"].to_list() == ["u"]


def test_a_path_that_leads_nowhere_names_the_fields(shop: Shop) -> None:
    path = _lines(shop, "i.jsonl", [{"id": {"sku": "s1"}, "title": "Hat"}])
    with pytest.raises(InputError, match="no field 'skv' in 'id' of .*; did you mean 'sku'.* Fields: sku"):
        _prepare(shop, f"data.items={path}", "data.columns={item_id: id.skv}")


def test_two_lists_side_by_side_are_not_combined(shop: Shop, items: str) -> None:
    row = {"user_id": "u", "a": [{"x": "1"}], "b": [{"y": "2"}], "timestamp": 5}
    events = _lines(shop, "e.jsonl", [row])
    with pytest.raises(InputError, match="'b.y' leads through a list beside the list 'a'"):
        _prepare(
            shop, f"data.items={items}", f"data.events={events}",
            "data.columns={events.item_id: a.x, events.session_id: b.y}",
        )  # fmt: skip
