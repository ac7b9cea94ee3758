"""Text tables as programs of other times and countries write them."""

from __future__ import annotations

import gzip
import json
import re
import shlex

import pytest

from tests.features.inspected_shops import at, lines, titles
from tests.features.strange.conftest import Shell

ITEMS = "item_id,title,price\nS-1,Käse grün,5.00\nS-2,Blue cap,7.50\n"
EVENTS = "user_id,item_id,event,timestamp\nann,S-1,view,100\nben,S-2,view,200\n"
BOTH = "data.items=items.csv data.events=events.csv"


def test_lines_that_end_in_carriage_returns(shell: Shell) -> None:
    shell.write(items_csv=ITEMS.replace("\n", "\r"), events_csv=EVENTS.replace("\n", "\r"))
    shell.prepare(BOTH)
    read = [("S-1", "Käse grün", 5.0), ("S-2", "Blue cap", 7.5)]
    assert shell.table("items", "item_id", "title", "price") == read
    assert shell.table("events", "user_id", "item_id", "timestamp") == [
        ("ann", "S-1", 100),
        ("ben", "S-2", 200),
    ]
    printed, _ = shell.inspect("items.csv events.csv")
    assert "items.csv: items" in printed
    assert "events.csv: events" in printed
    (shell.folder / "items.csv.gz").write_bytes(gzip.compress(ITEMS.replace("\n", "\r").encode()))
    shell.prepare("data.items=items.csv.gz")
    assert shell.table("items", "item_id", "title", "price") == read


def test_a_macs_own_letters_are_named(shell: Shell) -> None:
    shell.write(items_csv=ITEMS.replace("\n", "\r").encode("mac_roman"), events_csv=EVENTS)
    said = shell.refused(BOTH)
    assert said.startswith("items.csv: cannot be read: it is not UTF-8 text, and its lines end as an old Mac")
    [fix] = [word for word in said.split() if word.startswith("data.encoding=")]
    shell.prepare(f"{BOTH} {fix}")
    assert shell.table("items", "title") == [("Käse grün",), ("Blue cap",)]
    _, settings = shell.inspect("items.csv events.csv")
    assert fix in settings
    assert shell.table("items", "title") == [("Käse grün",), ("Blue cap",)]


def test_a_header_alone(shell: Shell) -> None:
    shell.write(items_csv=ITEMS, events_csv="user_id,item_id,event,timestamp\n", bare_csv="item_id,title\n")
    assert shell.refused(BOTH) == "data.events (events.csv): no data rows"
    assert shell.refused("data.items=bare.csv") == "data.items (bare.csv): no data rows"
    printed = shell.type("shelfwise inspect items.csv events.csv").printed
    assert (
        "events.csv: no data rows, only the names of columns (user_id, item_id, event, timestamp)\n"
        in printed
    )
    assert "shelfwise run data.items=items.csv work_dir=work/shop" in printed
    printed = shell.type("shelfwise inspect bare.csv").printed
    assert "bare.csv: no data rows, only the names of columns (item_id, title)\n" in printed


def test_every_missing_column_is_named_with_one_setting(shell: Shell) -> None:
    shell.write(
        items_csv="sku,title\nS-1,Hat\n", events_csv="kunde,artikel,event,wann\nann,S-1,view,2024-05-01\n"
    )
    said = shell.refused(BOTH)
    assert said == (
        "data.items (items.csv): no column 'item_id'. Columns: sku, title; data.events (events.csv): no "
        "columns 'user_id', 'item_id' and 'timestamp'. Columns: kunde, artikel, event, wann. "
        "'data.columns={items.item_id: sku, events.user_id: kunde, events.item_id: artikel, "
        "events.timestamp: wann}' takes them"
    )
    fix = re.search(r"'(data\.columns=\{.*\})'", said)
    assert fix is not None
    shell.prepare(f"{BOTH} {shlex.quote(fix[1])}")
    assert shell.table("events", "user_id", "item_id", "event") == [("ann", "S-1", "view")]


def test_columns_that_no_name_tells_are_left_open(shell: Shell) -> None:
    shell.write(items_csv=ITEMS, events_csv="a,b,c\n1,2,3\n")
    assert shell.refused(BOTH).endswith(
        "Set 'data.columns={events.user_id: COLUMN, events.item_id: COLUMN, events.timestamp: COLUMN}' with "
        "the columns of the files in place of COLUMN"
    )


def test_an_unknown_parent_lists_the_columns_of_the_file_alone(shell: Shell) -> None:
    shell.write(items_csv=ITEMS)
    assert shell.refused("data.items=items.csv data.parent=titel") == (
        "data.parent: no column 'titel' in data.items (items.csv); did you mean 'title'? "
        "Columns: item_id, title, price"
    )


