"""A vector search that another program did not answer, and the time that a search may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_MISSED: ContextVar[set[str] | None] = ContextVar("missed", default=None)
_DEADLINE: ContextVar[float | None] = ContextVar("deadline", default=None)
SHORTEST: Final = 0.25
"""Least share of the longest wait that a deadline leaves to a search: one call that is nearly out of time
must not take the sources of the others of its batch away."""


class SearchUnavailableError(Exception):
    """The program that searches vectors cannot be reached, or did not answer in time."""


@contextmanager
def collecting_missed() -> Iterator[set[str]]:
    """Collect the names of what goes on without a search that failed, see `missed`."""
    names: set[str] = set()
    token = _MISSED.set(names)
    try:
        yield names
    finally:
        _MISSED.reset(token)


def missed(name: str, error: SearchUnavailableError) -> None:
    """Note that a candidate source goes on without its search.

    Raises:
        SearchUnavailableError: the given one, outside of `collecting_missed`: the lack would go unnoticed.

    """
    names = _MISSED.get()
    if names is None:
        raise error
    names.add(name)


@contextmanager
def within(deadline: float | None) -> Iterator[None]:
    """Have the searches of this context end by a time of `time.monotonic`; None sets no limit."""
    token = _DEADLINE.set(deadline)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


def seconds_left(longest: float) -> float:
    """Return how many seconds a search may take: at most `longest`, at least a quarter of it."""
    deadline = _DEADLINE.get()
    if deadline is None:
        return longest
    return min(longest, max(deadline - time.monotonic(), SHORTEST * longest))
