"""Accepted events as a Spark table: counted, filtered and sorted as `polars_engine` does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import polars as pl
from pyspark.sql import Column, DataFrame, SparkSession, Window, WindowSpec
from pyspark.sql import functions as F  # noqa: N812 - the usual name

from conf.tables import FilterConfig
from features.data import schema
from features.ingest.engines.interface import Beyond, Facts, Written
from features.ingest.event_filters import Recorded, nothing_left
from features.spark.addresses import address
from features.spark.judging import AT, FILE_NUMBER, KIND_KEY, ROW_NUMBER

_SOURCE = "__source"
"""0 for the shop's own events, 1 for recorded ones."""
_PLACE = (_SOURCE, FILE_NUMBER, ROW_NUMBER, AT)
"""Order of the files: own events first."""
_ROWS = 1_000_000
"""Events of a sorted part."""
_USER, _ITEM, _TIME, _ORDER = schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP, schema.ORDER


@dataclass(frozen=True)
class Job:
    """A Spark session, and where it keeps intermediate tables."""

    spark: SparkSession
    folder: Path
    files: tuple[str, ...]
    """Files by number."""

    def stored(self, table: DataFrame, name: str) -> DataFrame:
        """Compute a table once, and return it as it is then on disk."""
        number = sum(1 for _ in self.folder.iterdir())
        path = self.folder / f"{number}-{name}"
        table.write.parquet(address(path))
        return self.spark.read.schema(table.schema).parquet(address(path))

    def named(self, number: pl.Expr) -> pl.Expr:
        """Return the files of file numbers."""
        return number.replace_strict(range(len(self.files)), self.files, return_dtype=pl.String, default=None)


