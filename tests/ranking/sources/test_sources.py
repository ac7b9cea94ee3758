"""What every source of candidates proposes: quotas, exclusions, filters, and the same in any batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import CandidateConfig
from features.data.dataset import BoolArray, Dataset, FloatArray, IntArray
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits, excluded_keys, first_allowed
from tests.ranking.requests import ITEMS, batch_of, no_limits, propose, real
from tests.synthetic import START, history_of, make_dataset, make_factors, make_recommender, random_units


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_recommender(dataset, text_vectors, factors=make_factors(dataset))


def test_quotas_bound_every_source(recommender: Recommender, dataset: Dataset) -> None:
    found = propose(recommender, batch_of(dataset, [0, 1, None]), no_limits(3))
    config = recommender.config
    quotas = {
        "user_vector": config.user_vector, "item_to_item": config.item_to_item,
        "text_neighbours": config.text_neighbours, "repeat": config.repeat, "popular": config.popular,
        "co_purchase": config.co_purchase, "new_items": config.new_items,
    }  # fmt: skip
    assert {name: rows.shape for name, rows in found.items()} == {n: (3, q) for n, q in quotas.items()}
    for name, rows in found.items():
        for row in real(rows):
            assert len(set(row)) == len(row), name
    empty = {name: row for name, rows in found.items() if (row := real(rows)[2])}
    assert list(empty) == ["popular"], "nothing but popularity is known about a newcomer"


def test_a_source_without_quota_is_not_asked(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, co_purchase=0, new_items=0, popular=5
    )
    recommender = make_recommender(dataset, text_vectors, config=config, factors=make_factors(dataset))
    found = propose(recommender, batch_of(dataset, [0]), no_limits(1))
    assert [n for n, rows in found.items() if real(rows)[0]] == ["popular"]
    assert "new_items" not in found


def test_each_source_by_its_own_definition(recommender: Recommender, dataset: Dataset) -> None:
    batch = batch_of(dataset, [4])
    found = {name: real(rows)[0] for name, rows in propose(recommender, batch, no_limits(1)).items()}
    arrays, own = recommender.arrays, batch.items
    user = recommender.user_vectors(batch)[0]
    assert found["user_vector"] == np.argsort(-(arrays.item_vectors @ user), kind="stable")[:20].tolist()
    closest = np.argsort(-(arrays.factor_vectors @ recommender.encode(batch).factors[0]), kind="stable")
    assert found["co_purchase"] == closest[:20].tolist()
    popularity = arrays.statistics.recent + 1e-3 * arrays.statistics.count
    assert found["popular"] == np.argsort(-popularity, kind="stable")[:20].tolist()
    recent = own[-recommender.config.recent_items :][::-1]
    for name, near in (("item_to_item", arrays.statistics.together), ("text_neighbours", arrays.text_near)):
        score = np.zeros(ITEMS)
        for age, item in enumerate(recent):
            for neighbour, weight in zip(near.ids[item], near.weights[item], strict=True):
                if neighbour >= 0:
                    score[neighbour] += weight / (1.0 + age)
        assert score[found[name]].tolist() == pytest.approx(np.sort(score)[::-1][:10], abs=1e-5), name
    again = np.zeros(ITEMS)
    for age, item in enumerate(own[::-1]):
        again[item] += 1.0 / (1.0 + age / 50.0)
    assert found["repeat"] == np.lexsort((np.arange(ITEMS), -again))[: (again > 0).sum()][:10].tolist()


def test_banned_items_come_from_no_source_and_others_move_up(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, 1])
    before = propose(recommender, batch, no_limits(2))
    firsts = np.concatenate([rows[0][:3] for rows in before.values()])
    bans = [np.unique(firsts[firsts >= 0]), np.zeros(0, np.int32)]
    limits = Limits(excluded_keys(batch, bans, [False, False], ITEMS), [None, None])
    after = propose(recommender, batch, limits)
    for name, rows in after.items():
        assert not set(real(rows)[0]) & set(bans[0].tolist()), name
        assert real(rows)[1] == real(before[name])[1], "the other query is not affected"
        kept = [r for r in real(before[name])[0] if r not in bans[0]]
        assert real(rows)[0][: len(kept)] == kept, name
    assert len(real(after["user_vector"])[0]) == len(real(after["popular"])[0]) == 20


def test_seen_items_are_banned_where_asked(recommender: Recommender, dataset: Dataset) -> None:
    batch = batch_of(dataset, [0, 0])
    none = np.zeros(0, np.int32)
    limits = Limits(excluded_keys(batch, [none, none], [True, False], ITEMS), [None, None])
    found = propose(recommender, batch, limits)
    own = set(history_of(dataset, 0).items.tolist())
    assert all(not set(real(rows)[0]) & own for rows in found.values())
    assert real(found["repeat"])[0] == []
    assert set(real(found["repeat"])[1]) <= own


@pytest.mark.parametrize("share", [0.5, 0.03])
def test_filters_hold_in_every_source_and_quotas_are_filled(
    recommender: Recommender, dataset: Dataset, share: float
) -> None:
    allowed: BoolArray = np.zeros(ITEMS, dtype=np.bool_)
    allowed[np.random.default_rng(0).permutation(ITEMS)[: int(share * ITEMS)]] = True
    batch = batch_of(dataset, [0, 1])
    before = propose(recommender, batch, no_limits(2))
    found = propose(recommender, batch, Limits(np.zeros(0, np.int64), [allowed, None]))
    possible = int(allowed.sum())
    for name, rows in found.items():
        assert all(allowed[r] for r in real(rows)[0]), name
        assert real(rows)[1] == real(before[name])[1]
    assert len(real(found["user_vector"])[0]) == len(real(found["popular"])[0]) == min(20, possible)


def test_bans_and_filters_together(recommender: Recommender, dataset: Dataset) -> None:
    batch = batch_of(dataset, [0])
    allowed = np.arange(ITEMS) % 2 == 0
    bans = np.arange(0, 40, 2, dtype=np.int32)
    limits = Limits(excluded_keys(batch, [bans], [False], ITEMS), [allowed])
    for name, rows in propose(recommender, batch, limits).items():
        assert set(real(rows)[0]) <= set(range(40, 60, 2)), name
    assert sorted(real(propose(recommender, batch, limits)["popular"])[0]) == list(range(40, 60, 2))


def test_an_intent_asks_the_text_index_for_its_query_alone(
    recommender: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    batch, intents = batch_of(dataset, [0, None]), [None, recommender.texts.query(text_vectors[17], "")]
    _, proposals, _ = recommender.retrieve(batch, no_limits(2), recommender.encode(batch), intents)
    assert real(proposals["intent"])[0] == []
    assert real(proposals["intent"])[1][0] == 17
    fit, popularity = np.round(text_vectors @ text_vectors[17], 4), recommender.arrays.statistics.recent
    assert real(proposals["intent"])[1] == np.lexsort((np.arange(ITEMS), -popularity, -fit))[:20].tolist()


def test_the_best_score_is_the_catalogues_best_and_zero_without_a_vector(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, None])
    users = recommender.encode(batch)
    allowed = np.zeros(ITEMS, dtype=np.bool_)
    best = recommender.retrieve(batch, no_limits(2), users).best
    arrays = recommender.arrays
    expected = [
        (arrays.item_vectors @ users.tower[0]).max(),
        (arrays.factor_vectors @ users.factors[0]).max(),
    ]
    np.testing.assert_allclose(best, [expected, [0.0, 0.0]], rtol=1e-5)
    best = recommender.retrieve(batch, Limits(np.zeros(0, np.int64), [allowed, None]), users).best
    assert best.tolist() == [[0.0, 0.0]] * 2


def test_without_factors_there_is_no_co_purchase_source(dataset: Dataset, text_vectors: FloatArray) -> None:
    recommender = make_recommender(dataset, text_vectors)
    batch = batch_of(dataset, [0, None])
    users = recommender.encode(batch)
    assert recommender.indexes.factors is None
    assert users.factors.shape == (2, 0)
    _, proposals, best = recommender.retrieve(batch, no_limits(2), users)
    assert "co_purchase" not in proposals
    assert best[0, 0] > 0
    assert best[:, 1].tolist() == [0.0, 0.0]


def test_other_quotas_for_one_batch_leave_the_usual_ones_alone(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0])
    before = propose(recommender, batch, no_limits(1))
    deep = replace(recommender.config, popular=50, co_purchase=5)
    found = recommender.retrieve(batch, no_limits(1), recommender.encode(batch), config=deep).proposals
    assert found["co_purchase"].tolist() == before["co_purchase"][:, :5].tolist()
    assert found["popular"][0].tolist() == recommender.indexes.by_popularity[:50].tolist()
    for name, rows in propose(recommender, batch, no_limits(1)).items():
        assert np.array_equal(rows, before[name]), name


def test_popularity_counts_recent_events_first(text_vectors: FloatArray) -> None:
    day = 86_400
    rows = [("u", "i3", "purchase", START - 60 * day)] * 8 + [("u", "i5", "purchase", START)] * 2
    order = make_recommender(
        make_dataset(rows, [f"i{n}" for n in range(ITEMS)]), text_vectors
    ).indexes.by_popularity
    assert order[:2].tolist() == [5, 3]
    unsold = order[2:].tolist()
    assert unsold != sorted(unsold), "rows often tell when an item was added"
    assert sorted(unsold) == [row for row in range(ITEMS) if row not in (3, 5)]


def test_the_batch_does_not_change_the_proposals_of_a_query(
    recommender: Recommender, dataset: Dataset
) -> None:
    users: list[int | None] = [*range(12), None]
    together = propose(recommender, batch_of(dataset, users), no_limits(13))
    for place, user in enumerate(users):
        alone = propose(recommender, batch_of(dataset, [user]), no_limits(1))
        assert all(real(alone[n])[0] == real(together[n])[place] for n in together), user


def test_many_exclusions_of_one_query_do_not_shorten_the_list_of_another(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, 1])
    bans: list[IntArray] = [np.arange(50, dtype=np.int32), np.zeros(0, np.int32)]
    limits = Limits(excluded_keys(batch, list(bans), [False, False], ITEMS), [None, None])
    found = propose(recommender, batch, limits)
    assert sorted(real(found["user_vector"])[0]) == list(range(50, 60))
    assert len(real(found["user_vector"])[1]) == 20


def test_recent_items_limit_what_neighbours_start_from(dataset: Dataset) -> None:
    vectors = random_units(ITEMS, 8)
    config = replace(
        CandidateConfig(user_vector=0, text_neighbours=0, repeat=0, popular=1, item_to_item=50),
        recent_items=1,
    )
    recommender = make_recommender(dataset, vectors, config=config)
    last = int(history_of(dataset, 0).items[-1])
    found = real(propose(recommender, batch_of(dataset, [0]), no_limits(1))["item_to_item"])[0]
    together = recommender.arrays.statistics.together.ids[last]
    assert set(found) == set(together[together >= 0].tolist())


def test_queries_that_share_a_filter_get_what_each_would_get_alone(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, 1, 2, None, 3])
    shared, other = np.arange(ITEMS) % 2 == 0, np.arange(ITEMS) % 3 == 0
    allowed: list[BoolArray | None] = [shared, other, shared, shared, None]
    excluded = excluded_keys(batch, [np.zeros(0, np.int32)] * 5, [True, False, True, True, True], ITEMS)
    groups = Limits(excluded, allowed).groups
    assert [members.tolist() for _, members in groups] == [[0, 2, 3], [1], [4]]
    together = propose(recommender, batch, Limits(excluded, allowed))
    for query in range(5):
        own = excluded[excluded // ITEMS == query] - query * ITEMS
        single = propose(recommender, batch.select(query, query + 1), Limits(own, [allowed[query]]))
        for name, rows in single.items():
            np.testing.assert_array_equal(together[name][query], rows[0], err_msg=name)


@pytest.mark.parametrize("deleted", [False, True])
def test_the_bits_of_masks_are_what_may_be_proposed(deleted: bool) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random(ITEMS) < 0.5, rng.random(ITEMS) < 0.5]
    allowed: list[BoolArray | None] = [masks[0], None, masks[1], masks[0]]
    hidden = rng.random(ITEMS) < 0.2 if deleted else None
    which, bits = Limits(np.zeros(0, np.int64), allowed, hidden).bits
    assert bits.shape == (3 if deleted else 2, 8)
    for query, mask in enumerate(allowed):
        expected = np.ones(ITEMS, dtype=np.bool_) if mask is None else mask
        if hidden is not None:
            expected = expected & ~hidden
        if which[query] < 0:
            assert expected.all()
        else:
            unpacked = np.unpackbits(bits[which[query]], count=ITEMS, bitorder="little")
            assert np.array_equal(unpacked.astype(np.bool_), expected)


def test_the_first_allowed_rows_are_found_however_far_down_they_are() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(1000).astype(np.int32)
    for share in (0.5, 0.01, 0.0, 1.0):
        mask = rng.random(1000) < share
        for count in (1, 5, 300):
            assert np.array_equal(first_allowed(order, mask, count), order[mask[order]][:count])
    assert np.array_equal(first_allowed(order, None, 7), order[:7])
