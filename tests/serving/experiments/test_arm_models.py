"""Models of arms beside the current one: failures, other versions, canaries, load."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2

from conf.errors import InputError
from serving.api.attribution_tokens import AttributionTokens
from serving.core.turns import LOCK, lock_file
from serving.model.interfaces import Model
from shelfwise_client import (
    Client,
    ExperimentArm,
    RecommendQuery,
    SessionEvent,
)
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import until
from tests.serving.core.test_turns import worker
from tests.serving.experiments.arm_shop import CONTROL, LISTS, MODELS, NEW, USERS, Shop
from tests.serving.model.test_reload import V1, V2, V3, health, point


def test_a_model_that_cannot_be_loaded_leaves_its_users_the_current_one(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.experiments.models.RETRY_SECONDS", 0.05)
    at = shop("")
    at.broken[V1] = f"versions/{V1}/index.faiss: missing"
    at.write(MODELS.replace("new: {share: 0.5,", "new: {share: 0.5, lists: {diversity: 0.25},"))
    until(lambda: at.arm(NEW) == ("ranking=new", V2))
    page = at.client.recommend(RecommendQuery(user_id=NEW))
    assert page.experiments == (ExperimentArm("ranking", "new", fallback=True, forced=False),)
    assert at.current.recommender.seen[-1].diversity == 0.0  # the whole arm is left out
    origin = AttributionTokens().read(page.attribution_token)
    assert origin is not None
    assert (origin.experiments, origin.model_version) == ("ranking=new", V2)
    until(lambda: at.metric("arm_works", experiment="ranking", arm="new") == 0)
    arms = at.server.stub.GetStatus(pb.GetStatusRequest()).experiments[0].arms
    assert [(a.model_version, a.failure) for a in arms] == [
        (V2, ""),
        (V1, f"versions/{V1}/index.faiss: missing"),
    ]
    # A call is counted once it has been answered.
    until(lambda: (at.metric("arm_fallbacks_total", experiment="ranking", arm="new") or 0) >= 2)
    assert at.metric("arm_fallbacks_total", experiment="ranking", arm="control") is None
    assert health(at.server, "") == health_pb2.HealthCheckResponse.SERVING
    assert caplog.text.count("index.faiss: missing") == 1
    at.broken.clear()
    until(lambda: at.arm(NEW) == ("ranking=new", V1))
    until(lambda: at.metric("arm_works", experiment="ranking", arm="new") == 1)


def test_an_arms_queue_is_in_the_metrics_though_a_former_one_of_its_model_ends_later(
    shop: Callable[..., Shop],
) -> None:
    at = shop(MODELS)
    models = at.server.running._router._models
    slow = at.loaded[V1].recommender.gate
    slow.clear()
    asking = at.server.stub.Recommend.future(pb.RecommendRequest(user_id=NEW), timeout=20)
    until(lambda: at.server.running._router.hosts[1].jobs.busy)
    at.write("")
    until(lambda: len(models.hosts) == 0)
    at.write(MODELS)
    until(lambda: len(models.hosts) == 1)
    slow.set()
    assert asking.result().model_version == V1
    until(lambda: not models._retiring)
    assert at.metric("queue_length", queue=f"arm {V1}") == 0
    at.write("")
    until(lambda: len(models.hosts) == 0)
    assert at.metric("queue_length", queue=f"arm {V1}") is None


def test_a_call_that_an_arms_full_queue_refuses_reads_no_events(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = shop(MODELS, max_queue=1)
    jobs, gate = at.server.running._router.hosts[1].jobs, at.loaded[V1].recommender.gate
    request = pb.RecommendRequest(user_id=NEW)
    gate.clear()
    held = [at.server.stub.Recommend.future(request, timeout=20)]
    until(lambda: jobs.busy and len(jobs) == 0)
    held.append(at.server.stub.Recommend.future(request, timeout=20))
    until(lambda: len(jobs) == 1)
    monkeypatch.setattr(at.server.running.service._context_loader, "_state", None)
    with pytest.raises(grpc.RpcError) as caught:
        at.server.stub.Recommend(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.set()
    assert [call.result().model_version for call in held] == [V1, V1]


def test_workers_load_the_models_of_arms_one_after_the_other(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they would find the same memory free."""
    lock = lock_file()
    monkeypatch.setenv(LOCK, str(lock))
    at = shop("")
    with worker(lock) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        at.write(MODELS)
        until(lambda: at.arm(NEW) == ("ranking=new", V2))
        time.sleep(0.1)
        assert at.loads == []
        other.kill()
        until(lambda: at.arm(NEW) == ("ranking=new", V1))
    os.close(lock)


