"""The events table: from raw rows to one sorted file, as a stream as far as polars allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features import rejects as why
from features import schema
from features.cleaning import number, present, shortened, string_id, unix_seconds, whole_number
from features.columns import require_columns
from features.filters import apply_filters
from features.privacy import Pseudonyms
from features.readers import FILE, MALFORMED, ROW, RawTable, readable

_AT = "__at"
_REASON = "__reason"
_SHORT_USER, _SHORT_ITEM = "__short_user", "__short_item"
_NUMBERS = ("value", "quantity")
OTHER_KINDS = "*"
"""In `data.event_weights`: every kind that is not named."""
_MAX_KINDS = 127
"""Event kinds are stored as int8 codes."""
_TYPES: dict[str, type[pl.DataType]] = {
    schema.USER_ID: pl.String,
    schema.ITEM_ID: pl.String,
    schema.EVENT: pl.String,
    schema.TIMESTAMP: pl.Int64,
    schema.ORDER: pl.Int64,
}


@dataclass(frozen=True)
class EventTable:
    """What became of the events; the rows themselves are in the file that was written."""

    rejects: pl.DataFrame
    rows: int
    """Rows read."""
    events: int
    """Rows written."""
    users: int
    kinds: dict[str, float]
    """Kind -> weight, strongest first, then by name; only weights above 0."""
    kind_counts: dict[str, int]
    ignored: dict[str, int]
    """Events of kinds with weight 0, by kind; they are not in the file."""
    has_time: bool
    has_order: bool
    time_range: tuple[int, int] | None
    """First and last Unix second that the files state."""
    times_filled: int
    """Events without a timestamp that took a neighbour's."""
    times_raised: int
    """Events whose timestamp lay before that of an earlier `order`, and was raised to it."""
    warnings: dict[str, int]
    filters: dict[str, dict[str, int]]
    items_kept: pl.Series | None
    """Ids with an event, when k-core asks for a catalogue of nothing else."""


def rank_kinds(weights: dict[str, float]) -> dict[str, float]:
    """Sort kinds with a weight above 0, strongest first, then by name."""
    return {k: w for k, w in sorted(weights.items(), key=lambda kw: (-kw[1], kw[0])) if w > 0}


def write_no_events(config: DataConfig, target: Path) -> EventTable:
    """Write an empty events file: a catalogue without history."""
    pl.DataFrame(schema=_TYPES).write_parquet(target)
    usual = dict.fromkeys((config.default_event, *schema.USUAL_KINDS), 1.0)
    named = {k: w for k, w in config.event_weights.items() if k != OTHER_KINDS}
    kinds = rank_kinds(named or usual)
    nothing = pl.DataFrame(schema=why.COLUMNS)
    return EventTable(
        nothing, 0, 0, 0, kinds, dict.fromkeys(kinds, 0), {}, False, False, None, 0, 0, {}, {}, None
    )


