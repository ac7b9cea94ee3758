"""Generated bundles of any size, with all parts of a trained one, to benchmark the server.

Vectors are drawn around topics, histories keep to a few topics, neighbours are drawn within them. Nothing is
trained, so lists are meaningless; sizes and code paths are those of a trained bundle with default settings,
and so are the sources' quotas but one.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from conf.encoders import Precision
from conf.schema import CandidateConfig, IndexConfig
from encoders.factors.affinity import Affinity
from encoders.factors.co_purchase import Factors
from encoders.text.text_encoder import bundled_model_path
from encoders.towers.item_tower import whitening
from encoders.towers.towers import Towers
from features.candidates.features import FeatureLayout
from features.data import schema
from features.data.dataset import Catalogue, Events, FloatArray, IntArray
from features.data.demand import Demand
from features.data.statistics import Neighbours, Statistics, attribute_codes
from features.text.item_text import TextTemplate
from ranking.assembly import item_arrays, pca_units
from ranking.bundle.bundle import HISTORIES, write_bundle
from ranking.bundle.store import VERSIONS, publish_version
from ranking.recommender import Recommender
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.limits import Limits
from ranking.scoring.ranker import Ranker
from ranking.sources import SOURCES
from ranking.types import History, Request

KINDS: Final = ("purchase", "add_to_cart", "click")
USERS: Final = 20_000
HISTORY: Final = (10, 60)
"""Fewest and most events of a user."""
QUOTAS: Final = CandidateConfig(user_vector=110)
"""Gives 400 candidates per list, the target's workload; the default quota of 200 gives 480."""
BRANDS: Final = 40
CATEGORIES: Final = 50
DAY: Final = 86_400
END: Final = 1_717_113_600
"""Unix seconds of the last event."""
_TOPICS: Final = 500
_TEXT_DIM: Final = 384
_NOISE: Final = 0.7
_WORDS: Final = (
    "trail boot linen shirt copper pan garden hose silk scarf oak table winter coat steel kettle canvas bag "
    "wool sock glass jar leather belt cotton towel rubber mat paper lamp"
).split()


@dataclass(frozen=True)
class GeneratedStore:
    """An artifact store with two versions that differ in name only."""

    path: Path
    versions: tuple[str, str]
    candidates: float
    """Mean candidates of a list for a known user without session and filter."""


def generated_store(folder: Path, items: int) -> GeneratedStore:
    """Return a store of a size, generated on the first call.

    Args:
        folder: holds the stores of all sizes.
        items: catalogue size.
    """
    path = folder / f"items-{items}"
    done = path / "about.json"
    if not done.is_file():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        made = _publish(path, items)
        done.write_text(json.dumps({"versions": made.versions, "candidates": made.candidates}) + "\n")
    about = json.loads(done.read_text())
    first, second = about["versions"]
    return GeneratedStore(path, (first, second), about["candidates"])