def test_the_end_of_an_arms_model_that_still_works_on_changes_delays_no_call(
    shop: Callable[..., Shop],
) -> None:
    at = shop(MODELS)
    gate = threading.Event()
    at.server.running._router.hosts[1]._upkeep.submit(gate.wait, 10)
    at.write("")
    until(lambda: len(at.server.running._router.hosts) == 1)
    began = time.monotonic()
    assert at.arm(CONTROL) == ("", V2)
    assert time.monotonic() - began < 5
    gate.set()


@pytest.mark.parametrize("over", ["enabled: false", "end: 2024-01-01"])
def test_an_experiment_that_is_over_has_no_arm_that_does_not_work(
    shop: Callable[..., Shop], over: str
) -> None:
    at = shop("")
    at.broken[V1] = "missing"
    at.write(MODELS)
    until(lambda: at.metric("arm_works", experiment="ranking", arm="new") == 0)
    at.write(MODELS.replace("{arms", f"{{{over}, arms"))
    until(lambda: at.metric("arm_works", experiment="ranking", arm="new") == 1)


def test_lists_of_an_experiment_that_is_disabled_are_not_checked(shop: Callable[..., Shop]) -> None:
    lists = "lists: {rules: {caps: [{attribute: colour, max_items: 1}]}}"
    over = f"over: {{enabled: false, arms: {{x: {{share: 1, version: {V1}, {lists}}}}}}}"
    assert shop(f"{MODELS}\n{over}").arm(NEW) == ("ranking=new", V1)


def test_an_ended_process_is_replaced_and_its_users_get_lists_meanwhile(
    shop: Callable[..., Shop], caplog: pytest.LogCaptureFixture
) -> None:
    at = shop(MODELS)
    first = at.loaded[V1]
    first.works = False
    until(lambda: at.loaded[V1] is not first and at.arm(NEW) == ("ranking=new", V1))
    assert "the process of model " + V1 in caplog.text
    assert health(at.server, "") == health_pb2.HealthCheckResponse.SERVING


def test_pinned_arms_stay_and_the_others_follow_when_another_version_becomes_current(
    shop: Callable[..., Shop],
) -> None:
    at = shop(MODELS)
    point(at.server.store, V3)
    until(lambda: at.arm(CONTROL) == ("ranking=control", V3))
    assert at.arm(NEW) == ("ranking=new", V1)
    point(at.server.store, V1)  # rolled back to the arm's version: one process is enough
    until(lambda: at.arm(CONTROL) == ("ranking=control", V1))
    until(lambda: len(at.server.running._router.hosts) == 1)
    assert at.arm(NEW) == ("ranking=new", V1)


CANARY = "canary: {arms: {stable: {share: 0.99, version: previous}, new: {share: 0.01, version: current}}}"


def test_a_canary_never_serves_the_new_version_to_the_others(shop: Callable[..., Shop]) -> None:
    """With `previous`, the version that was current goes on for its arm from the first list after a swap."""
    at = shop(CANARY)
    assert at.arm("u1") == ("canary=stable", V1)
    made: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(at.server.address, timeout=10) as client:
            while not stop.is_set():
                made.append(client.recommend(RecommendQuery(user_id="u1")).model_version)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        (at.server.store / "versions" / V3).mkdir()
        (at.server.store / "versions" / V3 / "manifest.json").write_text("{}")
        point(at.server.store, V3)
        until(lambda: at.client.status().model_version == V3)
        until(lambda: at.arm("u1") == ("canary=stable", V2))
        until(lambda: made[-1] == V2)
    finally:
        stop.set()
        asking.join()
    assert set(made) == {V1, V2}
    assert made == sorted(made)


