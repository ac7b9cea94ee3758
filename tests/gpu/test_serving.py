"""A server whose model is on a GPU; needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.encoders import TextEncoderConfig
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.bundle import load_bundle
from ranking.live.updates import LiveItems
from shelfwise_client import Client, Event, Item, RecommendQuery, SimilarQuery
from tests.bundles import make_bundle, publish_bundle
from tests.faults.server_process import ServerProcess, command
from tests.processes import children
from tests.ranking.changes import change, item
from tests.serving.conftest import until
from tests.synthetic import make_full_recommender, request_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
ROOM = 10


def publish(store: Path, dataset: Dataset, bert: Path, full: bool = True) -> str:
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    bundle = make_bundle(dataset, encoder)
    if full:
        bundle = replace(bundle, recommender=make_full_recommender(dataset, bundle.text_vectors))
    return publish_bundle(store, bundle, bert)


@pytest.fixture
def store(tmp_path: Path, dataset: Dataset, bert: Path) -> Path:
    publish(tmp_path / "store", dataset, bert)
    return tmp_path / "store"


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    words = command(store, real=True, device="cuda", reload_seconds=0.1, max_live_items=ROOM)
    process = ServerProcess(words, tmp_path / "logs").ready(120)
    yield process
    if process.process.poll() is None:
        process.kill()


def holds_the_card(pid: int) -> bool:
    """Tell whether CUDA is initialised in a process: it keeps the driver's memory manager open."""
    files = Path(f"/proc/{pid}/fd")
    return any(os.readlink(file).startswith("/dev/nvidia-uvm") for file in files.iterdir())


def test_lists_upserts_and_a_swap_on_the_card(
    server: ServerProcess, store: Path, dataset: Dataset, bert: Path
) -> None:
    with Client(server.address) as client:
        first = client.status()
        assert first.device == f"cuda:0 {torch.cuda.get_device_name(0)}"
        client.record_events([Event("u", "i3", "purchase"), Event("u", "i4", "click")])
        page = client.recommend(RecommendQuery(user_id="u", page_size=10))
        assert len({i.item_id for i in page.items}) == 10
        client.upsert_items([Item("new", {"title": "trail boots summit", "brand": "Borealis"})])
        query = SimilarQuery(text="trail boots summit. Brand: Borealis", page_size=1)
        assert [i.item_id for i in client.similar_items(query).items] == ["new"]
        second = publish(store, dataset, bert, full=False)
        until(lambda: client.status().model_version == second, 60)
        assert client.status().device == first.device
        assert [i.item_id for i in client.similar_items(query).items] == ["new"]
        wanted = RecommendQuery(user_id="u", intent="red boots", page_size=4)
        assert len(client.recommend(wanted).items) == 4
    assert server.stop() == 0


def test_the_card_is_opened_by_the_process_of_the_model_alone(server: ServerProcess) -> None:
    [starter] = children(server.process.pid)
    [model] = children(starter)
    opened = [holds_the_card(pid) for pid in (server.process.pid, starter, model)]
    assert opened == [False, False, True]


@pytest.mark.parametrize("many", [0, 10**6])
def test_lists_are_those_of_the_cpu(
    store: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Up to what is rounded: where scores are equal to the fourth digit, the order may differ."""
    monkeypatch.setattr("encoders.towers.towers.MANY", many)
    monkeypatch.setattr("ranking.scoring.ranker.GPU_MIN_CANDIDATES", many)
    here = LiveItems(load_bundle(store, room=ROOM), ROOM)
    there = LiveItems(load_bundle(store, room=ROOM, device=torch.device("cuda", 0)), ROOM)
    requests = [request_of(dataset, user, k=40) for user in range(12)]
    for changes in ([], [item("new", "trail boots summit"), item("i7", "paper pen desk")]):
        for live in (here, there):
            change(live, *changes)
        pairs = zip(*(live.current.recommender.recommend(requests) for live in (here, there)), strict=True)
        for ours, theirs in pairs:
            scores, others = ({i.row: i.score for i in made.items} for made in (ours, theirs))
            shared = sorted(scores.keys() & others.keys())
            assert len(shared) >= 38
            np.testing.assert_allclose([scores[r] for r in shared], [others[r] for r in shared], atol=1e-3)
