from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig, FilterConfig
from features.data.dataset import load_dataset
from features.ingest import rejects
from tests.features.conftest import Shop


def _events(shop: Shop, *rows: str, header: str = "user_id,item_id,timestamp") -> str:
    return shop.write("events.csv", "\n".join((header, *rows)) + "\n")


def test_every_reject_reason_is_listed_with_its_place(shop: Shop, items: str) -> None:
    events = _events(
        shop,
        "a,1,100,,view",
        ",1,100,,view",
        "a,,100,,view",
        "a,1,100,,",
        "a,1,100,,veiw",
        "a,1,soon,,view",
        "a,1,,first,view",
        "a,1,,,view",
        "a,9,100,,view",
        "a,1,100,,view,extra",
        header="user_id,item_id,timestamp,order,event",
    )
    done = shop.prepare(
        DataConfig(items=items, events=events, event_weights={"view": 1}, max_reject_fraction=1.0)
    )
    reasons = [
        (2, "missing user_id"),
        (3, "missing item_id"),
        (4, "missing event"),
        (5, "unknown event kind 'veiw': add data.event_weights.veiw=1"),
        (6, "bad timestamp"),
        (7, "bad order"),
        (8, "neither timestamp nor order"),
        (9, "unknown item"),
        (10, "malformed row: more fields than the header"),
    ]
    rejects = done.table("rejects")
    assert rejects.select("row", "reason").rows() == reasons
    assert set(rejects["file"]) == {events}
    assert set(rejects["table"]) == {"events"}
    assert rejects.row(4, named=True) | {"file": ""} == {
        "table": "events",
        "file": "",
        "row": 6,
        "reason": "bad timestamp",
        "user_id": "a",
        "item_id": "1",
        "event": "view",
        "timestamp": "soon",
        "order": None,
    }
    assert done.info["rejects"]["events"] == dict.fromkeys((reason for _, reason in reasons), 1)
    assert done.info["events"] == 1
    assert done.info["rows_read"]["events"] == 10


def test_default_weights_ignore_impressions_and_sort_kinds_by_name(shop: Shop, items: str) -> None:
    events = _events(
        shop, "a,1,1,view", "a,1,2,impression", "a,1,3,click", header="user_id,item_id,timestamp,event"
    )
    info = shop.prepare(DataConfig(items=items, events=events)).info
    assert info["event_weights"] == {"click": 1.0, "view": 1.0}
    assert info["kinds"] == ["click", "view"]
    assert info["ignored_events"] == {"impression": 1}


def test_only_ignored_events_are_an_error(shop: Shop, items: str) -> None:
    events = _events(shop, "a,1,1,impression", header="user_id,item_id,timestamp,event")
    with pytest.raises(InputError, match=r"every event has a kind of weight 0: impression \(1\)"):
        shop.prepare(DataConfig(items=items, events=events))


def test_a_column_of_ids_is_not_taken_for_event_kinds(shop: Shop, items: str) -> None:
    events = _events(
        shop, *(f"a,1,{i},kind{i}" for i in range(128)), header="user_id,item_id,timestamp,event"
    )
    with pytest.raises(InputError, match="128 different event kinds"):
        shop.prepare(DataConfig(items=items, events=events))


def test_order_alone_sorts_and_leaves_times_zero(shop: Shop, items: str) -> None:
    events = _events(shop, "a,1,2", "a,2,0", "a,3,1", header="user_id,item_id,order")
    done = shop.prepare(DataConfig(items=items, events=events))
    assert done.table("events")["item_id"].to_list() == ["2", "3", "1"]
    assert done.table("events")["timestamp"].to_list() == [0, 0, 0]
    assert (done.info["has_time"], done.info["has_order"], done.info["time_range"]) == (False, True, None)


def test_missing_times_come_from_neighbours_and_order_beats_time(shop: Shop, items: str) -> None:
    rows = ["a,1,0,", "a,2,1,500", "a,3,2,", "a,1,3,400", "a,2,4,600", "b,1,0,", "b,2,1,"]
    done = shop.prepare(
        DataConfig(items=items, events=_events(shop, *rows, header="user_id,item_id,order,timestamp"))
    )
    table = done.table("events")
    assert table["item_id"].to_list() == ["1", "2", "3", "1", "2", "1", "2"]
    # First from its next, third from its previous, fourth raised to it; b states no time: the data's first.
    assert table["timestamp"].to_list() == [500, 500, 500, 500, 600, 400, 400]
    assert (done.info["timestamps_filled"], done.info["timestamps_raised"]) == (4, 1)
    assert done.info["time_range"] == ["1970-01-01T00:06:40+00:00", "1970-01-01T00:10:00+00:00"]