def test_a_version_is_not_made_current_while_a_canary_cannot_keep_the_present_one(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.model.reload._RETRY_SECONDS", 0.05)
    monkeypatch.setattr("serving.experiments.models.RETRY_SECONDS", 0.05)
    at = shop(CANARY)
    at.broken[V2] = "no memory"
    (at.server.store / "versions" / V3).mkdir()
    (at.server.store / "versions" / V3 / "manifest.json").write_text("{}")
    point(at.server.store, V3)
    reason = f"an arm of an experiment needs model {V2} beside it: no memory"
    until(lambda: getattr(at.client.status().failed_reload, "reason", "") == reason)
    assert at.arm("u1") == ("canary=stable", V1)
    at.broken.clear()
    until(lambda: at.client.status().model_version == V3)
    assert at.arm("u1") == ("canary=stable", V2)


def test_lists_of_an_arm_are_checked_for_the_model_that_it_gets_before_another_is_current(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arm of `previous` changes to the version that was current."""

    def check(where: str, lists: pb.SurfaceDefaults, model: Model, _: object) -> None:
        if lists.HasField("diversity") and model.version == V2:
            raise InputError(f"{where}: not for this model")

    monkeypatch.setattr("serving.running.check_defaults", check)
    at = shop(CANARY.replace("version: previous", "version: previous, lists: {diversity: 0.25}"))
    (at.server.store / "versions" / V3).mkdir()
    (at.server.store / "versions" / V3 / "manifest.json").write_text("{}")
    point(at.server.store, V3)
    reason = f"an arm of an experiment needs model {V2} beside it: experiments.yaml: canary.arms.stable.lists"
    until(lambda: getattr(at.client.status().failed_reload, "reason", "") == f"{reason}: not for this model")
    assert at.arm("u1") == ("canary=stable", V1)


def test_lists_of_a_loaded_arm_are_checked_when_another_arm_gets_its_model(
    shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rollback, `previous` means a version that is loaded for another arm."""

    def check(where: str, lists: pb.SurfaceDefaults, model: Model, _: object) -> None:
        if lists.HasField("diversity") and model.version == V1:
            raise InputError(f"{where}: not for this model")

    monkeypatch.setattr("serving.running.check_defaults", check)
    before = "before: {surfaces: [cart], arms: {x: {share: 1, version: previous, lists: {diversity: 0.25}}}}"
    named = f"named: {{surfaces: [home], arms: {{x: {{share: 1, version: {V1}}}}}}}"
    at = shop(f"{before}\n{named}")
    assert at.arm("u1", surface="home") == ("named=x", V2)
    (at.server.store / "versions" / V3).mkdir()
    (at.server.store / "versions" / V3 / "manifest.json").write_text("{}")
    at.write(f"{before}\n{named}")
    point(at.server.store, V3)
    until(lambda: at.client.status().model_version == V3)
    until(lambda: at.arm("u1", surface="home") == ("named=x", V1))
    assert at.arm("u1", surface="cart") == ("before=x", V2)
    point(at.server.store, V2)
    until(lambda: at.client.status().model_version == V2)
    page = at.client.recommend(RecommendQuery(user_id="u1", surface="cart"))
    assert [(e.arm, e.fallback) for e in page.experiments] == [("x", True)]
    assert page.model_version == V2


def test_the_file_is_replaced_under_load_without_a_failed_call(shop: Callable[..., Shop]) -> None:
    at = shop(MODELS)
    failures: list[Exception] = []
    calls = [0]
    stop = threading.Event()

    def ask(number: int) -> None:
        with Client(at.server.address, timeout=10) as client:
            while not stop.is_set():
                try:
                    client.recommend(RecommendQuery(user_id=USERS[number], session=(SessionEvent("i1"),)))
                    calls[0] += 1
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(30):
            at.write([MODELS, "", LISTS, CANARY, MODELS.replace("{arms", "{enabled: false, arms")][n % 5])
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert calls[0] > 30
