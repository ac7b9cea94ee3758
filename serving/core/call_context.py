"""Instrumentation of a call: timed stages and annotations.

Handlers mark stages once; at the end of the call, metrics, trace and log are made from the same record.
Outside a call (at start-up, in unit tests) nothing is recorded.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Stage(NamedTuple):
    """One finished stage; times in seconds of `time.perf_counter`."""

    name: str
    began: float
    ended: float


@dataclass
class CallRecord:
    """What has been recorded of one call so far."""

    method: str
    """The RPC's name."""
    request_id: str
    carrier: dict[str, str] = field(default_factory=dict)
    """The caller's trace context, as it came in the metadata."""
    began: float = field(default_factory=time.perf_counter)
    began_ns: int = field(default_factory=time.time_ns)
    """The same moment of the wall clock, nanoseconds since 1970."""
    ended: float = 0.0
    code: str = ""
    """Name of the gRPC status; set at the end."""
    stages: list[Stage] = field(default_factory=list)
    arms: tuple[tuple[str, str], ...] = ()
    """Experiment and arm of each experiment that the call is part of."""
    notes: dict[str, str | int] = field(default_factory=dict)
    """Annotations for log and trace: never a user id, a key, or a user's text."""
    audit: dict[str, str | int] = field(default_factory=dict)
    """Fields of the audit log alone."""


RECORD: Final[ContextVar[CallRecord | None]] = ContextVar("record", default=None)
"""The record of the current task's call."""
KEY_NAME: Final[ContextVar[str]] = ContextVar("key_name", default="")
"""Name of the API key of the current task's call; empty without keys."""


class stage:  # noqa: N801 - used like a function, and every list goes through one: a generator costs more
    """Context manager that times a stage of the current call, also if it fails."""

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
    """Record the time since the last stage (or the call's beginning) as one stage."""
    record = RECORD.get()
    if record is not None:
        began = record.stages[-1].ended if record.stages else record.began
        record.stages.append(Stage(name, began, time.perf_counter()))


def annotate(**notes: str | int) -> None:
    """Add annotations to the log line and the trace of the current call."""
    record = RECORD.get()
    if record is not None:
        record.notes.update(notes)


def annotate_audit(**fields: str | int) -> None:
    """Add fields to the line of the audit log about the current call."""
    record = RECORD.get()
    if record is not None:
        record.audit.update(fields)


@dataclass
class Timeline:
    """When a job's batch began in the worker thread, and the batch's stages."""

    began: float = 0.0
    stages: list[Stage] = field(default_factory=list)