def _readings(
    table: RawTable, config: DataConfig, pseudonyms: Pseudonyms | None
) -> tuple[pl.LazyFrame, list[str]]:
    """Read every contract column as its type beside the raw keys; name the columns that need a check."""
    types = table.frame.collect_schema()
    user = string_id(schema.USER_ID, types[schema.USER_ID])
    session = string_id("session_id", types["session_id"]) if "session_id" in types else None
    if pseudonyms:
        user = pseudonyms.expression(user)
        session = None if session is None else pseudonyms.expression(session)
    kind = pl.lit(config.default_event)
    if schema.EVENT in types:
        kind = string_id(schema.EVENT, types[schema.EVENT])
        if config.kinds:
            kind = kind.replace(list(config.kinds), list(config.kinds.values()))
    read: dict[str, pl.Expr] = {
        schema.USER_ID: user,
        schema.ITEM_ID: string_id(schema.ITEM_ID, types[schema.ITEM_ID]),
        schema.EVENT: kind,
        schema.TIMESTAMP: pl.lit(None, dtype=pl.Int64),
        schema.ORDER: pl.lit(None, dtype=pl.Int64),
    }
    checked = [c for c in (schema.TIMESTAMP, schema.ORDER, *_NUMBERS, "list_position") if c in types]
    for name in checked:
        reading = {schema.TIMESTAMP: unix_seconds, **dict.fromkeys(_NUMBERS, number)}.get(name, whole_number)
        read[name] = reading(name, types[name])
    if session is not None:
        read["session_id"] = session
    if "event_id" in types:
        read["event_id"] = string_id("event_id", types["event_id"])
    columns = [e.alias(f"__{name}") for name, e in read.items()]
    columns += [
        shortened(schema.USER_ID, types[schema.USER_ID]).alias(_SHORT_USER),
        shortened(schema.ITEM_ID, types[schema.ITEM_ID]).alias(_SHORT_ITEM),
    ]
    columns += [present(name, types[name]).alias(f"__given_{name}") for name in checked]
    raw = [c for c in why.KEYS if c in types and c != schema.USER_ID]
    spoiled = pl.col(MALFORMED) if MALFORMED in types else pl.lit(None, dtype=pl.String)
    frame = table.frame.select(FILE, ROW, spoiled.alias(MALFORMED), *raw, *columns)
    if pseudonyms:
        # The fields of a malformed row may have slipped: a raw user id may stand in any of them.
        frame = frame.with_columns(pl.when(pl.col(MALFORMED).is_null()).then(c).alias(c) for c in raw)
    return frame, checked


def _reason(config: DataConfig, checked: list[str]) -> pl.Expr:
    """Return why an event is rejected, or null; the first that applies."""
    tests: list[tuple[pl.Expr, pl.Expr]] = [
        (pl.col(MALFORMED).is_not_null(), why.malformed(pl.col(MALFORMED))),
        (pl.col("__user_id").is_null(), pl.lit(why.MISSING_USER)),
        (pl.col("__item_id").is_null(), pl.lit(why.MISSING_ITEM)),
        (pl.col(_SHORT_USER), pl.lit(why.SHORTENED_USER)),
        (pl.col(_SHORT_ITEM), pl.lit(why.SHORTENED_ITEM)),
        (pl.col("__event").is_null(), pl.lit(why.MISSING_EVENT)),
    ]
    if config.event_weights and OTHER_KINDS not in config.event_weights:
        kind = pl.col("__event")
        tests.append((~kind.is_in(list(config.event_weights)), why.unknown_kind(kind)))
    for name, text in ((schema.TIMESTAMP, why.BAD_TIMESTAMP), (schema.ORDER, why.BAD_ORDER)):
        if name in checked:
            tests.append((pl.col(f"__given_{name}") & pl.col(f"__{name}").is_null(), pl.lit(text)))
    neither = pl.col("__timestamp").is_null() & pl.col("__order").is_null()
    tests.append((neither, pl.lit(why.NO_POSITION)))
    tests.append((pl.col("__known").is_null(), pl.lit(why.UNKNOWN_ITEM)))
    return pl.coalesce(pl.when(test).then(text) for test, text in tests)