def _publish(store: Path, items: int) -> GeneratedStore:
    rng = np.random.default_rng(0)
    topic = rng.integers(0, _TOPICS, size=items).astype(np.int32)
    texts = _around(topic, _TEXT_DIM, seed=1)
    catalogue = _catalogue(items, topic, rng)
    histories = _histories(store, topic, catalogue)
    statistics = _statistics(catalogue, topic, histories, rng)
    towers = Towers(_TEXT_DIM, items, len(KINDS), dim=128, layers=1, heads=2, max_length=50).eval()
    towers.item_tower.seen.fill_(True)
    factors = _factors(topic)
    config = QUOTAS
    near = _within(topic, config.neighbours, seed=3)
    mean, matrix = whitening(texts)
    affinity = Affinity(matrix, -mean @ matrix)
    arrays = item_arrays(
        statistics, texts, towers, config, near, factors=factors, units=pca_units(texts),
        affinity_units=affinity.units(texts),
    )  # fmt: skip
    index = VectorIndex.build(arrays.item_vectors, IndexConfig())
    clicks = np.array([kind != "purchase" for kind in KINDS])
    ranker = Ranker(FeatureLayout(SOURCES.names, statistics.attributes.shape[1]).names, [64, 32]).eval()
    recommender = Recommender(arrays, index, texts, config, clicks, towers, ranker, factors, affinity)
    candidates = _fit_scale(recommender, ranker, histories)
    describe: dict[str, Any] = {
        "kinds": list(KINDS), "exclude_seen": False, "data_end": END, "precision": Precision.fp32.value,
        "template": {"text_fields": ["title", "brand"], "text_fallback_fields": [], "max_text_chars": 1000},
        "counts": {"items": items, "events": len(histories)}, "click_kinds": clicks.tolist(),
        "candidates": asdict(config), "index": asdict(IndexConfig()), "max_tokens": 64,
    }  # fmt: skip

    template = TextTemplate.from_info(describe["template"])

    def write(folder: Path) -> None:
        write_bundle(folder, recommender, catalogue, template, bundled_model_path(), "{}\n")

    first = publish_version(store, write, describe)

    def link(folder: Path) -> None:
        for file in (store / VERSIONS / first).rglob("*"):
            if file.is_file() and file.name != "manifest.json":
                target = folder / file.relative_to(store / VERSIONS / first)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, target)

    second = publish_version(store, link, {**describe, "twin": True})
    return GeneratedStore(store, (first, second), candidates)


def _around(topic: IntArray, dim: int, seed: int) -> FloatArray:
    """Draw unit vectors around their topic's, [items, dim]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(_TOPICS, dim)).astype(np.float32)
    vectors = np.empty((len(topic), dim), dtype=np.float32)
    for start in range(0, len(topic), 65_536):
        part = slice(start, start + 65_536)
        noise = rng.standard_normal(size=(len(topic[part]), dim), dtype=np.float32)
        block = centres[topic[part]] + _NOISE * noise
        vectors[part] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def _catalogue(items: int, topic: IntArray, rng: np.random.Generator) -> Catalogue:
    words = np.array(_WORDS)[rng.integers(0, len(_WORDS), size=(items, 6))]
    titles = [" ".join(row) for row in words]
    brands = [f"Brand {b}" for b in rng.integers(0, BRANDS, size=items)]
    details = "Well made, easy to care for, delivered within three days."
    return Catalogue(
        pl.DataFrame(
            {
                schema.ITEM_ID: [f"item-{row}" for row in range(items)],
                schema.TEXT: [f"{t}. Brand: {b}. {details}" for t, b in zip(titles, brands, strict=True)],
                "title": titles,
                "brand": brands,
                "category": [f"Category {t % CATEGORIES}" for t in topic],
                schema.PRICE: np.round(rng.lognormal(3.0, 1.0, size=items), 2),
                "in_stock": rng.random(items) < 0.8,
            }
        )
    )


def _histories(store: Path, topic: IntArray, catalogue: Catalogue) -> Events:
    """Write every user's history beside the versions, and return them."""
    rng = np.random.default_rng(2)
    order = np.argsort(topic, kind="stable")
    bounds = np.searchsorted(topic[order], np.arange(_TOPICS + 1))
    sizes = rng.integers(HISTORY[0], HISTORY[1] + 1, size=USERS)
    users = np.repeat(np.arange(USERS), sizes)
    favourites = rng.integers(0, _TOPICS, size=(USERS, 3))
    chosen = favourites[users, rng.integers(0, 3, size=len(users))]
    low, high = bounds[chosen], np.maximum(bounds[chosen + 1], bounds[chosen] + 1)
    # Popularity within a topic is skewed, as in a shop.
    place = low + ((high - low) * rng.random(len(users)) ** 3).astype(np.int64)
    item = order[np.minimum(place, len(order) - 1)].astype(np.int32)
    kind = rng.choice(len(KINDS), size=len(users), p=[0.3, 0.2, 0.5]).astype(np.int8)
    time = np.sort(END - rng.integers(0, 300 * DAY, size=len(users)))
    time = time[np.lexsort((time, users))]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ids, kinds = np.array(catalogue.ids), np.array(KINDS)
    pl.DataFrame(
        {
            schema.USER_ID: [f"user-{user}" for user in users],
            schema.ITEM_ID: ids[item],
            schema.EVENT: kinds[kind],
            schema.TIMESTAMP: time,
            schema.ORDER: np.arange(len(users)) - offsets[users],
        }
    ).write_parquet(store / HISTORIES)
    return Events(user=users.astype(np.int32), item=item, kind=kind, time=time, offsets=offsets)


