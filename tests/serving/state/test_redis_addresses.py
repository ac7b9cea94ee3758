"""Opening a store in Redis: addresses, prefixes, sockets, TLS, and durability warnings."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from rich.console import Console

from conf.errors import InputError
from serving.state.contracts.user_state import Outcome
from serving.state.redis.store import safe_name
from serving.stores import Stores
from tests.serving.conftest import Servers
from tests.serving.redis_server import RedisServer
from tests.serving.redis_stores import new, opened
from tests.serving.tls_front import TlsFront


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, None),
        ({"appendonly": "no"}, "appendonly no"),
        ({"appendfsync": "everysec"}, "appendfsync everysec"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "maxmemory-policy allkeys-lru"),
    ],
)
def test_a_redis_that_may_lose_events_is_a_warning_in_one_line(
    servers: Servers, own_redis: Callable[..., RedisServer], settings: dict[str, str], says: str | None
) -> None:
    redis = own_redis(**settings)
    said = io.StringIO()
    servers.start(state=redis.url, console=Console(file=said))
    if says is None:
        assert said.getvalue() == ""
    else:
        assert said.getvalue().startswith(f"warning: redis://127.0.0.1:{redis.port}/0: it ")
        assert says in said.getvalue()
        assert said.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("redis://127.0.0.1:1/0", r"state: redis://127\.0\.0\.1:1/0 cannot be used .*start Redis"),
        ("redis://:secret@127.0.0.1:1/0", r"state: redis://127\.0\.0\.1:1/0 cannot be used"),
        ("redis://127.0.0.1:port/0", "is not an address of a Redis"),
        ("postgres://shop:secret@host/db", "no kind of store is called 'postgres'"),
        ("unix:///nowhere/redis.sock", "state: unix:///nowhere/redis.sock cannot be used"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_readable_line(state: str, says: str) -> None:
    async def scenario(stores: Stores) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(InputError, match=says) as caught:
        opened(state, scenario, timeout_seconds=1.0, retries=0)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_addresses_are_named_without_secrets() -> None:
    assert safe_name("rediss://shop:secret@h:1/2?password=secret") == "rediss://h:1/2"
    assert safe_name("unix://shop:secret@/run/redis.sock?db=1") == "unix:///run/redis.sock"


def test_a_store_of_another_program_version_is_refused(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    async def nothing(stores: Stores) -> None:
        pass

    opened(redis.url, nothing)
    with redis.client as client:
        client.hset("shelfwise:store", "format", "99")
    with pytest.raises(InputError, match="holds a store of format 99"):
        opened(redis.url, nothing)
    opened(redis.url, nothing, prefix="shop-2:")
    with redis.client as client:
        client.set("shop-3:store", "mine")
    with pytest.raises(InputError, match="cannot be used"):
        opened(redis.url, nothing, prefix="shop-3:")


def test_two_shops_can_share_a_redis(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    def history(prefix: str) -> list[str]:
        async def scenario(stores: Stores) -> list[str]:
            await stores.users.record([new(f"of-{prefix}", "1")])
            return [e.item_id for e in await stores.users.history("u", 5)]

        return opened(redis.url, scenario, prefix=prefix)

    assert history("a:") == ["of-a:"]
    assert history("b:") == ["of-b:"]


def test_sockets_and_tls_work(own_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    redis = own_redis(unixsocket=str(tmp_path / "s"))

    async def record(stores: Stores) -> list[Outcome]:
        return await stores.users.record([new("a", "1")])

    assert opened(redis.url, record) == [Outcome.new]
    assert opened(f"unix://{tmp_path / 's'}", record) == [Outcome.duplicate]
    with TlsFront(tmp_path / "cert.pem", tmp_path / "key.pem", redis.port) as front:
        encrypted = f"rediss://localhost:{front.port}/0"
        assert opened(f"{encrypted}?ssl_ca_certs={tmp_path / 'ca.pem'}", record) == [Outcome.duplicate]
        with pytest.raises(InputError, match="cannot be used"):
            opened(encrypted, record, retries=0)
