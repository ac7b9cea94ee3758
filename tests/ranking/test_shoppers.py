"""What the Recommender makes of a shopper: nothing known, words, a history, preferences it has learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import CandidateConfig, PipelineConfig
from features.data.dataset import Dataset, FloatArray, load_dataset
from features.data.histories import INTEREST, batch_histories
from features.data.splits import Queries, make_split
from ranking.assembly import unit
from ranking.bundle.bundle import load_bundle
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits
from ranking.scoring.intent import TASTE
from ranking.types import History, Request
from tests.ranking.requests import ITEMS, batch_of, rows
from tests.synthetic import (
    DAY,
    EMPTY,
    START,
    history_of,
    make_dataset,
    make_factors,
    make_recommender,
    make_world,
    request_of,
)  # fmt: skip


def test_a_newcomer_gets_what_is_popular_and_is_told_so(text_only: Recommender) -> None:
    [answer] = text_only.recommend([Request(EMPTY, START, k=10)])
    assert rows(answer) == text_only.indexes.by_popularity[:10].tolist()
    assert answer.degradation == "popularity"
    assert {i.source for i in answer.items} == {"popular"}


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
    # Nothing is known of words here: it matches what is as rarely alike as one text in a hundred.
    said = ["matches_intent" in [r.kind for r in item.reasons] for item in answer.items]
    assert said == [True] + 7 * [False]


def test_history_orders_only_what_fits_the_words_about_equally_well(
    recommender: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    said = replace(request_of(dataset, 0), k=ITEMS, exclude_seen=False, intent=text_vectors[33])
    plain, asked, other = recommender.recommend(
        [replace(said, intent=None), said, replace(request_of(dataset, 1), k=ITEMS, intent=text_vectors[33])]
    )
    assert rows(asked).index(33) < max(rows(plain).index(33), 3)
    assert rows(asked) != rows(other)  # two shoppers who say the same
    fit = (text_vectors @ text_vectors[33])[rows(asked)]
    behind = np.maximum.accumulate(fit[::-1])[::-1]  # the best fit from each place on
    assert (behind - fit <= 2 * TASTE + 1e-3).all()
    assert (behind - fit > 1e-3).any()


def test_an_intent_brings_what_reads_like_it(text_only: Recommender, text_vectors: FloatArray) -> None:
    [answer] = text_only.recommend([Request(EMPTY, START, k=5, intent=text_vectors[33], explain=True)])
    found = {i.row: i for i in answer.items}
    assert 33 in found
    assert found[33].source in ("popular", "intent")
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
    likes = [row for row in rows(answer) if row not in shop.indexes.by_popularity[:6]]
    assert len(likes) >= 3
    assert all(20 <= row < 40 for row in likes)
    expected = unit((0.5 * vectors[25] + vectors[30])[None])[0]
    batch = batch_histories([past.items], [past.kinds], [past.times], [0])
    np.testing.assert_allclose(shop.user_vectors(batch)[0], expected, atol=1e-6)


def test_a_kind_that_the_model_does_not_know_counts_as_the_weakest(
    recommender: Recommender, dataset: Dataset
) -> None:
    past = history_of(dataset, 0)
    answers = [
        recommender.recommend([Request(replace(past, kinds=np.full(len(past.items), kind, np.int8)), START)])[
            0
        ]
        for kind in (0, 1, 2, 100)
    ]
    assert answers[0] != answers[1] == answers[2] == answers[3]


def test_interest_is_history_and_no_repeat(recommender: Recommender, dataset: Dataset) -> None:
    past = history_of(dataset, 0)
    interest = replace(past, kinds=np.full(len(past.items), INTEREST, np.int8))
    batch = recommender.histories([Request(interest, START), Request(past, START)])
    users, limits = recommender.encode(batch), Limits(np.zeros(0, np.int64), [None, None])
    found, proposals, best = recommender.retrieve(batch, limits, users)
    assert (proposals["repeat"][0] == -1).all()
    assert set(past.items) == set(proposals["repeat"][1][proposals["repeat"][1] >= 0])
    own = np.isin(found.rows, past.items) & (found.rows >= 0)
    assert own.any(axis=1).all()
    features = recommender.features(batch, found, users, best)
    for name in ("own_count", "own_recent", "own_share", "own_visits", "own_clicks"):
        assert not features[0, ..., recommender.layout.columns[name]].any()
    assert (features[1, ..., recommender.layout.columns["own_count"]][own[1]] > 0).all()
    lengths = features[..., recommender.layout.columns["history_length"]][found.rows >= 0]
    assert set(np.round(np.expm1(lengths)).tolist()) == {len(past.items)}
    [answer] = recommender.recommend([Request(interest, START, k=ITEMS, explain=True)])
    assert not [r for item in answer.items for r in item.reasons if r.kind == "bought_before"]


def test_a_shop_without_any_kind_takes_events_as_they_come(text_vectors: FloatArray) -> None:
    shop = make_recommender(
        make_dataset([], [f"i{n}" for n in range(ITEMS)]), text_vectors, click_kinds=np.zeros(0, np.bool_)
    )
    past = History(np.array([3], np.int32), np.array([4], np.int8), np.array([0]))
    assert len(shop.recommend([Request(past, 0)])[0].items) == 10


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
    assert users.factors.shape == (2, 8)
    assert users.factors[0].any()
    assert not users.factors[1].any()
    assert text_only.encode(batch).factors.shape == (2, 0)


def test_co_purchases_bring_items_that_nothing_else_does(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, popular=5, co_purchase=30
    )
    shop = make_recommender(dataset, text_vectors, config=config, factors=make_factors(dataset))
    [answer] = shop.recommend([request_of(dataset, 0, k=5)])
    batch = batch_of(dataset, [0])
    scores = shop.arrays.factor_vectors @ shop.encode(batch).factors[0]
    popular = set(shop.indexes.by_popularity[:5].tolist())
    found = {i.row: i.source for i in answer.items}
    brought = [row for row, source in found.items() if source == "co_purchase"]
    assert brought
    assert not set(brought) & popular
    assert set(brought) <= set(np.argsort(-scores)[:30].tolist())


def test_only_the_newest_events_that_the_tower_reads_change_the_vector(
    recommender: Recommender, dataset: Dataset
) -> None:
    items = np.arange(20, dtype=np.int32)
    times = START + DAY * np.arange(20, dtype=np.int64)
    assert recommender.towers is not None
    assert recommender.towers.max_length == 8

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
    popular = recall([bundle.recommender.indexes.by_popularity[:10].tolist()] * len(queries), queries)
    # Ten of sixty items by chance; a topic has ten items, and its order says which comes next.
    assert popular < 0.3
    assert learned > 0.85
    assert learned > 3 * popular


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
    assert hits > 0.8 * ITEMS
    assert first > 0.5 * ITEMS
    assert isinstance(shop.catalogue.frame, pl.DataFrame)
