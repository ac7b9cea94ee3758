"""The events table: from raw rows to one sorted file, streamed as far as polars allows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import FILE, ROW, RawTable, readable
from features.ingest import rejects as why
from features.ingest.columns import EVENT_COLUMNS
from features.ingest.event_filters import add_recorded, apply_filters
from features.ingest.event_readings import kind_key, read_events, reject_reason
from features.ingest.exclusions import void_orders
from features.ingest.footers import below_events
from features.ingest.id_lists import list_hint
from features.ingest.id_matching import match_ids, matching_cause
from features.ingest.nested import require_flat
from features.ingest.privacy import Pseudonyms
from features.ingest.samples import ROWS, ColumnSample, samples
from features.ingest.suspicions import UNORDERED, contradicted_order, returned, suspicious_events
from features.values.times import FORMS, GIVE_A_FORMAT

_AT = "__at"
_REASON = "__reason"
_EXAMPLES = 3
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
    """Counts of the ingestion; the rows are in the file that was written."""

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
    """First and last Unix second in the files."""
    times_filled: int
    """Events without a timestamp, which was imputed from a neighbour."""
    times_raised: int
    """Events whose timestamp was before that of an earlier `order`, and was raised to it."""
    suspicious: list[str]
    """Suspicious but readable findings, one line each."""
    sample: list[ColumnSample]
    warnings: dict[str, int]
    filters: dict[str, dict[str, int]]
    items_kept: pl.Series | None
    """Ids with an event, if k-core restricts the catalogue to them."""
    recorded: dict[str, int] | None = None
    """Counts of recorded events and of those among them that were in the files, too."""


def rank_kinds(weights: dict[str, float]) -> dict[str, float]:
    """Sort kinds with a weight above 0, strongest first, then by name."""
    return {k: w for k, w in sorted(weights.items(), key=lambda kw: (-kw[1], kw[0])) if w > 0}


def write_no_events(config: DataConfig, target: Path) -> EventTable:
    """Write an empty events file: a catalogue without history."""
    pl.DataFrame(schema=_TYPES).write_parquet(target)
    usual = dict.fromkeys((config.default_event, *schema.USUAL_KINDS), 1.0)
    named = {k: w for k, w in config.event_weights.items() if k != schema.OTHER_KINDS}
    kinds = rank_kinds(named or usual)
    nothing = pl.DataFrame(schema=why.COLUMNS)
    return EventTable(
        nothing, 0, 0, 0, kinds, dict.fromkeys(kinds, 0), {}, False, False, None, 0, 0, [], [], {}, {}, None
    )


def _stage(
    table: RawTable, item_ids: pl.Series, config: DataConfig, pseudonyms: Pseudonyms | None, folder: Path
) -> tuple[pl.DataFrame, dict[str, int], pl.DataFrame]:
    """Parse the raw files once into `accepted.parquet`.

    Returns:
        The rejected rows, the warnings, and the first parsed rows.

    Raises:
        InputError: most values of an optional column cannot be read.
    """
    readings = read_events(table, config, pseudonyms)
    if config.match_ids:
        matched = match_ids(readings.frame, "__item_id", item_ids, config.match_ids)
        readings = replace(readings, frame=matched)
    known = pl.LazyFrame({"__item_id": item_ids}).with_columns(pl.lit(True).alias("__known"))
    frame = readings.frame.join(known, on="__item_id", how="left", maintain_order="left")
    frame = frame.with_columns(reject_reason(config, readings).alias(_REASON))
    good = frame.filter(pl.col(_REASON).is_null())
    bad = frame.filter(pl.col(_REASON).is_not_null())
    existing = frame.collect_schema()
    names = [*_TYPES, *(c for c in schema.OPTIONAL_EVENT_COLUMNS if f"__{c}" in existing)]
    keys = {schema.USER_ID: pl.col("__user_id"), **{c: pl.col(c) for c in why.KEYS if c in existing}}
    optional = [c for c in readings.checked if c not in _TYPES]
    counts: list[pl.Expr] = [pl.len().alias("rows")]
    for name in optional:
        given, unreadable = pl.col(f"__given_{name}"), pl.col(f"__{name}").is_null()
        counts += [
            given.sum().alias(f"given {name}"),
            (given & unreadable).sum().alias(f"bad {name}"),
            pl.col(name).filter(given & unreadable).head(_EXAMPLES).implode().alias(f"e.g. {name}"),
        ]
    with readable(table.name):
        _, rejected, counted = pl.collect_all(
            [
                good.select(FILE, ROW, *(pl.col(f"__{c}").alias(c) for c in names)).sink_parquet(
                    folder / "accepted.parquet", lazy=True
                ),
                bad.select(why.reject_columns("events", pl.col(_REASON), keys)),
                good.select(counts),
            ],
            engine="streaming",
        )
    found = counted.row(0, named=True)
    for name in optional:
        why.check_readable(
            table.name, name, found[f"given {name}"], found[f"bad {name}"], found[f"e.g. {name}"]
        )
    warnings = {f"bad {c}": int(found[f"bad {c}"]) for c in optional if found[f"bad {c}"]}
    first = readings.frame.head(ROWS).select(pl.col(f"__{c}").alias(c) for c in names).collect()
    return rejected, warnings, first


def _spellings(counts: dict[str, int]) -> dict[str, str]:
    """Return kind -> most frequent spelling, where kinds differ in case and separators alone."""
    best: dict[str, str] = {}
    for kind in sorted(counts, key=lambda k: -counts[k]):
        best.setdefault(kind_key(kind), kind)
    return {kind: best[kind_key(kind)] for kind in counts if best[kind_key(kind)] != kind}


def _merged(counts: dict[str, int], spelled: dict[str, str]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for kind, count in counts.items():
        name = spelled.get(kind, kind)
        merged[name] = merged.get(name, 0) + count
    return merged


def _weigh(counts: dict[str, int], config: DataConfig, name: str) -> dict[str, float]:
    """Return kind -> weight of the kinds in the dataset."""
    if len(counts) > _MAX_KINDS:
        raise InputError(
            f"{name}: {len(counts):,} different event kinds, e.g. '{next(iter(counts))}'; "
            f"at most {_MAX_KINDS} are possible. Is data.columns.events.event the right column?"
        )
    weights = dict(config.event_weights)
    usual = {k: float(k != schema.IMPRESSION) for k in counts}
    others = weights.pop(schema.OTHER_KINDS, None)
    if others is not None:
        usual = dict.fromkeys(counts, others)
    kinds = rank_kinds(weights if others is None and weights else usual | weights)
    if not kinds or not any(counts.get(k) for k in kinds):
        seen = ", ".join(f"{k} ({n:,})" for k, n in counts.items())
        raise InputError(f"{name}: every event has a kind of weight 0: {seen}; set data.event_weights")
    return kinds


def _sorted(events: pl.LazyFrame, times_missing: bool, orders_missing: bool, any_order: bool) -> pl.LazyFrame:
    """Sort by user, then by order or time.

    A user whose events all have an `order` is sorted by it; one with all timestamps by those; a mixture by
    `order`, rows without one last. Ties keep the order of the files, and that of a list's values in one row.
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
    return events.sort([*keys, pl.col(FILE), pl.col(ROW), pl.col(_AT)], nulls_last=True)


