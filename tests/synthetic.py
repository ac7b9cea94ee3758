"""A seeded shop small enough for fast tests, with planted preferences that a working model must find."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from conf.encoders import Pooling, Precision, TextEncoderConfig, UserEncoderConfig
from conf.schema import (
    CandidateConfig,
    DataConfig,
    EvaluationConfig,
    FactorConfig,
    IndexConfig,
    PipelineConfig,
    RankerConfig,
    Refit,
    SplitConfig,
    SplitKind,
)
from encoders.factors.co_purchase import Factors
from encoders.text.text_encoder import Prompts, TextEncoder
from encoders.towers.towers import Towers
from features.data import schema
from features.data.dataset import BoolArray, Catalogue, Dataset, Events, FloatArray, IntArray, LongArray
from features.data.demand import Demand
from features.data.histories import HistoryBatch, batch_histories
from features.data.statistics import item_statistics
from ranking.assembly import item_arrays
from ranking.recommender import Recommender
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.source_indexes import new_vectors
from ranking.scoring.ranker import Ranker
from ranking.types import History, Request

START = 1_700_000_000
DAY = 86_400
TOPICS = {
    "hiking": "trail boots backpack summit tent compass canteen pole ridge valley",
    "kitchen": "pan whisk oven skillet spatula ladle recipe grater kettle apron",
    "garden": "rose soil shovel hedge seed compost rake bloom fence hose",
    "music": "guitar drum melody string chord piano bass tuner pick vinyl",
    "office": "paper pen desk stapler folder printer ink binder lamp chair",
    "baby": "crib rattle diaper stroller bottle bib blanket onesie cuddle lullaby",
}
BRANDS = ("Acme", "Borealis", "Cobalt")

EventRow = tuple[str, str, str, int]
"""User id, item id, event kind, Unix seconds."""


@dataclass(frozen=True)
class World:
    """Raw tables of a made-up shop; within a topic, item i is most often followed by item i + 1."""

    items: pl.DataFrame
    events: pl.DataFrame

    def write(self, folder: Path) -> tuple[str, str]:
        """Write both tables as CSV; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        items, events = folder / "items.csv", folder / "events.csv"
        self.items.write_csv(items)
        self.events.write_csv(events)
        return str(items), str(events)

    def dataset(self) -> Dataset:
        """Make the dataset that `prepare` would make of the tables (same rows, same order)."""
        texts = [f"{t}. Brand: {b}" for t, b in self.items.select("title", "brand").iter_rows()]
        rows: list[EventRow] = list(self.events.iter_rows())
        return make_dataset(
            rows, self.items.with_columns(pl.Series(schema.TEXT, texts)), {"purchase": 1.0, "click": 0.5}
        )


def make_world(users: int = 60, items: int = 60, seed: int = 0, length: tuple[int, int] = (6, 16)) -> World:
    """Draw a shop: every user keeps to one topic and walks through its items in their planted order."""
    rng = np.random.default_rng(seed)
    names = list(TOPICS)
    topic = np.arange(items) % len(names)
    titles = []
    for row in range(items):
        words = TOPICS[names[topic[row]]].split()
        titles.append(" ".join([*rng.choice(words, size=3, replace=False), f"no{row}"]))
    table = pl.DataFrame(
        {
            schema.ITEM_ID: [f"i{row}" for row in range(items)],
            "title": titles,
            "brand": [BRANDS[int(b)] for b in rng.integers(0, len(BRANDS), size=items)],
            schema.PRICE: np.round(rng.uniform(1.0, 50.0, size=items), 2),
        }
    )
    members = [np.flatnonzero(topic == t) for t in range(len(names))]
    rows: list[EventRow] = []
    for user in range(users):
        own = members[user % len(names)]
        place = int(rng.integers(len(own)))
        time = START + int(rng.integers(0, 20 * DAY))
        for _ in range(int(rng.integers(length[0], length[1] + 1))):
            item = int(own[place % len(own)]) if rng.random() < 0.95 else int(rng.integers(items))
            rows.append((f"u{user}", f"i{item}", "purchase" if rng.random() < 0.7 else "click", time))
            place += 1 if rng.random() < 0.9 else int(rng.integers(1, len(own)))
            time += int(rng.integers(1, 3 * DAY))
    columns = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
    return World(table, pl.DataFrame(rows, schema=columns, orient="row"))


