"""The state backends, for contract tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from conf.serving import RedisConfig
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import UserState
from serving.stores import Stores, open_stores

T = TypeVar("T")


@dataclass
class Backend:
    """A state backend."""

    state: str
    folder: Path
    prefix: str = "shelfwise:"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Stores]:
        stores = await open_stores(self.state, self.folder, RedisConfig(prefix=self.prefix))
        try:
            yield stores
        finally:
            await stores.close()

    def run(self, scenario: Callable[[Stores], Awaitable[T]]) -> T:
        async def open_and_run() -> T:
            async with self.opened() as stores:
                return await scenario(stores)

        return asyncio.run(open_and_run())

    def users(self, scenario: Callable[[UserState], Awaitable[T]]) -> T:
        return self.run(lambda stores: scenario(stores.users))

    def items(self, scenario: Callable[[ItemChanges], Awaitable[T]]) -> T:
        return self.run(lambda stores: scenario(stores.items))
