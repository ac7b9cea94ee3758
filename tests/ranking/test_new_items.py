"""The source of items that have no event yet: the nearest ones, to everybody who has a history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import CandidateConfig
from features.data.dataset import BoolArray, Dataset, FloatArray
from features.data.histories import HistoryBatch
from features.data.training_windows import Cut
from ranking.assembly import pca_units, text_neighbours
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits, excluded_keys
from ranking.scoring.novelty import Novelty
from ranking.sources import SOURCES
from ranking.training.fit_novelty import fit_novelty
from tests.ranking.requests import ITEMS, batch_of, no_limits, propose, real
from tests.synthetic import (
    START,
    make_dataset,
    make_factors,
    make_full_recommender,
    make_recommender,
    new_rows_of,
    random_units,
    request_of,
)

OLD = 40
"""Of the items of `opening`, those with events; the others are new."""


@pytest.fixture(scope="module")
def opening() -> Dataset:
    """Twelve histories over the first items; the last of these is only viewed, and what follows is new."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", "purchase", START + place)
        for user in range(12)
        for place, item in enumerate(rng.permutation(OLD - 1)[:8])
    ]
    rows += [("u0", f"i{item}", "purchase", START + 10) for item in range(OLD - 1)]
    rows.append(("u0", f"i{OLD - 1}", "view", START + 100))
    return make_dataset(rows, [f"i{n}" for n in range(ITEMS)], {"purchase": 1.0, "view": 0.0})


def opened(dataset: Dataset, quota: int = 6, lent: bool = True) -> Recommender:
    """Its sources, with factors that the new items borrow, or with vectors of texts alone."""
    vectors = random_units(ITEMS, 8)
    factors = make_factors(dataset).impute(text_neighbours(pca_units(vectors), 30)) if lent else None
    config = CandidateConfig(
        user_vector=5, item_to_item=5, text_neighbours=5, repeat=5, popular=5, co_purchase=5, new_items=quota
    )
    return make_recommender(dataset, vectors, config=config, factors=factors)


def new_by_score(recommender: Recommender, batch: HistoryBatch, lent: bool = True) -> list[list[int]]:
    """Every new item per query, best first, one query at a time."""
    users, arrays = recommender.encode(batch), recommender.arrays
    vectors, asked = (arrays.factor_vectors, users.factors) if lent else (arrays.item_vectors, users.tower)
    return [(OLD + np.argsort(-(vectors[OLD:] @ own), kind="stable")).tolist() for own in asked]


@pytest.mark.parametrize("lent", [True, False], ids=["factors", "tower"])
def test_new_items_are_the_nearest_without_any_event(opening: Dataset, lent: bool) -> None:
    """By factors; by tower vectors where there are none."""
    recommender = opened(opening, lent=lent)
    assert new_rows_of(recommender) == list(range(OLD, ITEMS)), "a viewed item is not new"
    batch = batch_of(opening, [0, 3, 7])
    expected = new_by_score(recommender, batch, lent)
    found = propose(recommender, batch, no_limits(3))["new_items"]
    assert found.dtype == np.int32
    assert found.tolist() == [row[:6] for row in expected]
    assert len({tuple(row) for row in found.tolist()}) == 3, "everybody has their own"


def test_a_quota_beyond_the_new_items_is_padded(opening: Dataset) -> None:
    recommender = opened(opening, quota=30)
    batch = batch_of(opening, [0, 3])
    found = propose(recommender, batch, no_limits(2))["new_items"]
    assert found.tolist() == [row + [-1] * 10 for row in new_by_score(recommender, batch)]


def test_new_items_respect_filters_and_exclusions(opening: Dataset) -> None:
    recommender = opened(opening)
    batch = batch_of(opening, [0, 3, 5, 7])
    order = new_by_score(recommender, batch)
    even, few = np.arange(ITEMS) % 2 == 0, np.isin(np.arange(ITEMS), [1, 2, 45, 50])
    none = np.zeros(0, np.int32)
    bans = [np.array(order[0][:3], np.int32), np.array([order[1][2], 3], np.int32), np.array([50], np.int32)]
    excluded = excluded_keys(batch, [*bans, none], [False] * 4, ITEMS)
    found = propose(recommender, batch, Limits(excluded, [None, even, few, few]))["new_items"]
    assert real(found) == [
        order[0][3:9],
        [row for row in order[1] if row % 2 == 0 and row != order[1][2]][:6],
        [45],
        [row for row in order[3] if row in (45, 50)],
    ]
    assert found[2].tolist() == [45] + [-1] * 5
    old = np.arange(ITEMS) < OLD
    assert real(propose(recommender, batch, Limits(excluded, [old] * 4))["new_items"]) == [[]] * 4


def test_nobody_without_a_history_is_shown_new_items(opening: Dataset) -> None:
    for lent in (True, False):
        recommender = opened(opening, lent=lent)
        found = propose(recommender, batch_of(opening, [None, 2, None]), no_limits(3))["new_items"]
        assert [len(row) for row in real(found)] == [0, 6, 0]


