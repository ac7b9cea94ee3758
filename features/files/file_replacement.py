"""Files that are written beside another one and take its place, where several writers share a folder.

Who writes one holds a lock on it, which the kernel releases with the process: so what a killed writer leaves
is told from what another is writing at the moment, also in another container, whose process ids say nothing.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from features.files.modes import PRIVATE, create_private

PARTS: Final = ".parts"
"""End of the name of a folder beside a file, for what it is made of."""


@contextmanager
def file_replacement(path: Path) -> Iterator[Path]:
    """Yield an empty file that only its owner can use, to be moved to the path; otherwise it is removed.

    Libraries may open it again for writing, which keeps the lock; a file of another inode would have none.

    Raises:
        OSError: it cannot be created.
    """
    temporary, descriptor = _created(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _created(path: Path) -> tuple[Path, int]:
    """Return a new file and what holds its lock, until it is closed.

    On a file system without locks it has none, and what a kill leaves remains.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        with ExitStack() as failed:
            failed.callback(temporary.unlink, missing_ok=True)
            create_private(temporary)
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, PRIVATE)
            failed.callback(os.close, descriptor)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:  # else another took it for a leftover before it was locked
                failed.pop_all()
                return temporary, descriptor


def remove_leftovers(path: Path) -> None:
    """Remove the files, and folders of parts, that writers of a path have left when they were killed.

    Those of another account stay, which removes them when it writes the next time, and all of them on a file
    system without locks, where nothing tells them from what is being written.

    Raises:
        OSError: one cannot be removed.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        try:
            descriptor = os.open(leftover, os.O_RDWR)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            if _taken(descriptor):
                shutil.rmtree(f"{leftover}{PARTS}", ignore_errors=True)
                leftover.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Lock a file; return whether that could be done."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is being written, or there are no locks
        return False
    return True
