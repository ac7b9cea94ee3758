"""Tables at URLs, on a file system of Hadoop's that is not the machine's paths: a mount table (`viewfs://`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession

from conf.errors import InputError
from conf.schema import DataConfig, Engine
from features.files import copies
from features.spark.tables import copy_tables
from tests.features.conftest import Shop
from tests.features.spark_session import spark_of_tests

STORE = "viewfs://shop/data"
START = 1_700_000_000


@pytest.fixture
def spark(shop: Shop) -> Iterator[SparkSession]:
    """Spark with `STORE`, which is the shop's folder `store`."""
    spark_of_tests()
    (shop.folder / "store").mkdir()
    session = SparkSession.getActiveSession()
    assert session is not None
    context: Any = session.sparkContext
    conf = context._jsc.hadoopConfiguration()
    conf.set("fs.viewfs.mounttable.shop.link./data", (shop.folder / "store").as_uri())
    conf.set("fs.viewfs.impl.disable.cache", "true")
    yield session
    conf.unset("fs.viewfs.mounttable.shop.link./data")
    assert copies._copies == {}


def _events(store: str, first: int) -> pl.DataFrame:
    """Return 30 events, of which the third has no user and the fifth an item that does not exist."""
    numbers = range(first, first + 30)
    return pl.DataFrame(
        {
            "user": [None if n == first + 2 else f"u{n % 7}" for n in numbers],
            "item_id": [9 if n == first + 4 else 1 + n % 3 for n in numbers],
            "timestamp": pl.Series(
                [datetime.fromtimestamp(START + n, UTC) for n in numbers], dtype=pl.Datetime("ns")
            ),
            "note": [f"never read {n}" for n in numbers],
            **({"value": [n / 4 for n in numbers]} if store == "007" else {}),
        }
    )


SETTINGS: dict[str, Any] = {
    "columns": {"user_id": "user", "session_id": "store"},
    "exclude": {"events.store": "9"},
    "max_reject_fraction": 0.2,
}
FILES = {
    "store=007/part-1+2 %.parquet": ("007", 0),
    "store=007/part-3.parquet": ("007", 30),
    "store=8/a.parquet": ("8", 60),
    "store=9/a.parquet": ("9", 90),
}
"""File -> its store and the number of its first event."""


def _partitioned(folder: Path) -> None:
    for name, (store, first) in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _events(store, first).write_parquet(folder / name, row_group_size=11)


def test_a_partitioned_folder_and_text_at_urls_make_the_dataset_of_polars(
    shop: Shop, items: str, spark: SparkSession
) -> None:
    _partitioned(shop.folder / "store" / "events")
    (shop.folder / "store" / "items [1].csv").write_bytes(Path(items).read_bytes())
    paths = []
    for number, (store, first) in enumerate(FILES.values()):
        paths.append(str(shop.folder / f"{number}.parquet"))
        _events(store, first).with_columns(pl.lit(store).alias("store")).write_parquet(paths[-1])
    whole = shop.prepare(DataConfig(items=items, events=paths, **SETTINGS), engine=Engine.polars)
    tables = {name: whole.table(name) for name in ("items", "events", "rejects")}
    info = whole.info
    data = DataConfig(items=f"{STORE}/items*.csv", events=f"{STORE}/events", **SETTINGS)
    found = shop.prepare(data, engine=Engine.spark)
    assert_frame_equal(found.table("items"), tables["items"])
    assert_frame_equal(found.table("events"), tables["events"])
    urls = dict(zip(paths, (f"{STORE}/events/{name}" for name in FILES), strict=True))
    rejects = tables["rejects"].with_columns(pl.col("file").replace(urls))
    assert_frame_equal(found.table("rejects").drop("timestamp"), rejects.drop("timestamp"))
    nanoseconds = [f"{START + n}000000000" for n in (2, 4, 32, 34, 62, 64)]  # a type that Spark does not have
    assert found.table("rejects")["timestamp"].to_list() == nanoseconds
    assert set(found.table("events")["session_id"]) == {"007", "8"}
    assert {k: v for k, v in found.info.items() if k != "data"} == {
        k: v for k, v in info.items() if k != "data"
    }
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "arrays", "dataset.json", "events.parquet", "items.parquet", "rejects.parquet",
    ]  # fmt: skip


def test_items_keep_the_order_of_their_files(shop: Shop, spark: SparkSession) -> None:
    folder = shop.folder / "store" / "items"
    folder.mkdir()
    for name, title in (("a", "first"), ("b", "second"), ("c", "third")):
        count = 400 if name == "c" else 3  # Spark reads large files first
        rows = pl.DataFrame(
            {"item_id": [f"{n}" for n in range(count)], "title": [f"{title} {n}" for n in range(count)]}
        )
        rows.write_parquet(folder / f"{name}.parquet")
    found = shop.prepare(DataConfig(items=f"{STORE}/items/*.parquet"), engine=Engine.spark)
    assert found.table("items").filter(pl.col("item_id").is_in(["0", "1", "399"]))["title"].to_list() == [
        "first 0", "first 1", "third 399",
    ]  # fmt: skip


def test_only_columns_in_use_are_copied_and_no_row_where_a_required_one_is_missing(
    shop: Shop, items: str, spark: SparkSession
) -> None:
    _partitioned(shop.folder / "store" / "events")
    url = f"{STORE}/events"
    cases: list[tuple[dict[str, Any], set[str], int]] = [
        (SETTINGS, {"user", "item_id", "timestamp", "value", "store", "__file", "__row"}, 120),
        (
            {"columns": {"user_id": "user", "item_id": "sku"}},
            {"user", "item_id", "timestamp", "value", "__file", "__row"},
            120,
        ),
        ({}, {"user", "item_id", "timestamp", "value", "store", "note", "__file", "__row"}, 0),
    ]
    for number, (settings, columns, rows) in enumerate(cases):
        place = shop.folder / f"copy-{number}"
        place.mkdir()
        copy = copy_tables(spark, DataConfig(items=items, events=url, **settings), place)[url]
        frame = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in copy.parts])
        assert (set(frame.columns), frame.height) == (columns, rows)
    with pytest.raises(InputError, match="no column 'user_id'.* Columns: user, .*note"):
        shop.prepare(DataConfig(items=items, events=url), engine=Engine.spark)


def test_what_is_not_there_is_one_line(shop: Shop, items: str, spark: SparkSession) -> None:
    (shop.folder / "store" / "broken.parquet").write_bytes(b"no Parquet")
    for url, cause in (
        (f"{STORE}/nothing", "[PATH_NOT_FOUND] Path does not exist: viewfs://shop/data/nothing"),
        (f"{STORE}/nothing/*.csv", "no such file"),
        (f"{STORE}/broken.parquet", "broken.parquet"),
        ("s3a://bucket/events", "'spark.settings={spark.jars.packages: \"org.apache.hadoop:hadoop-aws:"),
        ("shop://bucket/events.csv", "Spark needs a connector for shop://"),
        (f"{STORE}/all.zip", "archives and workbooks are read from paths"),
    ):
        with pytest.raises(InputError) as error:
            shop.prepare(DataConfig(items=items, events=url), engine=Engine.spark)
        assert str(error.value).startswith(f"data.events: {url}: ")
        assert cause in str(error.value)
        assert "\n" not in str(error.value)
        assert not shop.work.exists()


def test_polars_names_the_engine_that_reads_urls(shop: Shop, items: str) -> None:
    with pytest.raises(InputError, match="data.events: s3a://b/e is a URL, which engine=spark reads"):
        shop.prepare(DataConfig(items=items, events="s3a://b/e"), engine=Engine.polars)