def make_dataset(
    rows: Sequence[EventRow],
    items: Sequence[str] | pl.DataFrame,
    weights: dict[str, float] | None = None,
    *,
    has_time: bool = True,
) -> Dataset:
    """Make a dataset from event rows (oldest first within a user) and item ids or an items table.

    Args:
        rows: users become contiguous in order of their first row; kinds must be in `weights`.
        items: ids, whose texts are then `text of <id>`, or a table with `item_id` and `text`.
        weights: kind -> weight, strongest first; purchase only by default.
        has_time: False zeroes every time, as a shop without timestamps has it.
    """
    weights = weights or {"purchase": 1.0}
    if not isinstance(items, pl.DataFrame):
        ids = list(items)
        items = pl.DataFrame(
            {schema.ITEM_ID: ids, schema.TEXT: [f"text of {i}" for i in ids]},
            schema={schema.ITEM_ID: pl.String, schema.TEXT: pl.String},
        )
    catalogue = Catalogue(items)
    kinds = list(weights)
    user_ids = list(dict.fromkeys(user for user, *_ in rows))
    ordered = [row for user in user_ids for row in rows if row[0] == user]
    users = np.array([user_ids.index(row[0]) for row in ordered], dtype=np.int32)
    events = Events(
        user=users,
        item=np.array([catalogue.ids.index(row[1]) for row in ordered], dtype=np.int32),
        kind=np.array([kinds.index(row[2]) for row in ordered], dtype=np.int8),
        time=np.array([row[3] if has_time else 0 for row in ordered], dtype=np.int64),
        offsets=np.searchsorted(users, np.arange(len(user_ids) + 1)).astype(np.int64),
    )
    info = {
        "content_hash": "synthetic",
        "event_weights": weights,
        "has_order": True,
        "text_fields": ["title", "brand"],
        "text_fallback_fields": [],
        "max_text_chars": 1000,
    }
    return Dataset(
        catalogue, events, user_ids, kinds, np.array(list(weights.values()), np.float32), has_time, info
    )


def with_event(
    dataset: Dataset, position: int, *, item: int | None = None, time: int | None = None
) -> Dataset:
    """Return a copy in which one event happened to another item or at another time."""
    items, times = dataset.events.item.copy(), dataset.events.time.copy()
    if item is not None:
        items[position] = item
    if time is not None:
        times[position] = time
    return replace(dataset, events=replace(dataset.events, item=items, time=times))


def everything(dataset: Dataset) -> LongArray:
    """Return the prefix of every user that holds all of their events, [users]."""
    return dataset.events.offsets[1:]


def tiny_bert(folder: Path, texts: Sequence[str], *, seed: int = 0, max_tokens: int = 24) -> Path:
    """Save a random two-layer BERT of width 32 that knows the words of the texts; return its folder."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=max_tokens,
        # The usual 0.02 makes all texts of so small a network read alike.
        initializer_range=0.3,
    )
    tokenizer = BertTokenizer(vocab={token: place for place, token in enumerate(tokens)})
    TextEncoder(BertModel(config), tokenizer, Pooling.mean, Prompts(), max_tokens).save(folder)
    return folder


def random_units(count: int, dim: int, seed: int = 0) -> FloatArray:
    """Draw unit vectors, [count, dim]."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    units: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def random_towers(text_dim: int, items: int, kinds: int, *, seed: int = 0, max_length: int = 8) -> Towers:
    """Build untrained towers whose ids matter too."""
    torch.manual_seed(seed)
    towers = Towers(text_dim, items, kinds, dim=16, layers=1, heads=2, max_length=max_length)
    towers.item_tower.seen.fill_(True)
    return towers.eval()


def make_recommender(
    dataset: Dataset,
    text_vectors: FloatArray,
    *,
    towers: Towers | None = None,
    ranker: Ranker | None = None,
    config: CandidateConfig | None = None,
    click_kinds: BoolArray | None = None,
    factors: Factors | None = None,
) -> Recommender:
    """Put a Recommender together whose statistics know every event."""
    config = config or CandidateConfig(
        user_vector=20, item_to_item=10, text_neighbours=10, repeat=10, popular=20, co_purchase=20
    )
    now = int(dataset.events.time.max(initial=0))
    statistics = item_statistics(dataset, everything(dataset), now, config.neighbours, config.window)
    arrays = item_arrays(statistics, text_vectors, towers, config, factors=factors)
    index = VectorIndex.build(arrays.item_vectors, IndexConfig())
    clicks = np.array([k == "click" for k in dataset.kinds]) if click_kinds is None else click_kinds
    return Recommender(
        arrays, index, text_vectors, config, clicks, towers, ranker, factors, kinds=dataset.kinds
    )


