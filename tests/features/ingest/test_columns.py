from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig
from features.files.readers import FILE, ROW, RawTable
from features.ingest.columns import map_columns
from features.ingest.required import require_columns
from tests.features.conftest import Shop


def _table(name: str, /, **columns: list[str]) -> RawTable:
    frame = pl.LazyFrame(columns).with_row_index(ROW, offset=1).with_columns(pl.lit("f").alias(FILE))
    return RawTable(frame, True, name)


ITEMS = _table("data.items (i.csv)", sku=["1"], date=["2020"], name=["Boots"])
EVENTS = _table("data.events (e.csv)", sku=["1"], customer=["u"], date=["2021"])


def _columns(
    columns: dict[str, Any], items: RawTable = ITEMS, events: RawTable = EVENTS
) -> tuple[set[str], set[str]]:
    left, right = map_columns(items, events, columns)
    assert left is not None
    assert right is not None
    return set(left.columns), set(right.columns)


def test_a_name_acts_on_every_table_that_has_the_column() -> None:
    assert _columns({"item_id": "sku"}) == ({"item_id", "date", "name"}, {"item_id", "customer", "date"})


def test_a_name_of_one_table_leaves_the_other_alone() -> None:
    assert _columns({"timestamp": "date", "user_id": "customer"}) == (
        {"sku", "date", "name"},
        {"sku", "user_id", "timestamp"},
    )


def test_a_prefix_restricts_to_one_table() -> None:
    assert _columns({"items.item_id": "sku"}) == ({"item_id", "date", "name"}, {"sku", "customer", "date"})


def test_names_outside_the_contract_rename() -> None:
    assert _columns({"title": "name"})[0] == {"sku", "date", "title"}


def test_the_mapped_column_takes_the_place_of_one_with_its_name() -> None:
    items = _table("data.items (i.csv)", item_id=["1"], asin=["B0"])
    mapped, _ = map_columns(items, None, {"item_id": "asin"})
    assert mapped is not None
    assert mapped.frame.select("item_id").collect()["item_id"].to_list() == ["B0"]
    assert mapped.columns == ["item_id"]


def test_one_column_may_serve_twice() -> None:
    _, events = map_columns(None, EVENTS, {"timestamp": "date", "order": "date"})
    assert events is not None
    assert events.frame.select("timestamp", "order").collect().row(0) == ("2021", "2021")


def test_a_missing_file_column_lists_what_exists_and_the_closest() -> None:
    with pytest.raises(InputError) as error:
        map_columns(ITEMS, EVENTS, {"user_id": "custmer"})
    assert str(error.value) == (
        "data.columns.user_id: no column 'custmer' in events; did you mean 'customer'?"
        " (data.events (e.csv) has sku, customer, date)"
    )


def test_a_prefixed_name_does_not_look_in_the_other_table() -> None:
    with pytest.raises(InputError, match=r"data.columns.items.item_id: no column 'customer' in items"):
        map_columns(ITEMS, EVENTS, {"items.item_id": "customer"})


def test_a_missing_required_column_names_the_fix() -> None:
    with pytest.raises(InputError) as error:
        require_columns(_table("data.items (i.csv)", itemid=["1"], title=["x"]), ("item_id",), "items")
    assert str(error.value) == (
        "data.items (i.csv): no column 'item_id'; did you mean 'itemid'? Columns: itemid, title. "
        "'data.columns={items.item_id: itemid}' takes it"
    )


def test_a_header_of_numbers_may_be_data(shop: Shop) -> None:
    path = shop.write("items.csv", "1,Hat\n2,Cap\n")
    with pytest.raises(
        InputError, match=r"where the first line is data, add 'data.without_header=\[items\]'"
    ):
        shop.prepare(DataConfig(items=path))
    columns = {"item_id": "column_1", "title": "column_2"}
    done = shop.prepare(DataConfig(items=path, columns=columns, without_header=["items"]))
    assert done.table("items").select("item_id", "title").rows() == [("1", "Hat"), ("2", "Cap")]


def test_a_log_is_both_tables(shop: Shop) -> None:
    log = shop.write(
        "log.csv",
        "when,who,event,sku,title,shown_as\n"
        "300,ann,view,7,Red boots,view\n"
        "100,ben,view,7,Red boots (new),teaser\n"
        "200,ann,purchase,8,Blue hat,view\n",
    )
    names = {"item_id": "sku", "user_id": "who", "events.timestamp": "when"}
    done = shop.prepare(DataConfig(items=log, events=log, columns=names))
    assert done.table("items").rows(named=True) == [
        {"item_id": "7", "item_text": "Red boots. Shown as: view", "title": "Red boots", "shown_as": "view"},
        {"item_id": "8", "item_text": "Blue hat. Shown as: view", "title": "Blue hat", "shown_as": "view"},
    ]
    assert done.table("events")["user_id", "item_id", "event", "timestamp"].rows() == [
        ("ann", "8", "purchase", 200),
        ("ann", "7", "view", 300),
        ("ben", "7", "view", 100),
    ]
    assert done.table("rejects").is_empty()
    # What is asked for by name stays, and other names of the event go.
    shown = shop.prepare(
        DataConfig(
            items=log, events=log, columns={**names, "items.kind": "event", "events.event": "shown_as"}
        )
    )
    assert shown.table("items").columns == ["item_id", "item_text", "title", "kind"]
    with pytest.raises(InputError, match=r"no column 'item_id'. Columns: when, sku, title, shown_as"):
        shop.prepare(DataConfig(items=log, events=log, columns={"user_id": "who"}))


def test_of_a_list_of_names_each_row_takes_the_first_that_has_a_value() -> None:
    orders = _table(
        "data.events (o.csv)",
        mail=["a@x", " ", "", ""],
        phone=["1", "2", "", "4"],
        guest=["g", "g", "g3", ""],
    )
    _, events = map_columns(None, orders, {"user_id": ["mail", "customer", "phone", "guest"]})
    assert events is not None
    assert events.columns == ["user_id"]
    assert events.frame.collect()["user_id"].to_list() == ["a@x", "2", "g3", "4"]


def test_alternatives_of_different_types_are_read_as_ids() -> None:
    frame = pl.LazyFrame({"login": [None, "ben"], "visitor": [17.0, 18.0], ROW: [1, 2], FILE: ["f", "f"]})
    _, events = map_columns(None, RawTable(frame, False, "log"), {"user_id": ["login", "visitor"]})
    assert events is not None
    assert events.frame.collect()["user_id"].to_list() == ["17", "ben"]


def test_a_list_none_of_which_is_there_maps_nothing() -> None:
    assert _columns({"item_id": ["SKU", "sku"], "title": ["Title", "Name"]}) == (
        {"item_id", "date", "name"},
        {"item_id", "customer", "date"},
    )


def test_an_empty_list_is_no_column() -> None:
    with pytest.raises(InputError, match=r"data\.columns\.item_id: expected the name of a column or a list"):
        _columns({"item_id": []})


def test_alternatives_can_be_typed(shop: Shop) -> None:
    log = shop.write("log.csv", "sku,ean,name,who,at\n,40,Boots,a,100\n7,41,Hat,a,200\n7,41,Hat,b,300\n")
    typed = "data.columns={item_id: [sku, ean], title: name, user_id: who, timestamp: at}"
    config = compose_command("prepare", [f"data.items={log}", f"data.events={log}", typed])
    done = shop.prepare(config.data)
    assert done.table("items")["item_id"].to_list() == ["40", "7"]
    assert done.table("events").select("user_id", "item_id").rows() == [("a", "40"), ("a", "7"), ("b", "7")]
