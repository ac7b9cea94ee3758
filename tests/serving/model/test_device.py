"""Processes that use a GPU, and models that do not fit on one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import patch

import grpc
import pytest
import torch

from conf.encoders import TextEncoderConfig
from conf.errors import InputError
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.device_memory import WORKING_BYTES
from ranking.bundle.store import current_version
from ranking.types import Request
from serving.core.errors import ApiError
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import LiveModel, RecommendJob
from serving.model.process import worker
from serving.model.process.client import RemoteModel
from serving.model.process.starter import ModelStarter
from shelfwise_client import Client, Item, RecommendQuery, SimilarQuery
from tests.bundles import make_bundle, publish_bundle
from tests.second_device import second_device
from tests.serving.conftest import Servers, until
from tests.serving.model_stores import publish_model, start_message

GB = 10**9
FAST = 0.02
WATCHED = """
import faiss, os, torch

def watched(place, name):
    original = getattr(place, name, None)
    if original is None:  # of builds for CUDA, which are known by such names
        return
    def call(*arguments, **named):
        with open({path!r}, "a") as log:
            log.write(f"{{os.getpid()}} {{name}}\\n")
        return original(*arguments, **named)
    setattr(place, name, call)

for name in ("_lazy_init", "init", "is_available", "device_count", "mem_get_info", "current_device"):
    watched(torch.cuda, name)
for name in ("_cuda_init", "_cuda_getDeviceCount", "_cuda_setDevice"):
    watched(torch._C, name)
for name in ("is_available", "device_count"):  # `current_accelerator` only knows what torch was built for
    watched(torch.accelerator, name)
for name in ("get_num_gpus", "StandardGpuResources", "index_cpu_to_all_gpus"):
    watched(faiss, name)
"""
"""Records which process uses a GPU; run before anything else is imported."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    return publish_model(tmp_path_factory.mktemp("device"), dataset, bert)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_only_the_process_of_a_model_looks_for_a_gpu(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "calls"

    def popen(descriptor: int, forks: bool) -> subprocess.Popen[bytes]:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; {WATCHED.format(path=str(log))}\n"
            f"from serving.model.process.starter import main; main({descriptor}, {forks})"
        )
        command = [sys.executable, "-c", code]
        return subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.DEVNULL)

    monkeypatch.setattr("serving.model.process.starter._popen", popen)
    with closing(ModelStarter()) as starter:
        monkeypatch.setattr("serving.model.process.client._STARTER", starter)
        models = [RemoteModel(replace(start_message(store), device="auto")) for _ in range(2)]
        pids = {model.process.pid for model in models}
        assert len({parent(pid) for pid in pids}) == 1 != os.getpid()
    calls = [line.split() for line in log.read_text().splitlines()]
    assert {int(pid) for pid, _ in calls} == pids  # and not the one that both were forked from
    assert "is_available" in {name for _, name in calls}


def test_the_process_that_answers_calls_imports_nothing_that_could() -> None:
    code = "import sys, serving.server; print(sorted({'torch', 'faiss', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_gpu_that_is_not_there_is_named_by_the_process_of_the_model(
    store: Path, starter: ModelStarter
) -> None:
    with pytest.raises(InputError, match=r"^device=cuda:99: torch .*; set device="):
        RemoteModel(replace(start_message(store), device="cuda:99"))


class Failing:
    """A stub of a request that fails on the GPU."""

    def __getattr__(self, name: str) -> object:
        """Fail wherever it is looked into, but not where it is unpacked."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def test_a_failed_gpu_ends_the_process_so_that_the_model_is_loaded_anew(
    store: Path, starter: ModelStarter, capfd: pytest.CaptureFixture[str]
) -> None:
    live = RemoteModel(start_message(store))
    with pytest.raises(ApiError) as caught:
        execute_batch([RecommendJob(live.current, cast(Request, Failing()))])
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_RESTARTING")
    until(lambda: not live.works)
    assert "CUDA error: an illegal memory access was encountered" in capfd.readouterr().err


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A second device, and how many bytes are free on it."""
    memory = [80 * GB]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Stand-in")
    with second_device(), patch.object(torch.cuda, "mem_get_info", lambda _: (memory[0], 80 * GB)):
        yield memory


def test_a_model_without_room_beside_the_one_that_answers_waits_and_says_so(
    tmp_path: Path,
    dataset: Dataset,
    bert: Path,
    servers: Servers,
    free: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("serving.model.reload._RETRY_SECONDS", 10 * FAST)
    monkeypatch.setattr(worker, "use_idle_cpus_only", lambda: None)
    store = publish_model(servers.store, dataset, bert)

    def load(version: str, background: bool) -> LiveModel:
        start = replace(start_message(store), version=version, device="auto")
        return worker._load(replace(start, background=background), [])

    first = current_version(store)
    server = servers.start(live=load(first, False), load=load, reload_seconds=FAST)
    free[0] = WORKING_BYTES
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    second = publish_bundle(store, make_bundle(dataset, encoder, trained=False), bert)
    metric = server.running.metrics.registry.get_sample_value
    with Client(server.address) as client:
        until(lambda: client.status().failed_reload is not None)
        status = client.status()
        assert (status.model_version, status.device) == (first, "cuda:0 Stand-in")
        assert status.failed_reload is not None
        assert status.failed_reload.model_version == second
        reason = status.failed_reload.reason
        assert reason.startswith(f"cuda:0 Stand-in has too little memory for model {second} beside the one ")
        assert reason.endswith("; a restart of the server changes over with one model at a time")
        assert metric("shelfwise_reload_failed") == 1
        assert metric("shelfwise_model_info", {"version": first, "device": "cuda:0 Stand-in"}) == 1
        client.upsert_items([Item("new", {"title": "trail boots summit", "brand": "Borealis"})])
        found = client.similar_items(SimilarQuery(text="trail boots summit. Brand: Borealis", page_size=1))
        assert [item.item_id for item in found.items] == ["new"]
        assert client.recommend(RecommendQuery(intent="red boots")).model_version == first
        free[0] = 80 * GB
        until(lambda: client.status().model_version == second)
        assert client.status().failed_reload is None
        assert client.recommend(RecommendQuery()).model_version == second
    [line] = [r.getMessage() for r in caplog.records if "cannot be served" in r.getMessage()]
    assert line == f"model {second} cannot be served, {first} goes on: {reason}"
