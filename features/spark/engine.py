"""The engine of many machines: Spark's workers judge parts of the files, Spark counts, joins and sorts.

The driver opens the tables, reads the catalogue and infers how values are written, as without Spark; a column
of the events passes through it only where a setting is about its values (`data.exclude`), streamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - the usual name
from pyspark.sql.pandas.types import from_arrow_schema as spark_schema

from conf.schema import PipelineConfig
from features.data import schema
from features.files.readers import FILE, RawTable, readable, resolve_paths, scan_table
from features.ingest import rejects as why
from features.ingest.engines.interface import Staged
from features.ingest.engines.rules import EXAMPLES, REASON, EventRules
from features.ingest.raw_tables import Sources, text_options
from features.spark.events import Job, SparkEvents
from features.spark.judging import (
    AT,
    FILE_NUMBER,
    KEY,
    ROW_NUMBER,
    Count,
    Judge,
    arrow_schema,
    staged_columns,
)
from features.spark.splits import Reading, Split, splits_of, staged_splits


@dataclass(frozen=True)
class SparkEngine:
    """Keeps intermediate files in a folder that every machine of the cluster sees."""

    spark: SparkSession
    config: PipelineConfig
    sources: Sources
    folder: Path

    def stage(self, table: RawTable, rules: EventRules) -> Staged:
        """Judge every row of a table in Spark's workers, and keep the result."""
        number = sum(1 for _ in self.folder.iterdir())
        place = self.folder / f"{number}"
        place.mkdir()
        reading, splits = self._reading(table, place)
        names = self._file_names()
        ids = place / "item_ids.arrow"
        pl.DataFrame({schema.ITEM_ID: rules.item_ids}).write_ipc(ids, compression="uncompressed")
        judged = rules.judge(table.frame)
        numbers = {name: n for n, name in enumerate(names)}
        types = judged.frame.select(staged_columns(judged, numbers)).collect_schema()
        judge = Judge(
            splits,
            reading,
            replace(rules, item_ids=rules.item_ids.clear()),
            str(ids),
            numbers,
            arrow_schema(types),
            self._orders(reading, splits) if self.config.data.file_order and reading.shape else None,
        )
        job = Job(self.spark, place, tuple(names))
        parts = self.spark.range(len(splits), numPartitions=len(splits))
        rows = job.stored(parts.mapInArrow(judge, spark_schema(judge.columns)), "judged")
        accepted = rows.filter(F.col(REASON).isNull())
        return Staged(
            SparkEvents.of(accepted, tuple(judged.columns), job),
            self._rejected(job, rows),
            self._counted(accepted, judged.optional),
        )

    def _own(self, table: RawTable) -> bool:
        return table is self.sources.events

    def _reading(self, table: RawTable, place: Path) -> tuple[Reading, list[Split]]:
        """Return how the parts of a table are read, and the parts."""
        data = self.config.data
        if not self._own(table):
            types = dict(table.frame.collect_schema())
            return Reading("data.recorded", types), splits_of(resolve_paths(data.recorded, "data.recorded"))
        shape = self.sources.shape
        if shape is not None:
            options = text_options(data, "events")
            types = dict(scan_table(data.events, "data.events", options).frame.collect_schema())
            reading = Reading("data.events", types, options, shape)
            return reading, splits_of(resolve_paths(data.events, "data.events"))
        # The adapter reads its files as a whole: on the driver, streamed into one file.
        staged = place / "adapted.parquet"
        with readable(table.name):
            table.frame.sink_parquet(staged)
        types = dict(pl.scan_parquet(staged).collect_schema())
        return Reading("data.events", types), staged_splits(str(staged), [str(staged)])

    def _file_names(self) -> list[str]:
        """Return the files of all tables in the order in which their rows are sorted."""
        tables = [t for t in (self.sources.events, self.sources.recorded) if t is not None]
        types = [table.frame.collect_schema()[FILE] for table in tables]
        if all(isinstance(dtype, pl.Enum) for dtype in types):
            return list(dict.fromkeys(c for t in types if isinstance(t, pl.Enum) for c in t.categories))
        names: set[str] = set()
        for table in tables:
            found = table.frame.select(pl.col(FILE).cast(pl.String).unique()).collect(engine="streaming")
            names |= set(found.to_series().to_list())
        return sorted(names)

    def _orders(self, reading: Reading, splits: list[Split]) -> list[int]:
        """Return the number of events before each part."""
        parts = self.spark.range(len(splits), numPartitions=len(splits))
        counted = parts.mapInArrow(Count(splits, reading), "id long, rows long").collect()
        rows = dict((row["id"], row["rows"]) for row in counted)
        return [0, *accumulate(rows[n] for n in range(len(splits)))][: len(splits)]

    @staticmethod
    def _rejected(job: Job, rows: DataFrame) -> pl.DataFrame:
        """Return the rejected rows, which pass through the driver, in the order of the files."""
        columns = [FILE_NUMBER, ROW_NUMBER, AT, REASON, *(f"{KEY}{name}" for name in why.KEYS)]
        bad = rows.filter(F.col(REASON).isNotNull()).select(*columns).orderBy(FILE_NUMBER, ROW_NUMBER, AT)
        found = pl.DataFrame(bad.toArrow())
        return found.select(
            pl.lit("events").alias(why.TABLE),
            job.named(pl.col(FILE_NUMBER)).alias("file"),
            pl.col(ROW_NUMBER).alias("row"),
            pl.col(REASON).alias(why.REASON),
            *(pl.col(f"{KEY}{name}").alias(name) for name in why.KEYS),
        ).cast(dict(why.COLUMNS))  # type: ignore[arg-type]

    @staticmethod
    def _counted(accepted: DataFrame, optional: Sequence[str]) -> dict[str, Any]:
        """Return `JudgedEvents.tallies` of the accepted rows."""
        sums = [F.count("*").alias("rows")]
        for name in optional:
            for what in ("given", "bad"):
                sums.append(
                    F.coalesce(F.sum(F.col(f"__{what}_{name}").cast("long")), F.lit(0)).alias(
                        f"{what} {name}"
                    )
                )
        counted: dict[str, Any] = accepted.agg(*sums).collect()[0].asDict()
        for name in optional:
            bad = accepted.filter(f"__bad_{name}").orderBy(FILE_NUMBER, ROW_NUMBER, AT).limit(EXAMPLES)
            few = bad.select(f"__raw_{name}").collect() if counted[f"bad {name}"] else []
            counted[f"e.g. {name}"] = [row[0] for row in few]
        return counted
