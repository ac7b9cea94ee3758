"""User state in one SQLite file: the embedded store of a single server.

One thread writes, another reads; both take whatever waits as one batch, so concurrent calls share one commit
(one fsync). WAL keeps readers going during writes. `synchronous=FULL` syncs the log at every commit: what
RecordEvents acknowledged survives not only a killed process but also a power cut.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from conf.errors import InputError
from features import schema
from serving.batching import Batcher
from serving.user_state import (
    MICROS,
    ImportResult,
    NewEvent,
    Outcome,
    PastEvent,
    StateStats,
    StateUnavailable,
)

Work = Callable[[sqlite3.Connection], Any]
"""Something to do on a connection; what it writes is committed together with the rest of its batch."""

_FORMAT: Final = 1
"""`PRAGMA user_version` of the layout below."""
_LAYOUT: Final = """
CREATE TABLE users (id INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE events (
  user INTEGER NOT NULL REFERENCES users (id),
  event_id TEXT NOT NULL,
  time_us INTEGER NOT NULL,   -- when it happened, microseconds since 1970
  position INTEGER NOT NULL,  -- order among equal times: the file's order, then nanoseconds of arrival
  item_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  recorded INTEGER NOT NULL,  -- 1: by RecordEvents, 0: by an import
  PRIMARY KEY (user, event_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_time ON events (user, time_us, position);
CREATE INDEX recorded_events ON events (user, time_us, item_id, kind) WHERE recorded = 1;
CREATE TABLE deleted_users (user_hash BLOB PRIMARY KEY, deleted_us INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE imports (sha256 TEXT PRIMARY KEY, rows INTEGER NOT NULL, time_us INTEGER NOT NULL) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
"""
_IMPORTED: Final = "import:"
"""Prefix of event ids made by imports; the service's begin with `client:` or `content:`."""
_IMPORT_SLICE: Final = 100_000
"""Rows handed to SQLite at a time."""
_MAX_QUEUE: Final = 10_000


class SqliteUserState:
    """Implements `serving.user_state.UserState`; create and use it inside a running event loop."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            InputError: the file cannot be opened, is not a user state, or belongs to another program version.
        """
        try:
            self._writer = _connect(path)
            _lay_out(self._writer, path)
            self._salt: bytes = _one(self._writer, "SELECT value FROM settings WHERE name = 'salt'")
            self._sizes = _Sizes(
                _one(self._writer, "SELECT count(*) FROM users"),
                _one(self._writer, "SELECT count(*) FROM events"),
            )
            self._reader = _connect(path)
            self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: cannot be used as user state ({error}); set state to another file"
            ) from error
        self._change = _Sizes()
        self._last_position = 0
        self._last_record_us: int | None = None
        self._writes = Batcher[Work, Any](
            self._write, max_batch=256, max_queue=_MAX_QUEUE, name="state-writer"
        )
        self._reads = Batcher[Work, Any](self._read, max_batch=64, max_queue=_MAX_QUEUE, name="state-reader")

    async def record(self, events: Sequence[NewEvent], deadline: float | None = None) -> list[Outcome]:
        """Store a batch; see UserState."""
        outcomes: list[Outcome] = await self._writes.submit(lambda db: self._record(db, events), deadline)
        return outcomes

    async def history(
        self, user_id: str, limit: int, before_us: int | None = None, deadline: float | None = None
    ) -> list[PastEvent]:
        """Return a user's latest events, oldest first; see UserState."""
        past: list[PastEvent] = await self._reads.submit(
            lambda db: _history(db, user_id, limit, before_us), deadline
        )
        return past

    async def delete_user(self, user_id: str) -> int:
        """Erase a user; see UserState. The bytes are overwritten in the file and its log is emptied."""
        deleted: int = await self._writes.submit(lambda db: self._delete(db, user_id))
        return deleted

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file; see UserState."""
        result: ImportResult = await self._writes.submit(lambda db: self._import(db, path))
        return result

    async def item_counts(self) -> dict[str, int]:
        """Return how many stored events each item has; reads every event."""
        counts: dict[str, int] = await self._reads.submit(
            lambda db: dict(db.execute("SELECT item_id, COUNT(*) FROM events GROUP BY item_id").fetchall())
        )
        return counts

    async def stats(self) -> StateStats:
        """Return size and freshness."""
        return StateStats(self._sizes.users, self._sizes.events, self._last_record_us)

    async def close(self) -> None:
        """Finish what waits, move the log into the file and close it."""
        await self._writes.close()
        await self._reads.close()
        self._reader.close()
        self._writer.close()

    def _write(self, jobs: Sequence[Work]) -> list[Any]:
        """Run jobs in one transaction; a failing one undoes all, and the batcher runs them one by one."""
        db, self._change = self._writer, _Sizes()
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job(db) for job in jobs]
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StateUnavailable(f"writing user state failed: {error}") from error
            raise
        self._sizes.users += self._change.users
        self._sizes.events += self._change.events
        if self._change.recorded:
            self._last_record_us = time.time_ns() // 1000
        if self._change.erased:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return results

    def _read(self, jobs: Sequence[Work]) -> list[Any]:
        try:
            return [job(self._reader) for job in jobs]
        except sqlite3.Error as error:
            raise StateUnavailable(f"reading user state failed: {error}") from error

    def _record(self, db: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Outcome]:
        deleted = {user: self._deleted_us(db, user) for user in {event.user_id for event in events}}
        outcomes = []
        for event in events:
            if event.time_us <= deleted[event.user_id]:
                outcomes.append(Outcome.user_deleted)
                continue
            self._last_position = max(self._last_position + 1, time.time_ns())
            self._add_users(db, [(event.user_id,)])
            row = (
                event.user_id,
                event.event_id,
                event.time_us,
                self._last_position,
                event.item_id,
                event.kind,
            )
            added = db.execute(_ADD_EVENT, row).rowcount
            self._change.events += added
            self._change.recorded |= bool(added)
            outcomes.append(Outcome.new if added else Outcome.duplicate)
        return outcomes

    def _add_users(self, db: sqlite3.Connection, users: list[tuple[str]]) -> None:
        self._change.users += db.executemany(_ADD_USER, users).rowcount

    def _delete(self, db: sqlite3.Connection, user_id: str) -> int:
        events = db.execute(f"DELETE FROM events WHERE user = {_USER}", (user_id,)).rowcount
        self._change.users -= db.execute("DELETE FROM users WHERE user_id = ?", (user_id,)).rowcount
        self._change.events -= events
        self._change.erased = True
        db.execute(
            "INSERT OR REPLACE INTO deleted_users VALUES (?, ?)",
            (self._hash(user_id), time.time_ns() // 1000),
        )
        return events

    def _deleted_us(self, db: sqlite3.Connection, user_id: str) -> int:
        """Return when a user was deleted; a time before every event for the others."""
        row = db.execute(
            "SELECT deleted_us FROM deleted_users WHERE user_hash = ?", (self._hash(user_id),)
        ).fetchone()
        return -1 if row is None else int(row[0])

    def _hash(self, user_id: str) -> bytes:
        return hashlib.blake2b(user_id.encode(), key=self._salt, digest_size=16).digest()

    def _import(self, db: sqlite3.Connection, path: Path) -> ImportResult:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if db.execute("SELECT 1 FROM imports WHERE sha256 = ?", (sha256,)).fetchone():
            return ImportResult(already_imported=True, rows=0, new=0)
        frame = read_histories(path)
        users = frame["user_id"].unique(maintain_order=True).to_list()
        if _one(db, "SELECT count(*) FROM deleted_users"):
            deleted = [user for user in users if self._deleted_us(db, user) >= 0]
            frame = frame.filter(~pl.col("user_id").is_in(deleted))
            users = frame["user_id"].unique(maintain_order=True).to_list()
        self._add_users(db, [(user,) for user in users])
        added = 0
        for part in frame.iter_slices(_IMPORT_SLICE):
            added += db.executemany(_IMPORT_EVENT, part.iter_rows()).rowcount
        self._change.events += added
        now_us = time.time_ns() // 1000
        db.execute("INSERT INTO imports VALUES (?, ?, ?)", (sha256, frame.height, now_us))
        return ImportResult(already_imported=False, rows=frame.height, new=added)


_USER: Final = "(SELECT id FROM users WHERE user_id = ?1)"
_ADD_USER: Final = "INSERT INTO users (user_id) VALUES (?) ON CONFLICT DO NOTHING"
_ADD_EVENT: Final = f"""
INSERT INTO events (user, event_id, time_us, position, item_id, kind, recorded)
VALUES ({_USER}, ?2, ?3, ?4, ?5, ?6, 1) ON CONFLICT DO NOTHING
"""
# A file made from recorded events tells them again, to the second: those are known already.
_IMPORT_EVENT: Final = f"""
INSERT INTO events (user, event_id, time_us, position, item_id, kind, recorded)
SELECT users.id, ?2, ?3, ?4, ?5, ?6, 0 FROM users WHERE users.user_id = ?1 AND NOT EXISTS (
  SELECT 1 FROM events AS known WHERE known.recorded = 1 AND known.user = users.id
  AND known.time_us BETWEEN ?3 AND ?3 + {MICROS - 1} AND known.item_id = ?5 AND known.kind = ?6
) ON CONFLICT DO NOTHING
"""
_HISTORY: Final = f"""
SELECT item_id, kind, time_us FROM events WHERE user = {_USER} AND time_us < ?2
ORDER BY time_us DESC, position DESC LIMIT ?3
"""


def read_histories(path: Path) -> pl.DataFrame:
    """Read a histories file as rows of user_id, event_id, time_us, position, item_id and kind.

    The event id is made from the content and a running number among equal contents, so that a later
    file that tells the same events (perhaps in another order) does not store them twice.

    Raises:
        InputError: no such table, a missing column, a wrong type, or a missing value.
    """
    wanted = {
        schema.USER_ID: pl.String,
        schema.ITEM_ID: pl.String,
        schema.EVENT: pl.String,
        schema.TIMESTAMP: pl.Int64,
        schema.ORDER: pl.Int64,
    }
    try:
        frame = pl.read_parquet(path)
        missing = [name for name in wanted if name not in frame.columns]
        if missing:
            raise InputError(f"{path}: no column '{missing[0]}'; publish the bundle again")
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in wanted.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a histories table ({first_line}); publish the bundle again") from error
    for name in wanted:
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0)
            raise InputError(f"{path}: row {row}: '{name}' is missing; publish the bundle again")
    content = (schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP)
    repeat = pl.int_range(pl.len()).over(schema.USER_ID, *content)
    # Sorted, because neighbours in the file's tree are written many times faster than scattered rows.
    return frame.sort(schema.USER_ID, schema.TIMESTAMP, schema.ORDER).select(
        pl.col(schema.USER_ID),
        (pl.lit(_IMPORTED) + pl.concat_str(*content, repeat, separator="\x1f")).alias("event_id"),
        (pl.col(schema.TIMESTAMP) * MICROS).alias("time_us"),
        pl.col(schema.ORDER).alias("position"),
        pl.col(schema.ITEM_ID),
        pl.col(schema.EVENT).alias("kind"),
    )


@dataclass
class _Sizes:
    """Counts kept beside the file, because counting millions of rows would delay reads."""

    users: int = 0
    events: int = 0
    recorded: bool = False
    """RecordEvents brought something new."""
    erased: bool = False
    """Something was deleted whose bytes must leave the log, too."""


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON").fetchall()
    db.execute("PRAGMA cache_size = -65536")  # 64 MiB
    return db


def _lay_out(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, or check that they are ours."""
    found = _one(db, "PRAGMA user_version")
    tables = _one(db, "SELECT count(*) FROM sqlite_schema")
    if found == _FORMAT:
        return
    if found or tables:
        raise InputError(
            f"{path}: not a user state of format {_FORMAT}; "
            "set state to another file or use the program that made it"
        )
    db.executescript(f"BEGIN IMMEDIATE; {_LAYOUT} PRAGMA user_version = {_FORMAT};")
    db.execute("INSERT INTO settings VALUES ('salt', ?)", (secrets.token_bytes(16),))
    db.execute("COMMIT")


def _one(db: sqlite3.Connection, query: str) -> Any:  # noqa: ANN401 - a column has no static type
    """Return the single value of a query."""
    return db.execute(query).fetchone()[0]


def _history(db: sqlite3.Connection, user_id: str, limit: int, before_us: int | None) -> list[PastEvent]:
    rows = db.execute(_HISTORY, (user_id, 2**63 - 1 if before_us is None else before_us, limit)).fetchall()
    return [PastEvent(*row) for row in reversed(rows)]
