"""The end of a model's process: the model is closed, whatever comes of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
    monkeypatch.setattr(worker, "_CLOSE_SECONDS", 0.5)
    pairs = [socket.socketpair() for _ in range(3)]
    running = threading.Thread(target=worker.main, args=[os.dup(far.fileno()) for _, far in pairs])
    running.start()
    connections = [Connection(near.detach()) for near, _ in pairs]
    request = LoadRequest("s", "v", None, 1, 1, 1, False, "cpu", 0.0, LogFormat.text, False)
    connections[1].send(request)
    assert connections[1].recv_bytes()
    assert not live.closed.is_set()
    for _, far in pairs:
        far.close()
    for connection in connections:
        connection.close()
    running.join(20)
    assert not running.is_alive()
    assert live.closed.is_set()
