"""Ids that both tables write in their own way, and words that are no ids."""

from __future__ import annotations

import pytest

from tests.features.strange.conftest import Shell

BOTH = "data.items=items.csv data.events=events.csv"
IDS = [f"s-{n:03d}x" for n in range(40)]


def _items(ids: list[str]) -> str:
    return "item_id,title\n" + "".join(f"{i},Straw hat number {n}\n" for n, i in enumerate(ids))


def _events(ids: list[str]) -> str:
    return "user_id,item_id,event,timestamp\n" + "".join(
        f"u{n % 7},{i},view,{1_700_000_000 + 600 * n}\n" for n, i in enumerate(ids)
    )


UPPER = [i.upper() for i in IDS]
PADDED = [f"{n:05d}" for n in range(95, 135)]
STRIPPED = [str(n) for n in range(95, 135)]
SPELLINGS = {
    "case": (UPPER, IDS, "case alone, e.g. 's-000x' and 'S-000X'", "[case]"),
    "zeros lost in the events": (PADDED, STRIPPED, "leading zeros alone, e.g. '95' and '00095'", "[zeros]"),
    "zeros lost in the items": (STRIPPED, PADDED, "leading zeros alone, e.g. '00095' and '95'", "[zeros]"),
    "both": (
        [f"00{i}A" for i in STRIPPED],
        [f"{i}a" for i in STRIPPED],
        "case and leading zeros, e.g. '95a' and '0095A'",
        "[case, zeros]",
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_ids_that_events_spell_otherwise(shell: Shell, name: str) -> None:
    items, events, difference, value = SPELLINGS[name]
    shell.write(items_csv=_items(items), events_csv=_events(events))
    said = shell.refused(BOTH)
    assert f"unknown item (40) (ids differ from those of the items in {difference}: " in said
    fix = said.partition(f"{difference}: ")[2].partition(" takes them for the same")[0]
    assert f"data.match_ids={value}" in fix
    shell.prepare(f"{BOTH} {fix}")
    assert shell.table("items", "item_id") == [(i,) for i in items]
    assert sorted(shell.table("events", "timestamp", "item_id")) == [
        (1_700_000_000 + 600 * n, i) for n, i in enumerate(items)
    ]
    assert shell.info["rejects"]["events"] == {}
    _, settings = shell.inspect("items.csv events.csv")
    assert fix in settings
    assert shell.info["events"] == 40


def test_zeros_that_few_ids_have_lost(shell: Shell) -> None:
    shell.write(items_csv=_items(["007", "1234", "1235"]), events_csv=_events(["7", *["1234", "1235"] * 60]))
    shell.prepare(BOTH)
    assert shell.info["suspicious"] == [
        "ids differ from those of the items in leading zeros alone, e.g. '7' and '007': "
        "'data.match_ids=[zeros]' takes them for the same"
    ]
    shell.prepare(f"{BOTH} 'data.match_ids=[zeros]'")
    assert sorted(set(shell.table("events", "item_id"))) == [("007",), ("1234",), ("1235",)]
    assert shell.info["rejects"]["events"] == {}


def test_an_id_that_could_be_two_items_is_unknown(shell: Shell) -> None:
    shell.write(items_csv=_items(["Ab", "aB", "C", "0", "00"]), events_csv=_events(["Ab", "ab", "c", "000"]))
    shell.prepare(f"{BOTH} 'data.match_ids=[case, zeros]' data.max_reject_fraction=0.5")
    assert sorted(shell.table("events", "item_id")) == [("Ab",), ("C",)]
    assert sorted(shell.table("rejects", "item_id", "reason")) == [
        ("000", "unknown item"),
        ("ab", "unknown item"),
    ]


def test_ids_of_other_things_are_not_matched(shell: Shell) -> None:
    shell.write(items_csv=_items(IDS), events_csv=_events([f"T{n}" for n in range(40)]))
    assert "(ids in the items table look like 's-000x', 's-001x', 's-002x')" in shell.refused(BOTH)
    assert shell.refused(f"{BOTH} 'data.match_ids=[cases]'") == (
        "data.match_ids: 'cases' is neither case nor zeros"
    )


@pytest.mark.parametrize("word", ["NA", "N/A", "<NA>", "None", "#N/A", "\\N"])
def test_users_that_are_none(shell: Shell, word: str) -> None:
    shell.write(items_csv=_items(IDS), events_csv=_events(IDS) + f"{word},s-001x,view,1700000100\n" * 3)
    shell.prepare(f"{BOTH} 'data.max_reject_fraction={{events: 0.1}}'")
    assert shell.info["rejects"]["events"] == {"missing user_id": 3}
    assert (shell.info["users"], shell.info["events"]) == (7, 40)


def test_na_may_be_the_id_of_an_item_a_kind_or_a_brand(shell: Shell) -> None:
    shell.write(
        items_csv="item_id,title,brand,price\nNA,Sodium,NA,NA\nK,Potassium,Acme,2.50\n",
        events_csv="user_id,item_id,event,timestamp,quantity\nNa,NA,NA,1,NA\nann,K,view,2,3\n",
    )
    shell.prepare(BOTH)
    assert shell.table("items", "item_id", "brand", "price") == [("NA", "NA", None), ("K", "Acme", 2.5)]
    assert shell.table("events", "user_id", "item_id", "event", "quantity") == [
        ("Na", "NA", "NA", None),
        ("ann", "K", "view", 3.0),
    ]
    assert shell.info["warnings"] == {"items": {}, "events": {}}
    shell.write(events_csv="user_id,item_id,timestamp\nNA,K,1\n")
    shell.prepare(f"{BOTH} 'data.missing=[]'")
    assert shell.table("events", "user_id") == [("NA",)]
