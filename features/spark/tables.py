"""Tables at URLs that Spark reads (`s3a://`, `hdfs://`, `gs://`), copied to a folder that every machine sees.

Parquet is read by Spark's workers: partitioned folders with the columns in their names, of the events only
the columns that are used, in parallel. Every row keeps the URL of its file and its number in it, so that
rejects say where it is. Files of other formats are copied as they are, through the driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the usual name

from conf.errors import InputError
from conf.schema import Adapter, DataConfig
from features.adapters.files import FileShape
from features.data import schema
from features.files.copies import Copy, urls_of
from features.files.readers import FILE, KNOWN, ROW
from features.ingest.columns import EVENT_COLUMNS, sources_of
from features.ingest.exclusions import columns_of
from features.spark.addresses import address
from features.spark.folders import require_all_read
from features.spark.session import first_line
from features.values.order_states import is_state_column

_PARQUET = (".parquet", ".pq")
_WHOLE = (".zip", ".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
"""Formats with tables inside, which are addressed by paths."""
_PATTERN = re.compile(r"[*?\[\]]")
_NO_CONNECTOR = re.compile("No FileSystem for scheme|Class .* not found|ClassNotFoundException")
_CONNECTORS = {"s3a": "hadoop-aws", "abfs": "hadoop-azure", "abfss": "hadoop-azure"}
"""Scheme -> the part of Hadoop that reads it and does not come with Spark."""


def copy_tables(spark: SparkSession, data: DataConfig, folder: Path) -> dict[str, Copy]:
    """Copy every table that the settings name by a URL.

    Args:
        spark: a session.
        data: the settings.
        folder: exists, and every machine sees it.

    Returns:
        URL -> its copy.

    Raises:
        InputError: a URL that Spark cannot read.
    """
    copies: dict[str, Copy] = {}
    for setting, source in (("items", data.items), ("events", data.events), ("recorded", data.recorded)):
        for url in urls_of(source):
            if url in copies:  # a log of events with its items
                continue
            place = folder / f"{len(copies)}"
            try:
                if _suffix(url) in (*_PARQUET, ""):
                    pruned = data if setting == "events" and url not in urls_of(data.items) else None
                    table = spark.read.option("mergeSchema", True).parquet(url)
                    require_all_read(spark, table, url, setting)
                    copies[url] = _rows(table, place, pruned, setting == "items" or data.file_order)
                else:
                    copies[url] = _unchanged(spark, url, setting, place)
            except (PySparkException, Py4JError) as error:
                raise InputError(
                    f"data.{setting}: {url}: {first_line(error)}{_hint(spark, url, error)}"
                ) from error
    return copies


def _suffix(url: str) -> str:
    """Return the extension that decides the format, without that of a compression; "" for folders."""
    suffixes = [s.lower() for s in PurePosixPath(url).suffixes if s.lower() not in (".gz", ".zst")]
    return suffixes[-1] if suffixes and suffixes[-1] in (*KNOWN, *_WHOLE) else ""


def _rows(table: DataFrame, place: Path, pruned: DataConfig | None, ordered: bool) -> Copy:
    """Have Spark copy the rows of Parquet files.

    Args:
        table: of the files.
        place: the folder to write.
        pruned: settings of the events, of which only the columns in use are copied; None copies all.
        ordered: whether the order of all rows is kept, and not only that within a part: Spark packs files
            into parts by their sizes.
    """
    used = table.columns if pruned is None else _in_use(table.columns, pruned)
    columns = [f"`{name.replace('`', '``')}`" for name in used or table.columns]
    # The path is URL-encoded, where a plus is one.
    file = F.url_decode(F.replace(F.col("_metadata.file_path"), F.lit("+"), F.lit("%2B")))
    row = F.col("_metadata.row_index") + 1
    rows = table.select(*columns, file.alias(FILE), row.alias(ROW))
    if not used:
        rows = rows.limit(0)  # an error names the columns, before all of them are copied
    rows = rows.orderBy(FILE, ROW) if ordered else rows.sortWithinPartitions(FILE, ROW)
    rows.write.parquet(address(place))
    parts = {
        str(path): pl.scan_parquet(path, hive_partitioning=False) for path in place.glob("part-*.parquet")
    }
    first = {path: frame.select(FILE, ROW).head(1).collect().rows() for path, frame in parts.items()}
    full = sorted((path for path in parts if first[path]), key=lambda path: first[path])
    names: set[str] = set()
    for path in full:
        names |= set(parts[path].select(pl.col(FILE).unique()).collect(engine="streaming").to_series())
    return Copy(parts=tuple(full or parts), names=tuple(sorted(names)))


def _in_use(columns: Sequence[str], data: DataConfig) -> list[str]:
    """Return the columns of the events that are read, states of orders among them; none if one is missing."""
    if data.adapter is not Adapter.files:
        return [*columns]

    def kept(names: Iterable[str]) -> list[str]:
        return [c for c in columns if any(n == c or n.startswith(f"{c}.") for n in names)]

    def alternatives(name: str) -> list[str]:
        return [*sources_of(data.columns.get(f"events.{name}", data.columns.get(name, name)), name), name]

    required = [alternatives(schema.USER_ID), alternatives(schema.ITEM_ID)]
    required += [[column] for column in columns_of(data.exclude, "events")]
    if not data.file_order:
        required.append([*alternatives(schema.TIMESTAMP), *alternatives(schema.ORDER)])
    if not all(map(kept, required)):
        return []
    read = kept({*EVENT_COLUMNS, *FileShape(data).paths})
    return [c for c in columns if c in read or is_state_column(c)]


def _unchanged(spark: SparkSession, url: str, setting: str, place: Path) -> Copy:
    """Copy files as they are, through the driver.

    Raises:
        InputError: no such file, a folder, or a format with tables inside.
    """
    if _suffix(url) in _WHOLE:
        raise InputError(
            f"data.{setting}: {url}: archives and workbooks are read from paths: copy it, and give its path"
        )
    context: Any = spark.sparkContext
    hadoop, conf = context._jvm.org.apache.hadoop.fs, context._jsc.hadoopConfiguration()
    path = hadoop.Path(url)
    store = path.getFileSystem(conf)
    files: dict[str, str] = {}
    place.mkdir()
    for status in sorted(store.globStatus(path) or (), key=lambda status: str(status.getPath().toString())):
        name = re.sub(
            "^file:/(?!/)", "file:///", str(status.getPath().toString())
        )  # as it is written elsewhere
        if status.isDirectory():
            raise InputError(
                f"data.{setting}: {url}: {name} is a folder; name the files in it: "
                f"'data.{setting}={name}/part-*{_suffix(url)}'"
            )
        target = place / f"{len(files)}-{_PATTERN.sub('_', PurePosixPath(name).name)}"
        store.copyToLocalFile(False, status.getPath(), hadoop.Path(address(target)), True)
        files[name] = str(target)
    if not files:
        raise InputError(f"data.{setting}: {url}: no such file")
    return Copy(files)


def _hint(spark: SparkSession, url: str, error: Exception) -> str:
    """Return what to add where Spark lacks the connector of a store."""
    scheme = url.partition("://")[0]
    if not _NO_CONNECTOR.search(str(error)):
        return ""
    context: Any = spark.sparkContext
    version = context._jvm.org.apache.hadoop.util.VersionInfo.getVersion()
    if scheme not in _CONNECTORS:
        return f"; Spark needs a connector for {scheme}://, which spark.jars.packages in spark.settings names"
    package = f"org.apache.hadoop:{_CONNECTORS[scheme]}:{version}"
    return f"; add its connector: 'spark.settings={{spark.jars.packages: \"{package}\"}}'"
