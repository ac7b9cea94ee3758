from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from conf.experiment_report import EventKindsConfig, ExperimentReportConfig
from lifecycle.experiments.plan import Plan
from lifecycle.experiments.recorded import prices, scan
from lifecycle.experiments.units import Units, experiments_in, units_of
from tests.lifecycle.experiments.conftest import START, Row, Written

PLAN = Plan("home", "a", ["b"], {"a": 0.5, "b": 0.5})
START_US = round(START.timestamp() * 1e6)


def read(path: Path, plan: Plan = PLAN, known: pl.DataFrame | None = None, before_days: int = 28) -> Units:
    return units_of(scan(path), plan, known, EventKindsConfig(), before_days)


def test_what_a_unit_did_is_counted_from_its_first_list_on(events_file: Written) -> None:
    rows: list[Row] = [
        ("ann", -30 * 24, "purchase", "old", None),  # longer ago than the pre-period
        ("ann", -48, "impression", "x", None),
        ("ann", -47, "view", "x", None),
        ("ann", -46, "purchase", "x", None),
        ("ann", 0, "impression", "x", "other=z;home=a"),
        ("ann", 0, "impression", "y", "other=z;home=a"),
        ("ann", 0.1, "click", "x", "other=z;home=a"),
        ("ann", 0.2, "view", "x", "other=z;home=a"),  # the same item of the same list: one click
        ("ann", 0.3, "purchase", "x", "other=z;home=a"),
        ("ann", 30, "add_to_cart", "y", None),  # elsewhere, on another day
        ("ann", 31, "purchase", "y", None),
        ("bob", 5, "click", "x", None),  # saw no list: in no arm
        ("eve", 6, "impression", "x", "home=b"),
        ("eve", 7, "view", "x", None),  # not from a list: no click
    ]
    values = [None, None, None, 3.0, None, None, None, None, 5.0, None, 7.0, None, None, None]
    found = read(events_file(rows, value=values))
    ann, eve = found.units.sort("unit").iter_rows(named=True)
    assert (ann["unit"], ann["arm"], ann["first"], ann["surface"]) == ("ann", "a", START_US, "home")
    assert [ann[f"before_{name}"] for name in ("shown", "interest", "purchases", "value")] == [1, 1, 1, 3.0]
    assert (ann["seen_before"], eve["seen_before"], eve["arm"]) == (True, False, "b")
    days = found.days.filter(unit="ann").drop("unit", "day").rows(named=True)
    assert days == [
        {"impressions": 2, "clicks": 1, "carts": 0, "purchases": 1, "value": 5, "list_purchases": 1,
         "list_value": 5, "events": 5},
        {"impressions": 0, "clicks": 0, "carts": 1, "purchases": 1, "value": 7, "list_purchases": 0,
         "list_value": 0, "events": 2},
    ]  # fmt: skip
    assert found.days.filter(unit="eve")["clicks"].to_list() == [0.0]
    assert (found.mixed, found.not_shown, found.unpriced, found.purchases) == (0, 0, 0, 2)


def test_who_saw_two_arms_is_counted_and_left_out(events_file: Written) -> None:
    rows: list[Row] = [
        ("ann", 0, "impression", "x", "home=a"),
        ("ann", 1, "impression", "x", "home=b"),
        ("bob", 0, "impression", "x", "home=a"),
        ("eve", 0, "click", "x", "home=b"),
    ]
    found = read(events_file(rows))
    assert sorted(found.units["unit"]) == ["bob", "eve"]
    assert (found.mixed, found.not_shown) == (1, 1)
    assert set(found.days["unit"]) == {"bob", "eve"}


def test_only_the_time_of_the_experiment_counts(events_file: Written) -> None:
    rows: list[Row] = [
        ("ann", -2, "impression", "x", None),
        ("ann", -1, "impression", "x", "home=b"),  # before the start: another arm then, and no exposure
        ("ann", -0.5, "impression", "x", None),  # after that: the arm may have changed what she did
        ("ann", 1, "impression", "x", "home=a"),
        ("ann", 5, "click", "x", "home=a"),  # after the end
        ("bob", 6, "impression", "x", "home=a"),
    ]
    plan = Plan("home", "a", ["b"], {}, start_us=START_US, end_us=START_US + 4 * 3_600_000_000)
    found = read(events_file(rows), plan)
    assert found.units["unit"].to_list() == ["ann"]
    assert found.units["before_shown"].to_list() == [1.0]
    assert found.days.select("impressions", "clicks").rows() == [(1.0, 0.0)]


