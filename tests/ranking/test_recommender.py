from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import CandidateConfig, PipelineConfig
from features.candidates import Candidates, feature_names
from features.dataset import Dataset, FloatArray, load_dataset
from features.histories import batch_histories
from features.splits import Queries, make_split
from ranking.assemble import sketch, text_neighbours, unit
from ranking.bundle import load_bundle
from ranking.ranker import Ranker
from ranking.recommender import Recommender
from ranking.requests import History, Recommendation, Request
from ranking.sources import Limits
from tests.ranking.test_sources import batch_of
from tests.synthetic import (
    DAY,
    EMPTY,
    START,
    history_of,
    make_dataset,
    make_factors,
    make_full_recommender,
    make_recommender,
    make_world,
    random_units,
    request_of,
)  # fmt: skip

ITEMS = 60


def rows(answer: Recommendation) -> list[int]:
    return [item.row for item in answer.items]


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_full_recommender(dataset, text_vectors)


@pytest.fixture(scope="module")
def text_only(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_recommender(dataset, text_vectors)


@pytest.fixture(params=["ranked", "text only"])
def either(request: pytest.FixtureRequest, recommender: Recommender, text_only: Recommender) -> Recommender:
    return recommender if request.param == "ranked" else text_only


def test_a_list_is_full_ordered_and_without_repeats(either: Recommender, dataset: Dataset) -> None:
    for user in range(20):
        [answer] = either.recommend([request_of(dataset, user, k=15)])
        scores = [item.score for item in answer.items]
        assert len(set(rows(answer))) == 15 and scores == sorted(scores, reverse=True)
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
    assert not set(best[:5]) & set(rows(answer)) and len(answer.items) == 10


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
    assert allowed[rows(answer)].all() and len(answer.items) == min(12, int(allowed.sum()))


def test_a_filter_that_allows_nothing_gives_an_empty_list(either: Recommender, dataset: Dataset) -> None:
    nothing = np.zeros(ITEMS, dtype=np.bool_)
    asked = [replace(request_of(dataset, 0), allowed=nothing, diversity=d) for d in (0.0, 0.5)]
    assert [a.items for a in either.recommend(asked)] == [(), ()]
    beside = either.recommend([asked[0], request_of(dataset, 1)])
    assert beside[0].items == () and len(beside[1].items) == 10


@pytest.mark.parametrize("k", [ITEMS, ITEMS + 1, 10 * ITEMS])
def test_a_list_longer_than_the_catalogue_is_the_catalogue(
    either: Recommender, dataset: Dataset, k: int
) -> None:
    [answer] = either.recommend([request_of(dataset, 0, k=k)])
    assert sorted(rows(answer)) == list(range(ITEMS))


def test_no_request_no_answer(either: Recommender) -> None:
    assert either.recommend([]) == []


def test_a_newcomer_gets_what_is_popular_and_is_told_so(text_only: Recommender) -> None:
    [answer] = text_only.recommend([Request(EMPTY, START, k=10)])
    assert rows(answer) == text_only.sources.by_popularity[:10].tolist()
    assert answer.degradation == "popularity" and {i.source for i in answer.items} == {"popular"}


def test_the_rung_of_the_ladder_is_told(
    recommender: Recommender, text_only: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    known, intent = request_of(dataset, 0), Request(EMPTY, START, intent=text_vectors[0])
    assert [a.degradation for a in recommender.recommend([known, intent])] == ["none", "none"]
    assert [a.degradation for a in text_only.recommend([known, intent])] == ["text_only", "text_only"]
    assert recommender.recommend([Request(EMPTY, START)])[0].degradation == "popularity"


def test_words_alone_order_the_list_by_how_its_texts_fit_them(
    recommender: Recommender, text_vectors: FloatArray
) -> None:
    [answer] = recommender.recommend([Request(EMPTY, START, k=8, intent=text_vectors[33], explain=True)])
    best = np.argsort(-np.round(text_vectors @ text_vectors[33], 4), kind="stable")[:8]
    assert rows(answer) == best.tolist()
    assert answer.items[0].score == pytest.approx(1.0, abs=1e-3)
    assert all("matches_intent" in [r.kind for r in item.reasons] for item in answer.items)


def test_words_and_history_both_count(
    recommender: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    said = replace(request_of(dataset, 0), k=ITEMS, exclude_seen=False, intent=text_vectors[33])
    plain, asked, other = recommender.recommend(
        [replace(said, intent=None), said, replace(request_of(dataset, 1), k=ITEMS, intent=text_vectors[33])]
    )
    assert rows(asked).index(33) < max(rows(plain).index(33), 3)
    assert rows(asked) != rows(other)  # two shoppers who say the same
    fits = np.argsort(-(text_vectors @ text_vectors[33]))[: ITEMS // 4]
    assert len(set(rows(asked)[: len(fits)]) & set(fits.tolist())) > len(
        set(rows(plain)[: len(fits)]) & set(fits.tolist())
    )


def test_an_intent_brings_what_reads_like_it(text_only: Recommender, text_vectors: FloatArray) -> None:
    [answer] = text_only.recommend([Request(EMPTY, START, k=5, intent=text_vectors[33], explain=True)])
    found = {i.row: i for i in answer.items}
    assert 33 in found and found[33].source in ("popular", "intent")
    assert any(reason.kind == "matches_intent" for reason in found[33].reasons)
    [plain] = text_only.recommend([Request(EMPTY, START, k=5)])
    assert rows(plain) != rows(answer)


def test_text_alone_finds_what_reads_like_the_history() -> None:
    topics = np.repeat(np.eye(3, 8), 20, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(60, 8))
    vectors = unit(topics.astype(np.float32))
    shop = make_recommender(
        make_dataset([], [f"i{n}" for n in range(60)]),
        vectors,
        config=CandidateConfig(user_vector=10, item_to_item=0, text_neighbours=0, repeat=0, popular=1),
    )
    past = History(np.array([25, 30], np.int32), np.zeros(2, np.int8), np.array([0, 0]))
    [answer] = shop.recommend([Request(past, 0, k=6)])
    assert answer.degradation == "text_only"
    # Nothing was ever bought, so popularity means nothing; the rest reads like the second topic.
    likes = [row for row in rows(answer) if row not in shop.sources.by_popularity[:6]]
    assert len(likes) >= 3 and all(20 <= row < 40 for row in likes)
    expected = unit((0.5 * vectors[25] + vectors[30])[None])[0]
    batch = batch_histories([past.items], [past.kinds], [past.times], [0])
    np.testing.assert_allclose(shop.user_vectors(batch)[0], expected, atol=1e-6)


def test_more_diversity_means_less_likeness(either: Recommender, dataset: Dataset) -> None:
    levels = []
    for strength in (0.0, 0.3, 0.7, 1.0):
        likeness = []
        for user in range(30):
            [answer] = either.recommend([replace(request_of(dataset, user, k=8), diversity=strength)])
            units = either.arrays.text_units[rows(answer)]
            likeness.append(float((units @ units.T)[~np.eye(8, dtype=bool)].mean()))
        levels.append(float(np.mean(likeness)))
    assert levels == sorted(levels, reverse=True) and levels[0] - levels[-1] > 0.05


def test_a_kind_that_the_model_does_not_know_counts_as_the_weakest(
    recommender: Recommender, dataset: Dataset
) -> None:
    past = history_of(dataset, 0)
    answers = [
        recommender.recommend([Request(replace(past, kinds=np.full(len(past.items), kind, np.int8)), START)])[
            0
        ]
        for kind in (0, 1, 2, 100, -1)
    ]
    assert answers[0] != answers[1] == answers[2] == answers[3] == answers[4]


def test_a_shop_without_any_kind_takes_events_as_they_come(text_vectors: FloatArray) -> None:
    shop = make_recommender(
        make_dataset([], [f"i{n}" for n in range(ITEMS)]), text_vectors, click_kinds=np.zeros(0, np.bool_)
    )
    past = History(np.array([3], np.int32), np.array([4], np.int8), np.array([0]))
    assert len(shop.recommend([Request(past, 0)])[0].items) == 10


def test_observed_popularity_replaces_the_order_at_once_and_everywhere(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    shop = make_recommender(dataset, text_vectors)
    counts = np.arange(ITEMS, dtype=np.float32)
    shop.observe_popularity(counts)
    down = list(range(ITEMS - 1, -1, -1))
    even = np.arange(ITEMS) % 2 == 0
    lists = shop.recommend(
        [Request(EMPTY, START, k=5), Request(EMPTY, START, k=50), Request(EMPTY, START, k=5, allowed=even)]
    )
    assert [rows(a) for a in lists] == [down[:5], down[:50], [58, 56, 54, 52, 50]]


def test_user_vectors_do_not_depend_on_the_batch_and_are_zero_without_history(
    recommender: Recommender, dataset: Dataset
) -> None:
    users: list[int | None] = [0, None, 7, 12]
    together = recommender.user_vectors(batch_of(dataset, users))
    assert (together[1] == 0).all()
    for place, user in enumerate(users):
        np.testing.assert_allclose(
            recommender.user_vectors(batch_of(dataset, [user]))[0], together[place], atol=1e-6
        )


def test_a_history_is_encoded_for_towers_and_factors(
    recommender: Recommender, text_only: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, None])
    users = recommender.encode(batch)
    assert recommender.factors is not None
    assert np.array_equal(users.tower, recommender.user_vectors(batch))
    assert np.array_equal(users.factors, recommender.factors.users(batch))
    assert users.factors.shape == (2, 8) and users.factors[0].any() and not users.factors[1].any()
    assert text_only.encode(batch).factors.shape == (2, 0)


def test_co_purchases_bring_items_that_nothing_else_does(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, popular=5, co_purchase=30
    )
    shop = make_recommender(dataset, text_vectors, config=config, factors=make_factors(dataset))
    [answer] = shop.recommend([request_of(dataset, 0, k=5)])
    batch = batch_of(dataset, [0])
    scores = shop.arrays.factor_vectors @ shop.encode(batch).factors[0]
    popular = set(shop.sources.by_popularity[:5].tolist())
    found = {i.row: i.source for i in answer.items}
    brought = [row for row, source in found.items() if source == "co_purchase"]
    assert brought and not set(brought) & popular
    assert set(brought) <= set(np.argsort(-scores)[:30].tolist())


def test_only_the_newest_events_that_the_tower_reads_change_the_vector(
    recommender: Recommender, dataset: Dataset
) -> None:
    items = np.arange(20, dtype=np.int32)
    times = START + DAY * np.arange(20, dtype=np.int64)
    assert recommender.towers is not None and recommender.towers.max_length == 8

    def vector(first: int) -> FloatArray:
        changed = items.copy()
        changed[0] = first
        batch = batch_histories([changed], [np.zeros(20, np.int8)], [times], [START + 30 * DAY])
        return recommender.user_vectors(batch)

    assert np.array_equal(vector(0), vector(59)), "an event beyond the window"
    short = recommender.user_vectors(
        batch_histories([items[12:]], [np.zeros(8, np.int8)], [times[12:]], [START + 30 * DAY])
    )
    assert np.array_equal(vector(0), short)


def test_similar_items_by_hand(text_only: Recommender, text_vectors: FloatArray) -> None:
    cosines = text_vectors @ text_vectors[4]
    order = np.argsort(-cosines, kind="stable")
    found, scores = text_only.similar(text_vectors[4:5], 5, np.array([4], np.int32))
    assert found[0].tolist() == [r for r in order if r != 4][:5]
    np.testing.assert_allclose(scores[0], cosines[found[0]], atol=1e-5)
    allowed = np.arange(ITEMS) % 2 == 0
    found, _ = text_only.similar(text_vectors[4:5], 5, np.array([4, 6], np.int32), allowed)
    assert found[0].tolist() == [r for r in order if r % 2 == 0 and r not in (4, 6)][:5]


def test_similar_items_are_padded_when_the_catalogue_has_too_few(
    text_only: Recommender, text_vectors: FloatArray
) -> None:
    found, scores = text_only.similar(text_vectors[:2], ITEMS + 4, np.array([3], np.int32))
    assert found.shape == scores.shape == (2, ITEMS + 4)
    assert (np.sort(found[:, : ITEMS - 1], axis=1) == [r for r in range(ITEMS) if r != 3]).all()
    assert (found[:, ITEMS - 1 :] == -1).all() and (scores[:, ITEMS - 1 :] == -np.inf).all()


def test_text_neighbours_are_others_with_positive_cosine() -> None:
    vectors = random_units(30, 6)
    near = text_neighbours(vectors, 5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    for item in range(30):
        expected = np.argsort(-cosines[item], kind="stable")[:5]
        assert near.ids[item].tolist() == expected.tolist()
        np.testing.assert_allclose(near.weights[item], np.maximum(cosines[item][expected], 0), atol=1e-5)


@pytest.mark.parametrize("items", [1, 3])
def test_text_neighbours_of_a_tiny_catalogue_are_padded(items: int) -> None:
    near = text_neighbours(random_units(items, 6), 5)
    assert near.ids.shape == near.weights.shape == (items, 5)
    assert ((near.ids >= 0).sum(1) == items - 1).all() and (near.weights[near.ids < 0] == 0).all()


def test_the_sketch_keeps_cosines_of_centred_texts() -> None:
    vectors = random_units(200, 100)
    centred = unit(vectors - vectors.mean(axis=0))
    reduced = sketch(vectors)
    assert reduced.shape == (200, 64)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1.0, atol=1e-5)
    correlation = np.corrcoef((reduced @ reduced.T).ravel(), (centred @ centred.T).ravel())[0, 1]
    assert correlation > 0.9
    few = random_units(40, 20)
    exact = unit(few - few.mean(axis=0))
    np.testing.assert_allclose(sketch(few) @ sketch(few).T, exact @ exact.T, atol=1e-4)
    assert np.isfinite(sketch(few[:1])).all()


def test_items_that_read_the_same_rank_side_by_side_in_row_order(dataset: Dataset) -> None:
    """A catalogue with copies of a listing: nothing but the row tells them apart, alone or in a batch."""
    vectors = np.repeat(random_units(20, 16), 3, axis=0)
    data = make_dataset([], [f"i{n}" for n in range(60)])
    clicks = np.array([False, True])
    names = feature_names(make_recommender(data, vectors).arrays.statistics.attributes.shape[1])
    shop = make_recommender(data, vectors, ranker=Ranker(names, [8]).eval(), click_kinds=clicks)
    asked = [replace(request_of(dataset, u, k=12), exclude_seen=True) for u in range(30)]
    together = shop.recommend(asked)
    assert [rows(a) for a in together] == [rows(shop.recommend([r])[0]) for r in asked]


def recall(lists: list[list[int]], queries: Queries) -> float:
    hits = []
    for query, found in enumerate(lists):
        targets = queries.targets[queries.target_offsets[query] : queries.target_offsets[query + 1]]
        hits.append(np.isin(targets, found).mean())
    return float(np.mean(hits))


def test_a_trained_pipeline_finds_the_planted_preferences(trained: PipelineConfig) -> None:
    work = Path(trained.work_dir)
    shop = load_dataset(work / "dataset")
    queries = make_split(shop, trained.split, []).test
    bundle = load_bundle(work / "artifacts")
    asked = []
    for user, end, time in zip(queries.user, queries.end, queries.time, strict=True):
        part = slice(int(shop.events.offsets[user]), int(end))
        past = History(shop.events.item[part], shop.events.kind[part], shop.events.time[part])
        asked.append(Request(past, int(time), k=10))
    learned = recall([rows(a) for a in bundle.recommender.recommend(asked)], queries)
    popular = recall([bundle.recommender.sources.by_popularity[:10].tolist()] * len(queries), queries)
    # Ten of sixty items by chance; a topic has ten items, and its order says which comes next.
    assert popular < 0.3
    assert learned > 0.85 and learned > 3 * popular


def test_what_was_learned_is_the_order_not_only_the_topic(trained: PipelineConfig) -> None:
    work = Path(trained.work_dir)
    shop = load_dataset(work / "dataset")
    bundle = load_bundle(work / "artifacts")
    titles = dict(make_world().items.select("item_id", "title").iter_rows())
    assert dict(bundle.catalogue.frame.select("item_id", "title").iter_rows()) == titles
    hits = first = 0
    for item in range(ITEMS):
        row = bundle.catalogue.row(f"i{item}")
        following = bundle.catalogue.row(f"i{(item + 6) % ITEMS}")
        previous = bundle.catalogue.row(f"i{(item - 6) % ITEMS}")
        assert row is not None
        past = History(
            np.array([previous, row], np.int32), np.zeros(2, np.int8), np.full(2, bundle.data_end - DAY)
        )
        [answer] = bundle.recommender.recommend([Request(past, bundle.data_end, k=3, exclude_seen=True)])
        hits += following in rows(answer)
        first += rows(answer)[0] == following
    # Among the nine other items of the topic, three guesses would hit once in three.
    assert hits > 0.8 * ITEMS and first > 0.5 * ITEMS
    assert isinstance(shop.catalogue.frame, pl.DataFrame)
