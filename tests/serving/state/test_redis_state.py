"""User state in Redis: bounds, keys, imports, and erasure from its files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from serving.state.contracts.user_state import Outcome, StateUnavailableError
from serving.state.histories_reader import event_slices
from serving.state.redis.users import RedisUserState
from serving.stores import Stores
from tests.serving.redis_server import RedisServer
from tests.serving.redis_stores import START, new, opened


def test_the_newest_events_of_a_user_are_kept_impressions_apart(
    own_redis: Callable[..., RedisServer],
) -> None:
    redis = own_redis()

    async def scenario(stores: Stores) -> None:
        users = stores.users
        await users.record([new(f"i{n}", f"c{n}", time_us=START + n) for n in range(5)])
        await users.record([new(f"s{n}", f"s{n}", kind="impression", time_us=START + n) for n in range(4)])
        assert [e.item_id for e in await users.history("u", 9, impressions=False)] == ["i2", "i3", "i4"]
        assert len(await users.history("u", 9)) == 6
        assert (await users.stats()).events == 6
        feed = await users.recorded_since(0, 9, 0)
        assert [event.item_id for event in feed.events] == ["i2", "i3", "i4"]
        assert await users.record([new("i4", "c4", time_us=START + 4)]) == [Outcome.duplicate]
        assert await users.record([new("i0", "c0", time_us=START)]) == [
            Outcome.new
        ]  # forgotten, and not kept
        assert (await users.stats()).events == 6
        assert await users.delete_user("u") == 6
        assert (await users.stats()).events == 0

    opened(redis.url, scenario, max_user_events=3)
    with redis.client as client:
        left = {bytes(key).removeprefix(b"shelfwise:") for key in client.scan_iter()}
    assert left == {b"store", b"deleted-users"}


def test_user_ids_stand_nowhere_but_in_the_set_of_users(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    opened(redis.url, lambda stores: stores.users.record([new("a", "1", user="alice")]))
    with redis.client as client:
        assert [key for key in client.scan_iter() if b"alice" in key] == []
        assert client.zrange("shelfwise:users", 0, -1) == [b"alice"]


def test_an_import_that_another_server_left_unfinished_is_taken_over(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = own_redis()
    path = tmp_path / "h.parquet"
    rows = [(f"u{n:02}", "a", "click", n, n) for n in range(30)]
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path)
    monkeypatch.setattr("serving.state.redis.histories_import._LOCK_SECONDS", 0.3)
    monkeypatch.setattr("serving.state.redis.histories_import._SLICE", 10)

    async def scenario(stores: Stores) -> None:
        with redis.client as client:  # a server that was killed at its work
            client.set("shelfwise:importing", "somebody", px=300)
        results = await asyncio.gather(*(stores.users.import_histories(path) for _ in range(3)))
        assert sorted(result.new for result in results) == [0, 0, 30]
        assert sorted(result.already_imported for result in results) == [False, True, True]

    opened(redis.url, scenario)


def histories_of_two(path: Path) -> Path:
    """Write histories of two users with an event each."""
    pl.DataFrame(
        {"user_id": ["u", "v"], "item_id": "a", "event": "click", "timestamp": [1, 2], "order": [0, 0]}
    ).write_parquet(path)
    return path


def test_a_server_that_stood_still_leaves_the_import_to_the_other(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = own_redis()
    path = histories_of_two(tmp_path / "h.parquet")
    monkeypatch.setattr("serving.state.redis.histories_import._SLICE", 1)
    asked: list[int] = []

    async def scenario(stores: Stores) -> None:
        assert isinstance(stores.users, RedisUserState)
        run = stores.users._store.run

        async def slow_run(script: str, *rest: Any) -> Any:
            if script == "import" and not asked:
                asked.append(1)
                with redis.client as client:
                    client.set("shelfwise:importing", "the other", px=200)
            return await run(script, *rest)

        monkeypatch.setattr(stores.users._store, "run", slow_run)
        result = await stores.users.import_histories(path)
        assert (result.rows, result.new) == (2, 1)  # once the other one has died, too
        assert (await stores.users.stats()).events == 2

    opened(redis.url, scenario)


def test_a_file_whose_reading_takes_longer_than_the_lock_lasts_is_imported_once(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = own_redis()
    path = histories_of_two(tmp_path / "h.parquet")
    monkeypatch.setattr("serving.state.redis.histories_import._LOCK_SECONDS", 0.6)
    reads: list[Path] = []

    async def slow_slices(path: Path, rows: int) -> AsyncIterator[pl.DataFrame]:
        reads.append(path)
        async for part in event_slices(path, 1):
            await asyncio.sleep(2)  # a check of the whole file, or a pass over it
            yield part

    monkeypatch.setattr("serving.state.redis.histories_import.event_slices", slow_slices)

    async def scenario(stores: Stores) -> None:
        async with asyncio.timeout(30):
            results = await asyncio.gather(*(stores.users.import_histories(path) for _ in range(2)))
        assert sorted((result.already_imported, result.new) for result in results) == [(False, 2), (True, 0)]
        assert reads == [path]

    opened(redis.url, scenario)
    with redis.client as client:
        assert client.exists("shelfwise:importing") == 0


@pytest.mark.parametrize("save", ["", "3600 1"])
@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_erased_users_are_gone_from_redis_files(
    own_redis: Callable[..., RedisServer], save: str, appendonly: str
) -> None:
    redis = own_redis(appendonly=appendonly, save=save)

    def files_with(text: bytes) -> list[str]:
        return [p.name for p in redis.folder.rglob("*") if p.is_file() and text in p.read_bytes()]

    async def scenario(stores: Stores) -> None:
        await stores.users.record([new("a", "1", user=f"shopper-{n}") for n in range(20)])
        with redis.client as client:
            client.save()
        assert files_with(b"shopper-7")
        await asyncio.gather(*(stores.users.delete_user(f"shopper-{n}") for n in range(10)))
        assert [name for name in files_with(b"shopper-7") if save or name != "dump.rdb"] == []
        assert await stores.users.delete_user("shopper-7") == 0

    opened(redis.url, scenario)
    if appendonly == "yes":
        rewrites = (redis.folder / "log").read_text().count("AOF rewrite terminated with success")
        assert 0 < rewrites < 10  # one serves those that wait together


def test_redis_that_may_not_be_told_to_write_is_a_warning(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    redis = own_redis()
    with redis.client as client:
        client.acl_setuser(
            "shop", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@admin", "+client"]
        )

    async def scenario(stores: Stores) -> None:
        assert stores.warning is None  # it may not look
        await stores.users.record([new("a", "1")])
        assert await stores.users.delete_user("u") == 1

    opened(redis.url.replace("//", "//shop:@"), scenario)
    assert "does not permit rewriting its files" in caplog.text


def test_files_that_take_long_to_write_make_the_caller_try_again(
    own_redis: Callable[..., RedisServer],
) -> None:
    redis = own_redis(**{"rdb-key-save-delay": "20000", "aof-use-rdb-preamble": "yes"})

    async def scenario(stores: Stores) -> None:
        await stores.users.record([new("a", "1", user=f"u{n}") for n in range(30)])
        with pytest.raises(StateUnavailableError, match="still writing"):
            await stores.users.delete_user("u3")
        assert await stores.users.history("u3", 5) == []
        with redis.client as client:
            client.config_set("rdb-key-save-delay", 0)
        while True:
            try:
                assert await stores.users.delete_user("u3") == 0
                return
            except StateUnavailableError:
                await asyncio.sleep(0.05)

    opened(redis.url, scenario, erase_seconds=0.3)
