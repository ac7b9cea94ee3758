"""`data.recorded`: events that servers recorded, beside the shop's own, each purchase once."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import DataConfig, PrivacyConfig
from features.ingest.privacy import Pseudonyms
from tests.features.conftest import Shop

START = 1_700_000_000


def recorded(shop: Shop, *rows: tuple[str, str, str, float, str | None], name: str = "r.parquet") -> str:
    """Write events as `shelfwise export events` does: user, item, kind, seconds after START, event id."""
    path = shop.folder / name
    pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "event": [row[2] for row in rows],
            "timestamp": [datetime.fromtimestamp(START + row[3], UTC) for row in rows],
            "event_id": [row[4] for row in rows],
            "surface": ["home"] * len(rows),
        }
    ).write_parquet(path)
    return str(path)


def test_an_event_of_both_sources_counts_once(shop: Shop, items: str) -> None:
    log = shop.write(
        "log.csv",
        "customer,item_id,kind,when,event_id\n"
        f"anna,1,sale,{START},o-1\n"
        f"anna,2,sale,{START + 10},\n"
        f"ben,1,sale,{START + 20},o-3\n",
    )
    other = recorded(
        shop,
        ("anna", "2", "purchase", 90.0, "o-1"),  # the id of anna's first
        ("anna", "2", "purchase", 10.9, "x-1"),  # user, item and kind of her second, in the same second
        ("anna", "2", "purchase", 11.0, "x-2"),  # a second later
        ("anna", "2", "view", 10.0, "x-3"),  # another kind
        ("ben", "2", "purchase", 30.0, "o-1"),  # an id of another user
        ("ben", "1", "purchase", 20.5, None),
    )
    done = shop.prepare(
        DataConfig(
            items=items,
            events=log,
            recorded=other,
            columns={"user_id": "customer", "event": "kind", "timestamp": "when"},
            kinds={"sale": "purchase"},
        )
    )
    table = done.table("events")
    assert table.select("user_id", "item_id", "event", "timestamp").rows() == [
        ("anna", "1", "purchase", START),
        ("anna", "2", "purchase", START + 10),
        ("anna", "2", "view", START + 10),
        ("anna", "2", "purchase", START + 11),
        ("ben", "1", "purchase", START + 20),
        ("ben", "2", "purchase", START + 30),
    ]
    assert done.info["recorded"] == {"rows": 6, "same_id": 1, "same_content": 2}
    assert done.info["rows_read"]["events"] == 9


def test_kinds_that_are_spelled_alike_are_one_kind(shop: Shop, items: str) -> None:
    log = shop.write("log.csv", "user_id,item_id,event,timestamp\nanna,1,Wish List,1700000000\n")
    other = recorded(shop, ("anna", "1", "wish_list", 0.5, "e"), ("anna", "2", "wish_list", 0.5, "f"))
    done = shop.prepare(DataConfig(items=items, events=log, recorded=other))
    assert done.info["recorded"] == {"rows": 2, "same_id": 0, "same_content": 1}
    assert done.info["events"] == 2


def test_rejected_rows_name_the_recorded_file(shop: Shop, items: str) -> None:
    log = shop.write("log.csv", f"user_id,item_id,timestamp\nanna,1,{START}\n")
    other = recorded(shop, ("anna", "gone", "view", 1.0, "e"), ("anna", "2", "view", 2.0, "f"))
    done = shop.prepare(DataConfig(items=items, events=log, recorded=[other], max_reject_fraction=0.5))
    assert done.table("rejects").select("file", "row", "reason").rows() == [(other, 1, "unknown item")]
    assert done.info["kind_counts"] == {"purchase": 1, "view": 1}


def test_recorded_events_alone_are_a_log(shop: Shop, items: str) -> None:
    other = recorded(shop, ("anna", "1", "view", 1.0, "e"))
    done = shop.prepare(DataConfig(items=items, recorded=other))
    assert (done.info["events"], done.info["recorded"]) == (1, None)


def test_pseudonyms_of_both_are_the_same_users(
    shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "secret")
    marked = "pseudonym:" + Pseudonyms(b"secret").of("anna")
    log = shop.write("log.csv", f"user_id,item_id,timestamp\nanna,1,{START}\n")
    other = recorded(shop, (marked, "1", "purchase", 0.0, "e"), (marked, "2", "view", 2.0, "f"))
    done = shop.prepare(
        DataConfig(items=items, events=log, recorded=other), privacy=PrivacyConfig(hash_users=True)
    )
    assert done.info["users"] == 1
    assert done.info["recorded"] == {"rows": 2, "same_id": 0, "same_content": 1}


def test_a_table_that_is_none_is_named(shop: Shop, items: str) -> None:
    other = shop.write("other.csv", "user_id,when\nanna,1\n")
    with pytest.raises(InputError, match=r"data\.recorded .*item_id"):
        shop.prepare(DataConfig(items=items, recorded=other))
