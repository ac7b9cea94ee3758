"""Tests of the table of attacks in docs/operations.md."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from conf.errors import InputError
from conf.serving import ServeConfig, TlsConfig
from serving.api.service import SERVICE_NAME
from serving.transport.api_keys import Scope, create_key, read_keys
from serving.transport.auth import scope_of
from serving.transport.tls import server_credentials
from shelfwise_client import Client, Event, RecommendQuery, SearchQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers

METHODS = [m.name for m in pb.DESCRIPTOR.services_by_name["RecommendationService"].methods]
SCOPES = {
    "Recommend": "read", "SearchItems": "read", "SimilarItems": "read", "GetStatus": "read",
    "GetItem": "read", "ListItems": "read",
    "BatchRecommend": "batch", "RecordEvents": "events",
    "UpsertItems": "admin", "UpdateItem": "admin", "BatchUpdateItems": "admin",
    "DeclareAttributes": "admin", "DeleteItems": "admin", "DeleteUser": "admin", "ExportUser": "admin",
}  # fmt: skip
GOOD: dict[str, Any] = {
    "Recommend": pb.RecommendRequest(),
    "SearchItems": pb.SearchItemsRequest(query="boots"),
    "SimilarItems": pb.SimilarItemsRequest(item_id="i1"),
    "GetStatus": pb.GetStatusRequest(),
    "GetItem": pb.GetItemRequest(item_id="i1"),
    "ListItems": pb.ListItemsRequest(),
    "BatchRecommend": pb.BatchRecommendRequest(all_users=True),
    "RecordEvents": pb.RecordEventsRequest(events=[pb.Event(user_id="u", item_id="i1", event="click")]),
    "UpsertItems": pb.UpsertItemsRequest(items=[pb.Item(item_id="n")], validate_only=True),
    "UpdateItem": pb.UpdateItemRequest(
        item=pb.Item(item_id="i1"), update_mask={"paths": ["attributes.price"]}, validate_only=True
    ),
    "BatchUpdateItems": pb.BatchUpdateItemsRequest(requests=[pb.UpdateItemRequest()], validate_only=True),
    "DeclareAttributes": pb.DeclareAttributesRequest(
        attributes=[pb.AttributeDeclaration(name="shelf", type=pb.Attribute.STRING)], validate_only=True
    ),
    "DeleteItems": pb.DeleteItemsRequest(item_ids=[""]),
    "DeleteUser": pb.DeleteUserRequest(user_id="u"),
    "ExportUser": pb.ExportUserRequest(user_id="u"),
}


def call(server: Harness, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """Make a call and return its outcome: OK, or the reason of the error."""
    try:
        response = getattr(server.stub, method)(GOOD[method], metadata=metadata, timeout=10)
        if method in ("BatchRecommend", "ExportUser"):
            list(response)
    except grpc.RpcError as error:
        return ServiceError.of(error).reason or error.code().name
    return "OK"


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """A key for each scope, and one for all."""
    path = tmp_path / "keys.json"
    made = {scope.value: create_key(path, scope.value, [scope.value]) for scope in Scope}
    return {**made, "all": create_key(path, "all", [scope.value for scope in Scope])}


@pytest.fixture
def guarded(servers: Servers, tmp_path: Path, keys: dict[str, str]) -> Harness:
    return servers.start(keys=str(tmp_path / "keys.json"), admin=None)


def test_every_rpc_has_a_scope() -> None:
    assert {m: scope_of(f"/{SERVICE_NAME}/{m}").value for m in METHODS} == SCOPES
    assert scope_of("/other.Service/Anything") is Scope.admin


@pytest.mark.parametrize("method", METHODS)
def test_no_key_wrong_key_and_key_without_scope(guarded: Harness, keys: dict[str, str], method: str) -> None:
    assert call(guarded, method) == "KEY_MISSING"
    for wrong in ("", "x", keys["all"][:-1], keys["all"] + "x", keys["all"].upper(), "sha256"):
        assert call(guarded, method, bearer(wrong)) == ("KEY_INVALID" if wrong else "KEY_MISSING")
    assert call(guarded, method, (("authorization", keys["all"]),)) == "KEY_MISSING"  # no Bearer
    assert call(guarded, method, (("x-api-key", keys["all"]),)) == "KEY_MISSING"
    for scope in ("read", "batch", "events", "admin"):
        allowed = call(guarded, method, bearer(keys[scope])) not in ("SCOPE_MISSING", "KEY_INVALID")
        assert allowed == (SCOPES[method] == scope)
    assert call(guarded, method, bearer(keys["all"])) in ("OK", "INVALID_FIELD")


def test_arms_of_experiments_are_chosen_by_admins_only(
    guarded: Harness, servers: Servers, keys: dict[str, str]
) -> None:
    arms = (("x-shelfwise-arms", "ranking=new"),)
    assert call(guarded, "Recommend", (*bearer(keys["read"]), *arms)) == "SCOPE_MISSING"
    assert call(guarded, "Recommend", arms) == "KEY_MISSING"
    assert call(guarded, "Recommend", (*bearer(keys["all"]), *arms)) == "INVALID_FIELD"  # there are none
    closed = servers.start(admin=False)
    assert (call(closed, "Recommend"), call(closed, "Recommend", arms)) == ("OK", "ADMIN_DISABLED")


def test_the_hash_of_a_key_is_not_a_key(guarded: Harness, keys: dict[str, str], tmp_path: Path) -> None:
    for key in read_keys(tmp_path / "keys.json"):
        assert call(guarded, "Recommend", bearer(key.sha256)) == "KEY_INVALID"


def test_a_refused_call_is_not_read(guarded: Harness) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        raw: Any = channel.unary_unary(f"/{SERVICE_NAME}/Recommend")
        with pytest.raises(grpc.RpcError) as caught:
            raw(b"\xff\xff\xff", timeout=10)
    error = ServiceError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING")
    assert len(error.request_id) == 32
    assert guarded.model.recommender.batches == []


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_health_needs_no_key_and_reflection_does(
    guarded: Harness, keys: dict[str, str], version: str
) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        good = health_pb2.HealthCheckResponse.SERVING
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == good
        assert next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10)).status == good
        reflect = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

        def listed(metadata: tuple[tuple[str, str], ...]) -> int:
            requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            answer = next(reflect(requests, metadata=metadata, timeout=10))
            return len(answer.list_services_response.service)

        with pytest.raises(grpc.RpcError) as caught:
            listed(())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert listed(bearer(keys["read"])) == 4


def test_a_key_beyond_its_rate_waits_and_others_do_not(servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    slow, other = create_key(path, "slow", ["read"], 0.5, 3), create_key(path, "other", ["read"])
    server = servers.start(keys=str(path))
    with Client(server.address, api_key=slow) as client:
        for _ in range(3):
            client.recommend(RecommendQuery())
        with pytest.raises(ServiceError) as caught:
            client.recommend(RecommendQuery())
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert error.retry_seconds is not None
    assert 0.5 < error.retry_seconds <= 2.0
    with Client(server.address, api_key=other) as client:
        for _ in range(10):
            client.recommend(RecommendQuery())


def test_changes_are_refused_by_default(servers: Servers) -> None:
    config = ServeConfig()
    assert (config.admin, config.reflection, config.host) == (None, False, "127.0.0.1")
    server = servers.start(admin=None)
    found = {method: call(server, method) for method in METHODS}
    assert {m for m, reason in found.items() if reason == "ADMIN_DISABLED"} == {
        m for m, scope in SCOPES.items() if scope in ("admin", "batch")
    }


def test_keys_do_not_open_what_is_switched_off(
    servers: Servers, tmp_path: Path, keys: dict[str, str]
) -> None:
    server = servers.start(keys=str(tmp_path / "keys.json"), admin=False)
    assert call(server, "DeleteUser", bearer(keys["all"])) == "ADMIN_DISABLED"


def test_nothing_secret_is_logged(
    servers: Servers, tmp_path: Path, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = servers.start(keys=str(tmp_path / "keys.json"), log_requests=True)
    user, query = "alice@example.com", "very private words"
    for key in (*keys.values(), "guessed-key-123"):
        for method in METHODS:
            call(server, method, bearer(key))
    with Client(server.address, api_key=keys["all"]) as client:
        client.record_events([Event(user, "i1", "click"), Event(user, "nope", "click")])
        client.recommend(RecommendQuery(user_id=user, intent=query))
        client.search_items(SearchQuery(query, user_id=user))
        with pytest.raises(ServiceError):
            client.recommend(RecommendQuery(user_id=user, filter=f"nope = '{query}'"))
        client.delete_user(user)
    text = caplog.text
    assert "Recommend OK" in text
    assert "refused KEY_INVALID" in text
    for secret in (*keys.values(), "guessed-key-123", user, "alice", query):
        assert secret not in text


@pytest.mark.parametrize(
    "expression",
    [
        "price < 5; DROP TABLE items",
        "1 = 1",
        "price < 5 OR 1 = 1",
        'category = "SHOES" OR "" = ""',
        "pl.col('price') < 5",
        "price < 5) OR (in_stock",
        'category = "a" -- ',
        '__class__ = "x"',
        'item_text:"a"',
        'category = "' + "\\" * 5,
        "price < " + "9" * 1900,
        "\x00",
        "(" * 500,
    ],
)
def test_filter_injection_is_a_syntax_error_or_compares_numbers(server: Harness, expression: str) -> None:
    try:
        response = server.stub.Recommend(pb.RecommendRequest(filter=expression), timeout=10)
    except grpc.RpcError as error:
        reason = ServiceError.of(error).reason
    else:
        assert len(response.items) <= 30
        assert expression.startswith("price < 9")
        return
    assert reason == "FILTER_INVALID"


def test_replayed_event_ids_count_once(server: Harness) -> None:
    event = pb.Event(user_id="u", item_id="i1", event="purchase", event_id="order-1")
    counts = []
    for _ in range(3):
        response = server.stub.RecordEvents(pb.RecordEventsRequest(events=[event, event]), timeout=10)
        counts.append((response.new_count, response.duplicate_count))
    assert counts == [(1, 1), (0, 2), (0, 2)]
    changed = pb.Event(user_id="u", item_id="i2", event="click", event_id="order-1")
    response = server.stub.RecordEvents(pb.RecordEventsRequest(events=[changed]), timeout=10)
    assert response.duplicate_count == 1  # an id cannot be used to change what is stored


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (pb.RecommendRequest(exclude_item_ids=["x" * 257]), "exclude_item_ids[0]"),
        (pb.RecommendRequest(page_token="A" * 1_000_000), "page_token"),
        (pb.RecommendRequest(filter="x" * 1_000_000), "filter"),
        (pb.RecommendRequest(surface="x" * 1_000_000), "surface"),
        (pb.RecommendRequest(read_mask={"paths": ["score"] * 10_000}), "read_mask"),
        (pb.RecommendRequest(session={"intent": "x" * 1_000_000}), "session.intent"),
        (pb.SearchItemsRequest(query="x" * 1_000_000), "query"),
        (pb.SimilarItemsRequest(text="x" * 1_000_000), "text"),
        (pb.SimilarItemsRequest(item_id="x" * 1_000_000), "item_id"),
        (pb.DeleteUserRequest(user_id="x" * 1_000_000), "user_id"),
        (pb.DeleteItemsRequest(item_ids=["x" * 1_000_000]), "item_ids[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_texts_of_a_million_characters_are_refused_by_field(server: Harness, message: Any, path: str) -> None:
    method = type(message).__name__.removesuffix("Request")
    with pytest.raises(grpc.RpcError) as caught:
        getattr(server.stub, method)(message, timeout=10)
    error = ServiceError.of(caught.value)
    assert (error.code, [v.field for v in error.violations]) == (grpc.StatusCode.INVALID_ARGUMENT, [path])
    assert len(error.message) < 500


class Authority:
    """A certificate authority, and files of its certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.ca = trustme.CA()
        self.root = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.root))

    def issue(self, name: str, days: int = 1) -> tuple[Path, Path]:
        ends = datetime.now(UTC) + timedelta(days=days)
        made = self.ca.issue_cert("localhost", "127.0.0.1", common_name=name, not_after=ends)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def reaches(server: Harness, root: Path, client: tuple[Path, Path] | None = None) -> bool:
    """Return whether a client that trusts an authority (and presents a certificate) gets a response."""
    certificate, key = (p.read_bytes() for p in client) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(root.read_bytes(), key, certificate)
    with Client(server.address, timeout=3.0, credentials=credentials) as caller:
        try:
            return bool(caller.status().model_version)
        except ServiceError as error:
            if error.code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            return False


