"""When Python may look for garbage that holds itself in a circle.

A full look goes through all that has been made since the last `gc.freeze`, with Python's lock held, in
whatever thread makes the next object. It stops every list for 15 to 70 ms, under load every three seconds,
and hardly finds anything: of a call there is left a circle of five small objects that gRPC makes, and a
replaced model is freed without any look.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG: Final = 10_000
"""New objects after which Python looks through those that are new. Its own choice of 700 is less than a batch
of lists makes on the way: then it looks fifty times a second, finds everything in use, and soon everything
counts as old and has to be looked through as a whole. With this it looks every few seconds, for a millisecond
or two, and what has been left behind is still among the new."""
_PATIENCE_SECONDS: Final = 5.0
"""How long a request may still be answered by what has been replaced before a circle is suspected."""


def look_rarely() -> None:
    """Have Python look for garbage as a process should that serves."""
    _, survived, all_of_it = gc.get_threshold()
    gc.set_threshold(_YOUNG, survived, all_of_it)


class Replaced:
    """Large things that have been replaced, until their memory is free.

    A call that failed just then may hold one in a circle, which the next full look would find too late.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._held: list[tuple[weakref.ref[object], float]] = []

    def add(self, thing: object) -> None:
        """Note what has been replaced now."""
        self._held.append((weakref.ref(thing), time.monotonic()))

    def check(self) -> None:
        """Look through everything where something is still held after some seconds, once for each."""
        self._held = [(held, since) for held, since in self._held if held() is not None]
        suspected = time.monotonic() - _PATIENCE_SECONDS
        if any(since <= suspected for _, since in self._held):
            gc.collect()
            self._held = [(held, since) for held, since in self._held if since > suspected]


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave garbage alone meanwhile.

    What has been made is not frozen at the end: a call that fails around then may hold a former model in a
    circle, which would never be found again.
    """
    looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looking:
            gc.enable()
