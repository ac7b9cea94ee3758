"""The end of a model's process: the model is closed, whatever comes of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from conf.serving import LogFormat
from serving.model.process import worker
from serving.model.process.worker import LoadRequest


@dataclass
class Live:
    """A model that notes when it is closed."""

    ends: Callable[[], None] = lambda: None
    current: Any = field(default_factory=lambda: SimpleNamespace(manifest={}, text_dim=1, device="cpu"))
    engine: None = None
    closed: threading.Event = field(default_factory=threading.Event)

    def plan(self, changes: Any) -> None:
        """Is not called."""

    def close(self) -> None:
        self.closed.set()
        self.ends()


def fails() -> None:
    raise RuntimeError("Milvus is away")


@pytest.mark.parametrize("ends", [lambda: None, fails, lambda: time.sleep(600)])
def test_the_model_is_closed_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, ends: Callable[[], None]
) -> None:
    live = Live(ends)
    for name in ("configure_logging", "merge_equal_pages", "tune_interpreter", "prepare_thread"):
        monkeypatch.setattr(worker, name, lambda *_: None)
    monkeypatch.setattr(worker, "gc", SimpleNamespace(disable=int, freeze=int, enable=int))
    monkeypatch.setattr(worker, "_loaded", lambda *_: live)
    monkeypatch.setattr(worker, "CLOSE_SECONDS", 0.5)
    pairs = [socket.socketpair() for _ in range(3)]
    running = threading.Thread(target=worker.main, args=[os.dup(far.fileno()) for _, far in pairs])
    running.start()
    connections = [Connection(near.detach()) for near, _ in pairs]
    connections[1].send(load_request())
    assert connections[1].recv_bytes()
    assert not live.closed.is_set()
    for _, far in pairs:
        far.close()
    for connection in connections:
        connection.close()
    running.join(20)
    assert not running.is_alive()
    assert live.closed.is_set()


class Collection(Live):
    """A collection of Milvus that is connected, and notes when it is closed."""

    def connect(self) -> None:
        assert not self.closed.is_set()

    def keep_connected(self) -> None:
        """Starts nothing."""


def load_request() -> LoadRequest:
    return LoadRequest("s", "v", None, 1, 1, 1, False, "cpu", 0.0, LogFormat.text, False)


@pytest.fixture
def collection(monkeypatch: pytest.MonkeyPatch) -> Collection:
    """The collection of the bundle that is loaded."""
    found = Collection()
    monkeypatch.setattr("ranking.bundle.bundle.load_bundle", lambda *_: SimpleNamespace(collection=found))
    monkeypatch.setattr("ranking.bundle.device_memory.device_memory_guard", lambda *_: nullcontext())
    return found


def test_a_model_that_cannot_be_loaded_leaves_no_lease(
    monkeypatch: pytest.MonkeyPatch, collection: Collection
) -> None:
    def fails(*_: Any) -> None:
        assert not collection.closed.is_set()
        raise MemoryError("too many items")

    monkeypatch.setattr("ranking.live.updates.LiveItems", fails)
    near, _far = Pipe()
    with pytest.raises(MemoryError, match="too many items"):
        worker._loaded(load_request(), near)
    assert collection.closed.is_set()


def test_a_server_that_ends_while_its_model_is_loaded_leaves_no_lease(
    monkeypatch: pytest.MonkeyPatch, collection: Collection
) -> None:
    near, far = Pipe()

    def long(*_: Any) -> None:
        far.close()
        assert collection.closed.wait(20)

    def exits(code: int) -> None:
        assert collection.closed.is_set()
        raise SystemExit(code)

    monkeypatch.setattr("ranking.live.updates.LiveItems", long)
    monkeypatch.setattr(os, "_exit", exits)
    with pytest.raises(SystemExit):
        worker._loaded(load_request(), near)