def tls(pair: tuple[Path, Path], client_ca: Path | None = None) -> TlsConfig:
    return TlsConfig(str(pair[0]), str(pair[1]), str(client_ca) if client_ca else None)


def test_tls_is_spoken_to_those_who_trust_the_authority(
    servers: Servers, authority: Authority, tmp_path: Path
) -> None:
    server = servers.start(tls=tls(authority.issue("server")))
    assert reaches(server, authority.root)
    assert not reaches(server, Authority(tmp_path / "other").root)
    with Client(server.address, timeout=1.0) as plain, pytest.raises(ServiceError):
        plain.status()


def test_an_expired_server_certificate_is_not_trusted(servers: Servers, authority: Authority) -> None:
    server = servers.start(tls=tls(authority.issue("expired", days=-1)))
    assert not reaches(server, authority.root)


def test_mutual_tls_lets_only_certified_clients_in(
    servers: Servers, authority: Authority, tmp_path: Path
) -> None:
    server = servers.start(tls=tls(authority.issue("server"), authority.root))
    assert reaches(server, authority.root, authority.issue("shop"))
    assert not reaches(server, authority.root)
    assert not reaches(server, authority.root, authority.issue("former-shop", days=-1))
    assert not reaches(server, authority.root, Authority(tmp_path / "other").issue("shop"))


def test_a_renewed_certificate_is_used_without_a_restart(
    servers: Servers, authority: Authority, tmp_path: Path
) -> None:
    pair = authority.issue("server")
    server = servers.start(tls=tls(pair))
    assert reaches(server, authority.root)
    other = Authority(tmp_path / "other")
    for old, new in zip(pair, other.issue("server"), strict=True):
        old.write_bytes(new.read_bytes())
    assert reaches(server, other.root)
    pair[0].write_bytes(b"half a fi")
    assert reaches(server, other.root)


def test_wrong_tls_files_are_one_readable_line(authority: Authority) -> None:
    certificate, key = authority.issue("server")
    for config, says in (
        (TlsConfig("missing.pem", str(key)), "missing.pem cannot be read"),
        (TlsConfig(str(key), str(key)), "holds no certificate in PEM form"),
        (TlsConfig(str(certificate), str(certificate)), "holds no private key in PEM form"),
    ):
        with pytest.raises(InputError, match=says):
            server_credentials(config)
    with pytest.raises(InputError, match="need each other"):
        TlsConfig(certificate=str(certificate))
    with pytest.raises(InputError, match=r"needs tls\.certificate"):
        TlsConfig(client_ca=str(certificate))
