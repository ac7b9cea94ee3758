"""The histories file that training publishes for serving: reading it, and removing users from it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

import polars as pl

from conf.errors import InputError
from features.data import schema
from features.files.modes import create_private
from serving.state.contracts.user_state import IMPORTED, MICROS, StateUnavailableError, StoredEvent

_LOCK: Final = threading.Lock()
"""Serialises rewrites of the file, which would overwrite each other."""


def read_histories(path: Path) -> pl.DataFrame:
    """Read a histories file as rows of user_id, event_id, time_us, position, item_id and kind.

    The event id consists of the content and a running number among equal contents, so that importing a later
    file with the same events, in any order, is idempotent.

    Raises:
        InputError: no such table, a missing column, a wrong type, or a missing value.
    """
    return _rows(path)


def history_of(path: Path, user_id: str) -> list[StoredEvent]:
    """Return the events of one user in a histories file, in order of time; none where the file is missing.

    Raises:
        InputError: as `read_histories`.
    """
    if not path.is_file():
        return []
    rows = _rows(path, user_id).drop("position")
    return [StoredEvent(user, item, kind, time, name) for user, name, time, item, kind in rows.iter_rows()]


def _read(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read the file through one handle: Polars opens a path twice, and it may be replaced in between."""
    with path.open("rb") as file:
        return pl.read_parquet(file, columns=columns)


def _rows(path: Path, user_id: str | None = None) -> pl.DataFrame:
    """Return the rows of a file, or those of one user; see `read_histories`."""
    columns = {
        schema.USER_ID: pl.String,
        schema.ITEM_ID: pl.String,
        schema.EVENT: pl.String,
        schema.TIMESTAMP: pl.Int64,
        schema.ORDER: pl.Int64,
    }
    try:
        frame = _read(path)
        if user_id is not None and schema.USER_ID in frame.columns:
            frame = frame.filter(pl.col(schema.USER_ID).cast(pl.String) == user_id)
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            raise InputError(f"{path}: no column '{missing[0]}'; publish the bundle again")
        frame = frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a histories table ({first_line}); publish the bundle again") from error
    for name in columns:
        if frame[name].null_count():
            row = int(frame[name].is_null().arg_max() or 0)
            raise InputError(f"{path}: row {row}: '{name}' is missing; publish the bundle again")
    content = (schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP)
    repeat = pl.int_range(pl.len()).over(schema.USER_ID, *content)
    # Sorted, because sequential inserts into the B-tree are many times faster than random ones.
    return frame.sort(schema.USER_ID, schema.TIMESTAMP, schema.ORDER).select(
        pl.col(schema.USER_ID),
        (pl.lit(IMPORTED) + pl.concat_str(*content, repeat, separator="\x1f")).alias("event_id"),
        (pl.col(schema.TIMESTAMP) * MICROS).alias("time_us"),
        pl.col(schema.ORDER).alias("position"),
        pl.col(schema.ITEM_ID),
        pl.col(schema.EVENT).alias("kind"),
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        fix = "; give it to this user: chown" if isinstance(error, PermissionError) else ""
        raise InputError(f"{path}: cannot be read ({error.strerror}){fix}") from error


def users_of(path: Path) -> list[str]:
    """Return the users of a histories file.

    Raises:
        InputError: the file is not a histories table.
    """
    try:
        frame = _read(path, [schema.USER_ID])
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a histories table ({first_line}); publish the bundle again") from error
    users: list[str] = frame[schema.USER_ID].unique().drop_nulls().cast(pl.String).to_list()
    return users


def remove_users(path: Path, user_ids: Collection[str]) -> None:
    """Atomically rewrite a histories file without some users; do nothing if it has none of them.

    A file published meanwhile is not overwritten, but read again. Temporary files of killed processes are
    removed, because they may contain the users.

    Raises:
        StateUnavailableError: the file cannot be read or replaced.
    """
    with _LOCK:
        try:
            _remove_leftovers(path)
            while path.is_file() and not _rewritten(path, user_ids):
                pass
        except (pl.exceptions.PolarsError, OSError) as error:
            first_line = str(error).partition("\n")[0]
            raise StateUnavailableError(f"{path}: users cannot be taken out ({first_line})") from error


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of processes that have ended, and those of an earlier process with this id."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.suffixes[-2][1:]
        if not pid.isdecimal() or int(pid) == os.getpid() or not _runs(int(pid)):
            leftover.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it belongs to another user, but runs
    return True


def _rewritten(path: Path, user_ids: Collection[str]) -> bool:
    """Rewrite the file without the users; return False if it was replaced in the meantime."""
    before = path.stat()
    frame = _read(path)
    removed = frame[schema.USER_ID].is_in(list(user_ids))
    if not removed.any():
        return True
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        create_private(temporary)
        frame.filter(~removed).write_parquet(temporary)
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            return False
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