def _below(rejected: pl.DataFrame, accepted: pl.LazyFrame, table: RawTable) -> pl.DataFrame:
    """Mark rejected rows that are totals and notes below a table."""
    last = accepted.group_by(pl.col(FILE).cast(pl.String).alias("file")).agg(
        pl.col(ROW).cast(pl.Int64).max().alias("last")
    )
    keys = [c for c in (schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP) if c in table.columns]
    return below_events(rejected, last.collect(engine="streaming"), keys)


def _hints(rejected: pl.DataFrame, item_ids: pl.Series, config: DataConfig) -> tuple[str, str]:
    """Return a hint for the message on too many rejects, and the cause of ids that do not match."""
    hint = cause = ""
    unknown = rejected.filter(pl.col(why.REASON) == why.UNKNOWN_ITEM)
    if unknown.height:
        known = ", ".join(f"'{i}'" for i in item_ids.head(3))
        ids = unknown[schema.ITEM_ID]
        cause = list_hint(ids, item_ids, config) or matching_cause(ids, item_ids)
        hint = f" ({cause})" if cause else f" (ids in the items table look like {known})"
    if why.BAD_TIMESTAMP in rejected[why.REASON]:
        hint += f" (accepted: {FORMS}; {GIVE_A_FORMAT})"
    if why.BAD_ORDER in rejected[why.REASON]:
        hint += f" (numbers of orders? {UNORDERED} leaves the column out)"
    return hint, cause


