"""A lock that the workers of a server share, so that one of them at a time does what takes much memory.

It is a record lock on a file without a name, which the parent of the workers makes and passes on as a
descriptor: it needs no folder that can be written, and the kernel releases the lock of a process that ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOCK: Final = "SHELFWISE_TURN_LOCK"
"""Environment variable of a worker: the descriptor of the file."""


def lock_file() -> int:
    """Return the descriptor of a new file without a name."""
    if sys.platform == "linux":
        return os.memfd_create("turns")
    else:
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


class Turn:
    """The lock; one without a file excludes nobody."""

    def __init__(self, descriptor: int | None) -> None:
        """Use the file of a descriptor, which must be open in this process once only."""
        self._descriptor = descriptor
        self._blocks = 0
        """How many blocks of this process have the lock."""

    @classmethod
    def of_worker(cls) -> Turn:
        """Return the lock of this worker; without a file in a server without workers."""
        descriptor = os.environ.pop(LOCK, None)
        if descriptor is None:
            return cls(None)
        os.set_inheritable(int(descriptor), False)
        return cls(int(descriptor))

    @property
    def shared(self) -> bool:
        """Whether other processes use it, too."""
        return self._descriptor is not None

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Yield at once whether this process has the lock; the outermost block releases it at its end."""
        if self._descriptor is not None and not self._blocks:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                yield False
                return
        self._blocks += 1
        try:
            yield True
        finally:
            self._blocks -= 1
            if self._descriptor is not None and not self._blocks:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
