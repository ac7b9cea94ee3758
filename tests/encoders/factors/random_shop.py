"""A small random shop, and histories of its items."""

from __future__ import annotations

import numpy as np

from features.data.dataset import Dataset
from features.data.histories import HistoryBatch, batch_histories
from tests.synthetic import START, make_dataset

KINDS = {"purchase": 1.0, "click": 0.25, "view": 0.0}
ITEMS = 30


def random_shop(users: int = 40, items: int = ITEMS, seed: int = 0) -> Dataset:
    """Draw events of every kind; the last two items are never touched, the third last only viewed."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for place in range(int(rng.integers(1, 25))):
            kind = str(rng.choice(list(KINDS), p=[0.5, 0.4, 0.1]))
            rows.append((f"u{user}", f"i{rng.integers(items - 3)}", kind, START + place))
    rows.append(("u0", f"i{items - 3}", "view", START + 100))
    return make_dataset(rows, [f"i{n}" for n in range(items)], KINDS)


def batch_of(*histories: list[tuple[int, int]]) -> HistoryBatch:
    """Histories of (item, kind)."""
    return batch_histories(
        [np.array([i for i, _ in h], np.int32) for h in histories],
        [np.array([k for _, k in h], np.int8) for h in histories],
        [np.full(len(h), START, np.int64) for h in histories],
        [START] * len(histories),
    )


def random_histories(count: int, longest: int, seed: int = 0) -> list[list[tuple[int, int]]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, longest + 1, size=count)
    return [
        [(int(i), int(k)) for i, k in zip(rng.integers(ITEMS, size=n), rng.integers(2, size=n), strict=True)]
        for n in sizes
    ]