def test_sessions_end_after_a_pause_and_may_be_in_different_arms(events_file: Written) -> None:
    rows: list[Row] = [
        ("ann", 0, "impression", "x", "home=a"),
        ("ann", 0.4, "purchase", "x", None),
        ("ann", 0.95, "purchase", "y", None),  # 33 minutes later: another session, without a list
        ("ann", 3, "impression", "x", "home=b"),
        ("bob", 3.1, "impression", "x", "home=b"),
    ]
    plan = Plan("home", "a", ["b"], {}, unit="session")
    found = read(events_file(rows), plan)
    units = found.units.sort("first", "arm")
    assert units["arm"].to_list() == ["a", "b", "b"]
    assert units["before_purchases"].to_list() == [0.0, 2.0, 0.0]
    first = units["unit"][0]
    assert found.days.filter(unit=first)["purchases"].to_list() == [1.0]
    assert found.mixed == 0


def test_a_purchase_has_the_price_of_its_time(events_file: Written, tmp_path: Path) -> None:
    for version, price in (("20240501T120000Z-aa", 10.0), ("20240502T120000Z-bb", 12.5)):
        folder = tmp_path / "versions" / version
        folder.mkdir(parents=True)
        pl.DataFrame({"item_id": ["x"], "price": [price]}).write_parquet(folder / "catalog.parquet")
    rows: list[Row] = [
        ("ann", -20, "impression", "x", "home=a"),
        ("ann", -19, "purchase", "x", None),  # before any catalogue: its first price
        ("ann", 1, "purchase", "x", None),
        ("ann", 25, "purchase", "x", None),
        ("ann", 26, "purchase", "unknown", None),
    ]
    known = prices(ExperimentReportConfig(artifacts=str(tmp_path)))
    found = read(events_file(rows), known=known)
    assert found.days["value"].sum() == 10.0 + 10.0 + 12.5
    assert (found.unpriced, found.purchases) == (1, 4)
    nothing = read(events_file(rows))
    assert (nothing.unpriced, nothing.days["value"].sum()) == (4, 0.0)
    table = tmp_path / "items.csv"
    table.write_text("item_id,price\nx,2\n")
    listed = read(events_file(rows), known=prices(ExperimentReportConfig(items=str(table))))
    assert listed.days["value"].sum() == 6.0


def test_ids_of_a_csv_file_are_texts(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("item_id,price\n0012,2.5\n13,3\n")
    known = prices(ExperimentReportConfig(items=str(table)))
    assert known is not None
    assert known.select("item", "price").rows() == [("0012", 2.5), ("13", 3.0)]


def test_a_value_that_is_no_number_is_unknown(events_file: Written) -> None:
    rows: list[Row] = [("ann", 0, "impression", "x", "home=a")]
    rows += [("ann", 1, "purchase", "x", None) for _ in range(4)]
    found = read(events_file(rows, value=[None, float("nan"), float("inf"), None, 4.0]))
    assert (found.days["value"].sum(), found.unpriced, found.purchases) == (4.0, 3, 4)


def test_names_of_experiments_are_not_patterns(events_file: Written) -> None:
    rows: list[Row] = [
        ("ann", 0, "impression", "x", "a.b=one"),
        ("bob", 0, "impression", "x", "axb=two;a.b=two"),
    ]
    path = events_file(rows)
    assert experiments_in(scan(path)) == {"a.b": {"one", "two"}, "axb": {"two"}}
    found = read(path, Plan("a.b", "one", ["two"], {}))
    assert found.units.sort("unit")["arm"].to_list() == ["one", "two"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no column 'experiments'; make the file with `shelfwise export events"),
        ({"experiments": ["a=b"], "timestamp": ["noon"]}, "timestamp is String, not a time"),
        ({"experiments": ["a=b"], "value": ["2,50"]}, "value is String, not a number"),
    ],
)
def test_files_that_are_no_recorded_events(
    tmp_path: Path, columns: dict[str, list[str]], message: str
) -> None:
    table = {"user_id": ["u"], "item_id": ["i"], "event": ["view"], "timestamp": [1]} | columns
    path = tmp_path / "events.parquet"
    pl.DataFrame(table).write_parquet(path)
    with pytest.raises(InputError, match=message):
        scan(path)


def test_a_missing_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"events: no file .*none.parquet; make the file with"):
        scan(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("user_id,item_id")
    with pytest.raises(InputError, match=r"bad.parquet cannot be read"):
        scan(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"items: no file"):
        prices(ExperimentReportConfig(items=str(tmp_path / "none.csv")))
