"""`shelfwise export events`: from what servers recorded to a table that `prepare` reads."""

from __future__ import annotations

import io
import json
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.operating import ExportEventsConfig
from conf.schema import DataConfig, PipelineConfig, PrivacyConfig
from features.ingest.privacy import PSEUDONYM, Pseudonyms
from features.prepare import prepare
from ranking.bundle.store import publish_version
from serving.cli.export_events import export_events
from serving.state.contracts.user_state import Exposure, NewEvent, StateUnavailableError
from serving.stores import Stores
from tests.serving.backends import Backend
from tests.serving.redis_server import RedisServer
from tests.serving.test_process import Process, record_until_it_ends

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
SHOWN = Exposure("r-1", 3, "home", "v1", "phone", 17, 0.5, "layout=wide;ranking=new")


def export(backend: Backend, output: Path, **settings: Any) -> tuple[pl.DataFrame, str]:
    said = io.StringIO()
    artifacts = {"artifacts": str(output.parent / "artifacts")}
    config = ExportEventsConfig(**{**artifacts, "state": backend.state, "output": str(output), **settings})
    export_events(config, Console(file=said, width=200))
    return pl.read_parquet(output), said.getvalue()


def record(backend: Backend, *events: NewEvent) -> None:
    backend.users(lambda state: state.record(events))


def prepared(folder: Path, **data: Any) -> pl.DataFrame:
    (folder / "items.csv").write_text("item_id,title\n1,Red boots\n2,Blue hat\n")
    config = PipelineConfig(
        work_dir=str(folder / "work"),
        data=DataConfig(items=str(folder / "items.csv"), **data.pop("data", {})),
        **data,
    )
    prepare(config, Console(quiet=True))
    return pl.read_parquet(folder / "work" / "dataset" / "events.parquet")


def test_the_next_training_reads_what_was_recorded(backend: Backend, tmp_path: Path) -> None:
    record(
        backend,
        NewEvent("ben", "2", "purchase", START + 5 * SECOND, "client:order-9"),
        NewEvent("anna", "1", "click", START + 1, "content:4f"),
        NewEvent("anna", "2", "impression", START, "client:shown-1", SHOWN),
    )
    table, said = export(backend, tmp_path / "events.parquet")
    rows = {row["event_id"]: row for row in table.to_dicts()}
    assert set(rows) == {"order-9", "content:4f", "shown-1"}
    shown = rows["shown-1"]
    assert {name: shown[name] for name in ("user_id", "item_id", "event")} == {
        "user_id": "anna",
        "item_id": "2",
        "event": "impression",
    }
    assert shown["timestamp"].isoformat() == "2023-11-14T22:13:20+00:00"
    assert (shown["list_position"], shown["request_id"], shown["hour"]) == (3, "r-1", 17)
    assert (shown["experiments"], rows["content:4f"]["experiments"]) == ("layout=wide;ranking=new", None)
    assert rows["content:4f"]["timestamp"].microsecond == 1
    assert rows["content:4f"]["surface"] is None
    assert said == f"3 events of 2 users written to {tmp_path / 'events.parquet'}\n"

    (tmp_path / "log.csv").write_text("user_id,item_id,event,timestamp\nanna,2,click,1600000000\n")
    files = {"events": [str(tmp_path / "log.csv"), str(tmp_path / "events.parquet")]}
    events = prepared(tmp_path, data=files)
    assert events.select("user_id", "item_id", "event", "timestamp").rows() == [
        ("anna", "2", "click", 1_600_000_000),
        ("anna", "1", "click", 1_700_000_000),
        ("ben", "2", "purchase", 1_700_000_005),
    ]  # impressions have weight 0 unless it is said otherwise
    weighted = {"event_weights": {"impression": 1.0, "click": 1.0, "purchase": 1.0}}
    events = prepared(tmp_path, data={**files, **weighted})
    assert events.filter(pl.col("event") == "impression")["list_position"].to_list() == [3]


def test_what_the_last_training_had_is_left_out_unless_it_is_asked_for(
    backend: Backend, tmp_path: Path
) -> None:
    path = tmp_path / "h.parquet"
    pl.DataFrame(
        {"user_id": ["u", "u"], "item_id": ["1", "2"], "event": "click", "timestamp": [5, 5], "order": [0, 1]}
    ).write_parquet(path)
    backend.users(lambda state: state.import_histories(path))
    record(backend, NewEvent("u", "1", "purchase", START, "client:1"))
    assert export(backend, tmp_path / "e.parquet")[0]["event"].to_list() == ["purchase"]
    table, _ = export(backend, tmp_path / "e.parquet", imported=True)
    assert table["item_id"].to_list() == ["1", "2", "1"]


