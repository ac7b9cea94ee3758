"""Leases: a replaced model answers requests with a lease, and is closed after the last of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from conf.serving import LimitsConfig
from features.data.dataset import Catalogue, Dataset, FloatArray
from ranking.bundle.store import current_version
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.types import History, Recommendation, Request
from serving.model.interfaces import LiveModel, RecommendJob
from serving.model.process.client import RemoteModel
from serving.model.process.starter import ModelStarter
from serving.model.served import Served
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.faults.changing_bundle import ChangingBundle
from tests.processes import children
from tests.serving.conftest import Harness, Servers, until
from tests.serving.fake_bundle import FakeBundle
from tests.serving.list_streams import fill, stream
from tests.serving.model_stores import publish_model, start_message

NO_HISTORY = History(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
FAST = 0.02


def swap(server: Harness, model: FakeBundle) -> None:
    """Replace the served model, as after a publication."""
    server.call(server.running._host.load(model, Served.of(model)))


class Gate:
    """Blocks every list after its request has leased a model and before its job is submitted."""

    def __init__(self, server: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.waiting = 0
        self._open, self._loop = asyncio.Event(), server.loop
        host = server.running._host
        submit = host.submit

        async def held(job: Any, deadline: float | None, background: bool = False) -> Any:
            self.waiting += 1
            await self._open.wait()
            if self.error is not None:
                raise self.error
            return await submit(job, deadline, background)

        monkeypatch.setattr(host, "submit", held)

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)


def leases(server: Harness) -> int:
    """Return the number of leases on the served model, including the host's own."""
    return server.running._host._now.leases


def test_a_lease_held_across_a_swap_keeps_answering_from_the_former_model(server: Harness) -> None:
    first, second, host = server.model, FakeBundle("v2"), server.running._host

    async def scenario() -> None:
        async with host.lease() as served, host.lease() as same:
            await host.load(second, Served.of(second))
            assert served is same
            assert served.model is first
            async with host.lease() as newer:
                assert newer.model is second
            answer = await host.submit(RecommendJob(served.model, Request(NO_HISTORY, now=1, k=3)), None)
            assert isinstance(answer, Recommendation)
            assert [item.row for item in answer.items] == [0, 1, 2]
            assert first.recommender.batches == [1]
            seen.append(first.works)
        seen.append(first.works)

    seen: list[bool] = []
    server.call(scenario())
    assert seen == [True, False], "it is closed right after the last lease has been given back"
    assert second.works
    assert leases(server) == 1


ENDS: dict[str, tuple[grpc.StatusCode, Callable[[Gate, Any], object]]] = {
    "answered": (grpc.StatusCode.OK, lambda gate, call: gate.open()),
    "failed": (grpc.StatusCode.INTERNAL, lambda gate, call: gate.open()),
    "cancelled": (grpc.StatusCode.CANCELLED, lambda gate, call: call.cancel()),
    "late": (grpc.StatusCode.DEADLINE_EXCEEDED, lambda gate, call: None),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Recommend", pb.RecommendRequest()),
        ("SearchItems", pb.SearchItemsRequest(query="boots")),
        ("SimilarItems", pb.SimilarItemsRequest(item_id="i1")),
    ],
    ids=["Recommend", "SearchItems", "SimilarItems"],
)
def test_a_request_gives_its_lease_back_however_it_ends(
    server: Harness, monkeypatch: pytest.MonkeyPatch, method: str, request_: Any, end: str
) -> None:
    gate, first = Gate(server, monkeypatch), server.model
    code, finish = ENDS[end]
    gate.error = RuntimeError("out of memory") if end == "failed" else None
    call = getattr(server.stub, method).future(request_, timeout=1.0 if end == "late" else 20.0)
    until(lambda: gate.waiting == 1)
    assert leases(server) == 2
    swap(server, FakeBundle("v2"))
    assert first.works, "it still has a request to answer"
    finish(gate, call)
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
        assert call.result().model_version == "v1"
    assert call.code() is code
    until(lambda: not first.works)
    assert leases(server) == 1


def test_a_stream_has_no_lease_while_its_reader_takes_the_lists(server: Harness) -> None:
    fill(server, 10_000)
    responses: Any = stream(server)
    assert next(responses).model_version == "v1"
    swap(server, FakeBundle("v2"))
    until(lambda: not server.model.works)  # long before the stream ends
    versions = [response.model_version for response in responses]
    assert set(versions) == {"v1", "v2"}
    assert versions == sorted(versions)


def test_calls_that_make_no_list_give_every_lease_back(servers: Servers) -> None:
    server = servers.start(ChangingBundle())
    stub, item = server.stub, pb.Item(item_id="i1")
    item.attributes.update({"price": 9.0})
    assert len(stub.ListItems(pb.ListItemsRequest(page_size=5, filter="price > 3")).items) == 5
    stub.UpdateItem(pb.UpdateItemRequest(item=item))
    assert stub.DeleteItems(pb.DeleteItemsRequest(item_ids=["i2"])).deleted_count == 1
    assert stub.GetStatus(pb.GetStatusRequest()).deleted_item_count == 1
    with pytest.raises(grpc.RpcError):
        stub.ListItems(pb.ListItemsRequest(filter="nope = 1"))
    with pytest.raises(grpc.RpcError):
        list(stub.BatchRecommend(pb.BatchRecommendRequest(all_users=True, filter="nope = 1")))
    assert leases(server) == 1


