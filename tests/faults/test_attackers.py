"""Attacks that need a process, forged bytes or inspection of files; see also test_security."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from conf.errors import InputError
from serving.api.service import SERVICE_NAME
from serving.api.tokens import fingerprint
from serving.model.shown_items import id_hash
from serving.transport.api_keys import KeyRing, Scope, create_key
from shelfwise_client import Client, Event, Item, RecommendQuery, SearchQuery, ServiceError, SimilarQuery
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.faults.conftest import Processes
from tests.faults.server_process import ServerProcess
from tests.serving.api.test_delete_user import files_with, write_histories
from tests.serving.conftest import Harness
from tests.serving.fake_bundle import POISON
from tests.serving.transport.test_security import GOOD, METHODS, bearer

MEBIBYTE = 2**20


@pytest.fixture
def keys(processes: Processes) -> dict[str, str]:
    """A key for each scope, and one for all, outside the store."""
    path = processes.logs.with_name("keys.json")
    made = {scope.value: create_key(path, scope.value, [scope.value]) for scope in Scope}
    return {**made, "all": create_key(path, "all", [scope.value for scope in Scope]), "file": str(path)}


@pytest.fixture
def guarded(processes: Processes, keys: dict[str, str]) -> ServerProcess:
    return processes.start(keys=keys["file"])


@pytest.fixture
def raw(guarded: ServerProcess) -> Iterator[Any]:
    """A call that sends bytes as they are, of any size."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 64 * MEBIBYTE)]
    with grpc.insecure_channel(guarded.address, options=unlimited) as channel:
        yield channel.unary_unary(f"/{SERVICE_NAME}/Recommend")


def end_of(call: Any, data: bytes, **options: Any) -> grpc.StatusCode:
    try:
        call(data, timeout=60, **options)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_small_message_that_expands_is_not_expanded(
    guarded: ServerProcess, raw: Any, keys: dict[str, str]
) -> None:
    bomb = pb.RecommendRequest(filter="x" * (200 * MEBIBYTE)).SerializeToString()  # 200 kB once it is packed
    before = guarded.resident_bytes()
    for metadata in ((), bearer(keys["all"])):
        code = end_of(raw, bomb, compression=grpc.Compression.Gzip, metadata=metadata)
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
    assert _peak_bytes(guarded) - before < 64 * MEBIBYTE
    small = pb.RecommendRequest(page_size=1).SerializeToString()
    packed = end_of(raw, small, compression=grpc.Compression.Gzip, metadata=bearer(keys["all"]))
    assert packed is grpc.StatusCode.OK  # compression itself is welcome


def _peak_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_oversize_messages_and_headers_are_refused_unread(
    guarded: ServerProcess, raw: Any, keys: dict[str, str]
) -> None:
    known = bearer(keys["all"])
    before = guarded.resident_bytes()
    for _ in range(5):
        assert end_of(raw, b"\0" * (5 * MEBIBYTE), metadata=known) is grpc.StatusCode.RESOURCE_EXHAUSTED
        for extra in ((("x-large", "a" * MEBIBYTE),), tuple((f"x-{n}", "a" * 500) for n in range(200))):
            code = end_of(raw, b"", metadata=(*known, *extra))
            assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
    assert end_of(raw, b"", metadata=known) is grpc.StatusCode.OK
    assert guarded.resident_bytes() - before < 64 * MEBIBYTE


