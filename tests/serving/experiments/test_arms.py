"""Arms at a real server on a real socket, with models whose lists are computed by hand."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from conf.errors import InputError
from serving.api.attribution_tokens import AttributionTokens
from shelfwise_client import (
    BatchQuery,
    Event,
    ExperimentArm,
    RecommendQuery,
    SearchQuery,
)
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Servers, in_loop, until
from tests.serving.experiments.arm_shop import CONTROL, HALVES, LISTS, MODELS, NEW, USERS, Shop, arm_of
from tests.serving.model.test_reload import V1, V2


def test_each_arm_has_its_model_and_its_name_goes_with_the_list(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    for user in USERS:
        version = {"control": V2, "new": V1}[arm_of(user)]
        assert at.arm(user) == (f"ranking={arm_of(user)}", version)
    page = at.client.recommend(RecommendQuery(user_id=NEW))
    assert page.experiments == (ExperimentArm("ranking", "new", fallback=False, forced=False),)
    origin = AttributionTokens().read(page.attribution_token)
    assert origin is not None
    assert (origin.experiments, origin.model_version) == ("ranking=new", V1)
    clicked = Event(NEW, page.items[0].item_id, "click", attribution_token=page.attribution_token)
    assert at.client.record_events([clicked, Event(NEW, "i3", "click")]).new_count == 2
    with sqlite3.connect(at.server.store / "state.sqlite") as db:
        rows = db.execute("SELECT item_id, experiments FROM events ORDER BY position").fetchall()
    db.close()
    assert rows == [(page.items[0].item_id, "ranking=new"), ("i3", None)]  # without a token: no part of it
    assert (len(at.loaded[V1].recommender.seen), at.loads) == (1 + USERS_OF_NEW + 1, [V1])


USERS_OF_NEW = sum(arm_of(user) == "new" for user in USERS)


def test_a_request_with_neither_user_nor_session_is_in_no_arm(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS + "\nvisits: {unit: session, surfaces: [cart], arms: {all: {share: 1}}}")
    assert at.arm("") == ("", V2)
    assert at.arm("", session_id="s1") == ("", V2)
    assert at.arm("", session_id="s1", surface="cart") == ("visits=all", V2)
    assert at.arm(NEW, surface="cart") == ("ranking=new", V1)
    assert at.arm(NEW, surface="cart", session_id="s1") == ("ranking=new;visits=all", V1)
    long = pb.RecommendRequest(session=pb.SessionContext(session_id="x" * 257))
    with pytest.raises(grpc.RpcError, match="session.session_id: longer than 256 characters"):
        at.server.stub.Recommend(long, timeout=10)


def test_lists_of_an_arm_replace_those_of_the_surface_field_by_field(
    shop: Callable[..., Shop], tmp_path: Path
) -> None:
    surfaces = tmp_path / "surfaces.yaml"
    surfaces.write_text("home: {diversity: 0.5, novelty: 0.125, rules: {pins: [{item_id: i7, position: 1}]}}")
    new = "lists: {diversity: 0.25, rules: {pins: [{item_id: i9, position: 2}]}}"
    at = shop(HALVES.format(new=new), surfaces=str(surfaces))

    def asked(user: str, **fields: Any) -> tuple[float | None, float | None, list[tuple[int, int]]]:
        at.client.recommend(RecommendQuery(user_id=user, surface="home", **fields))
        request = at.current.recommender.seen[-1]
        pins = [] if request.rules is None else [(pin.row, pin.position) for pin in request.rules.pins]
        return request.diversity, request.novelty, pins

    assert asked(CONTROL) == (0.5, 0.125, [(7, 1)])
    assert asked(NEW) == (0.25, 0.125, [(9, 2)])
    assert asked(NEW, diversity=0.75) == (0.75, 0.125, [(9, 2)])  # a field of the request is stronger
    search = at.client.search_items(SearchQuery("item", user_id=NEW, surface="home"))
    assert search.experiments == ()  # the arms differ by nothing that a search uses


def test_searches_and_batches_are_made_by_the_arms_model(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    for user, version in ((CONTROL, V2), (NEW, V1)):
        found = at.client.search_items(SearchQuery("item", user_id=user))
        assert (found.model_version, found.experiments[0].arm) == (version, arm_of(user))
    lists = list(at.client.batch_recommend(BatchQuery(user_ids=tuple(USERS), list_size=3)))
    tokens = AttributionTokens()
    for user, made in zip(USERS, lists, strict=True):
        origin = tokens.read(made.attribution_token)
        assert origin is not None
        arm = arm_of(user)
        assert (made.user_id, made.model_version) == (user, {"control": V2, "new": V1}[arm])
        assert ([e.arm for e in made.experiments], origin.experiments) == ([arm], f"ranking={arm}")
        assert len(made.items) == 3


def test_a_stream_withdraws_no_announcement_of_another_call(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    jobs = at.server.running._host.jobs
    at.server.loop.call_soon_threadsafe(lambda: jobs.admit(announce=True))
    until(lambda: len(jobs._policy._announced) == 1)
    list(at.client.batch_recommend(BatchQuery(user_ids=(NEW,), list_size=3)))
    assert len(jobs._policy._announced) == 1


def test_a_call_that_another_model_answers_is_withdrawn(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    jobs = at.server.running._host.jobs
    at.arm(NEW)
    assert jobs._policy._announced == []


def test_excluded_users_are_in_no_arm_and_the_file_of_them_is_followed(shop: Callable[..., Shop]) -> None:
    at = shop("")
    staff = at.server.store / "staff.txt"
    staff.write_text(NEW + "\n")
    at.write(MODELS.replace("{arms", "{exclude_users: staff.txt, arms"))
    until(lambda: at.arm(CONTROL) == ("ranking=control", V2))
    assert at.arm(NEW) == ("", V2)
    staff.write_text("somebody-else\n")
    until(lambda: at.arm(NEW) == ("ranking=new", V1))


def test_the_kill_switch_takes_effect_within_a_second(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    at = Shop(servers, MODELS)  # with the true intervals
    until(lambda: at.arm(NEW) == ("ranking=new", V1))
    at.write(MODELS.replace("{arms", "{enabled: false, arms"))
    began = time.monotonic()
    until(lambda: at.arm(NEW) == ("", V2))
    assert time.monotonic() - began < 1
    assert "experiments in force: none" in caplog.text
    until(lambda: len(at.server.running._router.hosts) == 1)


def test_start_and_end_of_an_experiment(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS.replace("{arms", "{start: 2099-01-01, arms"))
    assert at.arm(NEW) == ("", V2)
    assert at.loads == [V1]  # loaded before it starts
    at.write(MODELS.replace("{arms", "{start: 2024-01-01, end: 2099-01-01, arms"))
    until(lambda: at.arm(NEW) == ("ranking=new", V1))
    at.write(MODELS.replace("{arms", "{start: 2024-01-01, end: 2024-01-02, arms"))
    until(lambda: at.arm(NEW) == ("", V2))


def test_an_invalid_file_ends_a_start_and_leaves_the_former_one_in_force_later(
    shop: Callable[..., Shop], servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = LISTS.replace("diversity: 0.25", "rules: {caps: [{attribute: colour, max_items: 1}]}")
    named = wrong.replace("new: {share: 0.5,", f"new: {{share: 0.5, version: {V2},")  # the current one
    unknown = "unknown attribute 'colour'"
    for text, message in (("ranking: 7", "is not a mapping"), (wrong, unknown), (named, unknown)):
        with pytest.raises(InputError, match=message):
            shop(text)
    at = shop(LISTS)
    at.write(wrong)
    until(lambda: bool(at.server.stub.GetStatus(pb.GetStatusRequest()).experiments_failure))
    status = at.server.stub.GetStatus(pb.GetStatusRequest())
    where = f"{at.file}: ranking.arms.new.lists: rules.caps[0].attribute: unknown attribute 'colour'"
    assert status.experiments_failure.startswith(where)
    assert [arm.share for arm in status.experiments[0].arms] == [0.5, 0.5]
    assert at.metric("experiments_failed") == 1
    assert at.arm(NEW) == ("ranking=new", V2)
    assert caplog.text.count("the former experiments stay in force: ") == 1
    at.file.unlink()
    until(lambda: "cannot be read" in at.server.stub.GetStatus(pb.GetStatusRequest()).experiments_failure)
    assert at.arm(NEW) == ("ranking=new", V2)
    at.write(MODELS)
    until(lambda: at.arm(NEW) == ("ranking=new", V1))
    assert at.metric("experiments_failed") == 0


def test_a_page_is_made_by_the_arm_of_the_page_before(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    first = at.client.recommend(RecommendQuery(user_id=NEW, page_size=4))
    none = at.client.recommend(RecommendQuery(page_size=4))
    at.write(f"ranking: {{arms: {{control: {{share: 1}}, new: {{share: 0, version: {V1}}}}}}}")
    until(lambda: at.arm(NEW) == ("ranking=control", V2))
    following: dict[str, Any] = {"page_size": 4, "page_token": first.next_page_token}
    assert at.arm(NEW, **following) == ("ranking=new", V1)
    second = at.client.recommend(RecommendQuery(user_id=NEW, **following))
    ids = [item.item_id for item in (*first.items, *second.items)]
    assert len(set(ids)) == 8
    assert [item.list_position for item in second.items] == [5, 6, 7, 8]
    assert at.arm("", page_size=4, page_token=none.next_page_token) == ("", V2)
    at.write("")  # ended: the list goes on without it
    until(lambda: at.arm(NEW) == ("", V2))
    assert at.arm(NEW, **following) == ("", V2)


def forced(at: Shop, arms: str, request: pb.RecommendRequest | None = None) -> pb.RecommendResponse:
    response: pb.RecommendResponse = at.server.stub.Recommend(
        request or pb.RecommendRequest(user_id=CONTROL), timeout=10, metadata=[("x-shelfwise-arms", arms)]
    )
    return response


def test_a_tester_chooses_an_arm_and_is_not_counted(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS + "\nlayout: {surfaces: [cart], arms: {wide: {share: 1, lists: {diversity: 1}}}}")
    page = forced(at, "ranking=new", pb.RecommendRequest(page_size=2))
    assert [(e.experiment, e.arm, e.forced) for e in page.experiments] == [("ranking", "new", True)]
    assert page.model_version == V1
    origin = AttributionTokens().read(page.attribution_token)
    assert origin is not None
    assert origin.experiments == ""
    both = forced(at, "ranking=new; layout=wide", pb.RecommendRequest(user_id=CONTROL, surface="cart"))
    assert [e.experiment for e in both.experiments] == ["layout", "ranking"]
    following = pb.RecommendRequest(page_size=2, page_token=page.next_page_token)
    second = at.server.stub.Recommend(following, timeout=10)  # without the metadata
    assert [(e.arm, e.forced) for e in second.experiments] == [("new", True)]
    assert at.metric("arm_lists_total", experiment="ranking", arm="new") is None


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("rankin=new", "no experiment 'rankin'; did you mean 'ranking'?"),
        ("ranking=old", "'ranking' has no arm 'old'; arms: control, new"),
        ("over=x", "'over' is disabled or has ended"),
        ("ranking=new;ranking=control", "'ranking' and 'ranking' exclude each other"),
        ("left=x;right=x", "'right' and 'left' exclude each other"),
    ],
)
def test_arms_that_cannot_be_chosen(shop: Callable[..., Shop], arms: str, message: str) -> None:
    one = "arms: {x: {share: 1}}"
    others = f"over: {{enabled: false, {one}}}\nleft: {{layer: l, slice: [0, 0.5], {one}}}\n"
    at = shop(f"{LISTS}\n{others}right: {{layer: l, slice: [0.5, 1], {one}}}")
    with pytest.raises(grpc.RpcError) as caught:
        forced(at, arms)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in str(caught.value.details())


def test_metrics_by_arm_and_their_number_is_bounded_by_the_file(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    for user in USERS[:10]:
        at.arm(user)
    made = sum(arm_of(user) == "new" for user in USERS[:10])
    assert at.metric("arm_lists_total", experiment="ranking", arm="new") == made
    until(lambda: at.metric("arm_call_seconds_count", experiment="ranking", arm="new", code="OK") == made)
    with pytest.raises(grpc.RpcError):
        at.server.stub.Recommend(pb.RecommendRequest(user_id=NEW, filter="nope = 1"), timeout=10)
    failed = {"experiment": "ranking", "arm": "new", "code": "INVALID_ARGUMENT"}
    until(lambda: at.metric("arm_call_seconds_count", **failed) == 1)
    at.write("other: {arms: {x: {share: 1}}}")
    until(lambda: at.arm(NEW) == ("other=x", V2))
    text = [m for m in at.server.running.metrics.registry.collect() if m.name.startswith("shelfwise_arm_")]
    labels = {sample.labels["experiment"] for family in text for sample in family.samples}
    assert labels == {"other"}


def test_the_arm_is_in_the_log_line(shop: Callable[..., Shop], caplog: pytest.LogCaptureFixture) -> None:
    at = shop(MODELS)
    caplog.set_level("INFO", "serving.transport.call_interceptor")
    at.arm(NEW)
    until(lambda: "experiments=ranking=new" in caplog.text)


def test_items_that_only_an_arms_model_has_can_be_clicked(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = shop(MODELS)
    old = at.loaded[V1]
    current = at.current.catalogue
    known = current.row
    monkeypatch.setattr(current, "row", lambda item: None if item == "i5" else known(item))
    assert old.catalogue.row("i5") == 5
    assert at.client.record_events([Event(NEW, "i5", "click")]).new_count == 1
    at.write("")
    until(lambda: len(at.server.running._router.hosts) == 1)
    assert at.client.record_events([Event(NEW, "i5", "click")]).new_count == 0


def test_assignment_is_the_same_after_a_restart(shop: Callable[..., Shop], servers: Servers) -> None:
    before = shop(MODELS)
    first = [before.arm(user) for user in USERS]
    servers.stop(before.server)
    assert [at.arm(user) for at in [shop(MODELS)] for user in USERS] == first


def test_stopping_closes_the_models_of_arms(shop: Callable[..., Shop], servers: Servers) -> None:
    at = shop(MODELS)
    router = at.server.running._router
    assert len(router.hosts) == 2
    servers.stop(at.server)
    assert len(router.hosts) == 1
    in_loop(router.close())