def test_users_with_partial_orders_go_by_time(shop: Shop, items: str) -> None:
    rows = ["a,1,9,100", "a,2,,300", "a,3,1,200", "b,1,2,100", "b,2,1,200"]
    done = shop.prepare(
        DataConfig(items=items, events=_events(shop, *rows, header="user_id,item_id,order,timestamp"))
    )
    assert done.table("events").select("user_id", "item_id", "timestamp").rows() == [
        ("a", "1", 100),
        ("a", "3", 200),
        ("a", "2", 300),
        ("b", "2", 200),
        ("b", "1", 200),
    ]


def test_ties_keep_the_order_of_the_files(shop: Shop, items: str) -> None:
    first = shop.write("z.csv", "user_id,item_id,timestamp\na,3,7\na,1,7\n")
    second = shop.write("a.csv", "user_id,item_id,timestamp\na,2,7\n")
    done = shop.prepare(DataConfig(items=items, events=[first, second]))
    assert done.table("events")["item_id"].to_list() == ["3", "1", "2"]


def test_optional_columns_are_read_and_what_is_unreadable_becomes_null(shop: Shop, items: str) -> None:
    header = "user_id,item_id,timestamp,value,quantity,session_id,list_position,event_id,ignored"
    rows = ["a,1,1,9.5,2,s1,0,e1,x", "a,2,2,oops,,s1,1.5,e2,x"]
    done = shop.prepare(DataConfig(items=items, events=_events(shop, *rows, header=header)))
    assert done.table("events").drop("event", "order").rows() == [
        ("a", "1", 1, 9.5, 2.0, "s1", 0, "e1"),
        ("a", "2", 2, None, None, "s1", None, "e2"),
    ]
    assert done.info["warnings"]["events"] == {"bad value": 1, "bad list_position": 1}


def test_items_repeats_prices_and_attributes(shop: Shop) -> None:
    lines = [
        "item_id,title,price,created_at,stock,shade_id,organic",
        '007,Tea,"$1,200.50",2020-01-01,3,01,true',
        "8,Jam,-1,whenever,4,2,false",
        "007,Tea,1200.5,2020-01-01,3,01,TRUE",
        "8,Marmalade,2,,4,2,false",
        ",Nothing,1,,1,2,true",
    ]
    path = shop.write("items.csv", "\n".join(lines) + "\n")
    done = shop.prepare(DataConfig(items=path, max_reject_fraction=0.2))
    assert done.table("items").rows(named=True) == [
        {
            "item_id": "007",
            "item_text": "Tea",
            "title": "Tea",
            "price": 1200.5,
            "created_at": 1577836800,
            "stock": 3,
            "shade_id": "01",
            "organic": True,
        },
        {
            "item_id": "8",
            "item_text": "Jam",
            "title": "Jam",
            "price": None,
            "created_at": None,
            "stock": 4,
            "shade_id": "2",
            "organic": False,
        },
    ]
    assert done.table("rejects").select("row", "reason", "item_id").rows() == [
        (3, "duplicate item_id, same content", "007"),
        (4, "duplicate item_id, different content", "8"),
        (5, "missing item_id", None),
    ]
    info = done.info
    assert info["duplicate_items"] == {"same_content": 1, "different_content": 1}
    assert info["warnings"]["items"] == {"bad price": 1, "bad created_at": 1}
    assert info["attributes"] == {
        "title": "string",
        "price": "number",
        "created_at": "number",
        "stock": "number",
        "shade_id": "string",
        "organic": "bool",
    }


def test_repeats_do_not_count_as_bad_rows(shop: Shop) -> None:
    path = shop.write("items.csv", "item_id,title\n1,Tea\n1,Coffee\n1,Tea\n")
    assert shop.prepare(DataConfig(items=path, max_reject_fraction=0.0)).info["items"] == 1


def test_items_without_text_fall_back_and_are_counted(shop: Shop) -> None:
    path = shop.write("items.csv", "item_id,title,colour\n1,Tea,red\n2,,blue\n3,,\n")
    done = shop.prepare(DataConfig(items=path, text_fields=["title"]))
    assert done.table("items")["item_text"].to_list() == ["Tea", "Colour: blue", "3"]
    assert done.info["items_without_text"] == 2
    assert done.info["text_fallback_fields"] == ["colour"]


def test_configured_text_fields_of_digits_stay_text(shop: Shop) -> None:
    path = shop.write("items.csv", "item_id,title,year\n1,1984,1949\n2,2001,1968\n")
    done = shop.prepare(DataConfig(items=path, text_fields=["title", "year"]))
    assert done.table("items")["item_text"].to_list() == ["1984. Year: 1949", "2001. Year: 1968"]


