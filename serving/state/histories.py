"""The histories file that training publishes for serving: who is in it, and removing users from it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from conf.errors import InputError
from features.data import schema
from features.files.file_replacement import file_replacement, remove_leftovers
from serving.state.contracts.user_state import StateUnavailableError, StoredEvent
from serving.state.histories_reader import blocks_of, events_of_user

_LOCK: Final = threading.Lock()
"""Serialises rewrites of the file, which would overwrite each other."""


def history_of(path: Path, user_id: str) -> list[StoredEvent]:
    """Return the events of one user in a histories file, in order of time; none where the file is missing.

    Raises:
        InputError: the file is not a histories table, or has no value in a row of this user.
    """
    if not path.is_file():
        return []
    rows = events_of_user(path, user_id).drop("position")
    return [StoredEvent(user, item, kind, time, name) for user, name, time, item, kind in rows.iter_rows()]


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


def users_of(path: Path) -> Iterator[list[str]]:
    """Yield the users of a histories file, some at a time; those of two blocks may be the same.

    Raises:
        InputError: the file is not a histories table.
    """
    for block in blocks_of(path, [schema.USER_ID]):
        yield block[schema.USER_ID].unique().drop_nulls().to_list()


def remove_users(path: Path, user_ids: Collection[str]) -> None:
    """Atomically rewrite a histories file without some users; do nothing if it has none of them.

    A file published meanwhile is not overwritten, but read again. Temporary files of killed processes are
    removed, because they may contain the users.

    Raises:
        StateUnavailableError: the file cannot be read or replaced.
    """
    with _LOCK:
        try:
            remove_leftovers(path)
            while path.is_file() and not _rewritten(path, user_ids):
                pass
        except (pl.exceptions.PolarsError, OSError) as error:
            first_line = str(error).partition("\n")[0]
            raise StateUnavailableError(f"{path}: users cannot be taken out ({first_line})") from error


def _rewritten(path: Path, user_ids: Collection[str]) -> bool:
    """Rewrite the file without the users; return False if it was replaced in the meantime."""
    ids = list(user_ids)
    with path.open("rb") as file:  # one handle, as the file may be replaced meanwhile
        before = os.fstat(file.fileno())
        table = pl.scan_parquet(file)
        removed = pl.col(schema.USER_ID).cast(pl.String).is_in(ids)
        if not table.select(removed.any()).collect(engine="streaming").item():
            return True
        with file_replacement(path) as temporary:
            table.filter(~removed).sink_parquet(temporary, engine="streaming")
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                return False
            temporary.replace(path)
    return True
