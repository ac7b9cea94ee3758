from __future__ import annotations

import numpy as np
import pytest

from features.candidates.features import ItemArrays
from features.data.dataset import Dataset, FloatArray
from features.data.statistics import Neighbours
from ranking.reasons import Evidence, explain
from ranking.sources import SOURCES
from ranking.types import History, Reason
from tests.synthetic import make_dataset, make_factors, make_recommender

# Item 1 reads like item 0, item 3 like item 2; a is followed by c.
KINDS = ["purchase", "rating", "view", "impression"]
UNITS = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.28, 0.96], [-1.0, 0.0]], dtype=np.float32)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    rows = [("u", "a", "purchase", 0), ("u", "c", "purchase", 1), ("v", "b", "purchase", 0)]
    made = make_recommender(make_dataset(rows, list("abcde")), UNITS).arrays
    near = Neighbours(np.full((5, 1), -1, np.int32), np.zeros((5, 1), np.float32))
    none = np.zeros((len(UNITS), 0), np.float32)
    arrays = ItemArrays(
        made.statistics, UNITS, UNITS, UNITS, none, near, made.text_near_recent, made.factor_vectors
    )
    return Evidence(arrays, KINDS, np.array([1.0, 1.0, 1.0, 0.4, 0.5], np.float32), SOURCES.personal)


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
        (3, ("popular",), (), []),  # little of it has been sold lately
        (1, ("popular", "item_to_item"), (0,), [("reads_like", 0)]),
        # It reads like nothing of the history, whichever source proposed it.
        (4, ("text_neighbours",), (0, 2), [("for_you", 2)]),
        (4, ("item_to_item",), (0, 2), [("for_you", 2)]),
    ],
)
def test_reasons_by_hand(
    evidence: Evidence,
    row: int,
    sources: tuple[str, ...],
    history: tuple[int, ...],
    reasons: list[tuple[str, int | None]],
) -> None:
    assert explain(row, sources, bought(*history), evidence) == tuple(Reason(*r) for r in reasons)


@pytest.mark.parametrize(
    ("sources", "history", "kinds"),
    [
        ((), (), ["matches_intent"]),
        (("popular",), (0,), ["matches_intent"]),
        (("user_vector",), (0,), ["matches_intent"]),
        (("repeat",), (4,), ["bought_before", "matches_intent"]),
    ],
)
def test_what_fits_the_words_is_said_after_what_was_bought(
    evidence: Evidence, sources: tuple[str, ...], history: tuple[int, ...], kinds: list[str]
) -> None:
    assert [r.kind for r in explain(4, sources, bought(*history), evidence, True)] == kinds
    without = explain(4, ("intent", *sources), bought(*history), evidence, False)
    assert "matches_intent" not in [r.kind for r in without]


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ([0], "bought_before"),
        ([2], "viewed_before"),
        ([1], "chosen_before"),
        ([2, 1], "chosen_before"),
        ([2, 0, 1], "bought_before"),
        ([-1], "viewed_before"),  # a kind that the model does not know
        ([7], "viewed_before"),
        ([3], None),  # it has only been shown
    ],
)
def test_only_a_purchase_is_called_one(evidence: Evidence, kinds: list[int], reason: str | None) -> None:
    history = History(np.full(len(kinds), 4, np.int32), np.array(kinds, np.int8), np.arange(len(kinds)))
    assert [r.kind for r in explain(4, ("repeat",), history, evidence)] == ([reason] if reason else [])


def test_an_item_never_goes_with_itself(evidence: Evidence) -> None:
    reasons = explain(
        2,
        (
            "item_to_item",
            "repeat",
        ),
        bought(2, 2),
        evidence,
    )
    assert reasons == (Reason("bought_before", 2),)


def test_the_newest_of_equal_reasons_is_told(evidence: Evidence) -> None:
    assert explain(1, ("text_neighbours",), bought(0, 2, 0), evidence)[0].because == 0
    assert explain(2, ("item_to_item",), bought(0, 0), evidence) == (Reason("goes_with", 0),)


def test_everything_a_source_proposes_has_a_reason(dataset: Dataset, text_vectors: FloatArray) -> None:
    from ranking.retrieval.limits import Limits
    from tests.ranking.requests import batch_of
    from tests.synthetic import history_of

    recommender = make_recommender(dataset, text_vectors, factors=make_factors(dataset))
    for user in range(0, 60, 7):
        batch = batch_of(dataset, [user])
        users = recommender.encode(batch)
        merged = recommender.retrieve(batch, Limits(np.zeros(0, np.int64), [None]), users).candidates
        history = history_of(dataset, user)
        for row, sources in zip(merged.rows[0], merged.sources[0], strict=True):
            reasons = explain(int(row), SOURCES.proposed_by(int(sources)), history, recommender.evidence)
            assert reasons, (user, row, sources)
            assert all(r.because is None or r.because in history.items for r in reasons)
