"""Stores in a Redis, and events for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from conf.serving import RedisConfig
from serving.state.contracts.user_state import NewEvent
from serving.stores import Stores, open_stores

T = TypeVar("T")
START = 1_700_000_000_000_000


def opened(url: str, scenario: Callable[[Stores], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        stores = await open_stores(url, Path("nowhere"), RedisConfig(**settings))
        try:
            return await scenario(stores)
        finally:
            await stores.close()

    return asyncio.run(run())


def new(item: str, event_id: str, user: str = "u", kind: str = "click", time_us: int = START) -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{event_id}")