class Reversed(ChangingBundle):
    """The same items in the opposite order, as another training may have them."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.catalogue = LiveCatalogue(Catalogue(self.catalogue.base.frame.reverse()))
        self.text_vectors = self.text_vectors[::-1].copy()
        self.recommender.vectors = self.text_vectors


def test_a_deleted_item_is_left_out_of_a_list_of_the_former_model(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different models refer to different items."""
    server = servers.start(ChangingBundle())
    gate = Gate(server, monkeypatch)
    call = server.stub.Recommend.future(pb.RecommendRequest(page_size=30), timeout=20)
    until(lambda: gate.waiting == 1)
    server.stub.DeleteItems(pb.DeleteItemsRequest(item_ids=["i0"]))
    swap(server, Reversed("v2"))
    gate.open()
    assert call.result().model_version == "v1"
    assert [item.item_id for item in call.result().items] == [f"i{row}" for row in range(1, 30)]


class Unwell(FakeBundle):
    """Loads, and fails at its first list."""

    def encode_queries(self, texts: list[str]) -> FloatArray:
        raise RuntimeError("out of memory")


def test_a_model_that_cannot_be_served_is_closed_and_the_former_is_not(server: Harness) -> None:
    unwell = Unwell("v2")
    with pytest.raises(RuntimeError, match="out of memory"):
        swap(server, unwell)
    assert not unwell.works
    assert server.model.works
    assert leases(server) == 1


def test_a_model_that_is_still_being_loaded_at_the_end_of_the_server_is_closed(servers: Servers) -> None:
    loading, gate, later = threading.Event(), threading.Event(), FakeBundle("20240101T000002Z-000000000002")

    def load(version: str, background: bool) -> LiveModel:
        loading.set()
        assert gate.wait(20)
        return later

    server = servers.start(load=load, reload_seconds=FAST)
    (servers.store / "versions" / later.version).mkdir(parents=True)
    (servers.store / "CURRENT").write_text(later.version)
    assert loading.wait(20)
    servers.stop(server)
    assert not server.model.works
    assert later.works
    gate.set()
    until(lambda: not later.works)


class Lingering(FakeBundle):
    """Its process goes on after it was closed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = threading.Timer(seconds, super().close)

    def close(self) -> None:
        self.end.start()


def test_a_server_ends_after_the_process_of_its_model(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lingering(0.5)
    servers.stop(servers.start(first))
    assert not first.works
    second = Lingering(60)
    server = servers.start(second)
    monkeypatch.setattr("serving.model.host._END_SECONDS", 0.05)
    servers.stop(server)
    assert second.works  # one that does not end holds nothing up
    second.end.cancel()


@pytest.fixture
def store(tmp_path: Path, dataset: Dataset, bert: Path) -> Path:
    return publish_model(tmp_path / "store", dataset, bert)


def memory_bytes(pid: int) -> int:
    """Return the private memory of a process."""
    found = re.findall(r"Private_\w+:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return sum(map(int, found)) * 1024


def test_the_memory_of_a_replaced_model_is_given_back(
    servers: Servers, store: Path, starter: ModelStarter
) -> None:
    before = set(children(os.getpid()))
    first = RemoteModel(start_message(store))
    (forkserver,) = set(children(os.getpid())) - before
    server = servers.start(live=first)
    host, sizes = server.running._host, [memory_bytes(first.process.pid)]
    former = first

    async def change(former: RemoteModel, model: RemoteModel) -> None:
        async with host.lease():
            await host.load(model, Served.of(model.current))
            assert former.works

    for _ in range(3):
        model = RemoteModel(start_message(store))
        pids = [former.process.pid, model.process.pid]
        assert sorted(children(forkserver)) == sorted(pids)
        server.call(change(former, model))
        until(partial(lambda left: children(forkserver) == left, pids[1:]))
        assert len(server.stub.Recommend(pb.RecommendRequest(page_size=3)).items) == 3
        sizes.append(memory_bytes(model.process.pid))
        former = model
    assert max(sizes) < 1.5 * min(sizes), sizes


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_every_request_is_refused_as_unavailable_when_its_process_dies_or_hangs(
    servers: Servers, store: Path, starter: ModelStarter, end: signal.Signals
) -> None:
    def load(version: str, background: bool) -> LiveModel:
        return RemoteModel(replace(start_message(store), version=version))

    patient = LimitsConfig(max_queue_seconds=60.0)
    first = RemoteModel(start_message(store, timeout_seconds=2.0))
    server = servers.start(live=first, load=load, reload_seconds=FAST, artifacts=str(store), limits=patient)
    assert server.stub.Recommend(pb.RecommendRequest(), timeout=20).items
    os.kill(first.process.pid, signal.SIGSTOP)
    calls = [server.stub.Recommend.future(pb.RecommendRequest(), timeout=60) for _ in range(5)]
    until(lambda: leases(server) == 6)
    os.kill(first.process.pid, end)
    assert [call.code() for call in calls] == [grpc.StatusCode.UNAVAILABLE] * 5
    until(lambda: server.running._host.generation == 2, seconds=60)
    answer = server.stub.Recommend(pb.RecommendRequest(), timeout=20)
    assert (answer.model_version, len(answer.items) > 0) == (current_version(store), True)
    assert leases(server) == 1
