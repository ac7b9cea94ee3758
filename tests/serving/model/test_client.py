"""A model in another process answers as in this one, and ends or fails with its process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest

from conf.errors import InputError
from features.data.dataset import Dataset
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import VERSIONS
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from ranking.rerank.rules import Cap, Rules
from ranking.types import History, Recommendation, Request
from serving.core.call_context import Timeline
from serving.core.errors import ApiError
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import LiveModel, Model, Neighbours, RecommendJob, SimilarJob
from serving.model.process.client import RemoteModel
from serving.model.process.starter import ModelStarter
from serving.model.process.worker import load_error
from tests.processes import children
from tests.serving.conftest import until
from tests.serving.model_stores import ROOM, publish_model, start_message


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    return publish_model(tmp_path_factory.mktemp("published"), dataset, bert)


@pytest.fixture
def remote(store: Path) -> RemoteModel:
    return RemoteModel(start_message(store))


def asked(model: Model) -> list[RecommendJob | SimilarJob]:
    rng = np.random.default_rng(0)
    items = len(model.catalogue)
    none = np.zeros(0, dtype=np.int32)
    allowed = np.arange(items) % 3 > 0
    jobs: list[RecommendJob | SimilarJob] = []
    for number in range(9):
        length = number % 4
        history = History(
            rng.integers(items, size=length).astype(np.int32),
            np.zeros(length, dtype=np.int8),
            np.arange(length, dtype=np.int64),
        )
        rules = Rules(caps=(Cap((np.arange(items) % 5).astype(np.int32), 2),)) if number == 5 else None
        request = Request(
            history, now=100, k=7, allowed=allowed if number % 2 else None, explain=number == 4, rules=rules
        )
        jobs.append(RecommendJob(model, request, "red boots" if number > 6 else "", search=number == 8))
    jobs.append(SimilarJob(model, 3, 5, np.array([3], dtype=np.int32), allowed))
    jobs.append(SimilarJob(model, "green shoes", 5, none, None))
    return jobs


def same(here: LiveModel, there: LiveModel) -> None:
    for one, other in zip(
        execute_batch(asked(here.current)), execute_batch(asked(there.current)), strict=True
    ):
        if isinstance(one, Recommendation):
            assert isinstance(other, Recommendation)
            assert [i.row for i in other.items] == [i.row for i in one.items]
            assert [i.source for i in other.items] == [i.source for i in one.items]
            assert [i.reasons for i in other.items] == [i.reasons for i in one.items]
            np.testing.assert_allclose(
                [i.score for i in other.items], [i.score for i in one.items], atol=1e-5
            )
            assert other.degradation == one.degradation
        else:
            assert isinstance(one, Neighbours)
            assert isinstance(other, Neighbours)
            np.testing.assert_array_equal(other.rows, one.rows)


def test_it_answers_as_here_before_and_after_items_change(store: Path, remote: RemoteModel) -> None:
    here = LiveItems(load_bundle(store, room=ROOM), ROOM)
    model = remote.current
    assert (model.version, model.kinds, model.exclude_seen, model.data_end, model.text_dim, model.device) == (
        here.current.version, here.current.kinds, False, 0, here.current.text_dim, "cpu",
    )  # fmt: skip
    same(here, remote)
    changes = [
        ItemChange("n1", {"title": "violet boots", "brand": "Novum", "price": 1.0}),
        ItemChange("i5", None),
        ItemChange("i7", {"title": "a title of its own", "brand": "Novum"}),
    ]
    for live in (here, remote):
        live.apply(live.plan(changes))
    catalogue = remote.current.catalogue
    assert list(catalogue.ids) == list(here.current.catalogue.ids)
    assert catalogue.row("n1") == len(model.catalogue)
    assert catalogue.is_hidden(catalogue.rows(["i5"])[0])
    assert catalogue.text(catalogue.rows(["i7"])[0]).startswith("a title of its own")
    same(here, remote)


def test_stages_are_noted_by_the_clock_of_this_process(remote: RemoteModel) -> None:
    timelines = [Timeline() for _ in range(5)]
    jobs = [replace(job, timeline=t) for job, t in zip(asked(remote.current), timelines, strict=False)]
    before = time.perf_counter()
    execute_batch(jobs)
    after = time.perf_counter()
    for timeline in timelines:
        assert before < timeline.began < after
        assert {"candidates", "user_encoding"} <= {stage.name for stage in timeline.stages}


def test_only_its_loading_is_left_behind_by_others(store: Path) -> None:
    remote = RemoteModel(replace(start_message(store), background=True))
    tasks = Path(f"/proc/{remote.process.pid}/task")
    names = {int(task.name): (task / "comm").read_text() for task in tasks.iterdir()}
    workers = [task for task, name in names.items() if re.fullmatch(r"polars-\d+\n", name)]
    assert workers
    assert {os.sched_getscheduler(task) for task in workers} == {os.sched_getscheduler(0)}
    assert {os.getpriority(os.PRIO_PROCESS, task) for task in workers} == {os.getpriority(os.PRIO_PROCESS, 0)}
    assert isinstance(execute_batch(asked(remote.current))[0], Recommendation)


def test_a_job_at_fault_fails_and_the_process_goes_on(
    store: Path, starter: ModelStarter, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = RemoteModel(start_message(store))
    good, *_ = asked(remote.current)
    assert isinstance(good, RecommendJob)
    bad = replace(good, request=replace(good.request, exclude=np.array(["x"])))
    with pytest.raises(RuntimeError, match="Error"):
        execute_batch([bad])
    assert remote.works
    assert isinstance(execute_batch([good])[0], Recommendation)
    assert "answer failed" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError((103_659, 128), "float32"),
        OSError(12, os.strerror(12)),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes"),
    ],
)
def test_memory_that_runs_out_while_loading_is_named_as_the_cause(error: Exception) -> None:
    said = load_error(error)
    assert isinstance(said, InputError)
    assert str(said).startswith("memory ran out while the model was loaded (")
    assert "give more memory, or serve fewer workers or a smaller model" in str(said)


def test_other_errors_of_loading_are_faults() -> None:
    said = load_error(ValueError("no"))
    assert type(said) is RuntimeError
    assert str(said) == "ValueError('no')"


def test_a_version_that_cannot_be_used_is_said_as_here(store: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(store, tmp_path / "damaged"))
    next((damaged / VERSIONS).glob("*/index.faiss")).write_bytes(b"no index")
    with pytest.raises(InputError) as here:
        load_bundle(damaged)
    with pytest.raises(InputError) as there:
        RemoteModel(start_message(damaged))
    assert str(there.value) == str(here.value)


def test_calls_fail_as_unavailable_when_the_process_has_ended(remote: RemoteModel) -> None:
    jobs = asked(remote.current)
    os.kill(remote.process.pid, signal.SIGKILL)
    for work in (lambda: execute_batch(jobs), lambda: remote.plan([ItemChange("i1", None)])):
        with pytest.raises(ApiError) as caught:
            work()
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        assert caught.value.reason == "MODEL_RESTARTING"
        assert caught.value.retry_seconds == 1.0
    until(lambda: not remote.works)


class Sleeps:
    """A stub of work that takes some seconds in the model's process."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.home = os.getpid()

    def __getattr__(self, name: str) -> object:
        """Take the time wherever it is looked into, but not where it is unpacked."""
        if not name.startswith("__") and os.getpid() != self.home:
            time.sleep(self.seconds)
        raise AttributeError(name)

    def __iter__(self) -> Iterator[ItemChange]:
        """Take the time for items that change."""
        time.sleep(self.seconds)
        return iter([ItemChange("i1", None)])


