from __future__ import annotations

import polars as pl
import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from features.values.attribute_types import as_bool, as_list
from tests.features.conftest import Shop


@pytest.mark.parametrize(
    ("written", "lists"),
    [
        (["red|green", "blue", None], [["red", "green"], ["blue"], None]),
        (["Home > Garden > Hoses", "Home"], [["Home", "Garden", "Hoses"], ["Home"]]),
        (["a; b", " c ;; "], [["a", "b"], ["c"]]),
        (["a, b", "c"], [["a", "b"], ["c"]]),
        (['["a", "b, c"]', "[]", "['d']", "[1, 2]"], [["a", "b, c"], [], ["d"], ["1", "2"]]),
        (["one", "two"], [["one"], ["two"]]),
    ],
)
def test_text_that_holds_lists(written: list[str | None], lists: list[list[str] | None]) -> None:
    assert as_list(pl.Series(written)).to_list() == lists


def test_yes_and_no() -> None:
    words = pl.Series(["Yes", "nein", "SIM", "0", "y", "perhaps", None])
    assert as_bool(words).to_list() == [True, False, True, False, True, None, None]


def _items(shop: Shop, text: str, *overrides: str) -> pl.DataFrame:
    path = shop.write("items.csv", text)
    return shop.prepare(compose_command("prepare", [f"data.items={path}", *overrides]).data).table("items")


def test_types_are_given_by_column(shop: Shop) -> None:
    text = (
        "item_id;title;tags;weight;code;on;since\n1;Hat;a|b;1,5;12;1;1.5.2024\n2;Cap;c;2,25;13;0;15.5.2024\n"
    )
    read = _items(shop, text, "data.types={tags: list, weight: number, code: string, on: bool, since: time}")
    assert read.drop("item_id", "item_text").rows() == [
        ("Hat", ["a", "b"], 1.5, "12", True, 1714521600),
        ("Cap", ["c"], 2.25, "13", False, 1715731200),
    ]
    plain = _items(shop, text)
    assert plain.schema["code"] == pl.Int64
    assert plain.schema["tags"] == pl.String


def test_columns_of_yes_and_no_are_bools(shop: Shop) -> None:
    read = _items(shop, "item_id,title,sale,size\n1,Hat,yes,no\n2,Cap,No,maybe\n")
    assert read["sale"].to_list() == [True, False]
    assert read["size"].to_list() == ["no", "maybe"]


def test_a_type_that_does_not_exist(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"data.types.tags must be one of string, number, .*, not 'tag'"):
        compose_command("prepare", ["data.types={tags: tag}"])
    with pytest.raises(InputError, match="data.types: no column 'tag' in .*; did you mean 'tags'"):
        _items(shop, "item_id,tags\n1,a\n", "data.types={tag: list}")
