"""Files as shops have them, written into the working directory, and what `inspect` should make of them."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import xlsxwriter

NOUNS = ("boots", "hat", "scarf", "shirt", "coat", "lamp", "chair", "mug", "pan", "rug")
COLOURS = ("Red", "Blue", "Green", "Black")


def titles(count: int) -> list[str]:
    return [f"{COLOURS[i % 4]} {NOUNS[i % 10]} number {i}" for i in range(count)]


def lines(count: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Draw `count` events: (user, item, minute)."""
    draw = random.Random(seed)
    return [(draw.randrange(12), draw.randrange(30), 7 * i) for i in range(count)]


def write(
    path: str, header: str, rows: list[tuple[Any, ...]], sep: str = ",", encoding: str = "utf-8"
) -> str:
    text = [header] if header else []
    text += [sep.join(str(cell) for cell in row) for row in rows]
    Path(path).write_bytes(("\n".join(text) + "\n").encode(encoding))
    return path


def at(minute: int, form: str = "2024-05-{day:02d} {hour:02d}:{minute:02d}:00") -> str:
    return form.format(day=1 + minute // 1440, hour=minute // 60 % 24, minute=minute % 60)


def german() -> list[str]:
    rows = [(f"A{i:04d}", t, "Müller & Söhne", f"{10 + i},90", "Küche") for i, t in enumerate(titles(30))]
    orders = [(9000 + n, 500 + u, f"A{i:04d}", 1 + n % 3, at(m)) for n, (u, i, m) in enumerate(lines(80))]
    return [
        write("artikel.csv", "Artikelnummer;Bezeichnung;Hersteller;VK-Preis;Kategorie", rows, ";", "cp1252"),
        write(
            "bestellungen.csv",
            "Bestellnr.;Kundennummer;Artikelnummer;Menge;Bestelldatum",
            orders,
            ";",
            "cp1252",
        ),
    ]


def brazilian() -> list[str]:
    rows = [(100 + i, t, f'"R$ {10 + i},90"', "Acme") for i, t in enumerate(titles(30))]
    orders = [(7000 + n, f"c{u}", 100 + i, 1, at(m)) for n, (u, i, m) in enumerate(lines(80))]
    return [
        write("produtos.csv", "codigo,nome,preco,marca", rows),
        write("pedidos.csv", "pedido,id_cliente,codigo_produto,quantidade,data_pedido", orders),
    ]


def one_log() -> list[str]:
    names = titles(30)
    rows = [(f"u{u}", f"p{i}", names[i], ("view", "addtocart", "buy")[n % 3], at(m))
            for n, (u, i, m) in enumerate(lines(80))]  # fmt: skip
    return [write("log.csv", "visitor,product_id,product_name,action,time", rows)]


def without_names() -> list[str]:
    rows = [(f"u{u}", f"p{i}", ("view", "purchase")[n % 2], at(m)) for n, (u, i, m) in enumerate(lines(80))]
    return [
        write("items.csv", "item_id,title", [(f"p{i}", t) for i, t in enumerate(titles(30))]),
        write("clicks.tsv", "", rows, "\t"),
    ]


def long_form() -> list[str]:
    rows = [row for i, t in enumerate(titles(30)) for row in ((i, "title", t), (i, "colour", t.split()[0]))]
    return [
        write("eigenschaften.csv", "item_id,property,value", rows),
        write(
            "events.csv", "user_id,item_id,event,timestamp", [(u, i, "view", at(m)) for u, i, m in lines(80)]
        ),
    ]


def other_ids() -> list[str]:
    """The catalogue's `id` is not what the shop's events name: they name its `ean`."""
    rows = [(i, f"40123456{i:05d}", t) for i, t in enumerate(titles(30))]
    events = [(f"u{u}", f"40123456{i:05d}", at(m)) for u, i, m in lines(80)]
    return [write("items.csv", "id,ean,name", rows), write("sales.csv", "customer,product,date", events)]


def json_lines() -> list[str]:
    Path("products.jsonl").write_text(
        "".join(
            json.dumps({"sku": f"s{i}", "name": t, "tags": ["a", "b"]}) + "\n"
            for i, t in enumerate(titles(30))
        )
    )
    Path("clicks.jsonl").write_text(
        "".join(
            json.dumps(
                {"userId": f"u{u}", "itemId": f"s{i}", "eventType": "click", "ts": 1714550000000 + m * 60000}
            )
            + "\n"
            for u, i, m in lines(80)
        )
    )
    return ["products.jsonl", "clicks.jsonl"]


def workbook() -> list[str]:
    book = xlsxwriter.Workbook("Shop Käufe.xlsx")
    for name, header, rows in (
        ("Products", ("SKU", "Name", "Price"), [(f"s{i}", t, 10.5 + i) for i, t in enumerate(titles(30))]),
        ("Orders", ("Order", "Customer", "SKU", "Date"), [(n, f"c{u}", f"s{i}", at(m))
                                                           for n, (u, i, m) in enumerate(lines(80))]),
    ):  # fmt: skip
        sheet = book.add_worksheet(name)
        for place, row in enumerate([header, *rows]):
            sheet.write_row(place, 0, row)
    book.close()
    return ["Shop Käufe.xlsx"]


def archive() -> list[str]:
    files = brazilian()
    with zipfile.ZipFile("export.zip", "w") as archive:
        for file in files:
            archive.write(file)
    return ["export.zip"]


def months() -> list[str]:
    header = "user_id,product_id,event_type,event_time"
    april = [
        (u, i, "view", at(m, "2024-04-{day:02d} {hour:02d}:{minute:02d}:00 UTC")) for u, i, m in lines(80)
    ]
    may = [
        (u, i, "purchase", at(m, "2024-05-{day:02d} {hour:02d}:{minute:02d}:00 UTC"))
        for u, i, m in lines(80, 1)
    ]
    return [
        write("products.csv", "product_id,title", list(enumerate(titles(30)))),
        write("2024-Apr.csv", header, april),
        write("2024-May.csv", header, may),
    ]


def odd_paths() -> list[str]:
    folder = Path("Käufe & Co [2024]")
    folder.mkdir()
    rows = [(u, i, at(m)) for u, i, m in lines(80)]
    return [
        write(f"{folder}/it's items.csv", "Produkt ID,Titel (kurz)", list(enumerate(titles(30)))),
        write(f"{folder}/events=all.csv", "Kunde #,Produkt ID,Zeit", rows),
    ]


def parquet() -> list[str]:
    pl.DataFrame({"article": range(30), "titel": titles(30), "prijs": [1.5] * 30}).write_parquet(
        "artikelen.parquet"
    )
    users, items, minutes = zip(*lines(80), strict=True)
    moment = pl.from_epoch(pl.Series([1714550000 + m * 60 for m in minutes]))
    pl.DataFrame({"klant": users, "article": items, "datum": moment}).write_parquet("orders.parquet")
    return ["artikelen.parquet", "orders.parquet"]


def variants() -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for p, t in enumerate(titles(10)):
        rows += [(f"P{p}", "", t, ""), *((f"P{p}-{size}", f"P{p}", "", size) for size in "SML")]
    events = [(f"u{u}", f"P{i % 10}-{'SML'[i % 3]}", at(m)) for u, i, m in lines(80)]
    return [
        write("products.csv", "sku,parent_sku,title,size", rows),
        write("orders.csv", "customer_email,sku,ordered_at", events),
    ]


SHOPS: dict[str, tuple[Callable[[], list[str]], dict[str, Any], dict[str, Any]]] = {
    "german spreadsheet": (
        german,
        {
            "data.columns": {
                "user_id": "Kundennummer", "timestamp": "Bestelldatum", "events.quantity": "Menge",
                "events.session_id": "Bestellnr.", "title": "Bezeichnung", "price": "VK-Preis",
                "item_id": "Artikelnummer",
            },
            "data.encoding": "cp1252",
        },
        {"items": 30, "events": 80, "users": 12, "kinds": ["purchase"]},
    ),
    "brazilian": (
        brazilian,
        {
            "data.columns": {
                "user_id": "id_cliente", "timestamp": "data_pedido", "events.quantity": "quantidade",
                "events.session_id": "pedido", "title": "nome", "price": "preco", "items.item_id": "codigo",
                "events.item_id": "codigo_produto",
            }
        },
        {"items": 30, "events": 80, "users": 12},
    ),
    "one log for both": (
        one_log,
        {
            "data.columns": {
                "user_id": "visitor", "timestamp": "time", "event": "action", "item_id": "product_id",
                "title": "product_name",
            },
            "data.kinds": {"addtocart": "add_to_cart", "buy": "purchase"},
        },
        {"events": 80, "kind_counts": {"add_to_cart": 27, "purchase": 26, "view": 27}},
    ),
    "no header": (
        without_names,
        {
            "data.columns": {
                "user_id": "column_1", "timestamp": "column_4", "event": "column_3",
                "events.item_id": "column_2",
            },
            "data.without_header": ["events"],
        },
        {"items": 30, "events": 80, "kind_counts": {"purchase": 40, "view": 40}},
    ),
    "long form": (
        long_form,
        {"data.properties": {"name": "property", "value": "value"}},
        {"items": 30, "events": 80, "attributes": {"colour": "string", "title": "string"}},
    ),
    "other ids": (
        other_ids,
        {
            "data.columns": {
                "user_id": "customer", "timestamp": "date", "title": "name", "items.item_id": "ean",
                "events.item_id": "product",
            }
        },
        {"items": 30, "events": 80},
    ),
    "JSON Lines": (
        json_lines,
        {
            "data.columns": {
                "user_id": "userId", "timestamp": "ts", "event": "eventType", "title": "name",
                "items.item_id": "sku", "events.item_id": "itemId",
            }
        },
        {"items": 30, "events": 80, "kinds": ["click"]},
    ),
    "workbook": (
        workbook,
        {
            "data.columns": {
                "user_id": "Customer", "timestamp": "Date", "events.session_id": "Order", "title": "Name",
                "price": "Price", "item_id": "SKU",
            }
        },
        {"items": 30, "events": 80},
    ),
    "archive": (archive, {}, {"items": 30, "events": 80}),
    "a file per month": (
        months,
        {"data.columns": {"timestamp": "event_time", "event": "event_type", "item_id": "product_id"}},
        {"items": 30, "events": 160, "kind_counts": {"purchase": 80, "view": 80}},
    ),
    "odd paths": (
        odd_paths,
        {
            "data.columns": {
                "user_id": "Kunde #", "timestamp": "Zeit", "title": "Titel (kurz)", "item_id": "Produkt ID",
            }
        },
        {"items": 30, "events": 80},
    ),
    "Parquet": (
        parquet,
        {
            "data.columns": {
                "user_id": "klant", "timestamp": "datum", "title": "titel", "price": "prijs",
                "item_id": "article",
            }
        },
        {"items": 30, "events": 80},
    ),
    "variants": (
        variants,
        {
            "data.columns": {"user_id": "customer_email", "timestamp": "ordered_at", "item_id": "sku"},
            "data.parent": "parent_sku",
        },
        {"items": 40, "events": 80, "items_without_text": 0},
    ),
}  # fmt: skip