def test_where_nothing_or_everything_is_new_no_item_is(dataset: Dataset, text_vectors: FloatArray) -> None:
    events = dataset.events
    assert (np.bincount(events.item, minlength=ITEMS) > 0).all()
    nothing = make_recommender(dataset, text_vectors, factors=make_factors(dataset))
    everything = make_recommender(
        make_dataset([], [f"i{n}" for n in range(ITEMS)], {"purchase": 1.0, "click": 0.5}), text_vectors
    )
    for recommender in (nothing, everything):
        assert new_rows_of(recommender) == []
        found = propose(recommender, batch_of(dataset, [0, None]), no_limits(2))["new_items"]
        assert found.tolist() == [[-1] * 20] * 2


def test_new_items_do_not_depend_on_the_batch(opening: Dataset) -> None:
    recommender = opened(opening)
    users: list[int | None] = [*range(12), None]
    even = np.arange(ITEMS) % 2 == 0
    allowed: list[BoolArray | None] = [even if n % 3 == 0 else None for n in range(13)]
    batch = batch_of(opening, users)
    exclude = [np.array([OLD + n, OLD + 2 * n % 20], np.int32) for n in range(13)]
    limits = Limits(excluded_keys(batch, list(exclude), [False] * 13, ITEMS), allowed)
    together = propose(recommender, batch, limits)["new_items"]
    for place, user in enumerate(users):
        single = batch_of(opening, [user])
        own = Limits(excluded_keys(single, [exclude[place]], [False], ITEMS), [allowed[place]])
        assert propose(recommender, single, own)["new_items"].tolist() == [together[place].tolist()]


def test_new_items_are_among_the_candidates_with_their_source(opening: Dataset) -> None:
    recommender = opened(opening)
    batch = batch_of(opening, [4])
    candidates, proposals, _ = recommender.retrieve(batch, no_limits(1), recommender.encode(batch))
    masks = dict(zip(candidates.rows[0].tolist(), candidates.sources[0].tolist(), strict=True))
    assert all(masks[row] >> SOURCES.names.index("new_items") & 1 for row in real(proposals["new_items"])[0])
    assert all(row >= OLD for row, mask in masks.items() if mask >> SOURCES.names.index("new_items") & 1)


def test_a_request_says_how_far_new_items_are_moved_up(opening: Dataset) -> None:
    recommender = make_full_recommender(opening, random_units(ITEMS, 8))
    request = request_of(opening, 3, k=8)

    def listed(novelty: float | None) -> list[tuple[int, float]]:
        [answer] = recommender.recommend([replace(request, novelty=novelty)])
        return [(item.row, item.score) for item in answer.items]

    usual = listed(None)
    assert listed(1.0) == usual, "a bundle without a table moves nothing"
    recommender.novelty = Novelty((0.0, 1.0), (0.0, 100.0))
    assert listed(None) == listed(0.0) == usual
    assert all(row >= OLD and score > 50 for row, score in listed(1.0))
    recommender.novelty_budget = 1.0
    assert listed(None) == listed(1.0)
    assert listed(0.0) == usual


def test_items_that_the_head_has_learnt_about_are_not_moved(opening: Dataset) -> None:
    """A rare item gets nothing, an added one a third of it after two recorded events."""
    recommender = make_full_recommender(opening, random_units(ITEMS, 8))
    recommender.novelty = Novelty((0.0, 1.0), (0.0, 9.0))
    recommender.arrays.statistics.count[[OLD, OLD + 1]] = 2.0
    recommender.untrained[OLD + 1] = False
    batch = batch_of(opening, [3])
    before, after = (recommender.rank(batch, no_limits(1), novelty=[budget]) for budget in (0.0, 1.0))
    rows = before.candidates.rows[0].tolist()
    assert any(row > OLD + 1 for row in rows)
    for row, more in zip(rows, (after.scores - before.scores)[0].tolist(), strict=True):
        expected = 0.0 if row < OLD or row == OLD + 1 else 3.0 if row == OLD else 9.0
        assert more == pytest.approx(expected, abs=1e-3)


def test_the_table_of_a_catalogue_spends_its_budgets_on_new_items(opening: Dataset) -> None:
    recommender = make_full_recommender(opening, random_units(ITEMS, 8))
    cut = Cut(opening.events.offsets[1:], START + 200)
    novelty = fit_novelty(recommender, opening.events, cut, False, 0)
    assert novelty is not None
    assert novelty.offset(0.0) == 0.0
    assert np.diff(novelty.offsets).min() >= 0.0 < novelty.offsets[-1]
    recommender.novelty = novelty

    def new_ones(budget: float) -> int:
        asked = [replace(request_of(opening, user), novelty=budget) for user in range(12)]
        return sum(item.row >= OLD for answer in recommender.recommend(asked) for item in answer.items)

    assert new_ones(1.0) > new_ones(0.0)
    recommender.ranker = None
    assert fit_novelty(recommender, opening.events, cut, False, 0) is None, "nothing says what is expected"
