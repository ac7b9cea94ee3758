"""ExportUser and `shelfwise export user`: everything of one user, and nothing of another."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.operating import ExportUserConfig
from conf.schema import PrivacyConfig
from ranking.bundle.store import publish_version
from serving.cli.operate.export_user import export_user
from serving.state.contracts.user_state import Exposure, NewEvent, StoredEvent
from serving.state.everything import everything_of
from shelfwise_client import AsyncClient, Client, Event, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.api.test_delete_user import write_histories
from tests.serving.backends import Backend
from tests.serving.conftest import Harness, Servers, in_loop

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
SHOWN = Exposure("r-1", 3, "home", "v1", "phone", 0, 0.5, "layout=wide")


def written(config: ExportUserConfig) -> tuple[list[dict[str, Any]], str]:
    said = io.StringIO()
    path = export_user(config, Console(file=said, width=200))
    assert path.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()], said.getvalue()


def everything(backend: Backend, user: str) -> list[StoredEvent]:
    async def read(stores: Any) -> list[StoredEvent]:
        pages = everything_of(stores.users, backend.folder / "histories.parquet", user)
        return [event async for page in pages for event in page]

    return backend.run(read)


def test_all_columns_of_one_user_and_nothing_of_another(backend: Backend) -> None:
    mine = [
        NewEvent("ana", "i2", "click", START + 5, "client:b", SHOWN),
        NewEvent("ana", "i1", "impression", START, "client:a"),
        NewEvent("ana", "i1", "purchase", START + 5, "content:c"),
    ]
    theirs = [NewEvent(user, "i9", "click", START, "client:a") for user in ("an", "anab", "bob")]
    backend.users(lambda users: users.record([*theirs, *mine]))
    found = everything(backend, "ana")
    assert [(e.user_id, e.item_id, e.kind, e.time_us, e.event_id, e.exposure) for e in found] == [
        ("ana", "i1", "impression", START, "client:a", Exposure()),
        ("ana", "i2", "click", START + 5, "client:b", SHOWN),
        ("ana", "i1", "purchase", START + 5, "content:c", Exposure()),
    ]
    assert everything(backend, "nobody") == []
    backend.users(lambda users: users.delete_user("ana"))
    assert everything(backend, "ana") == []
    assert len(everything(backend, "anab")) == 1


def test_long_histories_come_in_pages(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.state.redis.users._PAGE", 100)
    events = [NewEvent("u", "i1", "view", START + n // 3, f"client:{n:05d}") for n in range(5_250)]
    backend.users(lambda users: users.record(events))
    found = everything(backend, "u")
    assert [event.event_id for event in found] == [event.event_id for event in events]


def test_what_only_the_histories_have_is_there_once(backend: Backend) -> None:
    path = backend.folder / "histories.parquet"
    rows = [
        ("u", "i1", "click", 1_700_000_000),
        ("u", "i1", "click", 1_700_000_000),
        ("u", "i2", "view", 1_700_000_050),
    ]
    rows.append(("v", "i3", "view", 1_700_000_001))
    columns = ["user_id", "item_id", "event", "timestamp"]
    frame = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        pl.int_range(pl.len()).alias("order")
    )
    frame.write_parquet(path)
    backend.users(
        lambda users: users.record([NewEvent("u", "i2", "view", START + 50 * SECOND + 7, "client:x")])
    )
    found = everything(backend, "u")  # the view was recorded, and came back by a training
    assert [(e.item_id, e.recorded) for e in found] == [("i2", True), ("i1", False), ("i1", False)]
    backend.users(lambda users: users.import_histories(path))
    assert sorted((e.item_id, e.recorded) for e in everything(backend, "u")) == [
        ("i1", False), ("i1", False), ("i2", True),
    ]  # fmt: skip


def test_a_user_is_exported_deleted_and_gone(servers: Servers, tmp_path: Path) -> None:
    write_histories(servers.store, ["ana", "bob"], 3)
    server = servers.start()
    with Client(server.address) as client:
        token = client.recommend(RecommendQuery(user_id="ana", surface="home")).attribution_token
        shown = Event("ana", "i7", "click", event_id="e-1", attribution_token=token, list_position=2)
        client.record_events([shown, Event("bob", "i8", "click")])
        found = list(client.export_user("ana"))
        assert [event.imported for event in found] == [True, True, True, False]
        last = found[-1]
        assert (last.item_id, last.event, last.event_id) == ("i7", "click", "e-1")
        assert (last.surface, last.list_position, last.model_version) == ("home", 2, "v1")
        assert last.propensity == 1.0
        assert last.event_time <= datetime.now(UTC)

        async def also() -> int:
            async with AsyncClient(server.address) as other:
                return len([event async for event in other.export_user("ana")])

        assert in_loop(also()) == 4
        config = ExportUserConfig(address=server.address, user="ana", output=str(tmp_path / "ana.jsonl"))
        rows, said = written(config)
        assert said == f"4 events written to {tmp_path / 'ana.jsonl'}\n"
        assert {row["user_id"] for row in rows} == {"ana"}
        assert rows[-1]["surface"] == "home"
        assert "i8" not in {row["item_id"] for row in rows}
        beside = ExportUserConfig(artifacts=str(server.store), user="ana", output=str(tmp_path / "b.jsonl"))
        written(beside)  # without the server: the same bytes
        assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "ana.jsonl").read_bytes()
        client.delete_user("ana")
        assert list(client.export_user("ana")) == []
        assert len(list(client.export_user("bob"))) == 4
        assert written(config)[0] == []


def test_an_unknown_user_is_answered_with_a_message_without_events(server: Harness) -> None:
    [response] = server.stub.ExportUser(pb.ExportUserRequest(user_id="nobody"), timeout=10)
    assert len(response.events) == 0
    assert len(response.request_id) == 32
    with Client(server.address) as client:
        with pytest.raises(ServiceError, match="user_id"):
            list(client.export_user(""))
        with pytest.raises(ServiceError, match="user_id"):
            list(client.export_user("x" * 257))


def test_messages_stay_below_the_limit_of_the_server(servers: Servers) -> None:
    server = servers.start(max_message_bytes=65_536, max_event_batch=200)
    with Client(server.address) as client:
        for batch in range(5):
            client.record_events(
                [Event("u", "i1", "click", event_id=f"{batch}-{n}-" + "x" * 200) for n in range(200)]
            )
        responses = list(server.stub.ExportUser(pb.ExportUserRequest(user_id="u"), timeout=20))
        assert sum(len(response.events) for response in responses) == 1000
        assert max(response.ByteSize() for response in responses) <= 40_000
        assert len(responses) > 5


def test_without_a_server_from_the_store(backend: Backend, tmp_path: Path) -> None:
    backend.users(lambda users: users.record([NewEvent("u", "i1", "click", START, "client:e", SHOWN)]))
    output = tmp_path / "u.parquet"
    said = io.StringIO()
    settings: dict[str, Any] = {"user": "u", "artifacts": str(backend.folder), "state": backend.state}
    export_user(ExportUserConfig(output=str(output), **settings), Console(file=said))
    row = pl.read_parquet(output).row(0, named=True)
    assert (row["user_id"], row["item_id"], row["event_id"], row["imported"]) == ("u", "i1", "e", False)
    assert (row["hour"], row["propensity"], row["experiments"]) == (0, 0.5, "layout=wide")
    assert row["timestamp"] == datetime.fromtimestamp(START / SECOND, UTC)
    rows, _ = written(ExportUserConfig(output=str(tmp_path / "u.jsonl"), **settings))
    assert (rows[0]["hour"], rows[0]["timestamp"]) == (0, "2023-11-14T22:13:20+00:00")


def test_pseudonymised_users_are_found_by_their_own_id(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "k" * 32)
    privacy = PrivacyConfig(hash_users=True)
    server = servers.start(privacy=privacy)
    with Client(server.address) as client:
        client.record_events([Event("ana", "i1", "click")])
        assert len(list(client.export_user("ana"))) == 1
    publish_version(server.store, lambda folder: None, {"hash_users": True})
    settings: dict[str, Any] = {
        "user": "ana",
        "artifacts": str(server.store),
        "output": str(tmp_path / "a.jsonl"),
    }
    assert [row["user_id"] for row in written(ExportUserConfig(privacy=privacy, **settings))[0]] == ["ana"]
    with pytest.raises(InputError, match="was made with privacy.hash_users=true; set it likewise"):
        export_user(ExportUserConfig(**settings), Console(file=io.StringIO()))


def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    quiet, output = Console(file=io.StringIO()), str(tmp_path / "u.jsonl")
    for settings, says in (
        ({}, "user=ID is missing"),
        ({"user": "u", "output": "u.csv"}, "output=u.csv: name a .jsonl or a .parquet file"),
        (
            {"user": "u", "address": "127.0.0.1:1", "output": str(tmp_path / "u.jsonl")},
            "no server answers at",
        ),
        ({"user": "u", "artifacts": str(tmp_path), "output": output}, "no such file"),
    ):
        with pytest.raises(InputError, match=says):
            export_user(ExportUserConfig(**settings), quiet)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_in_the_audit_log(servers: Servers, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    server = servers.start(audit=str(log))
    with Client(server.address) as client:
        client.record_events([Event("ana", "i1", "click")])
        assert len(list(client.export_user("ana"))) == 1
    for _ in range(100):
        if log.read_text():
            break
        in_loop(asyncio.sleep(0.05))
    line = json.loads(log.read_text())
    assert (line["action"], line["outcome"], line["exported_events"]) == ("ExportUser", "OK", 1)
    assert "ana" not in log.read_text()
