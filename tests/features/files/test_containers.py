"""Tables inside archives and workbooks."""

from __future__ import annotations

import zipfile
from pathlib import Path

import polars as pl
import pytest
import xlsxwriter

from conf.errors import InputError
from conf.schema import DataConfig
from features.adapters import source_files
from features.files.containers import unpacked
from features.files.readers import FILE, resolve_paths, scan_table
from tests.features.conftest import Shop

ITEMS = "item_id,title\n1,Red boots\n2,Blue hat\n"
EVENTS = "user_id,item_id,event,timestamp\na,1,view,100\n"


def _zip(path: Path, **members: str) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/").replace("_csv", ".csv"), text)
        archive.writestr("__MACOSX/._items.csv", "junk")
        archive.writestr("README.md", "about")
    return str(path)


def test_an_archive_of_one_table_is_that_table(shop: Shop) -> None:
    items = _zip(shop.folder / "items.zip", items_csv=ITEMS)
    done = shop.prepare(DataConfig(items=items))
    assert done.table("items")["item_text"].to_list() == ["Red boots", "Blue hat"]


def test_members_are_named_by_a_path_that_goes_on(shop: Shop) -> None:
    archive = _zip(
        shop.folder / "Ex port.zip", shop__items_csv=ITEMS, shop__events_csv=EVENTS + "a,9,view,1\n"
    )
    data = DataConfig(
        items=f"{archive}/shop/items.csv", events=f"{archive}/shop/events.csv", max_reject_fraction=0.5
    )
    done = shop.prepare(data)
    assert done.info["events"] == 1
    assert done.table("rejects").select("file", "row").rows() == [(f"{archive}/shop/events.csv", 2)]
    assert source_files(data) == [Path(archive)]  # a change of the archive is a change of the data


def test_several_members_by_a_pattern(shop: Shop) -> None:
    archive = _zip(shop.folder / "log.zip", a_csv=EVENTS, b_csv=EVENTS)
    assert resolve_paths(f"{archive}/*.csv", "data.events") == [f"{archive}/a.csv", f"{archive}/b.csv"]
    table = scan_table(f"{archive}/*.csv", "data.events").frame.collect()
    assert [Path(str(name)).name for name in table[FILE]] == ["a.csv", "b.csv"]


def test_a_member_is_unpacked_once(shop: Shop) -> None:
    archive = _zip(shop.folder / "items.zip", items_csv=ITEMS)
    first = unpacked(f"{archive}/items.csv")
    assert unpacked(f"{archive}/items.csv") == first
    assert Path(first).read_text() == ITEMS
    assert unpacked("items.csv") == "items.csv"


@pytest.mark.parametrize("name", ["sales[2024].csv", "[a]/what?.csv", "a*b.jsonl", "x[1].parquet"])
def test_a_path_may_hold_what_looks_like_a_pattern(name: str, shop: Shop) -> None:
    path = shop.folder / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        pl.DataFrame({"item_id": ["1"], "title": ["Red boots"]}).write_parquet(path)
    else:
        path.write_text('{"item_id": "1", "title": "Red boots"}\n' if name.endswith("l") else ITEMS)
    done = shop.prepare(DataConfig(items=str(path)))
    assert done.table("items")["title"][0] == "Red boots"


def test_what_cannot_be_meant_is_said_with_what_there_is(shop: Shop) -> None:
    archive = _zip(shop.folder / "a b.zip", items_csv=ITEMS, events_csv=EVENTS)
    several = (
        rf"holds several tables \(events.csv, items.csv\); name one, e.g. 'data.items={archive}/events.csv'"
    )
    with pytest.raises(InputError, match=several):
        scan_table(archive, "data.items")
    with pytest.raises(InputError, match=r"no 'orders.csv' in it; it holds events.csv, items.csv"):
        scan_table(f"{archive}/orders.csv", "data.items")
    broken = shop.write("broken.zip", "PK nothing")
    with pytest.raises(InputError, match=r"broken.zip: cannot be read: File is not a zip file"):
        scan_table(broken, "data.items")
    with pytest.raises(InputError, match="no table in it$"):
        scan_table(_zip(shop.folder / "empty.zip"), "data.items")


def _book(path: Path, sheets: dict[str, list[list[object]]]) -> str:
    book = xlsxwriter.Workbook(str(path), {"default_date_format": "dd.mm.yyyy"})
    for name, rows in sheets.items():
        sheet = book.add_worksheet(name)
        for place, row in enumerate(rows):
            sheet.write_row(place, 0, row)
    book.close()
    return str(path)


SHEET: list[list[object]] = [
    ["Price list, May", None, None],
    [],
    ["SKU", "Title", "Price", None, "EAN"],
    ["007", "Red boots", 1299.5, None, 4012345678901],
    [],
    [8, 'TV 55"', 0.1, None, 4012345678902],
]


def test_a_sheet_is_read_as_text_below_its_headings(shop: Shop) -> None:
    book = _book(shop.folder / "shop.xlsx", {"Products": SHEET, "Notes": []})
    done = shop.prepare(DataConfig(items=book, columns={"item_id": "SKU"}))
    assert done.table("items").select("item_id", "Title", "Price", "EAN").rows() == [
        ("007", "Red boots", 1299.5, 4012345678901),
        ("8", 'TV 55"', 0.1, 4012345678902),
    ]
    assert done.info["rows_read"]["items"] == 2  # a blank row is none


def test_a_sheet_is_named_like_a_member(shop: Shop) -> None:
    book = _book(
        shop.folder / "my shop.xlsx", {"Products": SHEET, "Log": [["user_id", "item_id"], ["a", "007"]]}
    )
    table = scan_table(f"{book}/Log", "data.events")
    assert table.untyped
    assert table.columns == ["user_id", "item_id"]
    several = rf"has several sheets \(Products, Log\); name one, e.g. 'data.items={book}/Products'"
    with pytest.raises(InputError, match=several):
        scan_table(book, "data.items")
    with pytest.raises(InputError, match=r"no sheet 'Items' in .*; it has Products, Log"):
        scan_table(f"{book}/Items", "data.items")


def test_dates_of_a_sheet_are_times(shop: Shop) -> None:
    from datetime import datetime

    rows: list[list[object]] = [["user_id", "item_id", "timestamp"], ["a", 1, datetime(2024, 5, 1, 9, 3)]]
    items = shop.write("items.csv", ITEMS)
    done = shop.prepare(DataConfig(items=items, events=_book(shop.folder / "log.xlsx", {"Log": rows})))
    assert done.table("events")["timestamp"].to_list() == [1714554180]


def test_a_broken_workbook_is_one_line(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"shop.xlsx: cannot be read: ") as error:
        scan_table(shop.write("shop.xlsx", "no workbook"), "data.items")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no rows in it"):
        scan_table(_book(shop.folder / "empty.xlsx", {"Products": []}), "data.items")


def test_without_the_reader_the_message_names_the_extra(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    book = _book(shop.folder / "shop.xlsx", {"Products": SHEET})
    monkeypatch.setitem(__import__("sys").modules, "fastexcel", None)
    with pytest.raises(InputError, match=r"spreadsheets need fastexcel: pip install 'shelfwise\[xlsx\]'"):
        scan_table(book, "data.items")
