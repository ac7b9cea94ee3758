"""What is measured of a call: the stages it passes and what is worth a note.

The code that answers says once where a stage begins and ends; when the call is over, metrics, trace and log
are made from the same record. Without a record (at start-up, in tests of a part) nothing is measured.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Stage(NamedTuple):
    """One passed stage; times in seconds of `time.perf_counter`."""

    name: str
    began: float
    ended: float


@dataclass
class CallRecord:
    """One call, as far as it has come."""

    method: str
    """The RPC's name."""
    request_id: str
    carrier: dict[str, str] = field(default_factory=dict)
    """The caller's trace context, as it came in the metadata."""
    began: float = field(default_factory=time.perf_counter)
    began_ns: int = field(default_factory=time.time_ns)
    """The same moment by the clock on the wall, nanoseconds since 1970."""
    ended: float = 0.0
    code: str = ""
    """Name of the status; set at the end."""
    stages: list[Stage] = field(default_factory=list)
    notes: dict[str, str | int] = field(default_factory=dict)
    """For log and trace: never a user's id, a key, or words of a shopper."""


RECORD: Final[ContextVar[CallRecord | None]] = ContextVar("record", default=None)
"""The record of the call that the current task answers."""


class stage:  # noqa: N801 - used like a function, and every list goes through one: a generator costs more
    """Measure a stage of the current call; it counts, too, where it fails."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        """Name the stage."""
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        record = RECORD.get()
        if record is not None:
            record.stages.append(Stage(self._name, self._began, time.perf_counter()))


def mark_stage(name: str) -> None:
    """Count everything since the last stage (or the call's beginning) as one stage."""
    record = RECORD.get()
    if record is not None:
        began = record.stages[-1].ended if record.stages else record.began
        record.stages.append(Stage(name, began, time.perf_counter()))


def annotate(**notes: str | int) -> None:
    """Keep what the log and the trace should say about the current call."""
    record = RECORD.get()
    if record is not None:
        record.notes.update(notes)


@dataclass
class Timeline:
    """When a job's batch began in the worker's thread, and the stages that the batch passed."""

    began: float = 0.0
    stages: list[Stage] = field(default_factory=list)
