"""Settings of the Python interpreter in a serving process."""

from __future__ import annotations

import gc
import sys
from typing import Final

_SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the GIL while others want it: the event loop must not wait for a long one, nor
may a thread that makes lists wait for the one that works out item changes."""
_YOUNG: Final = 10_000
"""New objects after which the cyclic garbage collector looks through the new ones. Python's own 700 is less
than a batch of lists makes on the way: it would run fifty times a second, find everything in use, and soon
count everything as old, which takes a full collection of 15 to 70 ms with the GIL held. With this it runs
every few seconds for a millisecond or two, and finds the five objects that gRPC leaves of a call."""


def tune_interpreter() -> None:
    """Have threads switch sooner, and the cyclic garbage collector run less often, than Python's defaults."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG, middle, old)