def test_lists_and_nested_columns_of_parquet(shop: Shop) -> None:
    path = shop.folder / "items.parquet"
    frame = pl.DataFrame(
        {"item_id": [1, 2], "name": ["Tea", "Jam"], "tags": [["a", "b"], []], "raw": [{"x": 1}, None]}
    )
    pl.concat([frame, frame.head(1)]).write_parquet(path)
    done = shop.prepare(DataConfig(items=str(path)))
    assert done.table("items")["item_text"].to_list() == ["Tea. Tags: a, b", "Jam"]
    assert done.info["attributes"] == {"name": "string", "tags": "list"}
    assert done.info["columns_left_out"] == ["raw"]
    assert done.info["duplicate_items"] == {"same_content": 1, "different_content": 0}


def test_ids_agree_across_formats(shop: Shop, items: str) -> None:
    path = shop.folder / "events.parquet"
    pl.DataFrame({"user_id": [17850.0, 17850.0], "item_id": [1, 2], "timestamp": [1, 2]}).write_parquet(path)
    done = shop.prepare(DataConfig(items=items, events=str(path)))
    assert done.table("events").select("user_id", "item_id").rows() == [("17850", "1"), ("17850", "2")]


def test_kcore_restricts_the_catalogue_too(shop: Shop, items: str) -> None:
    rows = ["a,1,1", "a,2,2", "b,1,3", "b,2,4", "c,3,5"]
    done = shop.prepare(DataConfig(items=items, events=_events(shop, *rows), filters=FilterConfig(kcore=2)))
    assert done.table("items")["item_id"].to_list() == ["1", "2"]
    assert done.info["filters"] == {"kcore": {"events": 1, "users": 1, "items": 1}}
    assert (done.info["items"], done.info["users"], done.info["events"]) == (2, 2, 4)
    assert len(load_dataset(done.folder).catalogue) == 2


def test_other_filters_keep_the_catalogue(shop: Shop, items: str) -> None:
    rows = ["a,1,1", "a,1,1", "bot,1,1", "bot,2,2", "bot,3,3"]
    filters = FilterConfig(deduplicate=True, max_user_events=2)
    done = shop.prepare(DataConfig(items=items, events=_events(shop, *rows), filters=filters))
    assert done.table("events").select("user_id", "item_id").rows() == [("a", "1")]
    assert done.info["items"] == 3


def test_columns_map_both_tables(shop: Shop) -> None:
    items = shop.write("i.csv", "sku,name\n1,Tea\n")
    events = shop.write("e.csv", "sku,customer,when\n1,u,2020-01-01\n")
    columns = {"item_id": "sku", "user_id": "customer", "timestamp": "when", "items.title": "name"}
    done = shop.prepare(DataConfig(items=items, events=events, columns=columns))
    assert done.table("events").row(0) == ("u", "1", "purchase", 1577836800, None)
    assert done.table("items").row(0) == ("1", "Tea", "Tea")


def test_every_reject_reason_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    reasons = [
        value
        for name, value in vars(rejects).items()
        if name.isupper() and isinstance(value, str) and " " in value
    ]
    assert len(reasons) == 16
    assert [reason for reason in reasons if f"`{reason}`" not in page] == []


def test_a_column_named_text_is_an_ordinary_text_field(shop: Shop) -> None:
    path = shop.write("items.csv", "item_id,text\n1,Rubber boots\n")
    done = shop.prepare(DataConfig(items=path, text_fields=["text"]))
    assert done.table("items").select("text", "item_text").rows() == [("Rubber boots", "Rubber boots")]


def test_kinds_of_the_file_get_the_names_of_the_contract(shop: Shop, items: str) -> None:
    log = shop.write(
        "log.csv",
        "user_id,item_id,event,timestamp\na,1,add to cart,1\na,1,transaction,2\na,2,view,3\na,2,scroll,4\n",
    )
    config = compose_command(
        "prepare",
        [
            f"data.items={items}",
            f"data.events={log}",
            "data.kinds={transaction: purchase, add to cart: add_to_cart}",
            "data.event_weights={view: 1, add_to_cart: 2, purchase: 3, *: 0}",
        ],
    )
    done = shop.prepare(config.data)
    assert done.table("events")["event"].to_list() == ["add_to_cart", "purchase", "view"]
    assert done.info["kinds"] == ["purchase", "add_to_cart", "view"]
    assert done.info["ignored_events"] == {"scroll": 1}
    assert done.info["rejects"]["events"] == {}


def test_a_weight_for_every_other_kind(shop: Shop, items: str) -> None:
    log = shop.write("log.csv", "user_id,item_id,event,timestamp\na,1,view,1\na,2,wish,2\na,3,purchase,3\n")
    done = shop.prepare(DataConfig(items=items, events=log, event_weights={"purchase": 3.0, "*": 0.5}))
    assert done.info["event_weights"] == {"purchase": 3.0, "view": 0.5, "wish": 0.5}


def test_a_catalogue_without_history_has_no_kind_for_the_others(shop: Shop, items: str) -> None:
    done = shop.prepare(DataConfig(items=items, event_weights={"purchase": 3.0, "*": 1.0}))
    assert done.info["kinds"] == ["purchase"]