def test_forged_and_garbled_page_tokens(server: Harness) -> None:
    request = pb.RecommendRequest(user_id="u", page_size=5)
    first = server.stub.Recommend(request, timeout=10)
    token = first.next_page_token
    seen = {item.item_id for item in first.items}

    def reason(message: Any) -> str:
        method = getattr(server.stub, type(message).__name__.removesuffix("Request"))
        with pytest.raises(grpc.RpcError) as caught:
            method(message, timeout=10)
        error = ServiceError.of(caught.value)
        assert [violation.field for violation in error.violations] == ["page_token"]
        return error.reason

    for place in range(0, len(token), 3):
        garbled = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert reason(pb.RecommendRequest(user_id="u", page_token=garbled)) == "PAGE_TOKEN_INVALID"
    for nonsense in (token[:-4], token + "AAAA", "=", "AQ", "é", "\0", "A" * 11_999, "../..", token.lower()):
        assert reason(pb.RecommendRequest(user_id="u", page_token=nonsense)) == "PAGE_TOKEN_INVALID"
    for other in (
        pb.RecommendRequest(user_id="v", page_token=token),  # another user's
        pb.RecommendRequest(page_token=token),
        pb.RecommendRequest(user_id="u", page_token=token, filter="in_stock"),
        pb.SearchItemsRequest(query="boots", user_id="u", page_token=token),
        pb.SimilarItemsRequest(item_id="i1", page_token=token),
    ):
        assert reason(other) == "PAGE_TOKEN_MISMATCH"

    # Who makes a token of his own, which is no secret, can only leave items out of his own list.
    body = b"\x01" + fingerprint(request) + np.array([id_hash("i29")], dtype="<u4").tobytes()
    checksum = hashlib.blake2b(body, digest_size=8, person=b"page token").digest()
    forged = base64.urlsafe_b64encode(body + checksum).decode().rstrip("=")
    page = server.stub.Recommend(
        pb.RecommendRequest(user_id="u", page_size=30, page_token=forged), timeout=10
    )
    assert {item.item_id for item in page.items} == {f"i{n}" for n in range(29)} >= seen


def test_events_under_another_users_id_change_nothing_of_the_first(server: Harness) -> None:
    """An event id is unique within its user: it neither overwrites nor blocks another user's event."""
    with Client(server.address) as client:
        client.record_events([Event("alice", "i3", "purchase", event_id="order-1")])
        assert client.record_events([Event("mallory", "i10", "click", event_id="order-1")]).new_count == 1
        assert client.record_events([Event("alice", "i10", "click", event_id="order-1")]).duplicate_count == 1
        for user, follower in (("alice", "i4"), ("mallory", "i11")):
            page = client.recommend(RecommendQuery(user_id=user, page_size=30))
            assert [item.item_id for item in page.items if item.source == "item_to_item"] == [follower]
        assert client.delete_user("mallory").deleted_event_count == 1
        assert client.recommend(RecommendQuery(user_id="alice", page_size=1)).items[0].item_id == "i4"


def test_keys_are_compared_in_constant_time_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    secrets = [create_key(path, f"k{n}", ["read"]) for n in range(4)]
    ring, compared = KeyRing(path), []
    compare = hmac.compare_digest

    def counting(given: str, known: str) -> bool:
        compared.append((given, known))
        return compare(given, known)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for secret in (*secrets, "wrong", secrets[0][:-1]):
        compared.clear()
        found = ring.find(secret)
        assert (found is not None) == (secret in secrets)
        assert len(compared) == 4  # no early end tells which one it is
        assert all(given == hashlib.sha256(secret.encode()).hexdigest() for given, _ in compared)
    monkeypatch.setattr(hmac, "compare_digest", lambda given, known: False)
    assert ring.find(secrets[0]) is None  # nothing else decides


def test_a_key_file_that_everybody_can_write_is_refused(processes: Processes, keys: dict[str, str]) -> None:
    path = Path(keys["file"])
    assert path.stat().st_mode & 0o777 == 0o600
    os.chmod(path, 0o666)
    code, line = processes.begin(processes.command(keys=str(path))).failed()
    assert code == 2
    assert f"{path}: everybody on this machine could add a key" in line
    os.chmod(path, 0o644)  # hashes of random keys may be read
    KeyRing(path)
    os.chmod(path, 0o602)
    with pytest.raises(InputError, match="chmod o-w"):
        create_key(path, "another", ["admin"])


