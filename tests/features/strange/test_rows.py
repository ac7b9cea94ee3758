"""Rows that are no rows, cells that are several rows, and rows that should not count."""

from __future__ import annotations

import pytest

from tests.features.inspected_shops import at, lines, titles
from tests.features.strange.conftest import Shell

BOTH = "data.items=items.csv data.events=events.csv"
ITEMS = "item_id,title,price\n" + "".join(f"S-{i},{t},{10 + i}.50\n" for i, t in enumerate(titles(30)))
USUAL = "user_id,item_id,event,timestamp\n" + "".join(f"u{u},S-{i},view,{at(m)}\n" for u, i, m in lines(80))


def _baskets(separator: str, opening: str = "", closing: str = "") -> str:
    """Write orders of ann, one of S-1 alone and one of S-2, S-3 and S-1, and of ben, of S-4 and S-5."""
    rows = [("ann", ["S-1"], 100), ("ann", ["S-2", "S-3", "S-1"], 200), ("ben", ["S-4", "S-5"], 300)]
    return "user_id,item_id,timestamp\n" + "".join(
        f'{user},"{opening}{separator.join(ids)}{closing}",{time}\n' for user, ids, time in rows
    )


READ = [
    ("ann", "S-1", 100),
    *(("ann", item, 200) for item in ("S-2", "S-3", "S-1")),
    *(("ben", item, 300) for item in ("S-4", "S-5")),
]


@pytest.mark.parametrize(
    ("separator", "array"), [("|", ""), (";", ""), (", ", ""), (",", ""), (" ", ""), (", ", "[]")]
)
def test_several_ids_in_a_cell(shell: Shell, separator: str, array: str) -> None:
    shell.write(items_csv=ITEMS, events_csv=_baskets(separator, array[:1], array[1:]))
    said = shell.refused(BOTH)
    assert "item_id holds several ids, e.g. '" in said
    fix = said.partition("': ")[2].partition(" makes an event of each")[0]
    shell.prepare(f"{BOTH} {fix}")
    assert shell.table("events", "user_id", "item_id", "timestamp") == READ
    _, settings = shell.inspect("items.csv events.csv")
    assert fix in settings
    assert shell.table("events", "user_id", "item_id", "timestamp") == READ


def test_several_ids_in_a_log_without_a_catalogue(shell: Shell) -> None:
    shell.write(log_csv=_baskets("|") + "ben,S-2|S-4,400\ncid,S-3,500\ncid,S-5|S-1,600\n")
    log = "data.items=log.csv data.events=log.csv"
    assert "item_id holds several ids, e.g. 'S-2|S-3|S-1'" in shell.prepare(log)
    _, settings = shell.inspect("log.csv")
    assert "'data.types={events.item_id: list}'" in settings
    assert shell.table("items", "item_id") == [("S-1",), ("S-2",), ("S-3",), ("S-4",), ("S-5",)]
    assert shell.info["events"] == 11


def test_ids_that_have_separators_themselves_stay_whole(shell: Shell) -> None:
    shell.write(
        items_csv="item_id,title\nA|1,Hat\nA,Cap\n1,Coat\n",
        events_csv="user_id,item_id,timestamp\nann,A|1,1\nann,A,2\nben,1,3\n",
    )
    printed = shell.prepare(BOTH)
    assert "several ids" not in printed
    assert [row[0] for row in shell.table("events", "item_id")] == ["A|1", "A", "1"]


def test_a_type_of_the_events_is_refused_but_for_this_one(shell: Shell) -> None:
    shell.write(items_csv=ITEMS, events_csv=USUAL)
    said = shell.refused(f"{BOTH} 'data.types={{events.user_id: list}}'")
    assert said == (
        "data.types.events.user_id: of the events, item_id alone can be given a type, and it is list"
    )


