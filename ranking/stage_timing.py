"""Where the time of a list goes: the stages say when they begin and end, and whoever listens is told.

Nobody listens outside of a server, and then a stage costs a look at a variable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Listener: TypeAlias = Callable[[str, float, float], None]
"""Told a stage's name, beginning and end, in seconds of `time.perf_counter`."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told of the stages that are passed in here, by this thread."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Tell the listener, if there is one, how long the stage took."""
    listener = _LISTENER.get()
    if listener is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        listener(name, began, time.perf_counter())
