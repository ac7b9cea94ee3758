"""Spark makes the dataset that polars makes: tables, their order, rejects, counts, findings and hash.

Every case is a small shop of awkward rows. The tests of `tests/features` that prepare a shop run on Spark,
too, with SHELFWISE_TEST_ENGINE=spark: the long form of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from conf.errors import InputError
from conf.schema import Adapter, DataConfig, Engine, FilterConfig, PrivacyConfig
from features.spark import splits
from tests.features.conftest import Prepared, Shop
from tests.features.spark_session import spark_of_tests

START = 1_700_000_000
Case = Callable[[Shop, str], dict[str, Any]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    CASES[make.__name__] = make
    return make


@case
def rejects_of_every_kind(shop: Shop, items: str) -> dict[str, Any]:
    usual = "view,1,2"
    rows = [
        *(f"{place},{usual}" for place in ("a,1,100,", ",1,100,", "a,,100,", "a,1,soon,", "a,1,,first")),
        *(f"{place},{usual}" for place in ("a,1,,", "a,9,100,", "a,4.01234E+12,100,", f"a,{'7' * 300},100,")),
        *("a,1,100,,,1,2", "a,1,100,,veiw,1,2", "a,1,100,,view,1,2,extra", '"a\nb",2,90,,view,1.5,'),
        *("user_id,item_id,timestamp,order,event,value,quantity", "a,2,90,,view,x,-3", "Total,,,,,99,"),
    ]
    log = "\n".join(("user_id,item_id,timestamp,order,event,value,quantity", *rows)) + "\n"
    return {
        "items": items,
        "events": shop.write("events.csv", log),
        "event_weights": {"view": 1},
        "max_reject_fraction": 1.0,
    }


@case
def order_and_time_mixed_over_files(shop: Shop, items: str) -> dict[str, Any]:
    first = shop.write(
        "1.csv",
        "user_id,item_id,timestamp,order,event\n"
        "both,1,500,3,Add to cart\nboth,2,100,2,view\nboth,3,,1,view\nboth,1,90,4,view\n"
        "late,3,,,view\nlate,1,,5,view\nlate,2,50,6,add-to-cart\nlate,2,40,,ADD_TO_CART\n"
        "tie,2,70,,view\ntie,1,70,,view\nnone,1,,9,view\nnone,2,,8,view\n",
    )
    other = shop.write(
        "0.jsonl",
        '{"user_id": "tie", "item_id": 3, "timestamp": 70, "event": "view"}\n'
        '{"user_id": "times", "item_id": 3, "timestamp": 70.9, "event": "view"}\n'
        '{"user_id": "times", "item_id": 2, "timestamp": 60, "event": "impression"}\n',
    )
    return {"items": items, "events": [first, other], "max_reject_fraction": 0.5}


@case
def filters_in_order(shop: Shop, items: str) -> dict[str, Any]:
    rows = [f"u{n % 4},{1 + n % 3},{START + n // 8},view" for n in range(24)]
    rows += ["bot,1,5,view"] * 3 + [f"bot,{1 + n % 3},{n},view" for n in range(30)] + ["one,1,7,view"]
    log = "\n".join(("user_id,item_id,timestamp,event", *rows)) + "\n"
    filters = FilterConfig(deduplicate=True, max_user_events=20, kcore=2)
    return {"items": items, "events": shop.write("events.csv", log), "filters": filters}


@case
def lists_exclusions_and_matching(shop: Shop, items: str) -> dict[str, Any]:
    catalogue = shop.write("codes.csv", "sku,name,state\nAB1,Red boots,on\nC02,Blue hat,on\nD3,Old hat,off\n")
    log = (
        "customer;when;skus;qty;status\n"
        "ann;13.02.2024 10:00;ab1|C02|D3;1|2|3;paid\n"
        "ben;14.02.2024;0C02;2;PAID\n"
        "ben;14.02.2024;|;2;paid\n"
        "cay;15.02.2024;C02|AB1;5;cancelled\n"
        "dan;05/01/2024;AB1|c02;1,5;refunded\n"
        "eve;25/12/2023;D3;1;paid\n"
    )
    return {
        "items": catalogue,
        "events": shop.write("events.csv", log),
        "columns": {"items.item_id": "sku", "events.item_id": "skus", "user_id": "customer",
                    "timestamp": "when", "quantity": "qty"},
        "types": {"events.item_id": "list"},
        "match_ids": ["case", "zeros"],
        "exclude": {"status": "cancelled", "items.state": "off"},
        "max_reject_fraction": 0.5,
    }  # fmt: skip


@case
def parquet_of_many_types_in_splits(shop: Shop, items: str) -> dict[str, Any]:
    paths = []
    for number in range(2):
        path = shop.folder / f"part-{number}.parquet"
        pl.DataFrame(
            {
                "user_id": pl.Series([f"u{n % 5}" for n in range(40)], dtype=pl.Categorical),
                "item_id": pl.Series([1 + n % 4 for n in range(40)], dtype=pl.UInt8),
                "timestamp": pl.Series(
                    [datetime.fromtimestamp(START + n // 3, UTC) for n in range(40)], dtype=pl.Datetime("ns")
                ),
                "value": pl.Series([Decimal(n) / 4 for n in range(40)], dtype=pl.Decimal(9, 2)),
                **({"session_id": [{"no": n} for n in range(40)]} if number else {}),
            }
        ).write_parquet(path, row_group_size=9)
        paths.append(str(path))
    return {
        "items": items,
        "events": paths,
        "columns": {"session_id": "session_id.no"},
        "max_reject_fraction": 0.5,
    }


@case
def file_order_without_times(shop: Shop, items: str) -> dict[str, Any]:
    paths = []
    for number in range(2):
        path = shop.folder / f"log-{number}.parquet"
        pl.DataFrame(
            {
                "user_id": [f"u{n % 3}" for n in range(20)],
                "item_id": [str(1 + n % 4) for n in range(20)],
                "status": ["void" if n % 7 == 0 else "good" for n in range(20)],
            }
        ).write_parquet(path)
        paths.append(str(path))
    return {
        "items": items,
        "events": paths,
        "file_order": True,
        "exclude": {"status": "void"},
        "max_reject_fraction": 0.5,
    }


@case
def recorded_events_and_pseudonyms(shop: Shop, items: str) -> dict[str, Any]:
    log = shop.write(
        "log.csv",
        f"user_id,item_id,event,timestamp,event_id\nanna,1,Wish list,{START},o-1\nanna,2,view,{START + 9},\n",
    )
    recorded = shop.folder / "r.parquet"
    pl.DataFrame(
        {
            "user_id": ["anna", "anna", "ben", "ben", "ben"],
            "item_id": ["2", "1", "1", "gone", "3"],
            "event": ["view", "wish_list", "view", "view", "view"],
            "timestamp": [START + 50, START, START + 1, START + 2, START + 3],
            "event_id": ["o-1", "x", "o-1", "y", None],
            "list_position": [1, 2, 3, 4, 5],
        }
    ).write_parquet(recorded)
    return {"items": items, "events": log, "recorded": str(recorded), "max_reject_fraction": 0.5}


@case
def an_adapter_that_reads_its_files_as_a_whole(shop: Shop, items: str) -> dict[str, Any]:
    lines = [
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID",
        *(
            f"{500 + n // 3},{10000 + n % 5},TOY {n % 5},{n % 4},12/{1 + n % 9}/2010 8:26,2.5,{n % 3}"
            for n in range(60)
        ),
    ]
    log = shop.write("lines.csv", "\n".join(lines) + "\n")
    return {"adapter": Adapter.online_retail, "events": log}


def _everything(done: Prepared) -> tuple[dict[str, Any], dict[str, pl.DataFrame], list[str]]:
    tables = {name: done.table(name) for name in ("items", "events", "rejects")}
    files = sorted(path.name for path in done.folder.iterdir())
    return done.info, tables, [*files, done.printed]


@pytest.mark.parametrize("name", CASES)
def test_spark_makes_the_dataset_of_polars(
    name: str, shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "ROWS", 7)
    monkeypatch.setenv("SHELFWISE_USER_KEY", "secret")
    data = DataConfig(**CASES[name](shop, items))
    privacy = PrivacyConfig(hash_users=name == "recorded_events_and_pseudonyms")
    info, tables, shown = _everything(shop.prepare(data, privacy, engine=Engine.polars))
    other_info, other_tables, other_shown = _everything(shop.prepare(data, privacy, engine=Engine.spark))
    for table, rows in tables.items():
        assert_frame_equal(other_tables[table], rows)
    assert other_info == info
    assert other_shown == shown
    assert info["events"] > 0


@pytest.mark.parametrize(
    ("log", "settings"),
    [
        ("user_id,item_id,timestamp\na,1,100\na,9,100\na,x,100\n", {}),
        ("user_id,item_id,timestamp,value\na,1,100,x\na,2,100,y\na,3,100,3\n", {}),
        ("user_id,item_id,timestamp\na,1,100\n", {"filters": FilterConfig(kcore=2)}),
    ],
)
def test_bad_input_is_the_same_line(log: str, settings: dict[str, Any], shop: Shop, items: str) -> None:
    data = DataConfig(items=items, events=shop.write("events.csv", log), **settings)
    said = []
    for engine in Engine:
        with pytest.raises(InputError) as error:
            shop.prepare(data, engine=engine)
        said.append(str(error.value))
        assert not shop.work.exists()
    assert said[0] == said[1]


def test_a_file_that_breaks_in_a_worker_is_one_line(
    shop: Shop, items: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shop.folder / "events.parquet"
    users = [f"u{n * n}" for n in range(40_000)]
    rows = pl.DataFrame({"user_id": users, "item_id": ["1"] * 40_000, "timestamp": range(40_000)})
    rows.write_parquet(path, row_group_size=5000)
    content = bytearray(path.read_bytes())
    late = len(content) * 3 // 4  # beyond the rows from which the driver infers how values are written
    content[late : late + 400] = b"\xff" * 400
    path.write_bytes(bytes(content))
    spark_of_tests()
    capfd.readouterr()
    with pytest.raises(InputError) as error:
        shop.prepare(DataConfig(items=items, events=str(path)), engine=Engine.spark)
    assert str(error.value).startswith(f"data.events ({path}): cannot be read: ")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
