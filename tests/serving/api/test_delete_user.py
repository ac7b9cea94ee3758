"""DeleteUser: no trace of the user in any file or response."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest

from conf.schema import PrivacyConfig
from serving.state.contracts.user_state import StateUnavailableError
from serving.state.histories import remove_users
from serving.state.sqlite.users import SqliteUserState
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers

ALICE = "alice.wonderland@example.com"
BOB = "bob.builder@example.com"


def write_histories(store: Path, users: list[str], events: int = 200) -> Path:
    rows = [(u, f"i{n % 30}", "purchase", 1_600_000_000 + n, n) for u in users for n in range(events)]
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    path = store / "histories.parquet"
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path, compression="uncompressed")
    return path


def files_with(store: Path, text: str) -> list[str]:
    return sorted(p.name for p in store.rglob("*") if p.is_file() and text.encode() in p.read_bytes())


def test_no_byte_of_a_deleted_user_is_left_in_any_file(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    write_histories(servers.store, [ALICE, BOB])
    caplog.set_level(logging.DEBUG)
    server = servers.start(log_requests=True)
    with Client(server.address) as client:
        for start in range(0, 300, 50):
            client.record_events(
                [Event(ALICE, "i7", "click", event_id=f"alice-{start + n}") for n in range(50)]
            )
        client.record_events([Event(BOB, "i8", "click", event_id="bob-1")])
        client.recommend(RecommendQuery(user_id=ALICE))
        assert files_with(server.store, ALICE)
        assert files_with(server.store, "alice-1")
        result = client.delete_user(ALICE)
        assert result.deleted_event_count == 500
        # at once: the server still runs, the log and the freed pages included
        assert files_with(server.store, ALICE) == []
        assert files_with(server.store, "alice-1") == []
        assert files_with(server.store, BOB) != []
        assert client.recommend(RecommendQuery(user_id=ALICE)).degradation == "popularity"
        assert client.recommend(RecommendQuery(user_id=BOB)).degradation == "none"
        assert client.status().user_count == 1
        assert client.delete_user(ALICE).deleted_event_count == 0
    histories = pl.read_parquet(server.store / "histories.parquet")
    assert histories["user_id"].unique().to_list() == [BOB]
    assert histories.height == 200
    assert ALICE not in caplog.text
    assert "alice" not in caplog.text
    servers.stop(server)
    assert files_with(server.store, ALICE) == []


def test_a_deleted_user_does_not_come_back_with_a_restart_or_new_histories(servers: Servers) -> None:
    write_histories(servers.store, [ALICE, BOB])
    server = servers.start()
    with Client(server.address) as client:
        client.delete_user(ALICE)
    servers.stop(server)
    write_histories(servers.store, [ALICE, BOB], events=201)  # the next training still knew the user
    with Client(servers.start().address) as client:
        assert client.recommend(RecommendQuery(user_id=ALICE)).degradation == "popularity"
        assert client.recommend(RecommendQuery(user_id=BOB)).degradation == "none"
        assert client.status().user_count == 1
        # what happens from now on is a new beginning
        assert client.record_events([Event(ALICE, "i7", "click")]).new_count == 1
        assert client.recommend(RecommendQuery(user_id=ALICE)).degradation == "none"


def test_pseudonymised_users_are_deleted_under_their_pseudonym(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "k" * 32)
    server = servers.start(privacy=PrivacyConfig(hash_users=True))
    with Client(server.address) as client:
        client.record_events([Event(ALICE, "i7", "click")])
        assert files_with(server.store, ALICE) == []
        assert client.delete_user(ALICE).deleted_event_count == 1
        assert client.status().user_count == 0


def test_a_read_that_keeps_the_log_makes_the_caller_try_again(server: Harness) -> None:
    with Client(server.address) as client:
        client.record_events([Event(ALICE, "i7", "click")])
        users = server.running._stores.users
        assert isinstance(users, SqliteUserState)
        users._file.writer.execute("PRAGMA busy_timeout = 10")
        reader = sqlite3.connect(server.store / "state.sqlite")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()
        with pytest.raises(ServiceError) as caught:
            client.delete_user(ALICE)
        assert caught.value.reason == "STATE_UNAVAILABLE"
        assert client.recommend(RecommendQuery(user_id=ALICE)).degradation == "popularity"
        reader.close()
        assert client.delete_user(ALICE).deleted_event_count == 0
        assert files_with(server.store, ALICE) == []


def test_a_histories_file_that_cannot_be_read_is_an_error_not_silence(server: Harness) -> None:
    (server.store / "histories.parquet").write_bytes(b"nonsense")
    with Client(server.address) as client, pytest.raises(ServiceError) as caught:
        client.delete_user(ALICE)
    assert caught.value.reason == "STATE_UNAVAILABLE"
    with pytest.raises(StateUnavailableError, match="cannot be taken out"):
        remove_users(server.store / "histories.parquet", [ALICE])


def test_a_file_published_meanwhile_is_cleaned_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_histories(tmp_path, [ALICE, BOB])
    write = pl.LazyFrame.sink_parquet
    published: list[bool] = []

    def slow_write(table: pl.LazyFrame, target: Path, **settings: Any) -> None:
        write(table, target, **settings)
        if not published:
            published.append(True)
            newer = tmp_path / "newer"
            newer.mkdir()
            after = pl.DataFrame({"user_id": [ALICE, "carol"], "item_id": ["i1", "i2"]})
            after.write_parquet(newer / "h.parquet")
            (newer / "h.parquet").replace(path)

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", slow_write)
    remove_users(path, [ALICE])
    assert pl.read_parquet(path)["user_id"].to_list() == ["carol"]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["histories.parquet"]


@pytest.mark.parametrize("user_id", ["", "u" * 257])
def test_user_ids_are_checked(server: Harness, user_id: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.DeleteUser(pb.DeleteUserRequest(user_id=user_id), timeout=10)
    error = ServiceError.of(caught.value)
    assert (error.code, [v.field for v in error.violations]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["user_id"],
    )