def _stage(
    table: RawTable, item_ids: pl.Series, config: DataConfig, pseudonyms: Pseudonyms | None, folder: Path
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Read the raw files once into `accepted.parquet`; return the rejected rows and the warnings."""
    frame, checked = _readings(table, config, pseudonyms)
    known = pl.LazyFrame({"__item_id": item_ids}).with_columns(pl.lit(True).alias("__known"))
    frame = frame.join(known, on="__item_id", how="left", maintain_order="left")
    frame = frame.with_columns(_reason(config, checked).alias(_REASON))
    good = frame.filter(pl.col(_REASON).is_null())
    bad = frame.filter(pl.col(_REASON).is_not_null())
    names = [*_TYPES, *(c for c in schema.OPTIONAL_EVENT_COLUMNS if f"__{c}" in frame.collect_schema())]
    raw = [c for c in why.KEYS if c in frame.collect_schema()]
    keys = {schema.USER_ID: pl.col("__user_id"), **{c: pl.col(c) for c in raw}}
    optional = [c for c in checked if c not in _TYPES]
    unreadable = [
        (pl.col(f"__given_{c}") & pl.col(f"__{c}").is_null()).sum().alias(f"bad {c}") for c in optional
    ]
    with readable(table.name):
        _, rejected, counted = pl.collect_all(
            [
                good.select(FILE, ROW, *(pl.col(f"__{c}").alias(c) for c in names)).sink_parquet(
                    folder / "accepted.parquet", lazy=True
                ),
                bad.select(why.reject_columns("events", pl.col(_REASON), keys)),
                good.select(unreadable or [pl.len().alias("rows")]),
            ],
            engine="streaming",
        )
    found = counted.row(0, named=True) if optional else {}
    return rejected, {reason: int(count) for reason, count in found.items() if count}


def _weigh(counts: dict[str, int], config: DataConfig, name: str) -> dict[str, float]:
    """Return kind -> weight of the kinds that go into the dataset."""
    if len(counts) > _MAX_KINDS:
        raise InputError(
            f"{name}: {len(counts):,} different event kinds, e.g. '{next(iter(counts))}'; "
            f"at most {_MAX_KINDS} are possible. Is data.columns.events.event the right column?"
        )
    weights = dict(config.event_weights)
    usual = {k: float(k != schema.IMPRESSION) for k in counts}
    others = weights.pop(OTHER_KINDS, None)
    if others is not None:
        usual = dict.fromkeys(counts, others)
    kinds = rank_kinds(weights if others is None and weights else usual | weights)
    if not kinds or not any(counts.get(k) for k in kinds):
        seen = ", ".join(f"{k} ({n:,})" for k, n in counts.items())
        raise InputError(f"{name}: every event has a kind of weight 0: {seen}; set data.event_weights")
    return kinds


def _sorted(events: pl.LazyFrame, times_missing: bool, orders_missing: bool, any_order: bool) -> pl.LazyFrame:
    """Sort by user, then as the user's events allow.

    A user whose events all have an `order` is sorted by it; one with all timestamps by those; a mixture by
    `order`, rows without one last. Ties keep the order of the files.
    """
    keys: list[pl.Expr] = [pl.col(schema.USER_ID)]
    order, time = pl.col(schema.ORDER), pl.col(schema.TIMESTAMP)
    if any_order and not orders_missing:
        keys += [order, time]
    elif any_order:
        full_order = order.is_not_null().all().over(schema.USER_ID)
        full_time = time.is_not_null().all().over(schema.USER_ID) if times_missing else pl.lit(True)
        keys += [pl.when(~full_order & full_time).then(time).otherwise(order), time, order]
    else:
        keys.append(time)
    return events.sort([*keys, pl.col(FILE), pl.col(ROW)], nulls_last=True)


def ingest_events(
    table: RawTable,
    item_ids: pl.Series,
    config: DataConfig,
    pseudonyms: Pseudonyms | None,
    folder: Path,
    target: Path,
) -> EventTable:
    """Validate, weigh, filter and sort the events into one Parquet file.

    Args:
        table: raw rows under contract names.
        item_ids: ids of the catalogue.
        config: kinds, filters and limits.
        pseudonyms: replaces user and session ids before anything is written, or None.
        folder: existing folder for intermediate files.
        target: the events file to write.

    Raises:
        InputError: missing columns, no rows, too many bad rows, or filters that leave nothing.
    """
    require_columns(table, (schema.USER_ID, schema.ITEM_ID), "events")
    if not {schema.TIMESTAMP, schema.ORDER} & set(table.columns):
        require_columns(table, (schema.TIMESTAMP,), "events")
    rejected, warnings = _stage(table, item_ids, config, pseudonyms, folder)
    accepted = pl.scan_parquet(folder / "accepted.parquet", row_index_name=_AT)
    by_kind = accepted.group_by(schema.EVENT).len().sort(schema.EVENT).collect(engine="streaming")
    counts = {str(kind): int(count) for kind, count in by_kind.iter_rows()}
    rows = sum(counts.values()) + rejected.height
    if not rows:
        raise InputError(f"{table.name}: no data rows")
    unknown = rejected.filter(pl.col(why.REASON) == why.UNKNOWN_ITEM).height
    known = ", ".join(f"'{i}'" for i in item_ids.head(3))
    hint = f" (ids in the items table look like {known})" if unknown else ""
    why.check_fraction(rejected, rows, config.max_reject_fraction, table.name, hint)
    if not counts:
        raise InputError(f"{table.name}: none of {rows:,} rows is a usable event")
    kinds = _weigh(counts, config, table.name)
    live = accepted.filter(pl.col(schema.EVENT).is_in(list(kinds)))
    filters: dict[str, dict[str, int]] = {}
    if config.filters.deduplicate or config.filters.max_user_events or config.filters.kcore:
        keys = live.select(_AT, *_TYPES).collect(engine="streaming")
        result = apply_filters(keys.drop(_AT), config.filters)
        filters = result.counts
        kept = pl.LazyFrame({_AT: keys[_AT].gather(result.keep)})
        live = live.join(kept, on=_AT, how="semi", maintain_order="left")
    time, order = pl.col(schema.TIMESTAMP), pl.col(schema.ORDER)
    facts = live.select(
        pl.len().alias("events"),
        pl.col(schema.USER_ID).n_unique().alias("users"),
        time.null_count().alias("no_time"),
        order.null_count().alias("no_order"),
        time.min().alias("first"),
        time.max().alias("last"),
    )
    fact = facts.collect(engine="streaming").row(0, named=True)
    events = int(fact["events"])
    has_time, has_order = fact["no_time"] < events, fact["no_order"] < events
    ordered = _sorted(live, fact["no_time"] > 0, fact["no_order"] > 0, has_order).drop(_AT, FILE, ROW)
    raised = 0
    if has_time and has_order:
        filled = time.forward_fill().backward_fill().over(schema.USER_ID).fill_null(fact["first"])
        ordered = ordered.with_columns(filled.alias(schema.TIMESTAMP))
        ordered = ordered.with_columns(time.cum_max().over(schema.USER_ID).alias("__raised"))
        staged = folder / "sorted.parquet"
        ordered.sink_parquet(staged, engine="streaming")
        final = pl.scan_parquet(staged)
        raised = int(final.select((pl.col("__raised") > time).sum()).collect(engine="streaming").item())
        ordered = final.with_columns(pl.col("__raised").alias(schema.TIMESTAMP)).drop("__raised")
    else:
        ordered = ordered.with_columns(time.fill_null(0))
    ordered.sink_parquet(target, engine="streaming")
    written = pl.scan_parquet(target)
    final_counts = written.group_by(schema.EVENT).len().collect(engine="streaming")
    by_name = {str(kind): int(count) for kind, count in final_counts.iter_rows()}
    items_kept = None
    if config.filters.kcore:
        items_kept = written.select(pl.col(schema.ITEM_ID).unique()).collect(engine="streaming").to_series()
    return EventTable(
        rejects=rejected.sort("file", "row") if rejected.height else rejected,
        rows=rows,
        events=events,
        users=int(fact["users"]),
        kinds=kinds,
        kind_counts={k: by_name.get(k, 0) for k in kinds},
        ignored={k: n for k, n in counts.items() if k not in kinds},
        has_time=has_time,
        has_order=has_order,
        time_range=(int(fact["first"]), int(fact["last"])) if has_time else None,
        times_filled=int(fact["no_time"]) if has_time else 0,
        times_raised=raised,
        warnings=warnings,
        filters=filters,
        items_kept=items_kept,
    )
