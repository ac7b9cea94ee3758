"""What stands for no value is none, kinds are compared without case, and ids fit the service."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from serving.api.validation import MAX_ID_CHARS
from tests.features.conftest import Shop

WORDS = [
    "NULL",
    "null",
    "None",
    "nan",
    "NaN",
    "N/A",
    "#N/A",
    "(not set)",
    "(Not Set)",
    "undefined",
    "\\N",
    "-1",
]


def _prepare(
    shop: Shop, items: str, rows: list[str], *overrides: str
) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Prepare events (user, item, event, timestamp) and return user, item and kind, and what was rejected."""
    events = shop.write("events.csv", "\n".join(["user_id,item_id,event,timestamp", *rows]) + "\n")
    config = compose_command(
        "prepare", [f"data.items={items}", f"data.events={events}", "data.max_reject_fraction=1", *overrides]
    )
    done = shop.prepare(config.data)
    return done.table("events").select("user_id", "item_id", "event").rows(), done.info["rejects"]["events"]


@pytest.mark.parametrize("word", WORDS)
def test_a_placeholder_is_no_user_item_or_kind(shop: Shop, items: str, word: str) -> None:
    rows = [f"{word},1,view,1", f"u,{word},view,2", f"u,1,{word},3", "u,1,view,4"]
    assert _prepare(shop, items, rows) == (
        [("u", "1", "view")],
        {"missing event": 1, "missing item_id": 1, "missing user_id": 1},
    )


def test_the_placeholders_are_a_setting(shop: Shop, items: str) -> None:
    rows = ["0,1,view,1", "Guest,1,view,2", "NULL,1,view,3"]
    assert _prepare(shop, items, rows, 'data.missing=["0", guest]') == (
        [("NULL", "1", "view")], {"missing user_id": 2},
    )  # fmt: skip
    assert len(_prepare(shop, items, rows, "data.missing=[]")[0]) == 3
    assert compose_command("prepare", ["data=movielens"]).data.missing == [], (
        "published tables stay what they are"
    )


def test_placeholders_of_attributes_and_numbers(shop: Shop) -> None:
    lines = [
        "item_id,title,brand,price,stock",
        "1,Hat,N/A,n/a,-1",
        "2,Cap,Acme,-1,NULL",
        "null,Scarf,Acme,1,1",
    ]
    path = shop.write("items.csv", "\n".join(lines) + "\n")
    done = shop.prepare(DataConfig(items=path, max_reject_fraction=0.5))
    assert done.table("items").select("item_id", "brand", "price", "stock").rows() == [
        ("1", None, None, -1),
        ("2", "Acme", None, None),
    ]
    assert done.info["warnings"]["items"] == {"bad price": 1}, "a price below 0; n/a is none at all"
    assert done.info["rejects"]["items"] == {"missing item_id": 1}


def test_kinds_differ_by_more_than_case_and_separators(shop: Shop, items: str) -> None:
    kinds = [
        "View",
        "view",
        "VIEW",
        "Add to cart",
        "add-to-cart",
        "AddToCart",
        "Wishlist",
        "Impression",
        "purchase",
    ]
    rows = [f"u,1,{kind},{n}" for n, kind in enumerate(kinds)]
    read, rejected = _prepare(shop, items, rows)
    assert [kind for _, _, kind in read] == ["view"] * 3 + ["add_to_cart"] * 3 + ["Wishlist", "purchase"]
    assert rejected == {}
    named, rejected = _prepare(
        shop, items, rows, "data.event_weights={wish list: 2, VIEW: 1, add_to_cart: 1}"
    )
    assert [kind for _, _, kind in named] == ["VIEW"] * 3 + ["add_to_cart"] * 3 + ["wish list"]
    assert sum(rejected.values()) == 2


def test_spellings_of_an_unknown_kind_are_one_under_the_most_frequent(shop: Shop, items: str) -> None:
    rows = [f"u,1,{kind},{n}" for n, kind in enumerate(["Rated", "RATED", "Rated", "rated"])]
    assert [kind for _, _, kind in _prepare(shop, items, rows)[0]] == ["Rated"] * 4


@pytest.mark.parametrize("kind", ["Teil 1 (neu)", "größer", "a,b", "it's", "x=y", "50%"])
def test_the_setting_that_an_unknown_kind_names_works(shop: Shop, items: str, kind: str) -> None:
    rows = [f'u,1,"{kind}",1', "u,1,view,2"]
    _, rejected = _prepare(shop, items, rows, "data.event_weights={view: 1}")
    [reason] = rejected
    assert reason.startswith(f"unknown event kind '{kind}': add ")
    [typed] = shlex.split(reason.rpartition(": add ")[2])
    read, rejected = _prepare(shop, items, rows, "data.event_weights={view: 1}", typed)
    assert [k for _, _, k in read] == [kind, "view"]
    assert rejected == {}


def test_ids_are_as_long_as_the_service_takes_them(shop: Shop) -> None:
    assert MAX_ID_CHARS == schema.MAX_ID_CHARS == 256
    fits, long = "ü" * 256, "x" * 257
    items = shop.write("items.csv", f"item_id,title\n{fits},Hat\n{long},Cap\n")
    with pytest.raises(InputError, match=r"row 2: item_id longer than 256 characters 'x{30,59}…'"):
        shop.prepare(DataConfig(items=items))
    read, rejected = _prepare(
        shop, items, [f"{fits},{fits},view,1", f"{long},{fits},view,2", f"u,{long},view,3"]
    )
    assert read == [(fits, fits, "view")]
    assert rejected == {
        "item_id longer than 256 characters": 1, "user_id longer than 256 characters": 1,
    }  # fmt: skip


def test_the_page_names_every_placeholder() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8").lower()
    assert [word for word in WORDS if f"`{word.lower()}`" not in page] == []
