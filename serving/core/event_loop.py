"""The event loop of a server process: libuv's where there is one, which takes less time for every call."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any


def run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it ends; see `asyncio.run`."""
    if sys.platform == "win32":  # libuv's Python binding does not exist there
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