def _within(topic: IntArray, k: int, seed: int) -> Neighbours:
    """Draw neighbours of each item within its topic."""
    rng = np.random.default_rng(seed)
    order = np.argsort(topic, kind="stable")
    bounds = np.searchsorted(topic[order], np.arange(_TOPICS + 1))
    low, size = bounds[topic], np.maximum(np.diff(bounds)[topic], 1)
    start = rng.integers(0, size)
    ids = np.empty((len(topic), k), dtype=np.int32)
    for place in range(k):  # consecutive places of the topic are distinct items
        ids[:, place] = order[low + (start + place) % size]
    ids[np.arange(k)[None, :] >= size[:, None]] = -1
    weights = np.where(ids >= 0, np.linspace(1.0, 0.1, k), 0.0).astype(np.float32)
    return Neighbours(ids, weights)


def _statistics(
    catalogue: Catalogue, topic: IntArray, events: Events, rng: np.random.Generator
) -> Statistics:
    items = len(catalogue)
    count = np.bincount(events.item, minlength=items).astype(np.float32)
    # Most items have events beyond the histories that a server stores.
    count += rng.poisson(3.0, size=items)
    follow, together = (_within(topic, 50, seed) for seed in (4, 5))
    demand = Demand.of(events, lambda: [np.arange(len(events))], items)
    return Statistics(
        now=np.array([END]),
        count=count,
        recent=(count * rng.random(items)).astype(np.float32),
        repeat_rate=rng.random(items).astype(np.float32),
        gap_days=(30 * rng.random(items)).astype(np.float32),
        log_price=np.log1p(catalogue.frame[schema.PRICE].to_numpy()).astype(np.float32),
        attributes=attribute_codes(catalogue),
        follow_ids=follow.ids,
        follow_weights=follow.weights,
        together_ids=together.ids,
        together_weights=together.weights,
        demand_keys=demand.keys,
        demand_totals=demand.totals,
        demand_calendar=demand.calendar,
        demand_first=demand.first,
    )


def _factors(topic: IntArray) -> Factors:
    vectors = _around(topic, 256, seed=6)
    gram = vectors.T.astype(np.float64) @ vectors + 0.1 * np.eye(vectors.shape[1])
    dual = np.linalg.solve(gram, vectors.T.astype(np.float64)).T.astype(np.float32)
    weights = np.array([1.0, 0.7, 0.4], dtype=np.float32)
    return Factors(vectors, dual, np.array([40.0], dtype=np.float32), weights)


def _fit_scale(recommender: Recommender, ranker: Ranker, events: Events) -> float:
    """Fit the scale of the ranking head to features of real requests; return their mean candidates."""
    requests = []
    for user in range(200):
        part = slice(int(events.offsets[user]), int(events.offsets[user + 1]))
        requests.append(Request(History(events.item[part], events.kind[part], events.time[part]), END))
    batch = recommender.histories(requests)
    limits = Limits(np.zeros(0, dtype=np.int64), [None] * len(requests))
    users = recommender.encode(batch)
    candidates, _, best = recommender.retrieve(batch, limits, users)
    features = recommender.features(batch, candidates, users, best)
    there = candidates.rows >= 0
    ranker.fit_scale(features[there])
    return float(there.sum(axis=1).mean())