LANGUAGES = {
    "German": (
        "Art.-Nr.;Artikelbezeichnung;VK brutto", "Auftrags-Nr.;Debitor;Art.-Nr.;Stückzahl;Belegdatum",
    ),
    "French": ("Réf. produit;Libellé;Prix TTC", "N° commande;N° client;Réf. produit;Qté;Date de commande"),
    "Spanish": (
        "Código;Descripción;Precio de venta", "Nº pedido;Correo electrónico;Código;Cantidad;Fecha de compra",
    ),
    "Italian": (
        "Codice articolo;Descrizione;Prezzo",
        "Numero ordine;Codice cliente;Codice articolo;Quantità;Data ordine",
    ),
    "Portuguese": (
        "Cód. Produto;Descrição do produto;Preço de venda",
        "Nº do pedido;CPF do cliente;Cód. Produto;Qtde;Data da venda",
    ),
    "Dutch": ("Artikelcode;Omschrijving;Verkoopprijs", "Ordernummer;Klantnr;Artikelcode;Aantal;Besteldatum"),
    "Polish": (
        "Kod produktu;Nazwa;Cena brutto", "Nr zamówienia;Nr klienta;Kod produktu;Ilość;Data zamówienia",
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_headers_in_other_languages(shell: Shell, language: str) -> None:
    products, orders = LANGUAGES[language]
    rows = [f"S-{i};{title};{10 + i},50" for i, title in enumerate(titles(30))]
    log = [f"{9000 + n};c{u};S-{i};{1 + n % 3};{at(m)}" for n, (u, i, m) in enumerate(lines(80))]
    shell.write(p_csv="\n".join([products, *rows]) + "\n", o_csv="\n".join([orders, *log]) + "\n")
    printed, _ = shell.inspect("p.csv o.csv")
    assert "not sure" not in printed
    assert shell.table("items", "item_id", "title", "price")[0] == ("S-0", titles(1)[0], 10.5)
    users = {f"c{u}" for u, _, _ in lines(80)}
    assert {row[0] for row in shell.table("events", "user_id")} == users
    assert sorted(shell.table("events", "session_id"))[0] == ("9000",)
    assert sum(row[0] for row in shell.table("events", "quantity")) == sum(1 + n % 3 for n in range(80))


OTHER_IDS = {
    "formulas": ('="{:05d}"', "{:05d}"),
    "apostrophes": ("'{:05d}", "{:05d}"),
    "invisible characters": ("{:05d}\u00a0", "\u200b{:05d}"),
}


@pytest.mark.parametrize("name", OTHER_IDS)
def test_ids_that_spreadsheets_keep_as_text(shell: Shell, name: str) -> None:
    of_items, of_events = OTHER_IDS[name]
    shell.write(
        items_csv="item_id,title\n" + "".join(f"{of_items.format(i)},Hat {i}\n" for i in range(3)),
        events_csv="user_id,item_id,timestamp\n"
        + "".join(f"u,{of_events.format(i)},{i + 1}\n" for i in range(3)),
    )
    shell.prepare(BOTH)
    assert shell.table("items", "item_id") == [("00000",), ("00001",), ("00002",)]
    assert shell.table("events", "item_id") == [("00000",), ("00001",), ("00002",)]


@pytest.mark.parametrize("heading", ["Export of May 2024\n", "Export,,,\n", "Export,,,\n\n"])
def test_a_heading_above_the_names_of_columns(shell: Shell, heading: str) -> None:
    shell.write(items_csv=ITEMS, events_csv=heading + EVENTS)
    shell.prepare(BOTH)
    assert shell.table("events", "user_id", "timestamp") == [("ann", 100), ("ben", 200)]
    assert shell.info["rows_read"]["events"] == 2


def test_a_header_with_one_name_is_no_heading(shell: Shell) -> None:
    shell.write(items_csv="item_id,,\nS-1,x,\nS-2,y,\n", list_csv="item_id\n1\n2\n")
    shell.prepare("data.items=items.csv")
    assert shell.table("items", "item_id") == [("S-1",), ("S-2",)]
    shell.prepare("data.items=list.csv")
    assert shell.table("items", "item_id") == [("1",), ("2",)]


def test_what_is_no_table(shell: Shell) -> None:
    shell.write(items_csv="<!DOCTYPE html>\n<html><body>Log in</body></html>\n", bare_json="[]")
    assert shell.refused("data.items=items.csv").endswith(
        "items.csv: it is a web page (HTML), no table; was the download signed in?"
    )
    assert shell.refused("data.items=bare.json") == "data.items (bare.json): no data rows"


def test_objects_with_commas_between_the_lines(shell: Shell) -> None:
    shell.write(items_jsonl='{"item_id": "1", "title": "Hat"},\n{"item_id": "2", "title": "Cap"}\n')
    shell.prepare("data.items=items.jsonl")
    assert shell.table("items", "item_id", "title") == [("1", "Hat"), ("2", "Cap")]


def test_orders_with_lines_inside(shell: Shell) -> None:
    orders = [
        {
            "order": {"id": n, "customer": {"id": f"c{n % 5}"}},
            "created": at(n),
            "lines": [{"sku": "S-1", "qty": 1}, {"sku": "S-2", "qty": 2}],
        }
        for n in range(10)
    ]
    shell.write(items_csv=ITEMS, orders_jsonl="".join(f"{json.dumps(order)}\n" for order in orders))
    shell.inspect("items.csv orders.jsonl")
    assert (shell.info["users"], shell.info["events"]) == (5, 20)
    assert shell.table("events", "item_id", "quantity", "session_id")[:2] == [
        ("S-1", 1.0, "0"),
        ("S-2", 2.0, "0"),
    ]
