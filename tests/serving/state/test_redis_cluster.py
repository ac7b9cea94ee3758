"""A Redis in cluster mode: all keys of a store have to be in one slot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tests.serving.redis_server as module
from conf.composition.compose import compose_command
from conf.errors import InputError
from serving.state.contracts.user_state import Outcome
from serving.stores import Stores
from tests.serving.conftest import until
from tests.serving.redis_server import RedisServer
from tests.serving.redis_stores import new, opened


def _low_port() -> int:
    """Return a free port that a second one, 10,000 above it, is left for: that of the cluster."""
    while (port := module.free_port()) > 55535:
        pass
    return port


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A cluster of one server with all slots."""
    port = _low_port()
    monkeypatch.setattr(module, "free_port", lambda: port)
    server = RedisServer(tmp_path / "redis", **{"cluster-enabled": "yes"})
    try:
        with server.client as client:
            ask: Any = client.execute_command  # without types
            ask("CLUSTER", "ADDSLOTS", *range(16384))
            until(lambda: "ok" in str(ask("CLUSTER", "INFO")).partition("cluster_slots")[0])
        yield server
    finally:
        server.close()


async def _record_and_read(stores: Stores) -> tuple[list[Outcome], int]:
    outcomes = await stores.users.record([new("a", "1", user="u"), new("b", "2", user="v")])
    return outcomes, len(await stores.users.history("u", 10))


def test_a_prefix_with_a_hash_tag_works_and_one_without_says_what_to_set(cluster: RedisServer) -> None:
    assert opened(cluster.url, _record_and_read, prefix="{shelfwise}:") == ([Outcome.new, Outcome.new], 1)
    with pytest.raises(
        InputError, match=r"is a Redis Cluster.*set \"redis.prefix='\{shelfwise\}:'\""
    ) as error:
        opened(cluster.url, _record_and_read)
    assert "\n" not in str(error.value)


def test_the_setting_of_the_message_can_be_typed() -> None:
    assert compose_command("serve", ["redis.prefix='{shelfwise}:'"]).redis.prefix == "{shelfwise}:"
