"""Opening the stores of events and item changes: SQLite or Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conf.errors import InputError
from conf.serving import RedisConfig
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import UserState
from serving.state.redis.durability import durability_warning
from serving.state.redis.items import RedisItemChanges
from serving.state.redis.store import open_redis
from serving.state.redis.users import RedisUserState
from serving.state.sqlite.file import SqliteFile
from serving.state.sqlite.items import SqliteItemChanges
from serving.state.sqlite.users import SqliteUserState

_FILE: Final = "state.sqlite"
"""Default state file in the artifact store."""
_REDIS: Final = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True)
class Stores:
    """The open stores of a server; call `close` in the event loop that opened them."""

    users: UserState
    items: ItemChanges
    name: str
    """For messages; without secrets."""
    close: Callable[[], Awaitable[None]]
    warning: str | None = None
    """For the operator: weak durability of the store."""


async def open_stores(state: str | None, artifacts: Path, redis: RedisConfig, create: bool = True) -> Stores:
    """Open the stores that the setting `state` names.

    Args:
        state: the setting.
        artifacts: the artifact store, which holds the default state file.
        redis: settings of Redis.
        create: whether to create missing stores.

    Raises:
        InputError: the stores cannot be opened, or are missing and `create` is false.
    """
    if state is not None and is_redis(state):
        return await _open_redis(state, redis, create)
    path = state_file(state, artifacts)
    if not create and not path.is_file():
        raise InputError(f"{path}: no such file, so nothing was recorded here; set state or artifacts")
    file = SqliteFile(path)
    try:
        return Stores(SqliteUserState(file), SqliteItemChanges(file), str(path), file.close)
    except BaseException:
        await file.close()
        raise


def is_redis(state: str | None) -> bool:
    """Return whether a value of the setting `state` names a Redis.

    Raises:
        InputError: it names another kind of store.
    """
    if state is None or "://" not in state:
        return False
    if not state.startswith(_REDIS):
        raise InputError(
            f"state: no kind of store is called '{state.partition('://')[0]}'; write a path, or an address "
            "that begins with redis://, rediss:// or unix://"
        )
    return True


def state_file(state: str | None, artifacts: Path) -> Path:
    """Return the state file that a value of the setting `state` names."""
    return Path(state) if state else artifacts / _FILE


async def _open_redis(url: str, config: RedisConfig, create: bool) -> Stores:
    store = await open_redis(url, config, create)
    users = RedisUserState(store)

    async def close() -> None:
        await users.close()
        await store.close()

    return Stores(users, RedisItemChanges(store), store.name, close, await durability_warning(store))
