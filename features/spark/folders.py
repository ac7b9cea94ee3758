"""Which files of a Parquet folder Spark reads: it leaves out others without saying so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession

from conf.errors import InputError


def require_all_read(spark: SparkSession, table: DataFrame, url: str, setting: str) -> None:
    """Check that a table has the rows of every file below its URL.

    Spark reads a folder's own files, or those in its `key=value` folders where there are any. Files and
    folders that begin with `_` or `.` do not count: they are never data.

    Args:
        spark: a session.
        table: what Spark makes of the URL.
        url: a file, a folder or a pattern.
        setting: that names it, for the message.

    Raises:
        InputError: naming a file that would be left out, and what to do.
    """
    relation: Any = table._jdf.queryExecution().analyzed().collectLeaves().head()
    keys = set(relation.relation().partitionSchema().fieldNames())
    below = spark.read.option("recursiveFileLookup", True).schema(table.schema).parquet(url).inputFiles()
    if keys:
        left = {file for file in below if not keys & set(_keys(file))}
        fix = f"move it into a folder {min(keys)}=VALUE, or out of this one"
    else:
        read = table.inputFiles()
        left = {*below}.difference(read)
        fix = f"name the files of every folder: 'data.{setting}={_patterns([*read[:1], *sorted(left)])}'"
    if left:
        raise InputError(
            f"data.{setting}: {url}: Spark would leave out {unquote(min(left))}, which is not in the same "
            f"folders as the files that it reads; {fix}"
        )


def _keys(file: str) -> list[str]:
    """Return the keys of a file's `key=value` folders; the URL encodes names that are encoded already."""
    parts = PurePosixPath(unquote(file)).parent.parts
    return [unquote(key) for part in parts for key, equal, _ in (part.partition("="),) if equal]


def _patterns(files: Iterable[str]) -> str:
    """Return patterns of the first folders of files, as a setting."""
    folders = dict.fromkeys(unquote(file).rpartition("/")[0] for file in files)
    found = [f"{folder}/*.parquet" for folder in [*folders][:2]]
    return f"[{','.join([*found, *(['...'] if len(folders) > 2 else [])])}]"
