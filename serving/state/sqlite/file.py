"""The SQLite file of an embedded store: its schema, one writer thread and one reader thread.

Each thread runs queued work as one batch, so concurrent calls share one commit (one fsync). With WAL, readers
do not block on writes. `synchronous=FULL` syncs the write-ahead log at every commit: acknowledged writes
survive a killed process and a power failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from conf.errors import InputError
from features.files.modes import PRIVATE, mend
from serving.scheduling.batcher import Batcher
from serving.state.contracts.user_state import StateUnavailableError

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
"""Work on a connection; its writes are committed together with those of its batch."""

FORMAT: Final = 8
"""`PRAGMA user_version` of the schema below."""
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
_EXPOSURES: Final = """
-- The list that an event came from, as far as the event says.
ALTER TABLE events ADD COLUMN request_id TEXT;
ALTER TABLE events ADD COLUMN list_position INTEGER;  -- from 1
ALTER TABLE events ADD COLUMN surface TEXT;
ALTER TABLE events ADD COLUMN model_version TEXT;
ALTER TABLE events ADD COLUMN device TEXT;
ALTER TABLE events ADD COLUMN hour INTEGER;           -- the shopper's, 0 to 23
-- Impressions outnumber interactions; reading a history without them must not scan them.
CREATE INDEX deeds_by_time ON events (user, time_us, position) WHERE kind <> 'impression';
"""
_TEXT_VECTORS: Final = """
-- Vector of an item's text, for servers with the same encoder.
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
-- Recorded events in order of arrival, which models count.
CREATE INDEX deeds_by_arrival ON events (position) WHERE recorded = 1 AND kind <> 'impression';
"""
_PROPENSITIES: Final = """
ALTER TABLE events ADD COLUMN propensity REAL;        -- that the item was on the page, above 0 to 1
"""
_ARMS: Final = """
ALTER TABLE events ADD COLUMN experiments TEXT;       -- name=arm;name=arm of the list
"""
_MIGRATIONS: Final = (_EVENTS, _ITEMS, _EXPOSURES, _TEXT_VECTORS, _DECLARED, _FEED, _PROPENSITIES, _ARMS)
"""What each format adds to the one before; older files are migrated."""
_MAX_QUEUE: Final = 10_000


class SqliteFile:
    """An open state file; create and use it inside a running event loop."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            InputError: the file cannot be opened, is not a user state, or has another format.
        """
        self.path = path
        try:
            with _folder_lock(path):
                _keep_private(path)
                self.writer = _open(path)
                _migrate(self.writer, path)  # first, before any write: the file may be another program's
                _tune(self.writer)
                self._reader = _open(path)
                _tune(self._reader)
                self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: cannot be used as user state ({error}); set state to another file"
            ) from error
        self.log_is_empty = True
        """Whether the last `empty_log` succeeded."""
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
            QueueFullError: the queue is full.
            TimeoutError: the deadline (event loop time) passed before the work began.
            StateUnavailableError: the file failed; the work was rolled back.
        """
        result: Result = await self._writes.submit(work, deadline)
        return result

    async def read(self, work: Work[Result], deadline: float | None = None) -> Result:
        """Run work on the read-only connection, which sees committed writes; raises as `write` does."""
        result: Result = await self._reads.submit(work, deadline)
        return result

    def after_commit(self, action: Callable[[], object]) -> None:
        """Run an action in the writer thread after the commit of the current batch; called by work."""
        self._after_commit.append(action)

    def empty_log(self) -> None:
        """Checkpoint and truncate the write-ahead log, so that erased bytes are gone from log and file.

        It fails while a reader is active for longer than the busy timeout; see `log_is_empty`.
        """
        busy, *_ = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.log_is_empty = busy == 0

    async def close(self) -> None:
        """Finish queued work, checkpoint the log and close the file."""
        await self._writes.close()
        await self._reads.close()
        self._reader.close()
        self.writer.close()

    def _write(self, jobs: Sequence[Work[Any]]) -> list[Any]:
        """Run jobs in one transaction; a failure rolls back all, and the batcher runs them one by one."""
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
def _folder_lock(path: Path) -> Iterator[None]:
    """Lock the folder against other processes: only one connection may change SQLite's journal mode."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # SQLite reports the error better
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _keep_private(path: Path) -> None:
    """Create a missing file for its owner alone, and mend the modes of one of an earlier release.

    SQLite gives the files beside it (`-wal`, `-shm`) the same mode.
    """
    with contextlib.suppress(OSError):  # SQLite reports the error better
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        mend(file)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)


def _tune(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON").fetchall()
    db.execute("PRAGMA cache_size = -65536")  # 64 MiB


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, or migrate an older format; refuse any other file."""
    db.execute("BEGIN")  # a consistent read: another process may be creating the file
    found = one(db, "PRAGMA user_version")
    tables = one(db, "SELECT count(*) FROM sqlite_schema")
    db.execute("COMMIT")
    if found == FORMAT:
        return
    if found > FORMAT or found < 0 or (found == 0 and tables):
        raise InputError(
            f"{path}: not a user state of format {FORMAT}; "
            "set state to another file or use the program that made it"
        )
    try:
        db.executescript(f"BEGIN IMMEDIATE; {''.join(_MIGRATIONS[found:])} PRAGMA user_version = {FORMAT};")
    except sqlite3.OperationalError:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if one(db, "PRAGMA user_version") == FORMAT:
            return  # another process was quicker
        raise
    if found == 0:
        db.execute("INSERT INTO settings VALUES ('salt', ?)", (secrets.token_bytes(16),))
    db.execute("COMMIT")