def test_large_states_are_written_piece_by_piece(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.cli.export_events._ROWS", 400)
    events = [NewEvent(f"u{n % 70}", "1", "click", START + n, f"client:{n}") for n in range(2000)]
    pieces: list[int] = []

    async def scenario(stores: Stores) -> None:
        for start in range(0, 2000, 500):
            await stores.users.record(events[start : start + 500])
        pieces.extend([len(piece) async for piece in stores.users.stored(True)])

    backend.run(scenario)
    assert sum(pieces) == 2000
    table, said = export(backend, tmp_path / "e.parquet")
    assert sorted(table["event_id"].cast(pl.Int64).to_list()) == list(range(2000))
    assert said.startswith("2,000 events of 70 users written to ")
    file = pq.ParquetFile(tmp_path / "e.parquet")
    assert file.num_row_groups >= 2 or max(pieces) >= 2000
    for _, rows in table.group_by("user_id"):
        assert rows["timestamp"].is_sorted()


def test_pseudonyms_are_exported_as_such_and_taken_as_they_are(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Pseudonyms(b"key").of("anna")
    record(backend, NewEvent(name, "1", "click", START, "client:1"))

    def write(folder: Path) -> None:
        (folder / "x").write_text("x")

    publish_version(tmp_path / "artifacts", write, {"hash_users": True})
    table, said = export(backend, tmp_path / "events.parquet")
    assert table["user_id"].to_list() == [PSEUDONYM + name]
    assert "user ids are pseudonyms" in said
    monkeypatch.setenv("TEST_USER_KEY", "key")
    (tmp_path / "log.csv").write_text("user_id,item_id,event,timestamp\nanna,2,click,1600000000\n")
    files = {"events": [str(tmp_path / "log.csv"), str(tmp_path / "events.parquet")]}
    events = prepared(tmp_path, data=files, privacy=PrivacyConfig(hash_users=True, key_env="TEST_USER_KEY"))
    assert events.select("user_id", "item_id").rows() == [(name, "2"), (name, "1")]


def test_a_killed_server_has_lost_nothing(backend: Backend, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    server = Process(store, state=backend.state)
    acknowledged, sender = record_until_it_ends(server)
    while len(acknowledged) < 30 and sender.is_alive():
        time.sleep(0.001)
    assert server.end(signal.SIGKILL)[0] == -signal.SIGKILL
    sender.join()
    table, _ = export(backend, tmp_path / "e.parquet")
    assert len(acknowledged) >= 30
    assert set(acknowledged) <= set(table["event_id"].to_list())


def test_a_failed_export_leaves_the_former_file(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(backend, NewEvent("u", "1", "click", START, "client:1"))
    before, _ = export(backend, tmp_path / "e.parquet")

    def broken(*_: object) -> None:
        raise StateUnavailableError("gone")

    monkeypatch.setattr("serving.cli.export_events._columns", broken)
    with pytest.raises(InputError, match="state: gone"):
        export(backend, tmp_path / "e.parquet")
    monkeypatch.undo()
    assert pl.read_parquet(tmp_path / "e.parquet").equals(before)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["e.parquet"]
    assert not list(tmp_path.glob(".*.parts"))  # rows that name users


def test_an_empty_state_makes_an_empty_table(backend: Backend, tmp_path: Path) -> None:
    record(backend)
    table, said = export(backend, tmp_path / "e.parquet")
    assert table.height == 0
    assert table.columns[:5] == ["user_id", "item_id", "event", "timestamp", "event_id"]
    assert said.startswith("0 events of 0 users")


def test_what_cannot_be_exported_is_one_line(
    redis_server: RedisServer, backend: Backend, tmp_path: Path
) -> None:
    missing = Backend(str(tmp_path / "none.sqlite"), tmp_path)
    with pytest.raises(InputError, match=r"none\.sqlite: no such file, so nothing was recorded here"):
        export(missing, tmp_path / "e.parquet")
    with redis_server.client as client:
        client.flushall()
    with pytest.raises(InputError, match=r"holds no store under redis\.prefix="):
        export(Backend(redis_server.url, tmp_path), tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"output=.*\.csv: name a \.parquet file"):
        export(backend, tmp_path / "e.csv")
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(InputError, match="cannot be written"):
        export(backend, tmp_path / "file" / "e.parquet", artifacts=str(tmp_path))
    assert not (tmp_path / "none.sqlite").exists()
