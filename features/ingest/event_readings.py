"""Parsed columns of the events, and why a row is rejected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from conf.tables import DataConfig, Decimal
from features.data import schema
from features.files.readers import FILE, MALFORMED, ROW, RawTable
from features.ingest import rejects as why
from features.ingest.cleaning import (
    NOT_AVAILABLE,
    IdStyle,
    id_style,
    null_placeholder_columns,
    placeholders,
    placeholders_to_null,
    present,
    shortened,
    styled_id,
    whole_number,
)
from features.ingest.privacy import Pseudonyms
from features.values.numbers import number, sign_of
from features.values.times import USUAL, TimeStyle, plausible, plausible_time, time_style, unix_seconds

NUMBERS = ("value", "quantity")
OPTIONAL = (*NUMBERS, "list_position")
"""Columns whose unreadable values become null; in other columns they reject the row."""
IDENTITIES = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, "session_id", "event_id")
"""Columns that are read as ids."""
_IDS = (schema.USER_ID, schema.ITEM_ID)
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class Readings:
    """The events under contract names: `__NAME` is the parsed column, `NAME` the raw one."""

    frame: pl.LazyFrame
    checked: list[str]
    """Columns with a `__given_NAME`, whether a row has a value."""
    plausible_times: bool
    """Whether most times are plausible; the others are then rejected."""


def kind_key(kind: str) -> str:
    """Return the comparison key of a kind: `Add to cart`, `add-to-cart` and `ADD_TO_CART` are equal."""
    return _SEPARATORS.sub("", kind).lower()


def kind_keys(kinds: pl.Expr) -> pl.Expr:
    """Return `kind_key` of a column."""
    return kinds.str.replace_all(_SEPARATORS.pattern, "").str.to_lowercase()


def _folded(kind: pl.Expr, names: Sequence[str]) -> pl.Expr:
    """Replace kinds by those of `names` that are equal but for case and separators."""
    known = {kind_key(name): name for name in reversed(names)}

    def fold(values: pl.Series) -> pl.Series:
        other = {k: known.get(kind_key(k), k) for k in values.unique().drop_nulls()}
        changed = {k: name for k, name in other.items() if k != name}
        return values.replace(list(changed), list(changed.values())) if changed else values

    return kind.map_batches(fold, return_dtype=pl.String, is_elementwise=True)


@dataclass(frozen=True)
class EventStyles:
    """How the values of a table are written, inferred from its columns as a whole."""

    ids: dict[str, IdStyle]
    time: TimeStyle
    signs: dict[str, Decimal]
    """Column of numbers -> decimal sign of ambiguous values."""
    plausible_times: bool
    """Whether most times are plausible; the others are then rejected."""


def _cleaned(frame: pl.LazyFrame, config: DataConfig) -> tuple[pl.LazyFrame, list[str], list[str]]:
    """Return the rows without placeholders in columns other than ids, and these columns.

    Also returns the words for a missing value of a user, a session, a time or a number: there NA is no word,
    while an item, a kind or a brand may be called NA.
    """
    types = frame.collect_schema()
    missing = placeholders(config.missing)
    unnamed = missing if config.missing is not None else [*missing, NOT_AVAILABLE]
    known = [c for c in (schema.TIMESTAMP, schema.ORDER, *OPTIONAL) if c in types]
    return frame.with_columns(null_placeholder_columns(types, known, unnamed)), known, unnamed


def infer_styles(table: RawTable, config: DataConfig) -> EventStyles:
    """Infer how the values of a table are written.

    Raises:
        InputError: dates with an ambiguous order of day and month.
    """
    types = table.frame.collect_schema()
    clean, known, _ = _cleaned(table.frame, config)
    time, refusing = USUAL, False
    if schema.TIMESTAMP in known:
        time = time_style(clean, schema.TIMESTAMP, config.timestamp_format, table.name)
        refusing = plausible(clean, unix_seconds(schema.TIMESTAMP, types[schema.TIMESTAMP], time))
    return EventStyles(
        {name: id_style(table.frame, name) for name in IDENTITIES if name in types},
        time,
        {name: sign_of(clean, name, config.decimal) for name in NUMBERS if name in types},
        refusing,
    )


def read_events(
    frame: pl.LazyFrame, config: DataConfig, styles: EventStyles, pseudonyms: Pseudonyms | None
) -> Readings:
    """Parse every contract column, keeping the raw keys.

    Args:
        frame: raw rows with `FILE` and `ROW`: a table, or a part of one.
        config: the settings.
        styles: of the whole table.
        pseudonyms: replaces user and session ids, or None.
    """
    types = frame.collect_schema()
    missing = placeholders(config.missing)
    clean, known, unnamed = _cleaned(frame, config)

    def identity(name: str, words: Sequence[str] = missing) -> pl.Expr:
        return placeholders_to_null(styled_id(name, types[name], styles.ids[name]), words)

    user = identity(schema.USER_ID, unnamed)
    session = identity("session_id", unnamed) if "session_id" in types else None
    length = user.str.len_chars()
    if pseudonyms:
        user = pseudonyms.expression(user)
        session = None if session is None else pseudonyms.expression(session)
    kind = pl.lit(config.default_event)
    if schema.EVENT in types:
        kind = identity(schema.EVENT)
        if config.kinds:
            kind = kind.replace(list(config.kinds), list(config.kinds.values()))
        named = (*config.event_weights, *config.kinds.values(), *schema.USUAL_KINDS, schema.IMPRESSION)
        kind = _folded(kind, named)
    read: dict[str, pl.Expr] = {
        schema.USER_ID: user,
        schema.ITEM_ID: identity(schema.ITEM_ID),
        schema.EVENT: kind,
        schema.TIMESTAMP: pl.lit(None, dtype=pl.Int64),
        schema.ORDER: pl.lit(None, dtype=pl.Int64),
    }
    for name in known:
        if name == schema.TIMESTAMP:
            read[name] = unix_seconds(name, types[name], styles.time)
        elif name in NUMBERS:
            read[name] = number(name, types[name], styles.signs[name])
        else:
            read[name] = whole_number(name, types[name])
    if session is not None:
        read["session_id"] = session
    if "event_id" in types:
        read["event_id"] = identity("event_id")
    columns = [e.alias(f"__{name}") for name, e in read.items()]
    columns += [shortened(c, types[c]).alias(f"__short_{c}") for c in _IDS]
    columns += [(length > schema.MAX_ID_CHARS).alias(f"__long_{schema.USER_ID}")]
    columns += [present(name, types[name]).alias(f"__given_{name}") for name in known]
    raw = [c for c in (*why.KEYS, *OPTIONAL) if c in types and c != schema.USER_ID]
    spoiled = pl.col(MALFORMED) if MALFORMED in types else pl.lit(None, dtype=pl.String)
    rows = clean.select(FILE, ROW, spoiled.alias(MALFORMED), *raw, *columns)
    if pseudonyms:
        # The fields of a malformed row may be shifted: any of them may hold a raw user id.
        rows = rows.with_columns(pl.when(pl.col(MALFORMED).is_null()).then(c).alias(c) for c in raw)
    return Readings(rows, known, styles.plausible_times)


def reject_reason(config: DataConfig, readings: Readings) -> pl.Expr:
    """Return why an event is rejected, or null; the first that applies."""
    user, item, time = pl.col("__user_id"), pl.col("__item_id"), pl.col("__timestamp")
    tests: list[tuple[pl.Expr, pl.Expr]] = [
        (pl.col(MALFORMED).is_not_null(), why.malformed(pl.col(MALFORMED))),
        (user.is_null(), pl.lit(why.MISSING_USER)),
        (item.is_null(), pl.lit(why.MISSING_ITEM)),
        (pl.col("__short_user_id"), pl.lit(why.SHORTENED_USER)),
        (pl.col("__short_item_id"), pl.lit(why.SHORTENED_ITEM)),
        (pl.col("__long_user_id"), pl.lit(why.LONG_USER)),
        (item.str.len_chars() > schema.MAX_ID_CHARS, pl.lit(why.LONG_ITEM)),
        (pl.col("__event").is_null(), pl.lit(why.MISSING_EVENT)),
    ]
    if config.event_weights and schema.OTHER_KINDS not in config.event_weights:
        kind = pl.col("__event")
        tests.append((~kind.is_in(list(config.event_weights)), why.unknown_kind(kind)))
    for name, text in ((schema.TIMESTAMP, why.BAD_TIMESTAMP), (schema.ORDER, why.BAD_ORDER)):
        if name in readings.checked:
            tests.append((pl.col(f"__given_{name}") & pl.col(f"__{name}").is_null(), pl.lit(text)))
    if readings.plausible_times:
        tests.append((~plausible_time(time), pl.lit(why.IMPLAUSIBLE_TIME)))
    tests.append((time.is_null() & pl.col("__order").is_null(), pl.lit(why.NO_POSITION)))
    tests.append((pl.col("__known").is_null(), pl.lit(why.UNKNOWN_ITEM)))
    return pl.coalesce(pl.when(test).then(text) for test, text in tests)
