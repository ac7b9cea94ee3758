"""The SQLite file of an embedded store: its layout, and one thread that writes beside one that reads.

Both take whatever waits as one batch, so concurrent calls share one commit (one fsync). WAL keeps readers
going during writes. `synchronous=FULL` syncs the log at every commit: what was acknowledged survives not only
a killed process but also a power cut.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from conf.errors import InputError
from serving.scheduling.batcher import Batcher
from serving.state.contracts.user_state import StateUnavailableError

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
"""Something to do on a connection; what it writes is committed together with the rest of its batch."""

_FORMAT: Final = 6
"""`PRAGMA user_version` of the layout below."""
_EVENTS: Final = """
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
_ITEMS: Final = """
CREATE TABLE item_changes (
  item_id TEXT PRIMARY KEY,
  revision INTEGER NOT NULL UNIQUE,  -- grows with every change of any item
  attributes TEXT                    -- JSON object; null: the item is deleted
) STRICT;
"""
_SHOWN: Final = """
-- The list that an event came from, as far as the sender told.
ALTER TABLE events ADD COLUMN request_id TEXT;
ALTER TABLE events ADD COLUMN list_position INTEGER;  -- from 1
ALTER TABLE events ADD COLUMN surface TEXT;
ALTER TABLE events ADD COLUMN model_version TEXT;
ALTER TABLE events ADD COLUMN device TEXT;
ALTER TABLE events ADD COLUMN hour INTEGER;           -- the shopper's, 0 to 23
-- Impressions outnumber what shoppers do; a history without them must not read past them.
CREATE INDEX deeds_by_time ON events (user, time_us, position) WHERE kind <> 'impression';
"""
_ENCODED: Final = """
-- What an encoder has made of an item's text, kept for whoever meets the same text with the same encoder.
ALTER TABLE item_changes ADD COLUMN text_key BLOB;
ALTER TABLE item_changes ADD COLUMN text_vector BLOB;  -- float32
"""
_DECLARED: Final = """
-- 1: the attributes are only those that differ from the model's item.
ALTER TABLE item_changes ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;
CREATE TABLE attributes (
  name TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  revision INTEGER NOT NULL UNIQUE  -- in one order with those of item_changes
) STRICT;
"""
_FEED: Final = """
-- What has been recorded, in the order of arrival: models count it.
CREATE INDEX deeds_by_arrival ON events (position) WHERE recorded = 1 AND kind <> 'impression';
"""
_LAYERS: Final = (_EVENTS, _ITEMS, _SHOWN, _ENCODED, _DECLARED, _FEED)
"""What each format added to the one before; an older file gets what it lacks."""
_MAX_QUEUE: Final = 10_000


class SqliteFile:
    """An open state file; create and use it inside a running event loop."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            InputError: the file cannot be opened, is not a user state, or belongs to another program version.
        """
        self.path = path
        try:
            with _one_at_a_time(path):
                self.writer = _open(path)
                _lay_out(self.writer, path)  # before anything is written: the file may be somebody else's
                _tune(self.writer)
                self._reader = _open(path)
                _tune(self._reader)
                self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: cannot be used as user state ({error}); set state to another file"
            ) from error
        self.log_is_empty = True
        """Whether the last attempt to empty the log did."""
        self._after_commit: list[Callable[[], object]] = []
        self._writes = Batcher[Work[Any], Any](
            self._write, max_batch=256, max_queue=_MAX_QUEUE, name="state-writer"
        )
        self._reads = Batcher[Work[Any], Any](
            self._read, max_batch=64, max_queue=_MAX_QUEUE, name="state-reader"
        )

    async def write(self, work: Work[Result], deadline: float | None = None) -> Result:
        """Run work on the writing connection and commit it; durable when this returns.

        Raises:
            QueueFullError: too much work waits.
            TimeoutError: the deadline (event loop time) passed before the work began.
            StateUnavailableError: the file failed; nothing of the work has happened.
        """
        result: Result = await self._writes.submit(work, deadline)
        return result

    async def read(self, work: Work[Result], deadline: float | None = None) -> Result:
        """Run work on the reading connection, which sees what has been committed; raises as `write` does."""
        result: Result = await self._reads.submit(work, deadline)
        return result

    def after_commit(self, action: Callable[[], object]) -> None:
        """Run something in the writing thread once the running batch is committed; work calls this."""
        self._after_commit.append(action)

    def empty_log(self) -> None:
        """Move the log into the file and cut it to nothing, so that erased bytes are gone from both.

        SQLite waits for readers as for a lock; `log_is_empty` tells whether it came to an end.
        """
        busy, *_ = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.log_is_empty = busy == 0

    async def close(self) -> None:
        """Finish what waits, move the log into the file and close it."""
        await self._writes.close()
        await self._reads.close()
        self._reader.close()
        self.writer.close()

    def _write(self, jobs: Sequence[Work[Any]]) -> list[Any]:
        """Run jobs in one transaction; a failing one undoes all, and the batcher runs them one by one."""
        db, self._after_commit = self.writer, []
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job(db) for job in jobs]
            db.execute("COMMIT")
        except BaseException as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StateUnavailableError(f"{self.path}: writing user state failed ({error})") from error
            raise
        for action in self._after_commit:
            action()
        return results

    def _read(self, jobs: Sequence[Work[Any]]) -> list[Any]:
        try:
            return [job(self._reader) for job in jobs]
        except sqlite3.Error as error:
            raise StateUnavailableError(f"{self.path}: reading user state failed ({error})") from error


def one(db: sqlite3.Connection, query: str, *values: str | int) -> Any:  # noqa: ANN401 - a column has no static type
    """Return the single value of a query."""
    return db.execute(query, values).fetchone()[0]


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Keep others from opening files of this folder meanwhile: SQLite changes its journal for one only."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # SQLite says better what is wrong
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


def _tune(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON").fetchall()
    db.execute("PRAGMA cache_size = -65536")  # 64 MiB


def _lay_out(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, or check that they are ours and add what a former format lacks."""
    db.execute("BEGIN")  # both as of one moment: another process may be creating the file
    found = one(db, "PRAGMA user_version")
    tables = one(db, "SELECT count(*) FROM sqlite_schema")
    db.execute("COMMIT")
    if found == _FORMAT:
        return
    if found > _FORMAT or found < 0 or (found == 0 and tables):
        raise InputError(
            f"{path}: not a user state of format {_FORMAT}; "
            "set state to another file or use the program that made it"
        )
    try:
        db.executescript(f"BEGIN IMMEDIATE; {''.join(_LAYERS[found:])} PRAGMA user_version = {_FORMAT};")
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if one(db, "PRAGMA user_version") == _FORMAT:
            return  # another process was quicker
        raise
    if found == 0:
        db.execute("INSERT INTO settings VALUES ('salt', ?)", (secrets.token_bytes(16),))
    db.execute("COMMIT")
