"""One run at a time: a lock on a file of the work directory, which the kernel releases with its process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from conf.errors import InputError


class LockedError(Exception):
    """Another run holds the lock; the message says which."""


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a work directory; it is never waited for.

    `flock` belongs to the open file, so a killed process releases it, whatever the file says: process, host
    and time in it are for people.

    Args:
        path: the lock's file, which stays.

    Raises:
        LockedError: another process holds it.
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"work_dir: cannot write {path} ({error.strerror}); set work_dir to a folder that this user can "
            "write to"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"another run holds {path}{_holder(path)}") from error
        handle.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now}, handle)
        handle.write("\n")
        handle.flush()
        yield


def _holder(path: Path) -> str:
    """Return who holds the lock, as far as its file tells."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f": process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
