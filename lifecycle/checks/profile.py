"""What is kept of an accepted run's data, so that the next one can be compared with it.

No user is in it. An item is its id, a hash of its text, and its attributes of few bytes.
"""

from __future__ import annotations

import hashlib
import json
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import polars as pl

from conf.errors import InputError
from features.data import schema
from features.data.pipeline_step import write_atomically
from lifecycle.checks.check import Check
from lifecycle.checks.tables import DAY, Tables

FORMAT: Final = 2
PROFILE_FILE: Final = "profile.json"
_ITEMS_FILE: Final = "profile-items.parquet"
TEXT_HASH: Final = "__text_hash"
_SHORT: Final = 3
"""Characters below which a text says nothing."""
_SUSPICIOUS: Final = (
    r"[\x00-\x08\x0b\x0e-\x1f\x80-\x9f\ufffd\ue000-\uf8ff]"  # control characters, private use, U+FFFD
    r"|[\u00c2\u00c3\u00e2][\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u20ac\u2122]"  # UTF-8 as cp1252
)
_FOREIGN: Final = r"[^\x00-\u024f\u1e00-\u1eff\u2000-\u2bff\s]"
"""Letters beyond the Latin script."""
_RUNS: Final = 30
"""Accepted runs whose values are kept."""
_PER_CATEGORY: Final = 10
"""Items for each distinct value that an attribute has at least if it is compared as categories."""


@dataclass(frozen=True)
class Texts:
    """Shares of the items, and the mean length of their texts."""

    empty: float
    """Empty or shorter than three characters."""
    odd: float
    """With characters of a text that was read in a wrong encoding."""
    foreign: float
    """Mostly of letters beyond the Latin script."""
    length: float
    """Mean number of characters."""


@dataclass(frozen=True)
class Profile:
    """The data of one run."""

    content_hash: str
    events: int
    users: int
    newest: int
    """Time of the newest event that was not in the future, Unix seconds."""
    rows_read: dict[str, int]
    """Table -> rows, rejected ones included."""
    rejects: dict[str, dict[str, int]]
    """Table -> reason -> rejected rows."""
    days: dict[str, int]
    """Day (UTC) -> events."""
    repeats: dict[str, int]
    """Day (UTC) -> events equal to an earlier row in user, item, kind and time; only days that have some."""
    texts: Texts
    text_settings: list[Any]
    """What else decides how a text is rendered: fields and longest length."""
    missing: dict[str, float]
    """Attribute -> share of the items without a value."""
    categories: dict[str, dict[str, int]]
    """Attribute of few distinct values -> value -> items."""
    items: pl.DataFrame
    """`item_id`, `TEXT_HASH`, and the attributes that are numbers."""
    values: dict[str, list[float]] = field(default_factory=dict)
    """Check -> its values in the latest accepted runs, oldest first."""


def profile_of(
    tables: Tables,
    previous: Profile | None = None,
    checks: Sequence[Check] = (),
    now: float | None = None,
) -> Profile:
    """Summarise a dataset.

    Args:
        tables: the dataset.
        previous: profile of the accepted run before, whose values are taken over.
        checks: of this run; their values are added.
        now: Unix seconds; None takes the clock.
    """
    info, items, events = tables.info, tables.items, tables.events
    attributes: dict[str, str] = info["attributes"]
    numbers = [name for name, kind in attributes.items() if kind == "number" and name in items.columns]
    keys = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
    days = _by_day(events)
    distinct = _by_day(events.select(*keys, DAY).unique())
    values = {name: list(past) for name, past in (previous.values if previous else {}).items()}
    for check in checks:
        if check.value is not None:
            values[check.name] = [*values.get(check.name, []), round(check.value, 6)][-_RUNS:]
    return Profile(
        content_hash=info["content_hash"],
        events=events.height,
        users=int(info["users"]),
        newest=tables.newest(clock.time() if now is None else now),
        rows_read=dict(info["rows_read"]),
        rejects={table: dict(counts) for table, counts in info["rejects"].items()},
        days=days,
        repeats={day: count - distinct[day] for day, count in days.items() if count > distinct[day]},
        texts=_texts(items[schema.TEXT], int(info["items_without_text"])),
        text_settings=[info["text_fields"], info["text_fallback_fields"], info["max_text_chars"]],
        missing={name: _missing(items[name]) for name in attributes if name in items.columns},
        categories=_categories(items, attributes),
        items=items.select(
            schema.ITEM_ID,
            text_hashes(items[schema.TEXT]),
            *(pl.col(name).cast(pl.Float64) for name in numbers),
        ),
        values=values,
    )


