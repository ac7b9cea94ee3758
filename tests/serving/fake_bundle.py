"""A model with answers computed by hand, with the attributes of a real bundle."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.catalogue.live_catalogue import Change, LiveCatalogue, PreparedItemChanges
from ranking.live.recorded_events import CountResult, RecordedEvent
from ranking.milvus.status import EngineStatus
from ranking.types import Reason, Recommendation, RecommendedItem, Request
from serving.model.interfaces import Model

ITEMS = 30
TEXT_DIM = 16
DATA_END = 1_700_000_000
KINDS = ["purchase", "add_to_cart", "click", "impression"]
SLOW = "slow"
"""An intent that makes the model take `FakeRecommender.slow_seconds`."""
POISON = "poison"
"""An intent that makes the model fail."""


def catalogue() -> LiveCatalogue:
    """Items i0 to i29; price is the row, i3 has none; every third is SHOES; even rows are in stock."""
    rows = range(ITEMS)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{r}" for r in rows],
            "item_text": [f"Item number {r}. " + "A fine thing for every day. " * 12 for r in rows],
            "title": [f"Item {r}" for r in rows],
            "category": ["SHOES" if r % 3 == 0 else "HATS" for r in rows],
            "price": [None if r == 3 else float(r) for r in rows],
            "in_stock": [r % 2 == 0 for r in rows],
            "tags": [["sale", "new"] if r < 5 else [] for r in rows],
        }
    )
    return LiveCatalogue(Catalogue(frame))


def unit_vector(text: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    vector = np.random.default_rng(seed).normal(size=TEXT_DIM)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class FakeRecommender:
    """Scores: 10 for a follower (row + 1) of a history item, else 0; then 1 / (1 + row), the popularity."""

    def __init__(self, vectors: FloatArray) -> None:
        self.vectors = vectors
        self.slow_seconds = 0.4
        self.batches: list[int] = []
        self.seen: list[Request] = []
        self.gate = threading.Event()
        self.gate.set()

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        self.gate.wait(10)
        self.batches.append(len(requests))
        self.seen.extend(requests)
        answers = []
        for request in requests:
            if request.intent is not None and np.allclose(request.intent, unit_vector(SLOW)):
                time.sleep(self.slow_seconds)
            if request.intent is not None and np.allclose(request.intent, unit_vector(POISON)):
                raise ValueError("poisoned")
            answers.append(self._one(request))
        return answers

    def search(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Cosines to the words; histories change nothing."""
        self.seen.extend(requests)
        answers = []
        for request in requests:
            assert request.intent is not None
            rows, cosines = self.similar(request.intent[None, :], request.k, request.exclude, request.allowed)
            pairs = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
            reasons = (Reason("matches_intent"),) if request.explain else ()
            nan = float("nan")
            items = tuple(RecommendedItem(r, c, nan, nan, "intent", reasons) for r, c in pairs if r >= 0)
            answers.append(Recommendation(items, "none" if len(request.history.items) else "text_only"))
        return answers

    def _one(self, request: Request) -> Recommendation:
        scores = 1.0 / (1.0 + np.arange(ITEMS))
        followers = {int(i) + 1: int(i) for i in request.history.items if int(i) + 1 < ITEMS}
        scores[list(followers)] += 10.0
        keep = np.ones(ITEMS, dtype=bool) if request.allowed is None else request.allowed.copy()
        keep[request.exclude] = False
        if request.exclude_seen:
            keep[request.history.items] = False
        order = [int(r) for r in np.argsort(-scores, kind="stable") if keep[r]][: request.k]
        items = []
        for row in order:
            reason = Reason("goes_with", followers[row]) if row in followers else Reason("popular")
            source = "item_to_item" if row in followers else "popular"
            click = 0.5 if row % 2 else float("nan")
            reasons = (reason,) if request.explain else ()
            items.append(RecommendedItem(row, float(scores[row]), click, float("nan"), source, reasons))
        known = len(request.history.items) > 0 or request.intent is not None
        return Recommendation(tuple(items), "none" if known else "popularity")

    def stored_neighbours(self, row: int) -> Neighbours:
        return Neighbours(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        cosines = vectors @ self.vectors.T
        cosines[:, exclude] = -np.inf
        if allowed is not None:
            cosines[:, ~allowed] = -np.inf
        rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k].astype(np.int32)
        found = np.take_along_axis(cosines, rows, axis=1).astype(np.float32)
        return np.where(np.isfinite(found), rows, -1).astype(np.int32), found


class FakeBundle:
    """Implements `serving.model.interfaces.Model` and `LiveModel` for items that never change."""

    def __init__(self, version: str = "v1") -> None:
        self.version = version
        self.manifest: dict[str, Any] = {}
        self.catalogue = catalogue()
        self.kinds = KINDS
        self.text_dim = TEXT_DIM
        self.device = "cpu"
        self.works = True
        self.engine: EngineStatus | None = None
        self.exclude_seen = True
        self.data_end = DATA_END
        self.text_vectors = self.encode_items([t.split(".")[0] for t in self.catalogue.base.texts])
        self.recommender = FakeRecommender(self.text_vectors)

    def encode_items(self, texts: list[str]) -> FloatArray:
        return np.stack([unit_vector(text) for text in texts])

    def encode_queries(self, texts: list[str]) -> FloatArray:
        return self.encode_items(texts)

    @property
    def current(self) -> FakeBundle:
        return self

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        raise AssertionError("the fake bundle's items do not change")

    def apply(self, plan: PreparedItemChanges) -> Model:
        raise AssertionError("the fake bundle's items do not change")

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        return CountResult(len(events), 0, 0)

    def close(self) -> None:
        self.works = False
