"""Prices that are no single amount are read as the lowest amount that they state, and that is printed."""

from __future__ import annotations

import polars as pl
import pytest

from conf.tables import Decimal
from features.values.numbers import decimal_sign, inexact, read_numbers
from tests.features.strange.conftest import Shell

COMMA = {
    "ab 5,00 €": 5.0, "5,00 - 9,00": 5.0, "5,00 € – 9,00 €": 5.0, "5,00 € bis 9,00 €": 5.0, "5,00 €/kg": 5.0,
    "1.299,00 € pro Stück": 1299.0, "à partir de 12,50 €": 12.5, "desde 1.005,20 €": 1005.2,
    "0,99€/100 g": 0.99,    "12,00-15,00": 12.0, "ab 7,-": 7.0,
}  # fmt: skip
DOT = {
    "from $5": 5.0, "$5 to $9.50": 5.0, "5.00–9.00": 5.0, "$5.00/lb": 5.0, "Starting at $1,299.00": 1299.0,
    "USD 5.00 - USD 9.00": 5.0, "£3.50 per 100g": 3.5, "$12.00-$15.00": 12.0, "As low as $8.99": 8.99,
}  # fmt: skip


@pytest.mark.parametrize(("written", "sign"), [(COMMA, Decimal.comma), (DOT, Decimal.dot)])
def test_the_lowest_amount(written: dict[str, float], sign: Decimal) -> None:
    values = pl.Series(list(written))
    assert decimal_sign(values) is sign
    assert read_numbers(values, sign).to_list() == list(written.values())
    assert inexact(values).all()


def test_what_is_no_price_stays_none() -> None:
    values = pl.Series(
        ["2024-05", "01-05", "2024-05-01", "01.05.2024 - 31.05.2024", "S-1", "10:00 - 12:00", "on request"]
    )
    assert read_numbers(values, Decimal.dot).to_list() == [None] * 7


def test_a_single_amount_is_exact() -> None:
    values = pl.Series(["5.00", "-5.00", "5.00-", "15,-", "$ 5", "S/ 5.00", "(5.00)", "1.299,00 EUR"])
    assert not inexact(values).any()
    assert read_numbers(values.head(6), Decimal.dot).to_list() == [5.0, -5.0, -5.0, 15.0, 5.0, 5.0]


def test_ranges_are_counted_with_an_example(shell: Shell) -> None:
    rows = ["ab 5,00 €", "4,90 €", "5,00 - 9,00 €", "1.299,00 €"]
    shell.write(items_csv="item_id;title;price\n" + "".join(f"{n};Hat {n};{p}\n" for n, p in enumerate(rows)))
    printed = shell.prepare("data.items=items.csv")
    assert [row[0] for row in shell.table("items", "price")] == [5.0, 4.9, 5.0, 1299.0]
    line = (
        "2 of 4 prices are ranges, least prices or prices by unit, e.g. items.csv row 1: 'ab 5,00 €'; "
        "the lowest amount is taken"
    )
    assert shell.info["suspicious"] == [line]
    assert line in printed
    assert line in shell.inspect("items.csv")[0]
