"""Folders of Parquet files at URLs: the order of their files, and the files that Spark would leave out."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from conf.errors import InputError
from conf.schema import DataConfig, Engine
from tests.features.conftest import Shop

SIZES = {"a": 3, "b": 400, "c": 40, "d": 4000}
"""File -> its events: Spark reads large files first, and several small ones as one part."""


def _events(file: Path, number: int, count: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    items = [f"{1 + (n * n + number) % 3}" for n in range(count)]
    columns = {"user_id": [f"u{n % 3}" for n in range(count)], "item_id": items}
    pl.DataFrame(columns).write_parquet(file)


def test_events_in_the_order_of_their_files_are_those_of_paths(shop: Shop, items: str) -> None:
    folder = shop.folder / "events"
    for number, (name, count) in enumerate(SIZES.items()):
        _events(folder / f"{name}.parquet", number, count)
    data = DataConfig(items=items, events=f"{folder}/*.parquet", file_order=True)
    expected = shop.prepare(data, engine=Engine.polars).table("events")
    assert expected["order"].max() == sum(SIZES.values())
    for url in (folder.as_uri(), f"{folder.as_uri()}/*.parquet"):
        data = DataConfig(items=items, events=url, file_order=True)
        assert_frame_equal(shop.prepare(data, engine=Engine.spark).table("events"), expected)


@pytest.mark.parametrize(
    ("names", "left", "fix"),
    [
        (
            ("a.parquet", "1+2 %/b.parquet", "_old/c.parquet"),
            "/1+2 %/b.parquet",
            "name the files of every folder: 'data.events=[{url}/*.parquet,{url}/1+2 %/*.parquet]'",
        ),
        (
            ("a.parquet", "store=007/b.parquet"),
            "/a.parquet",
            "move it into a folder store=VALUE, or out of this one",
        ),
    ],
)
def test_a_file_that_spark_would_leave_out_is_named(
    names: tuple[str, ...], left: str, fix: str, shop: Shop, items: str
) -> None:
    folder = shop.folder / "events"
    for number, name in enumerate(names):
        _events(folder / name, number, 3)
    url = folder.as_uri()
    data = DataConfig(items=items, events=url, file_order=True)
    with pytest.raises(InputError) as error:
        shop.prepare(data, engine=Engine.spark)
    assert str(error.value) == (
        f"data.events: {url}: Spark would leave out {url}{left}, which is not in the same folders as the "
        f"files that it reads; {fix.format(url=url)}"
    )
    assert not shop.work.exists()


def test_files_below_a_partition_and_hidden_ones_are_no_fault(shop: Shop, items: str) -> None:
    folder = shop.folder / "events"
    for name in (
        "é=1/a.parquet",
        "é=2/old/b.parquet",
        "_temporary/c.parquet",
        ".d/e.parquet",
        "é=1/_f.parquet",
    ):
        _events(folder / name, 0, 3)
    data = DataConfig(items=items, events=folder.as_uri(), file_order=True)
    assert shop.prepare(data, engine=Engine.spark).info["events"] == 6
    pattern = f"{folder.as_uri()}/é=*/*.parquet"
    data = DataConfig(items=items, events=pattern, file_order=True)
    assert shop.prepare(data, engine=Engine.spark).info["events"] == 3


def test_a_folder_of_text_files_is_refused_with_the_pattern_of_its_files(shop: Shop, items: str) -> None:
    folder = shop.folder / "events.csv"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for name, item in (("part-0", 1), ("part-1", 2)):
        (folder / f"{name}.csv").write_text(f"user_id,item_id,timestamp\na,{item},100\n")
    for url in (folder.as_uri(), f"{shop.folder.as_uri()}/e*.csv"):
        with pytest.raises(InputError) as error:
            shop.prepare(DataConfig(items=items, events=url), engine=Engine.spark)
        pattern = f"{folder.as_uri()}/part-*.csv"
        assert str(error.value) == (
            f"data.events: {url}: {folder.as_uri()} is a folder; name the files in it: "
            f"'data.events={pattern}'"
        )
    data = DataConfig(items=items, events=pattern)
    assert shop.prepare(data, engine=Engine.spark).info["events"] == 2


def test_states_of_orders_are_looked_at(shop: Shop, items: str) -> None:
    file = shop.folder / "events.parquet"
    rows = {
        "user_id": ["a", "a", "b"],
        "item_id": ["1", "2", "3"],
        "timestamp": [1_700_000_000 + n for n in range(3)],
        "order_status": ["paid", "cancelled", "paid"],
        "is_refunded": [False, False, True],
    }
    pl.DataFrame(rows).write_parquet(file)
    expected = shop.prepare(DataConfig(items=items, events=str(file)), engine=Engine.polars).info
    assert "order_status 'cancelled' (1)" in " ".join(expected["suspicious"])
    assert "is_refunded" in " ".join(expected["suspicious"])
    found = shop.prepare(DataConfig(items=items, events=file.as_uri()), engine=Engine.spark).info
    assert (found["suspicious"], found["warnings"]) == (expected["suspicious"], expected["warnings"])
