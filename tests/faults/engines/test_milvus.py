"""A Milvus that is stopped or killed while a server searches it, each a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.encoders import TextEncoderConfig
from conf.engines.milvus import LoadCandidatesConfig
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.collections import load_candidates
from ranking.bundle.store import current_version
from ranking.milvus.connection import open_client
from ranking.milvus.naming import collection_name
from shelfwise_client import Client, Event, Item, RecommendQuery, SearchQuery
from tests.bundles import make_bundle, publish_bundle
from tests.faults.conftest import Processes
from tests.programs import missing
from tests.ranking.milvus.lite import settings
from tests.serving.conftest import until
from tests.serving.observability.test_http import get
from tests.serving.observability.test_metrics import free_port, scrape

SECONDS = 20.0
"""Deadline of calls: a busy machine must not be taken for a fault; Milvus has a second of it."""


class MilvusProcess:
    """Milvus Lite on a port, which can be stopped, killed, and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["-m", "milvus_lite", "server", "--data-dir", str(self._folder), "--host", "127.0.0.1"]
        with (self._folder.parent / "milvus.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words, "--port", str(self.port)], stdout=log, stderr=log
            )
        until(self._listens, 120)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self._folder.parent / "milvus.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait(20)

    def recover(self) -> None:
        """Undo `send`."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        else:
            self.start()


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[MilvusProcess]:
    try:
        import milvus_lite  # noqa: F401
    except ImportError:
        missing("Milvus is not tested: no milvus-lite", "pip install 'shelfwise[milvus-lite]'")
    (tmp_path / "milvus").mkdir()
    found = MilvusProcess(tmp_path / "milvus")
    yield found
    assert found.process is not None
    found.process.kill()
    found.process.wait(20)


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
def test_lists_are_made_while_milvus_is_stopped_or_killed_and_changes_arrive_afterwards(
    processes: Processes, milvus: MilvusProcess, dataset: Dataset, bert: Path, fault: signal.Signals
) -> None:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    publish_bundle(processes.store, make_bundle(dataset, encoder), bert)
    config = settings(milvus.uri)
    load_candidates(LoadCandidatesConfig(str(processes.store), retrieval=config), Console(quiet=True))
    port = free_port()
    words: dict[str, Any] = {
        "retrieval": "milvus", "retrieval.uri": milvus.uri, "retrieval.timeout_seconds": 1.0,
        "retrieval.retry_seconds": 0.2, "metrics.port": port, "model_timeout_seconds": 3.0,
        "memory_check": "false",
    }  # fmt: skip
    server = processes.begin(processes.command(real=True, **words)).ready(180)

    def value(name: str) -> float:
        return scrape(port)[f"shelfwise_{name}", frozenset()]

    with Client(server.address, timeout=SECONDS) as client:
        client.record_events([Event("u", str(dataset.catalogue.ids[0]), dataset.kinds[0])])
        until(lambda: client.recommend(RecommendQuery(user_id="u")).degradation == "none", 60)
        milvus.send(fault)
        began = time.monotonic()
        page = client.recommend(RecommendQuery(user_id="u", page_size=5))  # within its deadline, or it raises
        assert page.degradation == "candidates_unavailable"
        assert len(page.items) == 5
        for _ in range(3):
            assert client.recommend(RecommendQuery(user_id="u")).degradation == "candidates_unavailable"
        assert time.monotonic() - began < SECONDS
        until(lambda: get(port, "/readyz")[1]["failing"] == ["candidates"], 60)
        assert get(port, "/readyz")[0] == 200  # lists are made: no reason to route traffic away
        assert value("candidates_work") == 0
        assert value("candidate_searches_failed") >= 1
        title = {"title": "quince harmonica", "brand": "Acme", "price": 3.0}
        client.upsert_items([Item("meanwhile", title)])
        found = client.search_items(SearchQuery("quince harmonica"))
        assert found.items[0].item_id == "meanwhile"  # by its words
        until(lambda: value("candidate_writes_pending") == 1, 60)
        milvus.recover()
        until(lambda: client.recommend(RecommendQuery(user_id="u")).degradation == "none", 120)
        until(lambda: get(port, "/readyz")[1]["failing"] == [], 60)
        until(lambda: value("candidate_writes_pending") == 0, 60)
    direct = open_client(config)
    name = collection_name(config, current_version(processes.store))
    [stored] = direct.get(name, ["meanwhile"], output_fields=["a_brand", "fresh"])
    assert (stored["a_brand"], stored["fresh"]) == ("Acme", True)
    assert len(direct.list_aliases(name)["aliases"]) > 1
    assert server.stop() == 0
    until(lambda: direct.list_aliases(name)["aliases"] == ["shelfwise"], 20)  # its lease has ended with it
    direct.close()
    written = server.err.read_text()
    assert "Traceback" not in written
    assert "lists are made without vector searches until it answers" in written
    assert "answers again" in written
