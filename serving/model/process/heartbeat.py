"""Beats by which the server tells a model's process that works from one that hangs.

A process that is stopped, or whose threads wait for each other or for a device, neither answers nor ends: its
connections stay open, and whoever asked waits. So a thread of it that does nothing else sends a beat some
times within the time that the server waits at most. A batch of lists is found to be stuck where that thread
still beats and the batch does not end.

The server counts looks without a beat, and beats without the end of a batch, and reads no clock: of a
suspended machine, or of a server that was stopped together with its model, no more than one look is missed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

LOOKS: Final = 10
"""Into so many looks the time is divided after which a process is taken to hang."""
COLD: Final = 10
"""So many times longer a process may take until it has made its first lists: code that loads a model may keep
Python's lock for long, and what runs for the first time is slow."""


class Pulse:
    """What is known of a process from its beats."""

    def __init__(self) -> None:
        """Begin with a process that has yet to load its model."""
        self.warm = False
        """Whether lists have been made."""
        self._silent = 0
        self._turn = self._same = 0

    @property
    def patience(self) -> int:
        """How many times the set time is waited for the process."""
        return 1 if self.warm else COLD

    def look(self, beats: bool, turn: int) -> str:
        """Return what a look finds wrong; empty while nothing is.

        Args:
            beats: whether a beat has come since the last look.
            turn: questions begun and ended of the thread that makes lists; odd while it works at one.
        """
        most = LOOKS * self.patience
        if not beats:
            self._silent += 1
            return "has sent no sign of life" if self._silent >= most else ""
        self._silent = 0
        self._same = self._same + 1 if turn % 2 and turn == self._turn else 0
        self._turn = turn
        return "has not finished a batch of lists" if self._same >= most else ""


def beat(alive: Connection, timeout_seconds: float) -> None:
    """Send beats, each with the process's id, until the other end is closed; for a thread of its own."""
    try:
        while True:
            alive.send(os.getpid())
            time.sleep(timeout_seconds / LOOKS)
    except OSError:
        return


def listen(
    alive: Connection, timeout_seconds: float, pulse: Pulse, turn: Callable[[], int]
) -> tuple[str, int | None]:
    """Return once a process has ended or hangs: what is wrong, empty if it has ended, and its id if known.

    Args:
        alive: gets the beats, and is closed with the process.
        timeout_seconds: time after which it is taken to hang; 0 waits for its end alone.
        pulse: of the process.
        turn: as of `Pulse.look`.
    """
    pid: int | None = None
    while True:
        beats, wait = False, timeout_seconds / LOOKS if timeout_seconds else None
        while alive.poll(wait):
            try:
                pid = alive.recv()
            except (EOFError, OSError):
                return "", pid
            beats, wait = True, 0.0  # those that have gathered while the server was stopped are one
        wrong = pulse.look(beats, turn())
        if wrong:
            return wrong, pid


def wait_for_end(alive: Connection, seconds: float) -> None:
    """Wait for the end of a process that has been killed, and no longer than some seconds."""
    with contextlib.suppress(EOFError, OSError):
        while alive.poll(seconds):
            alive.recv()
