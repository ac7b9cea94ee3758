"""A Redis with the state of several servers: connection, scripts, and error translation.

Operations on several keys are Lua scripts, which Redis runs atomically. Keys have a configurable prefix, so
that other programs can use the same Redis.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError, ResponseError

from conf.errors import InputError
from conf.serving import RedisConfig
from serving.state.contracts.user_state import StateUnavailableError

Result = TypeVar("Result")
Argument = str | bytes | int
Call = tuple[Sequence[bytes], Sequence[Argument]]
"""Keys and arguments of a script, without the store's own."""

_LOG = logging.getLogger(__name__)
FORMAT: Final = 1
"""Format of the data, as the scripts in `lua/` read and write it."""
_GONE: Final = "STOREGONE"
"""Error of scripts for a store that is not the one that was opened."""
_BACKOFF: Final = ExponentialWithJitterBackoff(cap=0.2, base=0.01)


class RedisStore:
    """An open store; create it with `open_redis` inside a running event loop."""

    def __init__(self, client: Redis, name: str, config: RedisConfig) -> None:
        """Own a client; call `enter` next."""
        self.client = client
        self.name = name
        """Address for messages: without user and password."""
        self.max_user_events = config.max_user_events
        self.max_feed_events = config.max_feed_events
        self.erase_seconds = config.erase_seconds
        self.salt = b""
        """Key of the user hashes in key names and in the set of deleted users."""
        self._id = b""
        self._prefix = config.prefix.encode()
        self._scripts: dict[str, Any] = {}

    def key(self, name: str, of: bytes = b"") -> bytes:
        """Return a Redis key; `of` is a user's hash, for keys of one user."""
        return self._prefix + name.encode() + (b":" + of if of else b"")

    async def enter(self, create: bool = True) -> None:
        """Read the store's description, or create it.

        Raises:
            InputError: a store of another format, or no store and `create` is false.
            RedisError: Redis failed, or the key has another type.
        """
        if not create and not await self.client.exists(self.key("store")):
            prefix = self._prefix.decode()
            raise InputError(f"state: {self.name} holds no store under redis.prefix={prefix}")
        script = self.client.register_script((Path(__file__).parent / "lua" / "enter.lua").read_text())
        fresh = (FORMAT, secrets.token_hex(8), secrets.token_bytes(16))
        found, self._id, self.salt = await script(keys=[self.key("store")], args=list(fresh))
        if int(found) != FORMAT:
            raise InputError(
                f"state: {self.name} holds a store of format {int(found)}, this program uses {FORMAT}; "
                "set redis.prefix to another one, or use the program that made it"
            )

    async def run(self, script: str, call: Callable[[], Call], deadline: float | None = None) -> Any:  # noqa: ANN401
        """Run a script of `lua/`.

        Args:
            script: its name.
            call: returns keys and arguments; called again if the store had to be created anew.
            deadline: event loop time.

        Raises:
            TimeoutError: the deadline passed.
            StateUnavailableError: Redis failed.
        """

        async def once() -> Any:  # noqa: ANN401
            keys, arguments = call()
            return await self._script(script)(keys=[self.key("store"), *keys], args=[self._id, *arguments])

        async def again_if_gone() -> Any:  # noqa: ANN401
            try:
                return await once()
            except ResponseError as error:
                if _GONE not in str(error):
                    raise
            _LOG.error(
                "%s has lost its data, or a backup was restored: what was recorded since is gone; restart "
                "this server, which imports histories and reads the changes of items again",
                self.name,
            )
            await self.enter()
            return await once()

        return await self.execute(again_if_gone, deadline)

    async def execute(self, work: Callable[[], Awaitable[Result]], deadline: float | None = None) -> Result:
        """Run work on the client; raises as `run` does."""
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise TimeoutError
        try:
            async with asyncio.timeout_at(deadline):
                return await work()
        except RedisError as error:
            first_line = str(error).partition("\n")[0]
            raise StateUnavailableError(f"{self.name} failed: {type(error).__name__} {first_line}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    def _script(self, name: str) -> Any:  # noqa: ANN401 - redis-py's script objects have no public type
        if name not in self._scripts:
            self._scripts[name] = self.client.register_script(_source(name))
        return self._scripts[name]


async def open_redis(url: str, config: RedisConfig, create: bool | None = True) -> RedisStore:
    """Connect to a store; a missing one is created unless `create` is false; None does not enter the store.

    Raises:
        InputError: an invalid address, or a Redis that cannot be used.
    """
    name = safe_name(url)
    settings: dict[str, Any] = {
        "socket_timeout": config.timeout_seconds,
        "socket_connect_timeout": config.timeout_seconds,
        "retry": Retry(_BACKOFF, config.retries),
        "client_name": "shelfwise",
        "max_connections": config.max_connections,
        "timeout": config.timeout_seconds,
    }
    password = os.environ.get(config.password_env, "")
    if password:
        settings["password"] = password
    try:
        pool = BlockingConnectionPool.from_url(url, **settings)
        store = RedisStore(Redis.from_pool(pool), name, config)
    except (ValueError, TypeError) as error:
        raise InputError(f"state: {name} is not an address of a Redis; write {_EXAMPLE}") from error
    try:
        if create is None:
            await store.client.ping()
        else:
            await _check_cluster(store, config.prefix)
            await store.enter(create)
    except (RedisError, OSError, TypeError) as error:
        await store.close()
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"state: {name} cannot be used ({type(error).__name__} {first_line}); "
            f"start Redis, or set state, or its password in {config.password_env}"
        ) from error
    except InputError:
        await store.close()
        raise
    return store


async def _check_cluster(store: RedisStore, prefix: str) -> None:
    """Refuse a prefix whose keys a Redis Cluster would spread over slots: a script's keys must be of one.

    Raises:
        InputError: with the prefix that puts them all into one slot.
    """
    with suppress(ResponseError):  # an account that may not read it
        found = await store.client.info("cluster")
        if found.get("cluster_enabled") and not re.search(r"\{[^}]+\}", prefix):
            raise InputError(
                f"state: {store.name} is a Redis Cluster, where a store's keys have to be in one slot: "
                f"set \"redis.prefix='{{{prefix.rstrip(':')}}}:'\", and in state the one that has it"
            )


_EXAMPLE: Final = "redis://host:6379/0, rediss://host:6379/0 or unix:///path/of/socket"


def as_text(value: bytes | str) -> str:
    """Return a response of Redis as text; the client's types allow for both."""
    return value if isinstance(value, str) else value.decode()


def safe_name(url: str) -> str:
    """Return an address without user, password and parameters, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@cache
def _source(name: str) -> str:
    folder = Path(__file__).parent / "lua"
    return (folder / "prelude.lua").read_text() + (folder / f"{name}.lua").read_text()
