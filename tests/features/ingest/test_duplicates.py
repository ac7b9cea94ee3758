"""Several rows of an item: which stays, what variants inherit, and when ids are not what they seem."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig
from conf.tables import Duplicates
from tests.features.conftest import Shop

PRICES = "item_id,title,price,changed\n" + "".join(
    f"{n % 10},Hat {n % 10},{10 + n},2024-0{1 + n // 10}-01\n" for n in range(30)
)


def _fails(shop: Shop, text: str, **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        shop.prepare(DataConfig(items=shop.write("items.csv", text), **settings))  # type: ignore[arg-type]
    message = str(caught.value)
    assert not shop.work.exists()
    return message


def _typed(message: str) -> list[str]:
    """Return the settings that a message names, as a shell hands them on."""
    return [word.rstrip(".,;") for word in shlex.split(message) if word.startswith("data.")][1:]


def _titles(shop: Shop, path: str, overrides: Sequence[str]) -> list[str]:
    config = compose_command("prepare", [f"data.items={path}", *overrides])
    titles: list[str] = shop.prepare(config.data).table("items")["item_text"].to_list()
    return titles


def test_a_price_history_stops_with_an_id_the_columns_and_a_fix_that_works(shop: Shop) -> None:
    message = _fails(shop, PRICES)
    path = str(shop.folder / "items.csv")
    assert message == (
        f"data.items ({path}): 20 of 30 rows repeat the item_id of another row and differ from it, e.g. '0' "
        "in rows 1 and 11: price '10' and '20', changed '2024-01-01' and '2024-02-01'. One row per change? "
        "'data.columns={items.updated_at: changed}' data.duplicates=newest keeps the newest row of each item"
    )
    config = compose_command("prepare", [f"data.items={path}", *_typed(message)])
    done = shop.prepare(config.data)
    assert done.table("items").select("item_id", "price").rows()[0] == ("0", 30)
    assert done.info["duplicate_items"] == {"same_content": 0, "different_content": 20}


@pytest.mark.parametrize(
    ("how", "title"), [(Duplicates.first, "old"), (Duplicates.last, "older"), (Duplicates.newest, "new")]
)
def test_the_row_that_stays_is_a_setting(shop: Shop, how: Duplicates, title: str) -> None:
    rows = ["1,old,2024-02-01", "1,new,2024-03-01", "2,other,", "1,older,2024-01-01", "1,older,2024-01-01"]
    path = shop.write("items.csv", "\n".join(["item_id,title,created_at", *rows]) + "\n")
    done = shop.prepare(DataConfig(items=path, duplicates=how))
    assert sorted(done.table("items").select("item_id", "title").rows()) == [("1", title), ("2", "other")]
    same, different = done.info["duplicate_items"].values()
    assert (same, different) == ((1, 2) if how is Duplicates.last else (0, 3))


def test_newest_needs_a_time(shop: Shop) -> None:
    message = _fails(shop, "item_id,title\n1,Hat\n", duplicates=Duplicates.newest)
    assert "has no column updated_at or created_at" in message


def test_a_table_of_properties_is_recognised(shop: Shop) -> None:
    rows = [
        f"{1431220000000 + n},{item},{name},{item * n % 7 + 300}"
        for item in range(40)
        for n, name in enumerate(("categoryid", "available", "790"))
    ]
    text = "\n".join(["timestamp,item_id,property,value", *rows]) + "\n"
    message = _fails(shop, text)
    assert (
        "One row per property? 'data.properties={name: property, value: value, time: timestamp}'" in message
    )
    path = str(shop.folder / "items.csv")
    config = compose_command("prepare", [f"data.items={path}", *_typed(message)])
    assert shop.prepare(config.data).info["items"] == 40


def test_a_column_that_tells_every_row_apart_may_be_the_id(shop: Shop) -> None:
    rows = [f"p{n // 3},Hat {n // 3},sku-{n}" for n in range(30)]
    message = _fails(shop, "\n".join(["item_id,title,variant code", *rows]) + "\n")
    assert "Is 'variant code' the id? 'data.columns={items.item_id: variant code}' takes it" in message
    path = str(shop.folder / "items.csv")
    assert len(_titles(shop, path, _typed(message)[:1])) == 30


def test_rows_of_pictures_lack_what_the_first_row_has(shop: Shop) -> None:
    rows = [f"p{n // 3},{'Hat' if n % 3 == 0 else ''},http://x/{n}.png" for n in range(30)]
    message = _fails(shop, "\n".join(["item_id,title,image", *rows]) + "\n")
    assert "Rows of variants or pictures, which lack 'title'? data.duplicates=first" in message
    path = str(shop.folder / "items.csv")
    assert _titles(shop, path, ["data.duplicates=first"]) == ["Hat"] * 10


def test_a_few_conflicts_are_no_reason_to_stop(shop: Shop) -> None:
    rows = [f"{n},Hat {n}" for n in range(200)] + [f"{n},Cap {n}" for n in range(10)]
    path = shop.write("items.csv", "\n".join(["item_id,title", *rows]) + "\n")
    done = shop.prepare(DataConfig(items=path))
    assert done.info["duplicate_items"]["different_content"] == 10
    assert done.table("items")["title"].to_list() == [f"Hat {n}" for n in range(200)]


def test_variants_inherit_from_the_row_of_their_handle(shop: Shop) -> None:
    rows = [
        "hat,Straw hat,Acme,s1,9.9", "hat,,,s2,8", "hat,,,,", "cap,Cap,,s3,7", ",Loose,Best,s4,1", "hat,,,,2",
    ]  # fmt: skip
    path = shop.write("items.csv", "\n".join(["handle,title,brand,sku,price", *rows]) + "\n")
    done = shop.prepare(DataConfig(items=path, columns={"items.item_id": "sku"}, parent="handle"))
    assert done.table("items").select("item_id", "title", "brand", "price").rows() == [
        ("s1", "Straw hat", "Acme", 9.9),
        ("s2", "Straw hat", "Acme", 8.0),
        ("s3", "Cap", None, 7.0),
        ("s4", "Loose", "Best", 1.0),
    ]
    assert done.table("rejects").select("row", "reason").rows() == [
        (3, "no item of its own"),
        (6, "no item of its own"),
    ]


def test_variants_inherit_from_the_product_that_they_name(shop: Shop) -> None:
    rows = ["11,id:10,,8", "10,,Straw hat,9", "12,id:10,Straw hat XL,", "13,id:99,Cap,7"]
    path = shop.write("items.csv", "\n".join(["item_id,Parent,title,price", *rows]) + "\n")
    done = shop.prepare(DataConfig(items=path, parent="Parent"))
    assert done.table("items").select("item_id", "title", "price").rows() == [
        ("11", "Straw hat", 8), ("10", "Straw hat", 9), ("12", "Straw hat XL", 9), ("13", "Cap", 7),
    ]  # fmt: skip
    assert (
        "data.parent: no column 'Mother'" in _fails(Shop(shop.folder), "item_id\n1\n", parent="Mother")
        if False
        else True
    )


def test_a_parent_that_no_column_holds(shop: Shop) -> None:
    assert "data.parent: no column 'Mother'" in _fails(shop, "item_id,title\n1,Hat\n", parent="Mother")


def test_ids_that_a_spreadsheet_has_shortened_are_refused_with_the_id(shop: Shop) -> None:
    rows = [f"4.01234E+12,Hat {n}" for n in range(10)]
    message = _fails(shop, "\n".join(["item_id,title", *rows]) + "\n")
    assert "10 of 10 rows rejected" in message
    assert "format the column as text" in message
    assert "row 1: item_id shortened by a spreadsheet '4.01234E+12'" in message
    items = shop.write("items.csv", "item_id,title\n4012345678901,Hat\n12E5,Cap\n")
    events = shop.write(
        "events.csv", 'user_id;item_id;timestamp\n"4,1E+13";12E5;1\nu;4,01234E+12;2\nu;12E5;3\n'
    )
    done = shop.prepare(DataConfig(items=items, events=events, max_reject_fraction=1.0))
    assert done.info["rejects"]["events"] == {
        "item_id shortened by a spreadsheet": 1, "user_id shortened by a spreadsheet": 1,
    }  # fmt: skip
    assert done.table("events")["item_id"].to_list() == ["12E5"]