def test_no_key_no_user_and_no_words_in_anything_that_is_written(
    processes: Processes, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends every kind of request to a server with full logs and pseudonyms, then searches its files."""
    monkeypatch.setenv("SHELFWISE_USER_KEY", pseudonym_key := "pseudonym-secret-" + "k" * 32)
    user, words, guessed = "alice.wonderland@example.com", "very private words", "guessed-key-123"
    settings = {"keys": keys["file"], "log_requests": True, "privacy.hash_users": True, "reflection": True}
    server = processes.start(**settings)
    for key in (*(keys[scope] for scope in ("read", "events", "admin")), guessed):
        with grpc.insecure_channel(server.address) as channel:
            stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
            for method in METHODS:
                end_of(getattr(stub, method), GOOD[method], metadata=bearer(key))
            for data in (b"\xff" + user.encode(), b"\x0a\xff" + words.encode()):
                call: Any = channel.unary_unary(f"/{SERVICE_NAME}/Recommend")
                assert end_of(call, data, metadata=bearer(key)) is not grpc.StatusCode.OK
            path: Any = channel.unary_unary(f"/{SERVICE_NAME}/{user}")  # a method that is not there
            end_of(path, b"", metadata=bearer(key))
    with Client(server.address, api_key=keys["all"]) as client:
        client.record_events([Event(user, "i1", "click"), Event(user, f"{words}-item", "click")])
        client.recommend(RecommendQuery(user_id=user, intent=words, explain=True))
        client.search_items(SearchQuery(words, user_id=user))
        client.similar_items(SimilarQuery(text=words))
        client.upsert_items([Item("n1", {"title": "Boot one"})])
        for wrong in (
            RecommendQuery(user_id=user, filter=f"nope = '{words}'"),
            RecommendQuery(user_id=user, surface=words),
            RecommendQuery(user_id=user * 100), RecommendQuery(user_id=user, intent=POISON),
            RecommendQuery(user_id=user, page_token=user),
        ):  # fmt: skip
            with pytest.raises(ServiceError):
                client.recommend(wrong)
        client.delete_user("bob.builder@example.com")
    text = server.out.read_text() + server.err.read_text()
    assert "Recommend OK" in text
    assert "refused KEY_INVALID" in text
    assert "poisoned" in text
    assert " DEBUG " in text
    assert server.stop() == 0
    folders = (processes.store, processes.logs)
    secrets = (
        *(keys[k] for k in ("read", "events", "admin", "all")),
        guessed,
        user,
        "alice",
        "bob.b",
        words,
        pseudonym_key,
    )
    found = {
        secret: [name for folder in folders for name in files_with(folder, secret)] for secret in secrets
    }
    assert {secret: names for secret, names in found.items() if names} == {}
    assert "Boot one" in (processes.store / "state.sqlite").read_bytes().decode(
        "latin1"
    )  # it was searched for real
    held = json.loads(Path(keys["file"]).read_text())["keys"]
    assert len(held) == len(set(keys) - {"file"})
    assert all(entry["sha256"] not in text for entry in held)


def test_a_deleted_user_is_in_no_file_and_no_log_while_the_server_runs(processes: Processes) -> None:
    user = "carol.danvers@example.com"
    write_histories(processes.store, [user, "bob"])
    server = processes.start(log_requests=True)
    with Client(server.address) as client:
        client.record_events([Event(user, "i7", "click", event_id=f"carol-event-{n}") for n in range(500)])
        token = client.recommend(RecommendQuery(user_id=user, page_size=5, explain=True)).next_page_token
        client.search_items(SearchQuery("boots", user_id=user))
        assert user not in base64.urlsafe_b64decode(token + "==").decode("latin1")
        assert files_with(processes.store, user)
        client.delete_user(user)
        for trace in (user, "carol"):
            assert files_with(processes.store, trace) == files_with(processes.logs, trace) == []
        # Files that are open but have no name any more, or that are mapped, count as well.
        for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith(str(processes.store)):
                assert user.encode() not in entry.read_bytes(), target
        assert client.recommend(RecommendQuery(user_id="bob")).degradation == "none"