PATIENCE = 2.0
"""Seconds."""


def warm(store: Path) -> RemoteModel:
    """A model that has made lists, with a short timeout."""
    remote = RemoteModel(start_message(store, timeout_seconds=PATIENCE))
    execute_batch(asked(remote.current))
    return remote


def test_a_stopped_process_is_killed_though_it_is_asked_nothing(store: Path, starter: ModelStarter) -> None:
    remote = warm(store)
    os.kill(remote.process.pid, signal.SIGSTOP)
    assert remote.process.ended.wait(30)


def test_a_stopped_process_is_killed_and_calls_fail_as_unavailable(
    store: Path, starter: ModelStarter, caplog: pytest.LogCaptureFixture
) -> None:
    remote = warm(store)
    pid = remote.process.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ApiError) as caught:
        execute_batch(asked(remote.current))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_RESTARTING")
    assert not remote.works
    assert [record.getMessage() for record in caplog.records] == [
        f"the model's process ({pid}) has sent no sign of life for 2 seconds and is killed"
    ]


def test_a_batch_that_does_not_end_is_found_though_the_process_beats(
    store: Path, starter: ModelStarter, caplog: pytest.LogCaptureFixture
) -> None:
    remote = warm(store)
    with pytest.raises(ApiError):
        execute_batch([RecommendJob(remote.current, cast(Request, Sleeps(600.0)))])
    assert not remote.works
    assert "has not finished a batch of lists for 2 seconds" in caplog.text


