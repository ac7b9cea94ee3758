"""Copies of a state file while servers use it, and their way back.

`VACUUM INTO` copies one snapshot of the database in a single read, which concurrent writers neither delay
nor restart, unlike SQLite's backup API; the copy has no free pages, so no bytes of erased users.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from conf.errors import InputError
from features.files.modes import create_private
from serving.state.copies import Counts, Erasures, erasure_name, erasures_since
from serving.state.sqlite.file import one

_BESIDE: Final = ("-wal", "-shm", "-journal")


def copy_state(source: Path, target: Path) -> Counts:
    """Write a copy of a state file, synced, and return what it holds; servers may run meanwhile.

    Raises:
        InputError: the file is no user state, is damaged, or there is no room for the copy.
    """
    if not source.is_file():
        raise InputError(f"{source}: no such file, so there is nothing to back up; set state or artifacts")
    create_private(target)
    try:
        with closing(_connect(source)) as db:
            db.execute("VACUUM INTO ?", (str(target),))
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return counts_of(target)
    except sqlite3.Error as error:
        raise InputError(f"{source}: cannot be copied to {target.parent} ({error})") from error


def counts_of(path: Path) -> Counts:
    """Return what a state file holds.

    Raises:
        InputError: it is no user state.
    """
    try:
        with closing(_connect(path)) as db:
            tables = ("users", "events", "item_changes", "deleted_users")
            counts = [int(one(db, f"SELECT count(*) FROM {table}")) for table in tables]
            return Counts(counts[0], counts[1], counts[2], counts[3], int(one(db, "PRAGMA user_version")))
    except sqlite3.Error as error:
        raise InputError(f"{path}: not a user state ({error})") from error


def erasures_of(path: Path, copy: Path) -> Erasures:
    """Return the erasures of a state file that a copy of it does not have yet; none if the salts differ.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        with closing(_connect(path)) as db, closing(_connect(copy)) as copied:
            if _salt(db) != _salt(copied):
                return {}
            return erasures_since(_erasures(db), _erasures(copied))
    except (sqlite3.Error, TypeError) as error:
        raise InputError(
            f"{path}: its erasures cannot be read ({error}); move it away, and set erasures=FILE if you can"
        ) from error


def erase_users(path: Path, erasures: Erasures) -> int:
    """Delete users from a state file that no server uses, and remember them as deleted; return their number.

    Raises:
        InputError: the file cannot be changed.
    """
    try:
        with closing(_connect(path)) as db:
            db.execute("PRAGMA secure_delete = ON").fetchall()
            salt = _salt(db)
            users = db.execute("SELECT id, user_id FROM users").fetchall()
            gone = [(number,) for number, user in users if erasure_name(user, salt) in erasures]
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM events WHERE user = ?", gone)
            db.executemany("DELETE FROM users WHERE id = ?", gone)
            db.executemany(
                "INSERT INTO deleted_users VALUES (?, ?) ON CONFLICT DO UPDATE SET "
                "deleted_us = max(deleted_us, excluded.deleted_us)",
                [(bytes.fromhex(user), deleted_us) for user, deleted_us in erasures.items()],
            )
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise InputError(f"{path}: erasures cannot be repeated in it ({error})") from error
    return len(gone)


def replace_state(prepared: Path, target: Path) -> None:
    """Atomically put a prepared file in the place of a state file; a crash leaves the former or the new one.

    The former file leaves the write-ahead mode first: its log must not be taken for one of the new file.

    Raises:
        InputError: a server uses the former file.
    """
    if target.exists():
        try:
            with closing(_connect(target)) as db:
                db.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise InputError(
                    f"{target}: a server uses it; stop the server before it is replaced"
                ) from error
            # a damaged file: its log is of no use to anybody
    for end in _BESIDE:
        with suppress(FileNotFoundError):
            target.with_name(target.name + end).unlink()
    prepared.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=1.0, isolation_level=None)


def _erasures(db: sqlite3.Connection) -> Erasures:
    found = db.execute("SELECT user_hash, deleted_us FROM deleted_users")
    return {user.hex(): deleted_us for user, deleted_us in found}


def _salt(db: sqlite3.Connection) -> bytes:
    salt: bytes = one(db, "SELECT value FROM settings WHERE name = 'salt'")
    return salt
