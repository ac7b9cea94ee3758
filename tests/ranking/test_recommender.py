"""The lists of the Recommender: full, ordered, filtered, and the same whatever is asked beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.candidates.features import Candidates, FeatureLayout
from features.data.dataset import Dataset, FloatArray
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits
from ranking.scoring.ranker import Ranker
from ranking.sources import SOURCES
from ranking.types import Request
from tests.ranking.requests import ITEMS, batch_of, rows
from tests.synthetic import EMPTY, make_dataset, make_recommender, random_units, request_of


@pytest.fixture(params=["ranked", "text only"])
def either(request: pytest.FixtureRequest, recommender: Recommender, text_only: Recommender) -> Recommender:
    return recommender if request.param == "ranked" else text_only


def test_a_list_is_full_ordered_and_without_repeats(either: Recommender, dataset: Dataset) -> None:
    for user in range(20):
        [answer] = either.recommend([request_of(dataset, user, k=15)])
        scores = [item.score for item in answer.items]
        assert len(set(rows(answer))) == 15
        assert scores == sorted(scores, reverse=True)
        assert all(item.source and item.reasons == () for item in answer.items)


def test_without_a_ranking_head_there_are_no_probabilities(
    recommender: Recommender, text_only: Recommender, dataset: Dataset
) -> None:
    [ranked], [plain] = (r.recommend([request_of(dataset, 0)]) for r in (recommender, text_only))
    assert all(0 < i.p_click < 1 and 0 < i.p_purchase < 1 for i in ranked.items)
    assert all(np.isnan(i.p_click) and np.isnan(i.p_purchase) for i in plain.items)


def varied(dataset: Dataset, text_vectors: FloatArray, count: int) -> list[Request]:
    """Requests of every sort side by side."""
    rng = np.random.default_rng(0)
    asked = []
    for n in range(count):
        request = request_of(dataset, n % 60, k=int(rng.integers(1, 20)))
        match n % 7:
            case 1:
                request = replace(request, exclude_seen=True, explain=True)
            case 2:
                request = replace(request, exclude=rng.permutation(ITEMS)[:25].astype(np.int32))
            case 3:
                request = replace(request, allowed=rng.random(ITEMS) < (0.5 if n % 2 else 0.04))
            case 4:
                request = replace(request, history=EMPTY, intent=text_vectors[n % ITEMS])
            case 5:
                request = replace(request, diversity=0.5, history=EMPTY if n % 2 else request.history)
            case 6:
                request = replace(request, k=40, intent=text_vectors[n % ITEMS])
        asked.append(request)
    return asked


def test_a_list_does_not_depend_on_the_requests_beside_it(
    either: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    asked = varied(dataset, text_vectors, 50)
    together = either.recommend(asked)
    for request, answer in zip(asked, together, strict=True):
        [alone] = either.recommend([request])
        assert rows(alone) == rows(answer)
        assert [(i.source, i.reasons) for i in alone.items] == [(i.source, i.reasons) for i in answer.items]
        assert alone.degradation == answer.degradation
        # The last digit that is kept may be rounded either way.
        for name, digit in (("score", 1e-4), ("p_click", 1e-5), ("p_purchase", 1e-5)):
            np.testing.assert_allclose(
                [getattr(i, name) for i in alone.items],
                [getattr(i, name) for i in answer.items],
                rtol=1e-5,
                atol=1.1 * digit,
            )
    assert [rows(a) for a in either.recommend(asked[::-1])][::-1] == [rows(a) for a in together]


def test_blocks_of_requests_do_not_change_the_lists(
    recommender: Recommender, dataset: Dataset, text_vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ranking.recommender as module

    asked = varied(dataset, text_vectors, 30)
    whole = [rows(a) for a in recommender.recommend(asked)]
    monkeypatch.setattr(module, "BLOCK", 4)
    assert [rows(a) for a in recommender.recommend(asked)] == whole


def test_a_candidates_score_does_not_depend_on_the_other_candidates(
    recommender: Recommender, dataset: Dataset
) -> None:
    assert recommender.ranker is not None
    batch = batch_of(dataset, [3, 8])
    users = recommender.encode(batch)
    candidates, _, best = recommender.retrieve(batch, Limits(np.zeros(0, np.int64), [None, None]), users)
    scores, probabilities = recommender.ranker.score(recommender.features(batch, candidates, users, best))
    width = candidates.rows.shape[1]
    for columns in ([0], [width - 1, 2], list(range(0, width, 3)), list(range(width))[::-1]):
        part = Candidates(
            candidates.rows[:, columns], candidates.sources[:, columns], candidates.fused[:, columns]
        )
        alone, p_alone = recommender.ranker.score(recommender.features(batch, part, users, best))
        np.testing.assert_allclose(alone, scores[:, columns], atol=1e-6)
        np.testing.assert_allclose(p_alone, probabilities[:, columns], atol=1e-6)


def test_the_same_request_gives_the_same_answer(
    either: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    asked = varied(dataset, text_vectors, 14)
    first = either.recommend(asked)
    if either.ranker is not None:
        assert either.recommend(asked) == first
    assert [rows(a) for a in either.recommend(asked)] == [rows(a) for a in first]


def test_excluded_items_are_out_and_the_list_is_still_full(either: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 0, k=10)
    best = rows(either.recommend([request])[0])
    [answer] = either.recommend([replace(request, exclude=np.array(best[:5], np.int32))])
    assert not set(best[:5]) & set(rows(answer))
    assert len(answer.items) == 10


def test_seen_items_are_out_where_asked(either: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 0, k=ITEMS)
    own = set(request.history.items.tolist())
    assert own < set(rows(either.recommend([request])[0]))
    [answer] = either.recommend([replace(request, exclude_seen=True)])
    assert set(rows(answer)) == set(range(ITEMS)) - own


@pytest.mark.parametrize("share", [0.5, 0.1, 0.03])
def test_a_filter_is_obeyed_and_filled(either: Recommender, dataset: Dataset, share: float) -> None:
    allowed = np.zeros(ITEMS, dtype=np.bool_)
    allowed[np.random.default_rng(1).permutation(ITEMS)[: int(share * ITEMS)]] = True
    [answer] = either.recommend([replace(request_of(dataset, 0, k=12), allowed=allowed)])
    assert allowed[rows(answer)].all()
    assert len(answer.items) == min(12, int(allowed.sum()))


def test_a_filter_that_allows_nothing_gives_an_empty_list(either: Recommender, dataset: Dataset) -> None:
    nothing = np.zeros(ITEMS, dtype=np.bool_)
    asked = [replace(request_of(dataset, 0), allowed=nothing, diversity=d) for d in (0.0, 0.5)]
    assert [a.items for a in either.recommend(asked)] == [(), ()]
    beside = either.recommend([asked[0], request_of(dataset, 1)])
    assert beside[0].items == ()
    assert len(beside[1].items) == 10


@pytest.mark.parametrize("k", [ITEMS, ITEMS + 1, 10 * ITEMS])
def test_a_list_longer_than_the_catalogue_is_the_catalogue(
    either: Recommender, dataset: Dataset, k: int
) -> None:
    [answer] = either.recommend([request_of(dataset, 0, k=k)])
    assert sorted(rows(answer)) == list(range(ITEMS))


def test_no_request_no_answer(either: Recommender) -> None:
    assert either.recommend([]) == []


def test_more_diversity_means_less_likeness(either: Recommender, dataset: Dataset) -> None:
    levels = []
    for strength in (0.0, 0.3, 0.7, 1.0):
        likeness = []
        for user in range(30):
            [answer] = either.recommend([replace(request_of(dataset, user, k=8), diversity=strength)])
            units = either.arrays.text_units[rows(answer)]
            likeness.append(float((units @ units.T)[~np.eye(8, dtype=bool)].mean()))
        levels.append(float(np.mean(likeness)))
    assert levels == sorted(levels, reverse=True)
    assert levels[0] - levels[-1] > 0.05


def test_items_that_read_the_same_rank_side_by_side_in_row_order(dataset: Dataset) -> None:
    """A catalogue with copies of a listing: nothing but the row tells them apart, alone or in a batch."""
    vectors = np.repeat(random_units(20, 16), 3, axis=0)
    data = make_dataset([], [f"i{n}" for n in range(60)])
    clicks = np.array([False, True])
    names = FeatureLayout(
        SOURCES.names, make_recommender(data, vectors).arrays.statistics.attributes.shape[1]
    ).names
    shop = make_recommender(data, vectors, ranker=Ranker(names, [8]).eval(), click_kinds=clicks)
    asked = [replace(request_of(dataset, u, k=12), exclude_seen=True) for u in range(30)]
    together = shop.recommend(asked)
    assert [rows(a) for a in together] == [rows(shop.recommend([r])[0]) for r in asked]
