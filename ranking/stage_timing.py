"""Timing of the named stages of a list: each reports its name, start and end to a listener.

Without a listener, that is outside of a server, a stage costs one look-up of a context variable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Listener: TypeAlias = Callable[[str, float, float], None]
"""Called with a stage's name, start and end, in seconds of `time.perf_counter`."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report the stages that run in this context to a listener."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Report the start and end of a stage to the listener, if there is one; also a decorator."""
    listener = _LISTENER.get()
    if listener is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        listener(name, began, time.perf_counter())