def make_factors(
    dataset: Dataset,
    *,
    dim: int = 8,
    confidence: float = 40.0,
    regularisation: float = 0.1,
    seed: int = 0,
) -> Factors:
    """Factorise every event of a dataset."""
    config = FactorConfig(dim=dim, confidence=confidence, regularisation=regularisation)
    events = dataset.events
    factors = Factors.fit(
        events, events.offsets[1:], len(dataset.catalogue), dataset.kind_weights, config, seed
    )
    assert factors is not None
    return factors


def new_rows_of(recommender: Recommender) -> list[int]:
    """Rows that may be proposed as items without events."""
    vectors = new_vectors(recommender.arrays)
    found, _ = recommender.indexes.new_items.search(np.ones((1, vectors.shape[1]), np.float32), len(vectors))
    return sorted(found[found >= 0].tolist())


def make_full_recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    """Towers and a ranking head with random weights, and factors: every arithmetic step takes part."""
    items = len(dataset.catalogue)
    towers = random_towers(text_vectors.shape[1], items, 2)
    towers.item_tower.fit_text(text_vectors, np.ones(items, dtype=np.bool_))
    factors = make_factors(dataset)
    made = make_recommender(dataset, text_vectors, towers=towers, factors=factors)
    ranker = Ranker(made.layout.names, [16]).eval()
    return make_recommender(dataset, text_vectors, towers=towers, ranker=ranker, factors=factors)


def history_of(dataset: Dataset, user: int) -> History:
    """Return everything a user did."""
    events = dataset.events
    part = slice(int(events.offsets[user]), int(events.offsets[user + 1]))
    return History(events.item[part], events.kind[part], events.time[part])


def batch_at(now: int, histories: Sequence[History]) -> HistoryBatch:
    """Put histories together as they are asked for at one time."""
    return batch_histories(
        [h.items for h in histories],
        [h.kinds for h in histories],
        [h.times for h in histories],
        [now] * len(histories),
    )


def request_of(dataset: Dataset, user: int, k: int = 10) -> Request:
    """Ask for a user's list a day after the last event of the shop."""
    return Request(history_of(dataset, user), int(dataset.events.time.max(initial=0)) + DAY, k)


def pipeline_config(world: World, bert: Path, folder: Path, kind: SplitKind) -> PipelineConfig:
    """Write the raw tables and return a configuration that goes through every step in seconds."""
    items, events = world.write(folder / "raw")
    return PipelineConfig(
        work_dir=str(folder / "work"),
        data=DataConfig(
            items=items,
            events=events,
            text_fields=["title", "brand"],
            event_weights={"purchase": 1.0, "click": 0.5},
        ),
        split=SplitConfig(kind=kind),
        refit=Refit.never,
        text_encoder=TextEncoderConfig(
            model=str(bert), max_tokens=16, max_steps=24, validate_every=8, batch_size=32, learning_rate=2e-3,
            precision=Precision.fp32, patience=5, frozen_layers=0,
        ),
        user_encoder=UserEncoderConfig(
            dim=16, max_length=10, dropout=0.1, epochs=6, patience=2, batch_size=16, learning_rate=1e-2,
            min_windows_per_epoch=0,
        ),
        candidates=CandidateConfig(
            user_vector=20, item_to_item=20, text_neighbours=10, repeat=10, popular=20, co_purchase=20,
            neighbours=10,
        ),
        factors=FactorConfig(dim=8),
        ranker=RankerConfig(hidden=[16], epochs=6, patience=2, batch_size=16, max_rows=40 * 200),
        evaluation=EvaluationConfig(bootstrap=10),
    )  # fmt: skip


EMPTY = History(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
"""A history without events."""


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object."""
    content: dict[str, object] = json.loads(path.read_text())
    return content


def described(demand: Demand, rows: IntArray, now: LongArray) -> FloatArray:
    """Return what the ranking head is told of the demand for candidates, [queries, candidates, columns]."""
    table, places = demand.table(rows, now)
    return table[places]