def test_changes_of_items_may_take_longer(store: Path, starter: ModelStarter) -> None:
    remote = warm(store)
    plan = remote.plan(cast(Sequence[ItemChange], Sleeps(3.0)))
    remote.apply(plan)
    assert remote.works
    row = remote.current.catalogue.rows(["i1"])[0]
    assert remote.current.catalogue.is_hidden(row)


def test_a_process_that_no_signal_ends_lets_callers_go_on(
    store: Path, starter: ModelStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that waits for a device in the kernel."""
    remote = warm(store)
    kill = os.kill
    monkeypatch.setattr("serving.model.process.client._END_SECONDS", 0.1)
    kill(remote.process.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("os.kill", lambda pid, number: None)
        with pytest.raises(ApiError, match="MODEL_RESTARTING"):
            execute_batch(asked(remote.current))
    assert not remote.works
    kill(remote.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("kills", [0, 1])
def test_a_process_ended_for_want_of_memory_is_named(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kills: int
) -> None:
    def killed_since(before: int) -> str:
        return f"the kernel has ended {before} more for want of memory" if before else ""

    monkeypatch.setattr("serving.model.process.client.memory_kills", lambda: kills)
    monkeypatch.setattr("serving.model.process.client.killed_since", killed_since)
    model = RemoteModel(start_message(store))
    os.kill(model.process.pid, signal.SIGKILL)
    assert model.process.ended.wait(10)
    said = f"({model.process.pid}) has ended, and the kernel has ended 1 more for want of memory"
    assert (said in caplog.text) == bool(kills)
    caplog.clear()
    closed = RemoteModel(start_message(store))
    closed.close()  # an end that was asked for says nothing
    assert closed.process.ended.wait(10)
    assert caplog.text == ""


def test_a_closed_model_answers_the_request_in_progress_and_ends(store: Path) -> None:
    model = RemoteModel(start_message(store))
    with ThreadPoolExecutor(1) as asking:
        planning = asking.submit(model.plan, cast(Sequence[ItemChange], Sleeps(1.0)))
        until(lambda: model.process._changes.turn == 1)
        model.close()
        model.close()
        assert not planning.done()
        assert planning.result().deletes == ["i1"]
    assert model.process.ended.wait(10)
    with pytest.raises(ApiError) as caught:
        execute_batch(asked(model.current))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_RESTARTING")


def test_a_request_that_waits_for_another_one_fails_where_the_model_is_closed_meanwhile(store: Path) -> None:
    model = RemoteModel(start_message(store))
    with ThreadPoolExecutor(2) as asking:
        first = asking.submit(model.plan, cast(Sequence[ItemChange], Sleeps(1.0)))
        until(lambda: model.process._changes.turn == 1)
        second = asking.submit(model.plan, [ItemChange("i2", None)])
        time.sleep(0.1)
        model.close()
        assert first.result().deletes == ["i1"]
        with pytest.raises(ApiError, match="MODEL_RESTARTING"):
            second.result()
    assert model.process.ended.wait(10)


def test_a_model_that_cannot_be_loaded_leaves_no_process(store: Path, starter: ModelStarter) -> None:
    before = set(children(os.getpid()))
    with pytest.raises(InputError):
        RemoteModel(replace(start_message(store), version="20240101T000000Z-000000000000"))
    (forkserver,) = set(children(os.getpid())) - before
    until(lambda: children(forkserver) == [])
