"""Downloads of large files in parts, several at a time, that go on after a kill where they were.

A file that is not whole yet is `NAME.part`, with a list of its finished parts beside it. The list may be
ahead of the disk after a power failure; the hash of the whole file shows it then, and it is downloaded anew.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final

from conf.errors import InputError
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import file_hash, sync

PART: Final = 8 * 1024 * 1024
"""Bytes of a part: large against the delay of a request, small against what a kill costs."""
_TRIES: Final = 3
_PAUSE: Final = 0.5
"""Seconds before a part is asked for again, twice as many before the next try."""
_UNFINISHED: Final = ".part"
_DONE: Final = ".parts"


class StoppedError(Exception):
    """The download was stopped; what is there stays for the next one."""


@dataclass
class Download:
    """A file on its way."""

    remote: Remote
    path: str
    """Of the file in the remote folder."""
    target: Path
    """Where it goes; there when it is whole and its hash is right."""
    size: int
    sha256: str
    part: int = PART
    _done: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    @property
    def unfinished(self) -> Path:
        """The file without its last parts."""
        return self.target.with_name(self.target.name + _UNFINISHED)

    @property
    def _list(self) -> Path:
        return self.target.with_name(self.target.name + _DONE)

    @property
    def parts(self) -> int:
        """How many parts the file has; one at least, so that an empty file is made, too."""
        return max(1, -(-self.size // self.part))

    def begin(self) -> list[int]:
        """Return the parts that are missing; open what a former download has left."""
        if self.target.is_file():
            return []
        self.target.parent.mkdir(parents=True, exist_ok=True)
        head = f"{self.part} {self.sha256}"
        lines = self._list.read_text().split("\n")[:-1] if self._list.is_file() else []  # whole lines
        if lines[:1] == [head] and self.unfinished.is_file():
            self._done = {int(line) for line in lines[1:] if line.isdigit()}
        else:
            self._done = set()
            self.unfinished.unlink(missing_ok=True)
            self.unfinished.touch()
            self._list.write_text(f"{head}\n")
        return [number for number in range(self.parts) if number not in self._done]

    def missing_bytes(self) -> int:
        """Return how much space the file still takes, where `begin` was called before."""
        if self.target.is_file():
            return 0
        return max(0, self.size - self.unfinished.stat().st_blocks * 512)

    def get(self, number: int, stopped: Callable[[], bool]) -> int:
        """Download a part, and finish the file after its last one; return the number of bytes."""
        start, end = number * self.part, min(self.size, (number + 1) * self.part)
        content = self._read(start, end, stopped) if end > start else b""
        with writing(self.target):
            descriptor = os.open(self.unfinished, os.O_WRONLY)
            try:
                view = memoryview(content)
                while view:
                    written = os.pwrite(descriptor, view, end - len(view))
                    view = view[written:]
            finally:
                os.close(descriptor)
            with self._lock:
                with self._list.open("a") as done:
                    done.write(f"{number}\n")
                self._done.add(number)
                last = len(self._done) == self.parts
        if last:
            self.finish()
        return len(content)

    def _read(self, start: int, end: int, stopped: Callable[[], bool]) -> bytes:
        for attempt in range(_TRIES):
            if stopped():
                raise StoppedError
            try:
                return self.remote.read_range(self.path, start, end)
            except FileNotFoundError as error:
                raise InputError(f"{self.remote.name}/{self.path}: no such file; push it again") from error
            except InputError:
                if attempt == _TRIES - 1:
                    raise
            time.sleep(_PAUSE * 2**attempt)
        raise AssertionError

    def finish(self) -> None:
        """Give the file its name if its hash is right; else remove it, so that the next try begins anew."""
        if self.unfinished.stat().st_size == self.size and file_hash(self.unfinished) == self.sha256:
            with writing(self.target):
                sync(self.unfinished)  # what has its name is not hashed again, after a power failure either
                self.unfinished.rename(self.target)
            self._list.unlink()
            return
        self.unfinished.unlink()
        self._list.unlink()
        raise InputError(
            f"{self.remote.name}/{self.path}: content does not match its sha256; fetch again, and if that "
            "does not help push it again with overwrite=true"
        )


class writing:  # noqa: N801 - reads as the context that it is
    """Context in which a full disk is one line."""

    def __init__(self, path: Path) -> None:
        """Name the file."""
        self._path = path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Translate errors of the disk."""
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = (
                "no space left; what is there is kept: make room and fetch again" if full else error.strerror
            )
            raise InputError(f"{self._path.parent}: cannot be written ({reason})") from error


def download(downloads: Sequence[Download], parallel: int, stopped: Callable[[], bool]) -> int:
    """Download files, several parts at a time; return the bytes that came.

    Args:
        downloads: `begin` may have been called for them.
        parallel: parts at a time.
        stopped: whether to end; asked before each part.

    Raises:
        InputError: a part cannot be read or written, or a file has another hash.
        StoppedError: `stopped` was true.
    """
    with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="fetch") as pool:
        tasks = [pool.submit(one.get, part, stopped) for one in downloads for part in one.begin()]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
    failed = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if failed:
        raise next((error for error in failed if not isinstance(error, StoppedError)), failed[0])
    for one in downloads:  # a former download had every part, but not its last step
        if not one.target.is_file():
            one.finish()
    return sum(task.result() for task in tasks)
