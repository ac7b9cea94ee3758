"""The engine of one machine: polars, streamed from Parquet files as far as it allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import polars as pl

from conf.tables import FilterConfig
from features.data import schema
from features.files.readers import FILE, ROW, RawTable, readable
from features.ingest.engines import user_parts
from features.ingest.engines.interface import TYPES, Beyond, Facts, Staged, Written
from features.ingest.engines.rules import EventRules
from features.ingest.event_filters import Recorded, add_recorded, apply_filters

_AT = "__at"


@dataclass(frozen=True)
class PolarsEngine:
    """Keeps intermediate files in an existing folder."""

    folder: Path

    def stage(self, table: RawTable, rules: EventRules) -> Staged:
        """Judge every row, reading the raw files once."""
        judged = rules.judge(table.frame)
        folder = self.folder / str(sum(1 for _ in self.folder.iterdir()))
        folder.mkdir()
        staged = folder / "accepted.parquet"
        counts = judged.frame.filter(pl.col("__reason").is_null()).select(judged.tallies())
        with readable(table.name):
            _, rejected, counted = pl.collect_all(
                [judged.accepted().sink_parquet(staged, lazy=True), judged.rejected(), counts],
                engine="streaming",
            )
        return Staged(PolarsEvents.of(staged), rejected, counted.row(0, named=True))


@dataclass(frozen=True)
class PolarsEvents:
    """Accepted events in a Parquet file."""

    path: Path
    """Its folder takes further files."""
    frame: pl.LazyFrame
    """Rows with `FILE`, `ROW` and the place in the file."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the events of a file."""
        return cls(path, pl.scan_parquet(path, row_index_name=_AT))

    def with_recorded(self, recorded: Self) -> tuple[Self, Recorded]:
        """Add recorded events that are not among these."""
        joined = self.path.with_name("joined.parquet")
        added = add_recorded(self.path, recorded.path, joined)
        return self.of(joined), added

    def kind_counts(self) -> dict[str, int]:
        """Return kind -> events, by name."""
        by_kind = self.frame.group_by(schema.EVENT).len().sort(schema.EVENT).collect(engine="streaming")
        return {str(kind): int(count) for kind, count in by_kind.iter_rows()}

    def last_rows(self) -> pl.DataFrame:
        """Return the number of the last accepted row of each file."""
        by_file = self.frame.group_by(pl.col(FILE).cast(pl.String).alias("file"))
        return by_file.agg(pl.col(ROW).cast(pl.Int64).max().alias("last")).collect(engine="streaming")

    def null_counts(self, columns: Sequence[str]) -> dict[str, int]:
        """Return column -> events without a value."""
        nulls = self.frame.select(pl.col(columns).null_count())
        return nulls.collect(engine="streaming").row(0, named=True)

    def of_kinds(self, spelled: Mapping[str, str], kinds: Sequence[str]) -> Self:
        """Replace spellings of kinds, and keep the events of some kinds."""
        frame = self.frame
        if spelled:
            frame = frame.with_columns(pl.col(schema.EVENT).replace(list(spelled), list(spelled.values())))
        return type(self)(self.path, frame.filter(pl.col(schema.EVENT).is_in(list(kinds))))

    def filtered(self, config: FilterConfig) -> tuple[Self, dict[str, dict[str, int]]]:
        """Apply the filters to the required columns of all events in memory."""
        keys = self.frame.select(_AT, *TYPES).collect(engine="streaming")
        result = apply_filters(keys.drop(_AT), config)
        kept = pl.LazyFrame({_AT: keys[_AT].gather(result.keep)})
        frame = self.frame.join(kept, on=_AT, how="semi", maintain_order="left")
        return type(self)(self.path, frame), result.counts

    def facts(self) -> Facts:
        """Return the counts of these events."""
        time, order = pl.col(schema.TIMESTAMP), pl.col(schema.ORDER)
        quantity = "quantity" in self.frame.collect_schema()
        facts = self.frame.select(
            pl.len().alias("events"),
            time.null_count().alias("no_time"),
            order.null_count().alias("no_order"),
            time.min().alias("first"),
            time.max().alias("last"),
            (pl.col("quantity") < 0 if quantity else pl.lit(False)).sum().alias("negative_quantities"),
        )
        found = facts.collect(engine="streaming").row(0, named=True)
        first, last = found.pop("first"), found.pop("last")
        return Facts(time_range=None if first is None else (first, last), **found)

    def beyond(self, column: str, limit: int, above: bool) -> Beyond | None:
        """Return the events with a value above (else below) a limit."""
        value = pl.col(column)
        odd = self.frame.filter(value > limit if above else value < limit)
        count = int(odd.select(pl.len()).collect(engine="streaming").item())
        if not count:
            return None
        return Beyond(count, *odd.select(pl.col(FILE).cast(pl.String), ROW, value).head(1).collect().row(0))

    def busiest_minute(self, step: int) -> tuple[int | None, int, int]:
        """Return the minute that most of the events looked at share, their number, and all looked at."""
        looked = self.frame.filter((pl.col(ROW) - 1) % step == 0)
        minute = (pl.col(schema.TIMESTAMP) // 60).alias("minute")
        counts = looked.group_by(minute).len().sort("len", "minute", descending=[True, False])
        found = counts.select(
            pl.col("minute").first(), pl.col("len").first(), pl.col("len").sum().alias("all")
        )
        return found.collect(engine="streaming").row(0)

    def write(self, facts: Facts, target: Path) -> Written:
        """Write the sorted events to one Parquet file.

        More than `user_parts.PART` are sorted in parts, each a range of users, who are counted in theirs:
        no entry for every user is held.
        """
        staged = self.path.with_name("sorted.parquet")
        if facts.events <= user_parts.PART:
            return _write_sorted(self.frame, facts, staged, target)
        limits = user_parts.user_limits(self.frame, _AT, facts.events, user_parts.PART)
        done: dict[Path, Written] = {}
        for part in user_parts.user_parts(self.frame, limits, self.path.with_name("parts")):
            path = self.path.with_name(f"sorted-{len(done)}.parquet")
            done[path] = _write_sorted(part, facts, staged, path)
        pl.concat([pl.scan_parquet(path) for path in done]).sink_parquet(target, engine="streaming")
        for path in done:
            path.unlink()
        largest = max(done.values(), key=lambda part: part.most)  # of equal ones the first: ids ascend
        raised, users = (sum(getattr(part, name) for part in done.values()) for name in ("raised", "users"))
        return replace(largest, raised=raised, users=users)


def _write_sorted(events: pl.LazyFrame, facts: Facts, staged: Path, target: Path) -> Written:
    """Write events, of which each user's are all there, in order.

    Args:
        events: rows with `FILE`, `ROW` and the place in the file.
        facts: of all events, not of these alone.
        staged: an intermediate file.
        target: the file to write.
    """
    time = pl.col(schema.TIMESTAMP)
    ordered = _sorted(events, facts).drop(_AT, FILE, ROW)
    raised = 0
    if facts.time_range and facts.has_order:
        filled = time.forward_fill().backward_fill().over(schema.USER_ID).fill_null(facts.time_range[0])
        ordered = ordered.with_columns(filled.alias(schema.TIMESTAMP))
        ordered = ordered.with_columns(time.cum_max().over(schema.USER_ID).alias("__raised"))
        ordered.sink_parquet(staged, engine="streaming")
        final = pl.scan_parquet(staged)
        raised = int(final.select((pl.col("__raised") > time).sum()).collect(engine="streaming").item())
        ordered = final.with_columns(pl.col("__raised").alias(schema.TIMESTAMP)).drop("__raised")
    else:
        ordered = ordered.with_columns(time.fill_null(0))
    ordered.sink_parquet(target, engine="streaming")
    per_user = pl.scan_parquet(target).group_by(schema.USER_ID).len("events")
    most_first = per_user.sort("events", schema.USER_ID, descending=[True, False])
    found = most_first.select(pl.len(), pl.col("events", schema.USER_ID).first()).collect(engine="streaming")
    users, most, busiest = found.row(0)
    return Written(raised, users, most, busiest)


def _sorted(events: pl.LazyFrame, facts: Facts) -> pl.LazyFrame:
    """Sort by user, then by order or time."""
    keys: list[pl.Expr] = [pl.col(schema.USER_ID)]
    order, time = pl.col(schema.ORDER), pl.col(schema.TIMESTAMP)
    if facts.has_order and not facts.no_order:
        keys += [order, time]
    elif facts.has_order:
        full_order = order.is_not_null().all().over(schema.USER_ID)
        full_time = time.is_not_null().all().over(schema.USER_ID) if facts.no_time else pl.lit(True)
        keys += [pl.when(~full_order & full_time).then(time).otherwise(order), time, order]
    else:
        keys.append(time)
    return events.sort([*keys, pl.col(FILE), pl.col(ROW), pl.col(_AT)], nulls_last=True)
