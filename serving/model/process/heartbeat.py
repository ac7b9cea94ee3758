"""Heartbeats of a model's process, by which the server detects that it hangs.

A process that is stopped, deadlocked or waiting for a device neither answers nor ends: its connections stay
open, and every request to it blocks. So a dedicated thread sends `BEATS` heartbeats within the timeout. A
batch of lists is stuck if heartbeats arrive but the batch does not end.

The server counts intervals without a heartbeat, and heartbeats without the end of a batch, and reads no
clock: if the machine is suspended, or server and model are stopped together, at most one interval is missed.
A heartbeat also has the state of the program that searches vectors, for metrics and health.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from ranking.milvus.status import EngineStatus

BEATS: Final = 10
"""Heartbeats within the timeout."""
REPORT_SECONDS: Final = 1.0
"""Interval of heartbeats where nothing is a hang."""
COLD_FACTOR: Final = 10
"""Factor on the timeout until the first lists have been made: loading a model may hold the GIL for long, and
first-time work is slow."""


class HangDetector:
    """Decides from the heartbeats of a process whether it hangs."""

    def __init__(self) -> None:
        """Begin with a process that has not loaded its model."""
        self.warm = False
        """Whether lists have been made."""
        self._silent = 0
        self._turn = self._same = 0

    @property
    def timeout_factor(self) -> int:
        """Current factor on the timeout."""
        return 1 if self.warm else COLD_FACTOR

    def check(self, heartbeat: bool, turn: int) -> str:
        """Return the fault detected after an interval; empty for none.

        Args:
            heartbeat: whether one has arrived in the interval.
            turn: requests begun plus ended of the thread that makes lists; odd during one.
        """
        limit = BEATS * self.timeout_factor
        if not heartbeat:
            self._silent += 1
            return "has sent no sign of life" if self._silent >= limit else ""
        self._silent = 0
        self._same = self._same + 1 if turn % 2 and turn == self._turn else 0
        self._turn = turn
        return "has not finished a batch of lists" if self._same >= limit else ""


@dataclass(frozen=True)
class Beat:
    """One heartbeat."""

    pid: int
    engine: EngineStatus | None = None
    """State of the program that searches vectors; None where this process does, or while it loads."""


def send_heartbeats(
    alive: Connection, timeout_seconds: float, engine: Callable[[], EngineStatus | None] = lambda: None
) -> None:
    """Send heartbeats until the other end is closed; blocks.

    Args:
        alive: receives them.
        timeout_seconds: see `watch_heartbeats`; without one they are sent for what they report.
        engine: see `Beat`.
    """
    try:
        while True:
            alive.send(Beat(os.getpid(), engine()))
            time.sleep(timeout_seconds / BEATS or REPORT_SECONDS)
    except OSError:
        return


def watch_heartbeats(
    alive: Connection,
    timeout_seconds: float,
    detector: HangDetector,
    turn: Callable[[], int],
    received: Callable[[Beat], None] = lambda beat: None,
) -> tuple[str, int | None]:
    """Block until a process ends or hangs; return the fault, empty if it has ended, and its id if known.

    Args:
        alive: receives the heartbeats, and is closed with the process.
        timeout_seconds: time without heartbeat that counts as a hang; 0 only waits for the end.
        detector: of the process.
        turn: see `HangDetector.check`.
        received: called with each heartbeat.
    """
    pid: int | None = None
    while True:
        heartbeat, wait = False, timeout_seconds / BEATS if timeout_seconds else None
        while alive.poll(wait):
            try:
                beat: Beat = alive.recv()
            except (EOFError, OSError):
                return "", pid
            pid = beat.pid
            received(beat)
            heartbeat, wait = True, 0.0  # heartbeats queued while the server was stopped count as one
        fault = detector.check(heartbeat, turn()) if timeout_seconds else ""
        if fault:
            return fault, pid


def wait_for_end(alive: Connection, seconds: float) -> None:
    """Wait for the end of a killed process, with a timeout."""
    with contextlib.suppress(EOFError, OSError):
        while alive.poll(seconds):
            alive.recv()
