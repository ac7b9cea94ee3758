"""Settings of the Python interpreter in a serving process."""

from __future__ import annotations

import gc
import sys
from typing import Final

_SWITCH_SECONDS: Final = 0.0005
"""GIL switch interval: the event loop must not wait long for a busy thread, nor a thread that makes lists for
one that prepares item changes."""
_YOUNG: Final = 10_000
"""Allocations after which the cyclic garbage collector collects the youngest generation. A batch of lists
allocates more than Python's default of 700: collections would run fifty times a second, find all objects
alive, promote them, and soon cause a full collection of 15 to 70 ms with the GIL held. With this threshold
one runs every few seconds for a millisecond or two, and frees the five objects that gRPC leaves per call."""


def tune_interpreter() -> None:
    """Set a shorter GIL switch interval and a higher garbage collection threshold than Python's defaults."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG, middle, old)
