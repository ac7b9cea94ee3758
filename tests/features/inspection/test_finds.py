"""`inspect` where names tell little: ids say what is a catalogue, and what is left out is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.features.inspected_shops import lines, titles, write
from tests.features.inspection.test_commands import look, typed

EVENTS = [
    (f"c{u}", f"s{i}", f"2024-05-{1 + n % 28:02d} 10:{n % 60:02d}") for n, (u, i, _) in enumerate(lines(80))
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a shop's files, which commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _events() -> str:
    return write("log.csv", "customer,sku,date", EVENTS)


def _settings(plan: Any) -> dict[str, Any]:
    return dict(plan.settings or {})


def test_a_title_with_html_is_the_title() -> None:
    rows = [(f"s{i}", f"<b>{t}</b>", f"Something long to read about {t}") for i, t in enumerate(titles(30))]
    plan, _ = look(write("items.csv", "sku,title,description", rows), _events())
    assert "title" not in _settings(plan)["data.columns"]
    assert typed(plan)["text_fields"] == ["title", "description"]


def test_items_without_a_header_are_found_by_their_values() -> None:
    rows = [(t, f"s{i}", f"{3 + i}.50") for i, t in enumerate(titles(30))]
    Path("items.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    plan, _ = look("items.csv", _events())
    assert _settings(plan)["data.without_header"] == ["items"]
    info = typed(plan)
    assert (info["items"], info["events"], info["text_fields"]) == (30, 80, ["title"])
    assert info["attributes"]["price"] == "number"


def test_ids_of_floats_are_ids() -> None:
    pl.DataFrame({"item_id": range(30), "title": list(titles(30))}).write_parquet("i.parquet")
    log = [(float(u), float(i)) for u, i, _ in lines(80)]
    frame = pl.DataFrame(log, schema=["user_id", "item_id"], orient="row")
    frame.with_columns(timestamp=pl.int_range(80) + 1714557780).write_parquet("e.parquet")
    plan, _ = look("i.parquet", "e.parquet")
    assert typed(plan)["events"] == 80


def test_a_table_of_pictures_under_the_products_id_keeps_the_first_row_of_each() -> None:
    rows = []
    for i, t in enumerate(titles(30)):
        rows += [
            (f"s{i}", t, "9.50", f"{i}-1.jpg"),
            *((f"s{i}", "", "", f"{i}-{n}.jpg") for n in range(2, 6)),
        ]
    plan, _ = look(write("products.csv", "handle,title,price,image_src", rows), _events())
    info = typed(plan)
    assert (info["items"], info["events"], info["items_without_text"]) == (30, 80, 0)


def test_ids_inside_objects_of_a_document_store() -> None:
    rows = [{"_id": {"$oid": f"s{i}"}, "title": t} for i, t in enumerate(titles(30))]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan, _ = look("items.jsonl", _events())
    assert _settings(plan)["data.columns"]["items.item_id"] == "_id.$oid"
    assert typed(plan)["items"] == 30


def test_a_date_and_its_clock_are_named_together() -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(c, s, *at.split()) for c, s, at in EVENTS]
    plan, _ = look("items.csv", write("sales.csv", "Kunde,sku,Datum,Uhrzeit", rows))
    assert _settings(plan)["data.columns"]["timestamp"] == ["Datum", "Uhrzeit"]
    assert typed(plan)["time_range"] == ["2024-05-01T10:00:00+00:00", "2024-05-28T10:55:00+00:00"]


def test_a_file_that_is_left_out_is_named_with_what_it_lacks() -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(c, at, "some thing; other thing") for c, _, at in EVENTS]
    plan, printed = look("items.csv", write("log.csv", "customer,date,what was bought", rows))
    note = (
        "log.csv is not read: no column looks like item_id of events; where one is, "
        "add data.events=log.csv 'data.columns={events.item_id: COLUMN}'"
    )
    assert note in plan.unsure
    assert note in printed


def test_a_price_beside_a_date_is_no_time_of_day() -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [(c, s, at.split()[0], "5.00") for c, s, at in EVENTS]
    plan, _ = look("items.csv", write("sales.csv", "customer,sku,date,paid", rows))
    assert _settings(plan)["data.columns"]["timestamp"] == "date"


def test_columns_of_a_preset_in_another_shops_file_are_read_as_its_own() -> None:
    """The preset takes codes without five digits for postage and fees."""
    rows = [(n, s, f"Boots of {s}", 1, f"{at}:00", "4.50", c) for n, (c, s, at) in enumerate(EVENTS)]
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID"
    plan, printed = look(write("sales.csv", header, rows))
    assert plan.preset == "files"
    assert "tried, and it stops" not in printed
    info = typed(plan)
    assert info["events"] == 80
    assert info["attributes"]["price"] == "number"


def test_guests_are_known_by_the_column_that_names_them() -> None:
    write("items.csv", "sku,title", [(f"s{i}", t) for i, t in enumerate(titles(30))])
    rows = [("", f"{c}@x.de", s, at) if n % 3 == 0 else (c, "", s, at) for n, (c, s, at) in enumerate(EVENTS)]
    plan, _ = look("items.csv", write("log.csv", "customer_id,guest_email,sku,date", rows))
    assert _settings(plan)["data.columns"]["user_id"] == ["customer_id", "guest_email"]
    info = typed(plan)
    assert info["events"] == 80
    assert info["rejects"].get("events", {}) == {}
    assert info["users"] == len({row[0] or row[1] for row in rows})
