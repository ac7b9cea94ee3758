"""The audit log: every change, erasure and export with its author, and no secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from rich.console import Console

from conf.clients import ClientTlsConfig
from conf.errors import InputError
from conf.operating import BackupConfig, CreateKeyConfig, RestoreConfig, RollbackConfig
from conf.serving import TlsConfig
from features.files.audit_log import AuditLog, record_command
from ranking.bundle.rollback import rollback
from ranking.bundle.store import publish_version
from serving.cli.connection import credentials_of
from serving.cli.create_key import create_key as create_key_command
from serving.cli.operate.backup import backup
from serving.cli.operate.restore import restore
from serving.transport.api_keys import create_key
from shelfwise_client import Client, Event, Item, ItemUpdate, RecommendQuery, ServiceError
from tests.faults.changing_bundle import ChangingBundle
from tests.faults.server_process import ROOT
from tests.serving.conftest import Servers, until


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_changes_and_erasures_have_their_author(servers: Servers, tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.json", tmp_path / "audit.jsonl"
    secret = create_key(keys, "warehouse", ["admin", "read", "events"])
    model = ChangingBundle()
    server = servers.start(model, live=model, keys=str(keys), admin=None, audit=str(log))
    with Client(server.address, api_key=secret) as client:
        client.upsert_items([Item("n1", {"title": "Secret title"}), Item("", {})])
        client.update_item(ItemUpdate("i1", {"price": 2.0}))
        client.declare_attributes({"shelf": "string"})
        client.delete_items([f"i{number}" for number in range(2, 26)])
        client.record_events([Event("alice@shop", "i1", "click")])
        client.recommend(RecommendQuery(user_id="alice@shop"))
        client.delete_user("alice@shop", validate_only=True)
        client.delete_user("alice@shop")
        with pytest.raises(ServiceError):
            client.update_item(ItemUpdate("?", {"price": 2.0}))
    until(lambda: len(lines(log)) == 6)
    found = lines(log)
    assert [(line["action"], line["outcome"]) for line in found] == [
        ("UpsertItems", "OK"), ("UpdateItem", "OK"), ("DeclareAttributes", "OK"), ("DeleteItems", "OK"),
        ("DeleteUser", "OK"), ("UpdateItem", "NOT_FOUND"),
    ]  # fmt: skip
    assert {line["key"] for line in found} == {"warehouse"}
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") and len(line["request_id"]) == 32 for line in found)
    assert (found[0]["items"], found[0]["upserted_items"], found[0]["rejected_items"]) == (["n1", ""], 1, 1)
    assert found[1]["attributes"] == ["price"]
    assert found[2]["attributes"] == ["shelf"]
    assert (len(found[3]["items"]), found[3]["more_items"], found[3]["deleted_items"]) == (20, 4, 24)
    state = server.running._stores.users
    assert found[4]["erasure"] == state.erasure_name("alice@shop")
    assert (found[4]["deleted_events"], len(found[4]["user"])) == (1, 8)
    text = log.read_text()
    assert not any(word in text for word in ("alice", secret, "Secret title"))
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_client_certificate_is_named(servers: Servers, tmp_path: Path) -> None:
    authority, log = trustme.CA(), tmp_path / "audit.jsonl"
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "own", "own_key")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    for names, certificate, key in ((("127.0.0.1",), "cert", "key"), (("feed@shop",), "own", "own_key")):
        issued = authority.issue_cert(*names, common_name=names[0])
        issued.cert_chain_pems[0].write_to_path(str(files[certificate]))
        issued.private_key_pem.write_to_path(str(files[key]))
    tls = TlsConfig(str(files["cert"]), str(files["key"]), str(files["ca"]))
    server = servers.start(tls=tls, audit=str(log))
    own = ClientTlsConfig(True, str(files["ca"]), str(files["own"]), str(files["own_key"]))
    with Client(server.address, credentials=credentials_of(own)) as client:
        client.delete_user("u")
    until(lambda: len(lines(log)) == 1)
    assert "feed@shop" in lines(log)[0]["certificate"]
    assert "key" not in lines(log)[0]


def test_lines_go_to_the_new_file_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path))
    log.write("a", "OK")
    path.rename(tmp_path / "audit.jsonl.1")
    log.write("b", "OK", sync=True)
    path.unlink()
    log.write("c", "OK")
    assert [line["action"] for line in lines(tmp_path / "audit.jsonl.1")] == ["a"]
    assert [line["action"] for line in lines(path)] == ["c"]
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()


def test_processes_and_threads_share_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    code = (
        "import sys; from features.files.audit_log import AuditLog; log = AuditLog(sys.argv[1]);"
        "[log.write('x' * 3000, 'OK', number=n) for n in range(200)]"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT) for _ in range(2)]
    log = AuditLog(str(path))

    def write() -> None:
        for number in range(200):
            log.write("y" * 3000, "OK", number=number)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in started] == [0, 0]
    log.close()
    assert sorted(line["number"] for line in lines(path)) == sorted([*range(200)] * 4)


def test_a_log_that_cannot_be_written_is_named_at_the_start_and_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="audit=.*none/audit.jsonl: cannot be written"):
        AuditLog(str(tmp_path / "none" / "audit.jsonl"))
    log = AuditLog(str(tmp_path / "audit.jsonl"))
    real = os.write

    def full(descriptor: int, content: bytes) -> int:
        return real(descriptor, content[:10]) if len(content) > 1 else real(descriptor, content)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        log.write("a", "OK")
        log.write("b", "OK")
    log.write("c", "OK")
    assert (
        caplog.text.count("the audit log cannot be written (No space left on device); lines are missing") == 1
    )
    written = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [len(line) for line in written[:2]] == [10, 10]
    assert json.loads(written[2])["action"] == "c"
    log.close()


def test_commands_that_change_a_store_are_recorded_without_secrets(tmp_path: Path) -> None:
    quiet, store = Console(file=io.StringIO()), tmp_path / "store"
    for text in "ab":
        publish_version(store, lambda folder, t=text: (folder / "m").write_text(t) and None, {})  # type: ignore[misc]
    rollback(RollbackConfig(str(store)), quiet)
    create_key_command(CreateKeyConfig("shop", str(store / "keys.json")), quiet)
    (store / "state.sqlite").touch()
    record_command(store, "publish", version="v", nothing=None)
    found = lines(store / "audit.jsonl")
    assert [line["action"] for line in found] == ["rollback", "create-key", "publish"]
    assert found[0]["former"] > found[0]["version"]
    assert (found[1]["name"], found[1]["scopes"]) == ("shop", ["read", "events"])
    assert "sw_" not in (store / "audit.jsonl").read_text()
    assert {"account", "host"} <= set(found[2])
    assert "nothing" not in found[2]


def test_backups_and_restores_are_recorded(servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    with Client(server.address) as client:
        client.record_events([Event("u", "i1", "click")])
    quiet, new = Console(file=io.StringIO()), tmp_path / "new"
    new.mkdir()
    backup(BackupConfig(str(server.store), output=str(tmp_path / "backups")), quiet)
    restore(RestoreConfig(str(tmp_path / "backups"), str(new)), quiet)
    made, restored = lines(server.store / "audit.jsonl")[-1], lines(new / "audit.jsonl")[-1]
    assert (made["action"], made["events"]) == ("backup", 1)
    assert (restored["action"], restored["erased_again"], restored["backup"]) == ("restore", 0, made["place"])


def test_an_erasure_in_the_log_is_repeated_after_a_restore(servers: Servers, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    server = servers.start(audit=str(log))
    quiet, new = Console(file=io.StringIO(), width=200), tmp_path / "new"
    with Client(server.address) as client:
        client.record_events([Event("gone", "i1", "click"), Event("here", "i1", "click")])
        backup(BackupConfig(str(server.store), output=str(tmp_path / "backups")), quiet)
        client.delete_user("gone")
    restore(RestoreConfig(str(tmp_path / "backups"), str(new), erasures=str(log)), quiet)
    again = servers.start(artifacts=str(new))
    with Client(again.address) as client:
        assert client.status().user_count == 1
        assert client.recommend(RecommendQuery(user_id="gone")).degradation == "popularity"
        assert client.recommend(RecommendQuery(user_id="here")).degradation == "none"
