"""A bundle that is loaded onto a second device makes the lists that it makes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.encoders import TextEncoderConfig
from encoders.device import CPU
from encoders.text.text_encoder import load_text_encoder
from encoders.towers.towers import Towers
from features.data.dataset import Dataset
from features.data.histories import HistoryBatch
from ranking.bundle.bundle import load_bundle
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from ranking.rerank.rules import Cap, Rules
from ranking.scoring.ranker import Ranker
from ranking.types import Recommendation, Request
from tests.bundles import make_bundle, publish_bundle
from tests.ranking.changes import change, item
from tests.second_device import DeviceTensor, second_device
from tests.synthetic import batch_at, history_of, make_full_recommender, request_of

ROOM = 10
USERS = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    """A published bundle with towers, factors and a ranking head."""
    folder = tmp_path_factory.mktemp("on-device")
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    bundle = make_bundle(dataset, encoder)
    full = make_full_recommender(dataset, bundle.text_vectors)
    publish_bundle(folder, replace(bundle, recommender=full), bert)
    return folder


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Stand-in")
    with second_device() as found:
        yield found


def histories(dataset: Dataset) -> HistoryBatch:
    """Those of some shoppers, of one who did nothing, and of one who did one thing."""
    everybody = [history_of(dataset, user) for user in range(USERS)]
    first = everybody[0]
    for length in (0, 1):
        everybody.append(
            replace(first, items=first.items[:length], kinds=first.kinds[:length], times=first.times[:length])
        )
    return batch_at(int(dataset.events.time.max()) + 1, everybody)


def same(one: list[Recommendation], other: list[Recommendation]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert ours.items
        assert [i.row for i in ours.items] == [i.row for i in theirs.items]
        assert [i.source for i in ours.items] == [i.source for i in theirs.items]
        assert [i.reasons for i in ours.items] == [i.reasons for i in theirs.items]
        for name in ("score", "p_click", "p_purchase"):
            here, there = ([getattr(i, name) for i in made.items] for made in (ours, theirs))
            np.testing.assert_allclose(here, there, atol=2e-4)


def asked(dataset: Dataset, live: LiveItems) -> list[Request]:
    """Plain requests, and some with filters, an intent, diversity, reasons and caps."""
    size = len(live.current.catalogue)
    requests = [request_of(dataset, user) for user in range(USERS)]
    allowed = np.arange(size) % 3 > 0
    [vector] = live.current.encode_queries(["red boots"])
    caps = Rules(caps=(Cap((np.arange(size) % 5).astype(np.int32), 2),))
    return [
        *requests[:6],
        replace(requests[6], allowed=allowed),
        replace(requests[7], intent=vector, query_text="red boots", allowed=allowed, explain=True),
        replace(requests[8], intent=vector, query_text="red boots"),
        replace(requests[9], diversity=0.5),
        replace(requests[10], explain=True),
        replace(requests[11], rules=caps),
    ]


@pytest.mark.parametrize("many", [0, 10**6])
def test_lists_are_those_of_the_cpu_before_and_after_items_change(
    store: Path, dataset: Dataset, device: torch.device, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Whether the device scores the few lists of this shop, or the compiled loops do."""
    monkeypatch.setattr("encoders.towers.towers.MANY", many)
    monkeypatch.setattr("ranking.scoring.ranker.GPU_MIN_CANDIDATES", many)
    here = LiveItems(load_bundle(store, room=ROOM), ROOM)
    there = LiveItems(load_bundle(store, room=ROOM, device=device), ROOM)
    assert (here.current.device, there.current.device) == ("cpu", "cuda:0 Stand-in")
    nothing = np.zeros(0, dtype=np.int32)

    def compare() -> None:
        ours, theirs = here.current, there.current
        requests = asked(dataset, here)
        same(ours.recommender.recommend(requests), theirs.recommender.recommend(requests))
        searches = [request for request in requests if request.intent is not None]
        same(ours.recommender.search(searches), theirs.recommender.search(searches))
        vectors = [live.encode_items(["trail boots summit", "pan whisk"]) for live in (ours, theirs)]
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
        found = [live.recommender.similar(vectors[0], 5, nothing) for live in (ours, theirs)]
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-3)

    compare()
    changes = [
        item("new", "trail boots summit", "Borealis"),
        item("i7", "paper pen desk"),
        ItemChange("i5", None),
    ]
    for live in (here, there):
        version = change(live, *changes)
        assert (
            version.recommender.similar(
                version.encode_items(["trail boots summit. Brand: Borealis"]), 1, nothing
            )[0]
            == 60
        )
    arrays, others = (live.current.recommender.recommender.arrays for live in (here, there))
    np.testing.assert_allclose(arrays.item_vectors, others.item_vectors, atol=1e-5)
    compare()


def test_encoder_towers_and_ranking_head_lie_on_the_device(store: Path, device: torch.device) -> None:
    for where in (CPU, device):
        bundle = load_bundle(store, device=where)
        recommender = bundle.recommender
        assert recommender.towers is not None
        assert recommender.ranker is not None
        for module in (bundle.text_encoder, recommender.towers, recommender.ranker):
            kept = [*module.parameters(), *module.buffers()]
            assert {tensor.device for tensor in kept} == {where}
            assert all(isinstance(tensor, DeviceTensor) == (where != CPU) for tensor in kept)


def counted(module: nn.Module) -> list[int]:
    """Return a list that gets an element for every call of a module."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("layers", [1, 2])
def test_users_are_encoded_as_by_the_compiled_loop(
    store: Path, dataset: Dataset, device: torch.device, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    torch.manual_seed(layers)
    vectors = load_bundle(store).recommender.arrays.item_vectors
    towers = Towers(8, len(vectors), 2, dim=16, layers=layers, heads=2, max_length=8).eval()
    batch = histories(dataset)
    expected = towers.encode(batch, vectors)
    calls = counted(towers.user_encoder.input_norm)
    towers.to(device)
    for many in (len(batch) + 1, len(batch)):
        monkeypatch.setattr("encoders.towers.towers.MANY", many)
        found = towers.encode(batch, vectors)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert not found[USERS].any()
        assert found[USERS + 1].any()
    assert len(calls) == layers  # few histories go through the loop, which there is for one layer


def test_candidates_are_scored_as_by_the_compiled_loop(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    ranker = Ranker([f"f{n}" for n in range(7)], [16, 8]).eval()
    ranker.fit_scale(np.exp(rng.normal(size=(500, 7))).astype(np.float32))
    ranker.calibration.copy_(torch.tensor([[0.5, -1.0], [2.0, 0.25]]))
    features = np.exp(rng.normal(size=(3, 70, 7))).astype(np.float32)
    scores, probabilities = ranker.score(features)
    calls = counted(ranker.to(device))
    for many in (211, 210, 0):
        monkeypatch.setattr("ranking.scoring.ranker.GPU_MIN_CANDIDATES", many)
        found, chances = ranker.score(features)
        assert found.shape == (3, 70)
        assert chances.shape == (3, 70, 2)
        np.testing.assert_allclose(found, scores, atol=1e-5)
        np.testing.assert_allclose(chances, probabilities, atol=1e-5)
        assert ranker.logits(features[:, :0]).shape == (3, 0, 3)
    assert len(calls) == 3  # two with candidates, one without any
