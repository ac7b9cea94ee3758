"""When Python may look for garbage that holds itself in a circle.

It looks through all that has been made since the last `gc.freeze`, with its lock held, in whatever thread
makes the next object. While a model is loaded that is often the thread that all others go before, and
each look stops every list for up to 70 ms. What a model leaves behind is freed without such a look.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