FOOTERS = {
    "total": ("Total,,765.00\n", "Total,,,\n"),
    "German": ("Zwischensumme,,765.00\nSumme:,,765.00\n", "Summe,,,\nGesamt,,,\n"),
    "sum without an id": (",,765.00\n", ",,view,\n"),
    "named in another column": (",Total,765.00\n", ",Total,,\n"),
    "blank and note": ("\n,,\nExported on 2024-05-01 by admin,,\n", "\n80 rows exported,,,\n"),
}


@pytest.mark.parametrize("name", FOOTERS)
def test_totals_and_notes_below_a_table(shell: Shell, name: str) -> None:
    below_items, below_events = FOOTERS[name]
    shell.write(items_csv=ITEMS + below_items, events_csv=USUAL + below_events)
    shell.prepare(BOTH)
    assert shell.table("items", "item_id", "price")[-1] == ("S-29", 39.5)
    assert (shell.info["items"], shell.info["events"]) == (30, 80)
    for which in ("items", "events"):
        assert list(shell.info["rejects"][which]) == ["total or note, no row of the table"]
    shell.inspect("items.csv events.csv")
    assert (shell.info["items"], shell.info["events"]) == (30, 80)


def test_rows_that_lack_their_id_are_no_totals(shell: Shell) -> None:
    shell.write(items_csv=ITEMS + ",Lost hat,5.00\n", events_csv=USUAL + "u1,,view,2024-05-01\n")
    shell.prepare(f"{BOTH} data.max_reject_fraction=0.1")
    assert shell.info["rejects"] == {"items": {"missing item_id": 1}, "events": {"missing item_id": 1}}


def test_a_product_may_be_called_total(shell: Shell) -> None:
    shell.write(items_csv="item_id,title\ntotal,Total yoghurt\nsumme,Summe der Teile\n3,Total\n")
    shell.prepare("data.items=items.csv")
    assert shell.info["items"] == 3


def test_a_header_in_the_middle_of_files_that_were_put_together(shell: Shell) -> None:
    more = ITEMS.replace("S-", "T-")
    shell.write(items_csv=ITEMS + more, events_csv=USUAL + USUAL.replace(",S-", ",T-"))
    shell.prepare(BOTH)
    assert (shell.info["items"], shell.info["events"]) == (60, 160)
    assert shell.info["attributes"]["price"] == "number"
    assert shell.info["rejects"]["items"] == {"malformed row: repeats the header": 1}
    assert shell.info["warnings"]["items"] == {}


def _orders(column: str, states: tuple[str, ...]) -> str:
    return f"user_id,item_id,{column},timestamp\n" + "".join(
        f"u{u},S-{i},{states[n % len(states)]},{at(m)}\n" for n, (u, i, m) in enumerate(lines(80))
    )


