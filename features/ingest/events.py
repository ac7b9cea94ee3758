"""The events table: from raw rows to one sorted file, whichever engine computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable, readable
from features.ingest import rejects as why
from features.ingest.columns import EVENT_COLUMNS
from features.ingest.engines.interface import TYPES, Accepted, EventEngine, Staged
from features.ingest.engines.rules import EventRules, rules_of
from features.ingest.event_readings import kind_key
from features.ingest.exclusions import void_orders
from features.ingest.footers import below_events
from features.ingest.id_lists import list_hint
from features.ingest.id_matching import matching_cause
from features.ingest.nested import require_flat
from features.ingest.privacy import Pseudonyms
from features.ingest.samples import ROWS, ColumnSample, samples
from features.ingest.suspicions import UNORDERED, contradicted_order, returned, suspicious_events
from features.values.times import FORMS, GIVE_A_FORMAT

_MAX_KINDS = 127
"""Event kinds are stored as int8 codes."""


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
    pl.DataFrame(schema=TYPES).write_parquet(target)
    usual = dict.fromkeys((config.default_event, *schema.USUAL_KINDS), 1.0)
    named = {k: w for k, w in config.event_weights.items() if k != schema.OTHER_KINDS}
    kinds = rank_kinds(named or usual)
    nothing = pl.DataFrame(schema=why.COLUMNS)
    return EventTable(
        nothing, 0, 0, 0, kinds, dict.fromkeys(kinds, 0), {}, False, False, None, 0, 0, [], [], {}, {}, None
    )


def _check_readable(table: RawTable, staged: Staged) -> dict[str, int]:
    """Return the warnings on unreadable values of optional columns.

    Raises:
        InputError: most values of a column cannot be read.
    """
    found = staged.counted
    optional = [name.removeprefix("bad ") for name in found if name.startswith("bad ")]
    for name in optional:
        given, bad, examples = (found[f"{what} {name}"] for what in ("given", "bad", "e.g."))
        why.check_readable(table.name, name, given, bad, examples)
    return {f"bad {c}": int(found[f"bad {c}"]) for c in optional if found[f"bad {c}"]}


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
    engine: EventEngine,
    target: Path,
    recorded: RawTable | None = None,
) -> EventTable:
    """Validate, weigh, filter and sort the events into one Parquet file.

    Args:
        table: raw rows under contract names, with the required ones.
        item_ids: ids of the catalogue.
        config: kinds, filters and limits.
        pseudonyms: replaces user and session ids before anything is written, or None.
        engine: computes.
        target: the events file to write.
        recorded: raw rows that servers recorded, which count where `table` does not have them.

    Raises:
        InputError: no rows, too many bad rows, or filters that leave nothing.
    """
    require_flat(table, EVENT_COLUMNS, "events")
    rules = rules_of(table, config, pseudonyms, item_ids)
    staged = engine.stage(table, rules)
    warnings = _check_readable(table, staged)
    accepted, rejected = staged.accepted, staged.rejected
    added: dict[str, int] | None = None
    if recorded is not None:
        require_flat(recorded, EVENT_COLUMNS, "events")
        typed = replace(config, timestamp_format=None)
        others = engine.stage(recorded, rules_of(recorded, typed, pseudonyms, item_ids))
        _check_readable(recorded, others)
        accepted, found = accepted.with_recorded(others.accepted)
        added = asdict(found)
        rejected = pl.concat([rejected, others.rejected])
    counts = accepted.kind_counts()
    repeated = added["same_id"] + added["same_content"] if added else 0
    rows = sum(counts.values()) + rejected.height + repeated
    if not rows:
        raise InputError(f"{table.name}: no data rows")
    if rejected.height and table.untyped:
        keys = [c for c in (schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP) if c in table.columns]
        rejected = below_events(rejected, accepted.last_rows(), keys)
    hint, cause = _hints(rejected, item_ids, config)
    why.check_fraction(rejected, rows, config.reject_limit("events"), table.name, hint)
    if not counts:
        raise InputError(f"{table.name}: none of {rows:,} rows is a usable event")
    spelled = _spellings(counts)
    counts = _merged(counts, spelled)
    kinds = _weigh(counts, config, table.name)
    live = accepted.of_kinds(spelled, list(kinds))
    filters: dict[str, dict[str, int]] = {}
    if config.filters.deduplicate or config.filters.max_user_events or config.filters.kcore:
        live, filters = live.filtered(config.filters)
    facts = live.facts()
    events = facts.events
    counted = live.write(facts, target)
    suspicious = [
        *([cause] if cause else []),
        *void_orders(table, rows),
        *suspicious_events(live, events, facts.has_time, counted),
        *returned(live, facts.negative_quantities, events),
    ]
    written = pl.scan_parquet(target)
    final_counts = written.group_by(schema.EVENT).len().collect(engine="streaming")
    by_name = {str(kind): int(count) for kind, count in final_counts.iter_rows()}
    items_kept = None
    if config.filters.kcore:
        items_kept = written.select(pl.col(schema.ITEM_ID).unique()).collect(engine="streaming").to_series()
    return EventTable(
        rejects=rejected.sort("file", "row", maintain_order=True) if rejected.height else rejected,
        rows=rows,
        events=events,
        users=counted.users,
        kinds=kinds,
        kind_counts={k: by_name.get(k, 0) for k in kinds},
        ignored={k: n for k, n in counts.items() if k not in kinds},
        has_time=facts.has_time,
        has_order=facts.has_order,
        time_range=facts.time_range,
        times_filled=facts.no_time if facts.has_time else 0,
        times_raised=counted.raised,
        suspicious=suspicious + contradicted_order(counted.raised, events),
        sample=_sample(table, rules, accepted, sum(counts.values())),
        warnings=warnings,
        filters=filters,
        items_kept=items_kept,
        recorded=added,
    )


def _sample(table: RawTable, rules: EventRules, accepted: Accepted, total: int) -> list[ColumnSample]:
    """Return the first rows, raw and parsed, of the columns that the files have."""
    judged = rules.judge(table.frame.head(ROWS))
    given = [c for c in judged.columns if c in table.columns]
    nulls = accepted.null_counts(given)
    hidden = (schema.USER_ID, "session_id") if rules.pseudonyms else ()
    with readable(table.name):
        opening, first = pl.collect_all(
            [table.frame.head(ROWS).select(given), judged.read.select(judged.values()).select(given)]
        )
    return samples(opening, first, {c: n / total for c, n in nulls.items()}, hidden)
