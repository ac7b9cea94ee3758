from __future__ import annotations

import numpy as np
import pytest

from features.candidates import SOURCES, ItemArrays
from features.dataset import Dataset, FloatArray
from features.statistics import Neighbours
from ranking.explain import explain
from ranking.fusion import merge
from ranking.requests import History, Reason
from tests.synthetic import make_dataset, make_factors, make_recommender

# Item 1 reads like item 0, item 3 like item 2; a is followed by c.
UNITS = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.28, 0.96], [-1.0, 0.0]], dtype=np.float32)


@pytest.fixture(scope="module")
def arrays() -> ItemArrays:
    rows = [("u", "a", "purchase", 0), ("u", "c", "purchase", 1), ("v", "b", "purchase", 0)]
    made = make_recommender(make_dataset(rows, list("abcde")), UNITS).arrays
    near = Neighbours(np.full((5, 1), -1, np.int32), np.zeros((5, 1), np.float32))
    none = np.zeros((len(UNITS), 0), np.float32)
    return ItemArrays(
        made.statistics, UNITS, UNITS, UNITS, none, near, made.text_near_recent, made.factor_vectors
    )


def mask(*names: str) -> int:
    return sum(1 << SOURCES.index(name) for name in names)


def bought(*items: int) -> History:
    return History(np.array(items, np.int32), np.zeros(len(items), np.int8), np.arange(len(items)))


@pytest.mark.parametrize(
    ("row", "sources", "history", "reasons"),
    [
        (0, ("repeat",), (0,), [("bought_before", 0)]),
        (0, ("repeat",), (0, 1), [("bought_before", 0), ("reads_like", 1)]),
        (2, ("item_to_item",), (4, 0), [("goes_with", 0)]),
        (0, ("item_to_item",), (2,), [("goes_with", 2)]),
        (1, ("text_neighbours",), (4, 0), [("reads_like", 0)]),
        (4, ("user_vector",), (0, 2), [("for_you", 2)]),
        (3, ("user_vector",), (2,), [("reads_like", 2)]),
        (4, ("co_purchase",), (0, 2), [("for_you", 2)]),
        (1, ("co_purchase",), (0,), [("reads_like", 0)]),
        (4, ("co_purchase", "popular"), (0, 2), [("for_you", 2)]),
        (4, ("new_items",), (0, 2), [("for_you", 2)]),
        (1, ("new_items",), (0,), [("reads_like", 0)]),
        (4, ("text_neighbours", "new_items"), (0, 2), [("for_you", 2)]),
        (4, ("popular",), (0,), [("popular", None)]),
        (4, ("popular",), (), [("popular", None)]),
        (4, ("intent",), (), [("matches_intent", None)]),
        (4, ("intent", "popular"), (0,), [("matches_intent", None)]),
        (1, ("popular", "item_to_item"), (0,), [("reads_like", 0)]),
        # A weak likeness is still the reason where nothing else brought the item.
        (4, ("text_neighbours",), (0, 2), [("reads_like", 2)]),
        (4, ("item_to_item",), (0, 2), [("for_you", 2)]),
    ],
)
def test_reasons_by_hand(
    arrays: ItemArrays,
    row: int,
    sources: tuple[str, ...],
    history: tuple[int, ...],
    reasons: list[tuple[str, int | None]],
) -> None:
    assert explain(row, mask(*sources), bought(*history), arrays) == tuple(Reason(*r) for r in reasons)


def test_an_item_never_goes_with_itself(arrays: ItemArrays) -> None:
    reasons = explain(2, mask("item_to_item", "repeat"), bought(2, 2), arrays)
    assert reasons == (Reason("bought_before", 2),)


def test_the_newest_of_equal_reasons_is_told(arrays: ItemArrays) -> None:
    assert explain(1, mask("text_neighbours"), bought(0, 2, 0), arrays)[0].because == 0
    assert explain(2, mask("item_to_item"), bought(0, 0), arrays) == (Reason("goes_with", 0),)


def test_everything_a_source_proposes_has_a_reason(dataset: Dataset, text_vectors: FloatArray) -> None:
    from ranking.sources import Limits
    from tests.ranking.asked import batch_of
    from tests.synthetic import history_of

    recommender = make_recommender(dataset, text_vectors, factors=make_factors(dataset))
    for user in range(0, 60, 7):
        batch = batch_of(dataset, [user])
        users = recommender.encode(batch)
        proposals, _ = recommender.sources.propose(batch, users, Limits(np.zeros(0, np.int64), [None]))
        merged = merge(proposals, 1)
        history = history_of(dataset, user)
        for row, sources in zip(merged.rows[0], merged.sources[0], strict=True):
            reasons = explain(int(row), int(sources), history, recommender.arrays)
            assert reasons, (user, row, sources)
            assert all(r.because is None or r.because in history.items for r in reasons)
