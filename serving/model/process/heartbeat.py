"""Heartbeats, by which the server tells a model's process that works from one that hangs.

A process that is stopped, or whose threads are in a deadlock or wait for a device, neither answers nor ends:
its connections stay open, and every request to it waits. So a thread of it that does nothing else sends a
heartbeat `LOOKS` times within the timeout. A batch of lists is stuck where heartbeats still come and the
batch does not end.

The server counts looks without a heartbeat, and heartbeats without the end of a batch, and reads no clock:
of a suspended machine, or of a server that was stopped together with its model, at most one look is missed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

LOOKS: Final = 10
"""Into so many looks the timeout is divided after which a process is taken to hang."""
COLD: Final = 10
"""Factor on the timeout until the first lists have been made: code that loads a model may hold the GIL for
long, and what runs for the first time is slow."""


class HangDetector:
    """Decides from the heartbeats of a process whether it hangs."""

    def __init__(self) -> None:
        """Begin with a process that has yet to load its model."""
        self.warm = False
        """Whether lists have been made."""
        self._silent = 0
        self._turn = self._same = 0

    @property
    def patience(self) -> int:
        """Factor on the timeout that the process is given now."""
        return 1 if self.warm else COLD

    def check(self, heartbeat: bool, turn: int) -> str:
        """Return the fault that a look finds; empty while there is none.

        Args:
            heartbeat: whether one has come since the last look.
            turn: requests begun and ended of the thread that makes lists; odd while it works at one.
        """
        most = LOOKS * self.patience
        if not heartbeat:
            self._silent += 1
            return "has sent no sign of life" if self._silent >= most else ""
        self._silent = 0
        self._same = self._same + 1 if turn % 2 and turn == self._turn else 0
        self._turn = turn
        return "has not finished a batch of lists" if self._same >= most else ""


def send_heartbeats(alive: Connection, timeout_seconds: float) -> None:
    """Send heartbeats, each with the process's id, until the other end is closed; for a thread of its own."""
    try:
        while True:
            alive.send(os.getpid())
            time.sleep(timeout_seconds / LOOKS)
    except OSError:
        return


def watch_heartbeats(
    alive: Connection, timeout_seconds: float, detector: HangDetector, turn: Callable[[], int]
) -> tuple[str, int | None]:
    """Block until a process has ended or hangs; return the fault, empty if it has ended, and its id if known.

    Args:
        alive: receives the heartbeats, and is closed with the process.
        timeout_seconds: time after which it is taken to hang; 0 waits for its end alone.
        detector: of the process.
        turn: as of `HangDetector.look`.
    """
    pid: int | None = None
    while True:
        heartbeat, wait = False, timeout_seconds / LOOKS if timeout_seconds else None
        while alive.poll(wait):
            try:
                pid = alive.recv()
            except (EOFError, OSError):
                return "", pid
            heartbeat, wait = True, 0.0  # those that queued up while the server was stopped count as one
        fault = detector.check(heartbeat, turn())
        if fault:
            return fault, pid


def wait_for_end(alive: Connection, seconds: float) -> None:
    """Wait for the end of a process that has been killed, for some seconds at most."""
    with contextlib.suppress(EOFError, OSError):
        while alive.poll(seconds):
            alive.recv()
