"""BatchRecommend over the wire: users, their order, resuming, refusals, failures of single users."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from conf.schema import PrivacyConfig
from features.ingest.privacy import make_pseudonyms
from serving.state.contracts.user_state import Snapshot, StateUnavailableError
from shelfwise_client import BatchQuery, Client, Event, ListRules, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers
from tests.serving.fake_bundle import POISON
from tests.serving.list_streams import fill, name_of, named, refused, stream


def test_named_users_get_their_lists_in_order(server: Harness) -> None:
    fill(server, 3)
    users = [name_of(2), "nobody", name_of(0), name_of(2)]
    responses = list(stream(server, user_list=named(*users), list_size=2, explain=True, surface="mail"))
    assert [r.user_id for r in responses] == users
    assert [[i.item_id for i in r.items] for r in responses] == [
        ["i3", "i0"], ["i0", "i1"], ["i1", "i2"], ["i3", "i0"],
    ]  # fmt: skip
    assert [r.degradation for r in responses] == [1, 4, 1, 1]
    assert [i.list_position for i in responses[0].items] == [1, 2]
    assert responses[0].items[0].reasons[0].because_item_id == "i2"
    assert len({r.request_id for r in responses}) == 1
    assert {r.model_version for r in responses} == {"v1"}
    assert all(r.attribution_token and r.resume_token for r in responses)


def test_a_list_is_the_one_that_recommend_would_give(server: Harness) -> None:
    fill(server, 20)
    fields: dict[str, Any] = {"filter": "in_stock", "exclude_item_ids": ["i4"], "exclude_seen": False}
    mask = {"paths": ["item_id", "score"]}
    at = Timestamp(seconds=1_700_000_000)
    for response in stream(server, list_size=5, read_mask=mask, request_time=at, **fields):
        alone = server.stub.Recommend(
            pb.RecommendRequest(
                user_id=response.user_id, page_size=5, read_mask=mask, request_time=at, **fields
            )
        )
        assert response.items == alone.items
        assert response.degradation == alone.degradation
        assert response.items[0].title == ""


def test_all_users_come_once_in_the_order_of_their_ids(server: Harness) -> None:
    fill(server, 1234)
    assert [r.user_id for r in stream(server, list_size=1)] == [name_of(n) for n in range(1234)]


@pytest.mark.parametrize("portion", [1, 7, 8, 100, 2000])
def test_portions_put_together_are_the_whole(server: Harness, portion: int) -> None:
    fill(server, 30 if portion == 1 else 120)
    whole = [r.user_id for r in stream(server, list_size=1)]
    found: list[str] = []
    token = ""
    while part := list(stream(server, list_size=1, max_users=portion, resume_token=token)):
        assert len(part) <= portion
        found += [r.user_id for r in part]
        token = part[-1].resume_token
    assert found == whole


def test_named_users_are_resumed_by_place(server: Harness) -> None:
    users = named("b", "a", "b", "c")
    first = list(stream(server, user_list=users, max_users=2))
    rest = list(stream(server, user_list=users, resume_token=first[-1].resume_token))
    assert [r.user_id for r in (*first, *rest)] == ["b", "a", "b", "c"]
    assert list(stream(server, user_list=users, resume_token=rest[-1].resume_token)) == []


def test_failures_of_single_users_do_not_end_the_stream(
    server: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = server.running.service
    snapshot = service._state.snapshot

    async def broken(user_id: str, *rest: Any, **more: Any) -> Snapshot:
        if user_id == "unreadable":
            raise StateUnavailableError("gone")
        if user_id == "cursed":
            raise ValueError(POISON)
        return await snapshot(user_id, *rest, **more)

    monkeypatch.setattr(service._state, "snapshot", broken)
    users = ["a", "", "unreadable", "x" * 257, "cursed", "b"]
    responses = list(stream(server, user_list=named(*users), list_size=1))
    assert [r.user_id for r in responses] == users
    assert [r.error.reason for r in responses] == [
        "", "INVALID_FIELD", "STATE_UNAVAILABLE", "INVALID_FIELD", "INTERNAL", "",
    ]  # fmt: skip
    assert [len(r.items) for r in responses] == [1, 0, 0, 0, 0, 1]
    assert all(r.resume_token for r in responses)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"all_users": False}, "all_users"),
        ({"user_list": pb.UserList()}, "user_list.user_ids"),
        ({"user_list": pb.UserList(user_ids=["u"] * 10_001)}, "user_list.user_ids"),
        ({"list_size": -1}, "list_size"),
        ({"max_users": -1}, "max_users"),
        ({"filter": "nope = 1"}, "filter"),
        ({"surface": "A B"}, "surface"),
        ({"diversity": 2.0}, "diversity"),
        ({"novelty": -1.0}, "novelty"),
        ({"read_mask": {"paths": ["nope"]}}, "read_mask"),
        ({"rules": pb.ListRules(pins=[pb.Pin(item_id="x")])}, "rules.pins[0].position"),
        ({"resume_token": "nonsense"}, "resume_token"),
        ({"request_time": Timestamp(seconds=-5)}, "request_time"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_used_are_named(server: Harness, fields: dict[str, Any], field: str) -> None:
    error = refused(server, **fields)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [field]


def test_nobody_named_is_an_error(server: Harness) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(server.stub.BatchRecommend(pb.BatchRecommendRequest()))
    assert ServiceError.of(caught.value).violations[0].field == "users"


def test_a_resume_token_belongs_to_its_request(server: Harness) -> None:
    fill(server, 3)
    token = next(iter(stream(server, list_size=2))).resume_token
    assert refused(server, list_size=3, resume_token=token).reason == "RESUME_TOKEN_MISMATCH"
    changed = token[:10] + ("A" if token[10] != "A" else "B") + token[11:]
    assert refused(server, list_size=2, resume_token=changed).reason == "RESUME_TOKEN_INVALID"
    assert refused(server, list_size=2, resume_token="A" * 3000).reason == "RESUME_TOKEN_INVALID"


def test_where_ids_are_pseudonymised_the_list_of_all_users_gives_pseudonyms(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "k")
    privacy = PrivacyConfig(hash_users=True, key_env="SHELFWISE_USER_KEY")
    server = servers.start(privacy=privacy)
    pseudonyms = make_pseudonyms(privacy)
    assert pseudonyms is not None
    with Client(server.address) as client:
        client.record_events([Event("anna", "i7", "purchase")])
        [everybody] = client.batch_recommend(BatchQuery(list_size=1))
        [anna] = client.batch_recommend(BatchQuery(user_ids=("anna",), list_size=1))
    assert everybody.user_id == pseudonyms.of("anna")
    assert anna.user_id == "anna"
    assert everybody.items == anna.items
    assert everybody.items[0].item_id == "i8"


def test_rules_hold_for_every_user_and_each_explores_something_else(server: Harness) -> None:
    rules = ListRules(exploration=0.5)
    with Client(server.address) as client:
        list(client.batch_recommend(BatchQuery(user_ids=("a", "b"), rules=rules)))
        client.recommend(RecommendQuery(user_id="a", rules=rules))
        fixed = ListRules(exploration=0.5, exploration_seed=7)
        list(client.batch_recommend(BatchQuery(user_ids=("a", "b"), rules=fixed)))
    asked = [request.rules for request in server.model.recommender.seen]
    assert all(rules is not None and rules.exploration == 0.5 for rules in asked)
    seeds = [rules.seed for rules in asked if rules is not None]
    assert len(set(seeds[:3])) == 3
    assert seeds[3:] == [7, 7]