def ingest_events(
    table: RawTable,
    item_ids: pl.Series,
    config: DataConfig,
    pseudonyms: Pseudonyms | None,
    folder: Path,
    target: Path,
    recorded: RawTable | None = None,
) -> EventTable:
    """Validate, weigh, filter and sort the events into one Parquet file.

    Args:
        table: raw rows under contract names, with the required ones.
        item_ids: ids of the catalogue.
        config: kinds, filters and limits.
        pseudonyms: replaces user and session ids before anything is written, or None.
        folder: existing folder for intermediate files.
        target: the events file to write.
        recorded: raw rows that servers recorded, which count where `table` does not have them.

    Raises:
        InputError: no rows, too many bad rows, or filters that leave nothing.
    """
    require_flat(table, EVENT_COLUMNS, "events")
    rejected, warnings, first = _stage(table, item_ids, config, pseudonyms, folder)
    staged = folder / "accepted.parquet"
    added: dict[str, int] | None = None
    if recorded is not None:
        require_flat(recorded, EVENT_COLUMNS, "events")
        apart, joined = folder / "recorded", folder / "joined.parquet"
        apart.mkdir()
        typed = replace(config, timestamp_format=None)
        others = _stage(recorded, item_ids, typed, pseudonyms, apart)[0]
        added = asdict(add_recorded(staged, apart / staged.name, joined))
        rejected, staged = pl.concat([rejected, others]), joined
    accepted = pl.scan_parquet(staged, row_index_name=_AT)
    by_kind = accepted.group_by(schema.EVENT).len().sort(schema.EVENT).collect(engine="streaming")
    counts = {str(kind): int(count) for kind, count in by_kind.iter_rows()}
    repeated = added["same_id"] + added["same_content"] if added else 0
    rows = sum(counts.values()) + rejected.height + repeated
    if not rows:
        raise InputError(f"{table.name}: no data rows")
    if rejected.height and table.untyped:
        rejected = _below(rejected, accepted, table)
    hint, cause = _hints(rejected, item_ids, config)
    why.check_fraction(rejected, rows, config.reject_limit("events"), table.name, hint)
    if not counts:
        raise InputError(f"{table.name}: none of {rows:,} rows is a usable event")
    spelled = _spellings(counts)
    counts = _merged(counts, spelled)
    kinds = _weigh(counts, config, table.name)
    if spelled:
        accepted = accepted.with_columns(pl.col(schema.EVENT).replace(list(spelled), list(spelled.values())))
    live = accepted.filter(pl.col(schema.EVENT).is_in(list(kinds)))
    given = [c for c in first.columns if c in table.columns]
    nulls = accepted.select(pl.col(given).null_count()).collect(engine="streaming").row(0, named=True)
    hidden = (schema.USER_ID, "session_id") if pseudonyms else ()
    with readable(table.name):
        opening = table.frame.head(ROWS).select(given).collect()
    empty = {c: n / sum(counts.values()) for c, n in nulls.items()}
    sample = samples(opening, first.select(given), empty, hidden)
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
        (pl.col("quantity") < 0 if "quantity" in given else pl.lit(False)).sum().alias("returns"),
    )
    fact = facts.collect(engine="streaming").row(0, named=True)
    events = int(fact["events"])
    suspicious = [
        *([cause] if cause else []),
        *void_orders(table, rows),
        *suspicious_events(live, events, fact["no_time"] < events),
        *returned(live, int(fact["returns"]), events),
    ]
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
        suspicious=suspicious + contradicted_order(raised, events),
        sample=sample,
        warnings=warnings,
        filters=filters,
        items_kept=items_kept,
        recorded=added,
    )