def _by_day(events: pl.DataFrame) -> dict[str, int]:
    return dict(events.group_by(DAY).len().sort(DAY).iter_rows())


def text_hashes(texts: pl.Series) -> pl.Series:
    """Return a hash of every text that is the same in every release of every library, `TEXT_HASH`."""
    hashes = [hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts.fill_null("")]
    return pl.Series(TEXT_HASH, hashes, dtype=pl.String)


def too_short(text: pl.Expr) -> pl.Expr:
    """Return whether a text is empty or says nothing."""
    return text.str.strip_chars().str.len_chars() < _SHORT


def odd(text: pl.Expr) -> pl.Expr:
    """Return whether a text has characters of a wrong encoding."""
    return text.str.contains(_SUSPICIOUS)


def foreign(text: pl.Expr) -> pl.Expr:
    """Return whether most letters of a text are beyond the Latin script."""
    return 2 * text.str.count_matches(_FOREIGN) > text.str.count_matches(r"\p{L}")


def _texts(texts: pl.Series, without: int) -> Texts:
    """Summarise texts; `without` of them are made of an id, because the item has no text of its own."""
    text = pl.col(texts.name)
    shares = texts.to_frame().select(
        too_short(text).mean().alias("empty"),
        odd(text).mean().alias("odd"),
        foreign(text).mean().alias("foreign"),
        text.str.len_chars().mean().alias("length"),
    )
    found = {name: float(value or 0.0) for name, value in shares.row(0, named=True).items()}
    return Texts(**{**found, "empty": max(found["empty"], without / max(len(texts), 1))})


def _missing(column: pl.Series) -> float:
    empty = column.is_null()
    if column.dtype == pl.String:
        empty = empty | (column.fill_null("") == "")
    elif isinstance(column.dtype, pl.List):
        empty = empty | (column.list.len().fill_null(0) == 0)
    return float(empty.mean() or 0.0)  # type: ignore[arg-type]


def _categories(items: pl.DataFrame, attributes: Mapping[str, str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, kind in attributes.items():
        if kind != "string" or name not in items.columns:
            continue
        counts = value_counts(items[name])
        if 1 < len(counts) <= items.height / _PER_CATEGORY:
            found[name] = counts
    return found


def value_counts(column: pl.Series) -> dict[str, int]:
    """Return how many items have each value of an attribute, missing ones left out."""
    counts = column.drop_nulls().value_counts().sort(column.name)
    return {str(value): int(count) for value, count in counts.iter_rows()}


def save_profile(profile: Profile, folder: Path) -> None:
    """Write a profile into a folder, each file atomically; profile.json is the last one and small."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{_ITEMS_FILE}.tmp"
    profile.items.write_parquet(hidden, compression="zstd")
    hidden.replace(folder / _ITEMS_FILE)
    content = {"format": FORMAT, **{f.name: getattr(profile, f.name) for f in fields(profile)}}
    content |= {"texts": asdict(profile.texts)}
    del content["items"]
    write_atomically(folder / PROFILE_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load_profile(folder: Path) -> Profile | None:
    """Read a profile that `save_profile` wrote; None if there is none, or one of another release's format.

    Raises:
        InputError: it is damaged.
    """
    path = folder / PROFILE_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        texts = Texts(**content.pop("texts"))
        return Profile(**content, texts=texts, items=pl.read_parquet(folder / _ITEMS_FILE))
    except (ValueError, KeyError, TypeError, OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{path}: not a profile of an accepted run ({str(error).partition(chr(10))[0]}); remove the file "
            "to accept the next run without a comparison"
        ) from error