@dataclass(frozen=True)
class SparkEvents:
    """Accepted events with their places."""

    frame: DataFrame
    columns: tuple[str, ...]
    """Columns of the events file."""
    job: Job

    @classmethod
    def of(cls, frame: DataFrame, columns: tuple[str, ...], job: Job) -> Self:
        """Return the events of one table."""
        rows = frame.withColumn(_SOURCE, F.lit(0))
        return cls(rows.select(*_PLACE, KIND_KEY, *columns), columns, job)

    def with_recorded(self, recorded: Self) -> tuple[Self, Recorded]:
        """Add recorded events that are not among these."""
        mine, rest = self.frame, recorded.frame.withColumn(_SOURCE, F.lit(1))
        total = rest.count()
        if "event_id" in self.columns and "event_id" in recorded.columns:
            rest = rest.join(mine.select(_USER, "event_id"), [_USER, "event_id"], "left_anti")
        without_ids = rest.count()
        content = [_USER, _ITEM, _TIME, KIND_KEY]
        rest = self.job.stored(rest.join(mine.select(*content), content, "left_anti"), "recorded")
        counts = Recorded(total, total - without_ids, without_ids - rest.count())
        columns = tuple(dict.fromkeys((*self.columns, *recorded.columns)))
        return type(self)(mine.unionByName(rest, allowMissingColumns=True), columns, self.job), counts

    def kind_counts(self) -> dict[str, int]:
        """Return kind -> events, by name."""
        counts = self.frame.groupBy(schema.EVENT).count().collect()
        return dict(sorted((str(kind), int(count)) for kind, count in counts))

    def last_rows(self) -> pl.DataFrame:
        """Return the number of the last accepted row of each file."""
        last = self.frame.groupBy(FILE_NUMBER).agg(F.max(ROW_NUMBER)).collect()
        files = {"file": [self.job.files[number] for number, _ in last], "last": [row for _, row in last]}
        return pl.DataFrame(files, schema={"file": pl.String, "last": pl.Int64})

    def null_counts(self, columns: Sequence[str]) -> dict[str, int]:
        """Return column -> events without a value."""
        return self._one(F.count_if(F.col(c).isNull()).alias(c) for c in columns)

    def of_kinds(self, spelled: Mapping[str, str], kinds: Sequence[str]) -> Self:
        """Replace spellings of kinds, and keep the events of some kinds."""
        frame = self.frame
        if spelled:
            frame = frame.replace([*spelled], [*spelled.values()], [schema.EVENT])
        return replace(self, frame=frame.filter(F.col(schema.EVENT).isin(list(kinds))))

    def filtered(self, config: FilterConfig) -> tuple[Self, dict[str, dict[str, int]]]:
        """Apply the filters in order: duplicates, `max_user_events`, k-core."""
        counts: dict[str, dict[str, int]] = {}
        frame, total = self.frame, self.frame.count()
        before = _sizes(frame)
        for name, apply in (
            ("deduplicate", self._distinct),
            ("max_user_events", self._few),
            ("kcore", self._core),
        ):
            setting = int(getattr(config, name))
            if not setting:
                continue
            frame = self.job.stored(apply(frame, setting), name)
            after = _sizes(frame)
            if not after["events"]:
                raise nothing_left(name, config, total)
            counts[name] = {what: before[what] - after[what] for what in before}
            before = after
        return replace(self, frame=frame), counts

    def _distinct(self, frame: DataFrame, _: int) -> DataFrame:
        """Keep the first of events equal in user, item, kind and time, or order where there is no time."""
        order = F.when(F.col(_TIME).isNull(), F.col(_ORDER))
        same = Window.partitionBy(_USER, _ITEM, schema.EVENT, _TIME, order).orderBy(*_PLACE)
        return frame.withColumn("__n", F.row_number().over(same)).filter("__n = 1").drop("__n")

    def _few(self, frame: DataFrame, most: int) -> DataFrame:
        """Drop users with more events."""
        few = frame.groupBy(_USER).count().filter(F.col("count") <= most)
        return frame.join(few.select(_USER), _USER, "left_semi")

    def _core(self, frame: DataFrame, k: int) -> DataFrame:
        """Drop users and items with fewer events, until none has fewer."""
        size = frame.count()
        while True:
            rich = [frame.groupBy(c).count().filter(F.col("count") >= k).select(c) for c in (_USER, _ITEM)]
            smaller = frame.join(rich[0], _USER, "left_semi").join(rich[1], _ITEM, "left_semi")
            frame = self.job.stored(smaller, "core")
            left = frame.count()
            if left == size:
                return frame
            size = left

    def facts(self) -> Facts:
        """Return the counts of these events."""
        negative = F.col("quantity") < 0 if "quantity" in self.columns else F.lit(False)
        found = self._one(
            (
                F.count("*").alias("events"),
                F.count_if(F.col(_TIME).isNull()).alias("no_time"),
                F.count_if(F.col(_ORDER).isNull()).alias("no_order"),
                F.min(_TIME).alias("first"),
                F.max(_TIME).alias("last"),
                F.count_if(negative).alias("negative_quantities"),
            )
        )
        first, last = found.pop("first"), found.pop("last")
        return Facts(time_range=None if first is None else (first, last), **found)

    def beyond(self, column: str, limit: int, above: bool) -> Beyond | None:
        """Return the events with a value above (else below) a limit."""
        value = F.col(column)
        odd = self.frame.filter(value > limit if above else value < limit)
        first = F.min_by(F.struct(FILE_NUMBER, ROW_NUMBER, column), F.struct(*_PLACE))
        count, place = odd.agg(F.count("*"), first).collect()[0]
        return Beyond(count, self.job.files[place[0]], place[1], place[2]) if count else None

    def busiest_minute(self, step: int) -> tuple[int | None, int, int]:
        """Return the minute that most of the events looked at share, their number, and all looked at."""
        looked = self.frame.filter((F.col(ROW_NUMBER) - 1) % step == 0)
        counts = looked.groupBy(F.floor(F.col(_TIME) / 60).alias("minute")).count()
        first = F.min_by("minute", F.struct(-F.col("count"), "minute"))
        minute, most, every = counts.agg(first, F.max("count"), F.sum("count")).collect()[0]
        return minute, most or 0, every or 0

    def write(self, facts: Facts, target: Path) -> Written:
        """Sort the events in parts of about a million, and put these together to one Parquet file.

        A part has the users of a range of ids, all events of each.
        """
        parts = max(facts.events // _ROWS, 1)
        frame = self.frame.repartitionByRange(parts, _USER)
        keys = _sort_keys(facts)
        by_user = Window.partitionBy(_USER)
        if facts.has_order and facts.no_order:
            frame = frame.withColumn("__mixed", _mixed(facts, by_user))
        time: Column = F.coalesce(F.col(_TIME), F.lit(0))
        rising = F.lit(False)
        if facts.time_range and facts.has_order:
            ordered = by_user.orderBy(*keys)
            past = ordered.rowsBetween(Window.unboundedPreceding, Window.currentRow)
            every = ordered.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
            filled = F.coalesce(
                F.last(_TIME, ignorenulls=True).over(past),
                F.first(_TIME, ignorenulls=True).over(every),
                F.lit(facts.time_range[0]),
            )
            frame = frame.withColumn("__filled", filled)
            frame = frame.withColumn("__raised", F.max("__filled").over(past))
            time, rising = F.col("__raised"), F.col("__raised") > F.col("__filled")
        frame = frame.sortWithinPartitions(_USER, *keys)
        columns = [time.alias(c) if c == _TIME else F.col(c) for c in self.columns]
        stored = self.job.stored(frame.select(*columns, rising.alias("__rising")), "sorted")
        files = sorted(next(self.job.folder.glob("*-sorted")).glob("part-*.parquet"))
        pl.scan_parquet(files).drop("__rising").sink_parquet(target)
        counts = stored.groupBy(_USER).agg(F.count("*").alias("n"), F.count_if("__rising").alias("raised"))
        busiest = F.min_by(_USER, F.struct(-F.col("n"), _USER))
        found = counts.agg(F.sum("raised"), F.count("*"), F.max("n"), busiest)
        return Written(*found.collect()[0])

    def _one(self, columns: Iterable[Column]) -> dict[str, Any]:
        row = self.frame.agg(*columns).collect()[0]
        return dict(row.asDict())


def _sizes(frame: DataFrame) -> dict[str, int]:
    counts = frame.agg(
        F.count("*").alias("events"),
        F.count_distinct(_USER).alias("users"),
        F.count_distinct(_ITEM).alias("items"),
    )
    return dict(counts.collect()[0].asDict())


def _mixed(facts: Facts, by_user: WindowSpec) -> Column:
    """Return the time of users whose events have times and not all orders, else the order."""
    full_order = F.min(F.col(_ORDER).isNotNull()).over(by_user)
    full_time = F.min(F.col(_TIME).isNotNull()).over(by_user) if facts.no_time else F.lit(True)
    return F.when(~full_order & full_time, F.col(_TIME)).otherwise(F.col(_ORDER))


def _sort_keys(facts: Facts) -> list[Column]:
    """Return the keys within a user; places make every one different."""
    if facts.has_order and not facts.no_order:
        names = [_ORDER, _TIME]
    elif facts.has_order:
        names = ["__mixed", _TIME, _ORDER]
    else:
        names = [_TIME]
    return [F.col(c).asc_nulls_last() for c in (*names, FILE_NUMBER, ROW_NUMBER, _SOURCE, AT)]
