"""Month files of the ledger: merging new events into them, and removing users.

`<folder>/2026-11.parquet` has the events of that month (UTC), sorted by time, user and event id, with the
columns of `shelfwise export events`. An event lies in the month of its time alone, and a file is replaced by
one rename: whatever point a merge is killed at, every event is in the ledger once, and the next merge does
what is left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.data import schema

EVENT_ID: Final = "event_id"
_KEY: Final = [schema.USER_ID, EVENT_ID]
"""An event id is unique within its user."""
_SORTED: Final = [schema.TIMESTAMP, schema.USER_ID, EVENT_ID]
_NAME: Final = re.compile(r"\d{4}-\d{2}\.parquet")
_MONTH: Final = "%Y-%m"
_PRIVATE: Final = 0o600
"""The files hold what shoppers did."""
_TEMPORARY: Final = ".tmp"


@dataclass(frozen=True)
class Merged:
    """What a merge changed."""

    new: int = 0
    """Events that the ledger did not have."""
    known: int = 0
    """Events of the export that the ledger had."""
    erased: int = 0
    """Events of erased users that were taken out."""
    erased_users: frozenset[str] = frozenset()
    """The users of these."""
    rewritten: int = 0
    """Month files that were written."""


def month_files(folder: Path) -> list[Path]:
    """Return the files of the ledger, oldest month first."""
    return sorted(path for path in folder.glob("*.parquet") if _NAME.fullmatch(path.name))


def users_of(files: Iterable[Path]) -> list[str]:
    """Return the distinct users of some event files, in order of the ids."""
    found = [pl.scan_parquet(path).select(schema.USER_ID).unique() for path in files]
    if not found:
        return []
    users = pl.concat(found).unique().sort(schema.USER_ID).collect(engine="streaming")
    return users[schema.USER_ID].to_list()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of an interrupted run, which may hold users erased since."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Return the hidden name under which a file is written before it replaces `path`."""
    return path.with_name(f".{path.name}{_TEMPORARY}")


def merge(folder: Path, export: Path, erased: Collection[str], erased_since: Collection[str]) -> Merged:
    """Merge exported events into the month files; files without a change stay as they are.

    Memory is that of the new events of one month, and of the keys of one month of the ledger.

    Args:
        folder: of the ledger.
        export: events that the state holds, as `shelfwise export events` writes them.
        erased: users erased before the export began: the ledger keeps of them what the export has, which
            happened after the erasure.
        erased_since: users erased while it was written: nothing of them stays.
    """
    gone = [*erased, *erased_since]
    source = pl.scan_parquet(export).filter(~pl.col(schema.USER_ID).is_in(list(erased_since)))
    months = set(_months(source))
    merged = Merged()
    for month in sorted(months | {path.stem for path in month_files(folder)}):
        path = folder / f"{month}.parquet"
        new = source.filter(pl.col(schema.TIMESTAMP).dt.strftime(_MONTH) == month)
        change = _merge_month(path, new if month in months else source.clear(), gone)
        merged = Merged(
            merged.new + change.new,
            merged.known + change.known,
            merged.erased + change.erased,
            merged.erased_users | change.erased_users,
            merged.rewritten + change.rewritten,
        )
    return merged


def _months(events: pl.LazyFrame) -> list[str]:
    month = pl.col(schema.TIMESTAMP).dt.strftime(_MONTH)
    return events.select(month.unique()).collect(engine="streaming").to_series().to_list()


def _merge_month(path: Path, exported: pl.LazyFrame, gone: list[str]) -> Merged:
    """Merge one month; `exported` has only events of it."""
    if not path.is_file():
        new = exported.unique(_KEY, keep="any").sort(_SORTED).collect(engine="streaming")
        if new.is_empty():
            return Merged()
        replace_month(path, new.lazy())
        return Merged(new=new.height, rewritten=1)
    old = pl.scan_parquet(path)
    lost = _lost(old, exported, gone)
    staying = old.join(lost.lazy(), on=_KEY, how="anti", maintain_order="left") if lost.height else old
    after, held, new = pl.collect_all(
        [
            staying.select(pl.len()),
            exported.select(pl.len()),
            exported.join(staying.select(_KEY), on=_KEY, how="anti").unique(_KEY, keep="any").sort(_SORTED),
        ],
        engine="streaming",
    )
    if new.height or lost.height:
        names = [*new.columns, *(c for c in old.collect_schema() if c not in new.columns)]
        parts = [
            pl.concat([part, other.clear()], how="diagonal_relaxed").select(names)
            for part, other in ((staying, new.lazy()), (new.lazy(), staying))
        ]
        merged = parts[0].merge_sorted(parts[1], _SORTED)
        if after.item() + new.height:
            replace_month(path, merged)
        else:
            path.unlink()
            _sync(path.parent)
    users = frozenset(lost[schema.USER_ID].to_list())
    changed = bool(new.height or lost.height)
    return Merged(new.height, int(held.item()) - new.height, lost.height, users, int(changed))


def _lost(old: pl.LazyFrame, exported: pl.LazyFrame, gone: list[str]) -> pl.DataFrame:
    """Return user and id of the events of erased users that a month has and the export does not."""
    theirs = pl.col(schema.USER_ID).is_in(gone)
    found = old.filter(theirs).select(_KEY).join(exported.filter(theirs).select(_KEY), on=_KEY, how="anti")
    return found.collect(engine="streaming")


def replace_month(path: Path, events: pl.LazyFrame) -> None:
    """Write a file completely and synced before it takes the place of `path`."""
    hidden = temporary(path)
    hidden.touch(_PRIVATE)
    try:
        events.sink_parquet(hidden, compression="zstd", engine="streaming")
        _sync(hidden)
        hidden.replace(path)
        _sync(path.parent)
    finally:
        hidden.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
