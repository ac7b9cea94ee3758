"""The event loop of a server process: uvloop where available, which costs less per call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any


def run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it ends; see `asyncio.run`."""
    if sys.platform == "win32":  # not supported by uvloop
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