STATES = {
    "English": ("status", ("completed", "processing", "cancelled", "refunded"), ["cancelled", "refunded"]),
    "German": ("Bestellstatus", ("Fertig", "Storniert", "Versendet", "Retoure"), ["Retoure", "Storniert"]),
    "French": ("statut", ("terminée", "annulée"), ["annulée"]),
    "Polish": ("Status zamówienia", ("zrealizowane", "anulowane"), ["anulowane"]),
    "payment": ("payment_status", ("paid", "pending", "paid", "unpaid"), ["pending", "unpaid"]),
    "WooCommerce": ("order_status", ("wc-completed", "wc-cancelled"), ["wc-cancelled"]),
    "flag": ("is_cancelled", ("false", "true", "false", "false"), ["true"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_orders_that_came_to_nothing(shell: Shell, name: str) -> None:
    column, states, void = STATES[name]
    left = 80 - len(void) * 80 // len(states)
    shell.write(items_csv=ITEMS, events_csv=_orders(column, states))
    shell.prepare(BOTH)
    assert shell.info["events"] == 80
    [line] = shell.info["suspicious"]
    counts = ", ".join(f"'{value}' ({80 // len(states)})" for value in void)
    assert f"of 80 rows: {column} {counts}. " in line
    fix = line.partition(f"{counts}. ")[2].removesuffix(" leaves them out")
    shell.prepare(f"{BOTH} {fix}")
    assert shell.info["events"] == left
    assert shell.info["suspicious"] == []
    assert list(shell.info["adapter_dropped"].values()) == [80 - left]
    printed, settings = shell.inspect("items.csv events.csv")
    assert fix in settings
    assert f"rows with {column} " in printed
    assert shell.info["events"] == left


def test_what_is_to_be_sent_has_been_bought(shell: Shell) -> None:
    shell.write(items_csv=ITEMS, events_csv=_orders("fulfillment_status", ("pending", "shipped")))
    shell.prepare(BOTH)
    assert shell.info["suspicious"] == []


def test_rows_are_left_out_by_any_column(shell: Shell) -> None:
    shell.write(
        items_csv="item_id,title,state\n1,Hat,live\n2,Cap,Draft \n",
        events_csv="user_id,item_id,timestamp,void_at\na,1,1,\nb,1,2,2024-05-01\n",
    )
    shell.prepare(f"{BOTH} 'data.exclude={{void_at: \"*\", items.state: draft}}'")
    assert shell.table("items", "item_id") == [("1",)]
    assert shell.table("events", "user_id") == [("a",)]
    assert shell.info["adapter_dropped"] == {"items with state draft": 1, "events with void_at *": 1}
    said = shell.refused(f"{BOTH} data.exclude.states=x")
    assert said.startswith("data.exclude: no column 'states' in data.events (events.csv)")


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_quantities_beside_several_ids(shell: Shell, separator: str) -> None:
    rows = [
        ("ann", ["S-1", "S-2"], ["1", "2"], ["9.50", "8"], 100),
        ("ann", ["S-3"], ["4"], ["7"], 200),
        ("ben", ["S-1", "S-2", "S-3"], ["6"], ["1", "2"], 300),
        ("cid", ["S-2", "S-1"], [], ["5", "6"], 400),
    ]
    shell.write(
        items_csv=ITEMS,
        events_csv="user_id,item_id,quantity,value,timestamp\n"
        + "".join(
            f'{user},"{separator.join(ids)}","{separator.join(counts)}","{separator.join(sums)}",{time}\n'
            for user, ids, counts, sums, time in rows
        ),
    )
    shell.prepare(f"{BOTH} 'data.types={{events.item_id: list}}'")
    assert shell.table("events", "user_id", "item_id", "quantity", "value") == [
        ("ann", "S-1", 1, 9.5), ("ann", "S-2", 2, 8), ("ann", "S-3", 4, 7),
        ("ben", "S-1", None, None), ("ben", "S-2", None, None), ("ben", "S-3", None, None),
        ("cid", "S-2", None, 5), ("cid", "S-1", None, 6),
    ]  # fmt: skip
    assert shell.info["adapter_dropped"] == {
        "quantity of a row with several ids, not one for each": 1,
        "value of a row with several ids, not one for each": 1,
    }


def test_lists_of_quantities_beside_lists_of_ids(shell: Shell) -> None:
    orders = [
        '{"user_id": "ann", "item_id": ["S-1", "S-2"], "quantity": [1, 2], "value": 30.5, "timestamp": 100}',
        '{"user_id": "ben", "item_id": ["S-3"], "quantity": [4], "value": 7, "timestamp": 200}',
        '{"user_id": "cid", "item_id": [], "quantity": [], "value": 0, "timestamp": 300}',
        '{"user_id": "dan", "item_id": ["S-1", "S-2"], "quantity": [5], "value": null, "timestamp": 400}',
    ]
    shell.write(items_csv=ITEMS, events_jsonl="\n".join(orders) + "\n")
    shell.prepare("data.items=items.csv data.events=events.jsonl")
    assert shell.table("events", "user_id", "item_id", "quantity", "value") == [
        ("ann", "S-1", 1, None), ("ann", "S-2", 2, None), ("ben", "S-3", 4, 7),
        ("dan", "S-1", None, None), ("dan", "S-2", None, None),
    ]  # fmt: skip
