"""Prices of many countries, read by the decimal sign of their column."""

from __future__ import annotations

import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import DataConfig
from conf.tables import Decimal
from features.values.numbers import decimal_sign, read_numbers
from tests.features.conftest import Shop


@pytest.mark.parametrize(
    ("written", "sign", "read"),
    [
        (["1.299", "1.299,00", "899"], "comma", [1299, 1299, 899]),
        (["1.299", "899", "12.500"], "comma", [1299, 899, 12500]),
        (["12,500", "9,99"], "comma", [12.5, 9.99]),
        (["12,500", "9.99"], "dot", [12500, 9.99]),
        (["12,500", "899"], "dot", [12500, 899]),
        (["1.299", "1500"], "dot", [1.299, 1500]),
        (["12,500", "1500"], "comma", [12.5, 1500]),
        (["0.125", "1.250"], "dot", [0.125, 1.25]),
        (["1.299.000", "1.299"], "comma", [1299000, 1299]),
        (["1,29,999.00", "1,299"], "dot", [129999, 1299]),
        (["15.00 CHF", "CHF 1'299.00", "Fr. 15.-", "15.50 sFr."], "dot", [15, 1299, 15, 15.5]),
        (["R$ 1.299,00", "R$99,90"], "comma", [1299, 99.9]),
        (["1 299,00 zł", "99,-", "kr 199", "199 kr."], "comma", [1299, 99, 199, 199]),
        (["1\u202f299,50\u00a0€"], "comma", [1299.5]),
        (["$1,299.00", "US$5", "₹ 5", "USD 3", "3 usd", "-$2"], "dot", [1299, 5, 5, 3, 3, -2]),
        (["-5,00 €", "(5,00)", "5,00-", "+5"], "comma", [-5, -5, -5, 5]),
        (["1e2", ".5", "7."], "dot", [100, 0.5, 7]),
        (["abc", "SKU123", "1,2,3", "nan", "inf", "", "5 m"], "auto", [None] * 7),
        (["7", None], "auto", [7, None]),
    ],
)  # fmt: skip
def test_a_column_is_read_with_its_own_decimal_sign(
    written: list[str | None], sign: str, read: list[float | None]
) -> None:
    column = pl.Series(written, dtype=pl.String)
    assert decimal_sign(column).value == sign
    assert read_numbers(column, decimal_sign(column)).to_list() == read


def test_prices_and_values_of_a_german_shop(shop: Shop) -> None:
    items = shop.write("items.csv", "item_id;title;price\n1;Sofa;1.299,00 €\n2;Bett;1.099\n3;Lampe;12,500\n")
    lines = "user_id;item_id;timestamp;value;quantity\nu;1;1;1.299,5;2\nu;2;2;1.099;1,5\n"
    events = shop.write("events.csv", lines)
    done = shop.prepare(DataConfig(items=items, events=events))
    assert done.table("items")["price"].to_list() == [1299.0, 1099.0, 12.5]
    assert done.table("events").select("value", "quantity").rows() == [(1299.5, 2.0), (1099.0, 1.5)]
    dotted = shop.prepare(DataConfig(items=items, events=events, decimal=Decimal.dot))
    assert dotted.table("items")["price"].to_list() == [1299.0, 1.099, 12500.0]


def test_a_column_that_is_mostly_unreadable_stops_with_three_values_and_a_fix(shop: Shop) -> None:
    rows = ["1,Sofa,auf Anfrage", "2,Stuhl,siehe Shop", "3,Lampe,tba", "4,Tisch,ask us", "5,Bett,99"]
    items = shop.write("items.csv", "\n".join(["item_id,title,price", *rows]) + "\n")
    with pytest.raises(InputError) as caught:
        shop.prepare(DataConfig(items=items))
    assert str(caught.value) == (
        f"data.items ({items}): 4 of 5 values of price cannot be read, e.g. 'auf Anfrage', 'siehe Shop', "
        "'tba'. Map another column to it, or leave it out under another name: "
        "'data.columns={items.price_text: price}'"
    )
    kept = shop.prepare(DataConfig(items=items, columns={"items.price_text": "price"}))
    assert kept.table("items")["price_text"][0] == "auf Anfrage"
    events = shop.write("events.csv", "user_id,item_id,timestamp,quantity\nu,1,1,some\nu,2,2,few\nu,3,3,1\n")
    with pytest.raises(InputError, match="2 of 3 values of quantity cannot be read, e.g. 'some', 'few'"):
        shop.prepare(DataConfig(items=items, events=events, columns={"items.price_text": "price"}))
