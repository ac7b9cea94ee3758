"""Folders that appear complete or not at all, also where the process that writes them is killed."""

from __future__ import annotations

import fcntl
import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from conf.errors import InputError
from features.files.modes import umask

_LOCK, _NEW, _OLD = "lock", "new", "old"
"""In the temporary folder: the file that its process holds, the fresh folder, and the former one."""


@contextmanager
def folder_replacement(target: Path) -> Iterator[Path]:
    """Yield a fresh folder that replaces `target` if the block succeeds and is removed if it fails.

    It is in a temporary folder beside the target, whose process holds a lock in it. What a killed process has
    left there is removed first, and the former target put back if it was just being replaced.

    Args:
        target: the folder; a whole dataset, for example.

    Raises:
        InputError: the folder above it cannot be written.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(target)
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"work_dir={target.parent}: cannot write there: {error.strerror}") from error
    lock: IO[bytes] | None = None
    try:
        lock = _held(place)
        fresh = place / _NEW
        fresh.mkdir(mode=0o700)  # as long as the files in it are written
        yield fresh
        fresh.chmod(0o777 & ~umask())
        # A folder with content cannot be replaced in one step: set the old one aside, and back if that fails.
        if target.exists():
            target.rename(place / _OLD)
        fresh.rename(target)
    finally:
        _clear(place, target, lock)
        with suppress(OSError):  # the result is complete
            for folder in made:
                folder.rmdir()


def _held(place: Path) -> IO[bytes] | None:
    """Return a file in a folder with a lock that the kernel releases when the process ends, however it ends.

    It has its name once it is held, so a file of that name that nobody holds is an orphan's. A process id
    would mean nothing to other containers that share the folder.

    Returns:
        The open file; None on a file system without locks, where what a kill leaves remains.
    """
    unheld = place / f"{_LOCK}.new"
    file = unheld.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unheld.rename(place / _LOCK)
    except OSError:
        file.close()
        return None
    return file


def _remove_orphans(target: Path) -> None:
    """Remove the temporary folders of processes that were killed."""
    for path in target.parent.glob(f".{glob.escape(target.name)}-*/{_LOCK}"):
        with suppress(OSError), path.open("r+b") as lock:  # another process holds it, or removes it as well
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(path.parent, target, lock)


def _clear(place: Path, target: Path, lock: IO[bytes] | None) -> None:
    """Remove a temporary folder; the former target goes back where there is no new one."""
    old = place / _OLD
    if old.exists() and not target.exists():
        old.rename(target)
    with suppress(OSError):
        for path in place.iterdir():  # the lock last, which says whose the rest is
            if path.name != _LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (place / _LOCK).unlink(missing_ok=True)
    if lock is not None:
        lock.close()  # an open file would keep its folder on NFS
    with suppress(OSError):
        place.rmdir()
