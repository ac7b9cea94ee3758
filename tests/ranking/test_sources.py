from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema import CandidateConfig
from features.candidates import SOURCES
from features.dataset import BoolArray, Dataset, FloatArray, IntArray
from features.histories import HistoryBatch, batch_histories
from ranking.assemble import sketch, text_neighbours
from ranking.fusion import merge
from ranking.recommender import Recommender
from ranking.sources import (
    CandidateSources,
    Limits,
    banned_keys,
    first_allowed,
    first_source,
)
from tests.synthetic import (
    EMPTY,
    START,
    history_of,
    make_dataset,
    make_factors,
    make_recommender,
    new_rows_of,
    random_units,
)  # fmt: skip

ITEMS = 60


def no_limits(queries: int) -> Limits:
    return Limits(np.zeros(0, np.int64), [None] * queries)


def batch_of(dataset: Dataset, users: Sequence[int | None]) -> HistoryBatch:
    """Histories of users; None is somebody without one."""
    histories = [EMPTY if u is None else history_of(dataset, u) for u in users]
    return batch_histories(
        [h.items for h in histories],
        [h.kinds for h in histories],
        [h.times for h in histories],
        [START] * len(users),
    )


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_recommender(dataset, text_vectors, factors=make_factors(dataset))


def propose(
    recommender: Recommender, batch: HistoryBatch, limits: Limits, intents: FloatArray | None = None
) -> dict[str, IntArray]:
    users = recommender.encode(batch)
    return recommender.sources.propose(batch, users, limits, intents, recommender.text_index)[0]


def real(rows: IntArray) -> list[list[int]]:
    return [[int(r) for r in row if r >= 0] for row in rows]


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
    limits = Limits(banned_keys(batch, bans, [False, False], ITEMS), [None, None])
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
    limits = Limits(banned_keys(batch, [none, none], [True, False], ITEMS), [None, None])
    found = propose(recommender, batch, limits)
    own = set(history_of(dataset, 0).items.tolist())
    assert all(not set(real(rows)[0]) & own for rows in found.values())
    assert real(found["repeat"])[0] == [] and set(real(found["repeat"])[1]) <= own


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
    limits = Limits(banned_keys(batch, [bans], [False], ITEMS), [allowed])
    for name, rows in propose(recommender, batch, limits).items():
        assert set(real(rows)[0]) <= set(range(40, 60, 2)), name
    assert sorted(real(propose(recommender, batch, limits)["popular"])[0]) == list(range(40, 60, 2))


def test_an_intent_asks_the_text_index_for_its_query_alone(
    recommender: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    intents = np.zeros((2, 32), np.float32)
    intents[1] = text_vectors[17]
    found = propose(recommender, batch_of(dataset, [0, None]), no_limits(2), intents)
    assert real(found["intent"])[0] == []
    assert real(found["intent"])[1][0] == 17
    assert real(found["intent"])[1] == np.argsort(-(text_vectors @ text_vectors[17]))[:20].tolist()


def test_the_best_score_is_the_catalogues_best_and_zero_without_a_vector(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, None])
    users = recommender.encode(batch)
    allowed = np.zeros(ITEMS, dtype=np.bool_)
    _, best = recommender.sources.propose(batch, users, no_limits(2))
    arrays = recommender.arrays
    expected = [
        (arrays.item_vectors @ users.tower[0]).max(),
        (arrays.factor_vectors @ users.factors[0]).max(),
    ]
    np.testing.assert_allclose(best, [expected, [0.0, 0.0]], rtol=1e-5)
    _, best = recommender.sources.propose(batch, users, Limits(np.zeros(0, np.int64), [allowed, None]))
    assert best.tolist() == [[0.0, 0.0]] * 2


def test_without_factors_nobody_is_asked_about_co_purchases(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    recommender = make_recommender(dataset, text_vectors)
    batch = batch_of(dataset, [0, None])
    users = recommender.encode(batch)
    assert recommender.sources.factor_index is None and users.factors.shape == (2, 0)
    proposals, best = recommender.sources.propose(batch, users, no_limits(2))
    assert "co_purchase" not in proposals
    assert best[0, 0] > 0 and best[:, 1].tolist() == [0.0, 0.0]


def test_other_quotas_share_everything_else_and_leave_the_original_alone(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0])
    before = propose(recommender, batch, no_limits(1))
    deep = recommender.sources.with_quotas(replace(recommender.config, popular=50, co_purchase=5))
    assert deep.factor_index is recommender.sources.factor_index
    assert deep.by_popularity is recommender.sources.by_popularity
    found, _ = deep.propose(batch, recommender.encode(batch), no_limits(1))
    assert found["co_purchase"].tolist() == before["co_purchase"][:, :5].tolist()
    assert found["popular"][0].tolist() == recommender.sources.by_popularity[:50].tolist()
    for name, rows in propose(recommender, batch, no_limits(1)).items():
        assert np.array_equal(rows, before[name]), name


def test_popularity_counts_recent_events_first(text_vectors: FloatArray) -> None:
    day = 86_400
    rows = [("u", "i3", "purchase", START - 60 * day)] * 8 + [("u", "i5", "purchase", START)] * 2
    sources = make_recommender(make_dataset(rows, [f"i{n}" for n in range(ITEMS)]), text_vectors).sources
    assert isinstance(sources, CandidateSources)
    assert sources.by_popularity[:2].tolist() == [5, 3]
    unsold = sources.by_popularity[2:].tolist()
    assert unsold != sorted(unsold), "rows often tell when an item was added"
    assert sorted(unsold) == [row for row in range(ITEMS) if row not in (3, 5)]


def naive_merge(proposals: dict[str, IntArray], query: int) -> list[tuple[int, int, float]]:
    """Row, source mask and fused score, best first, one proposal at a time."""
    fused: dict[int, float] = {}
    masks: dict[int, int] = {}
    for name, rows in proposals.items():
        for rank, row in enumerate(rows[query].tolist()):
            if row >= 0:
                fused[row] = fused.get(row, 0.0) + 1.0 / (61.0 + rank)
                masks[row] = masks.get(row, 0) | 1 << SOURCES.index(name)
    return [(row, masks[row], fused[row]) for row in sorted(fused, key=lambda r: (-round(fused[r], 12), r))]


@st.composite
def proposal_blocks(draw: st.DrawFn) -> tuple[dict[str, IntArray], int]:
    queries = draw(st.integers(1, 3))
    blocks = {}
    for name in draw(st.lists(st.sampled_from(SOURCES), unique=True, max_size=6)):
        quota = draw(st.integers(0, 5))
        rows = np.full((queries, quota), -1, np.int32)
        for query in range(queries):
            own = draw(st.lists(st.integers(0, 8), unique=True, max_size=quota))
            rows[query, : len(own)] = own
        blocks[name] = rows
    return blocks, queries


@settings(max_examples=200, deadline=None)
@given(proposal_blocks())
def test_merging_is_the_naive_fusion(case: tuple[dict[str, IntArray], int]) -> None:
    proposals, queries = case
    merged = merge(proposals, queries)
    naive = [naive_merge(proposals, q) for q in range(queries)]
    assert merged.rows.shape == (queries, max(len(rows) for rows in naive))
    for query, expected in enumerate(naive):
        count = len(expected)
        assert (merged.rows[query, count:] == -1).all()
        assert (merged.sources[query, count:] == 0).all() and (merged.fused[query, count:] == 0).all()
        found: dict[int, Any] = {
            int(row): (int(mask), float(score))
            for row, mask, score in zip(
                merged.rows[query, :count],
                merged.sources[query, :count],
                merged.fused[query, :count],
                strict=True,
            )
        }
        assert found == {row: (mask, pytest.approx(score, rel=1e-5)) for row, mask, score in expected}
        assert (np.diff(merged.fused[query, :count]) <= 0).all()
        ranks = [score for _, _, score in expected]
        clear = [a - b > 1e-9 for a, b in zip(ranks, ranks[1:], strict=False)]
        if all(clear):
            assert merged.rows[query, :count].tolist() == [row for row, _, _ in expected]


def test_equal_fused_ranks_go_by_row() -> None:
    merged = merge({"popular": np.array([[7, 2]], np.int32), "repeat": np.array([[2, 7]], np.int32)}, 1)
    assert merged.rows.tolist() == [[2, 7]]
    both = 1 << SOURCES.index("popular") | 1 << SOURCES.index("repeat")
    assert merged.sources.tolist() == [[both, both]]
    assert first_source(both) == "repeat" and first_source(both & (both - 1)) == "popular"


def test_the_batch_does_not_change_a_querys_proposals(recommender: Recommender, dataset: Dataset) -> None:
    users: list[int | None] = [*range(12), None]
    together = propose(recommender, batch_of(dataset, users), no_limits(13))
    for place, user in enumerate(users):
        alone = propose(recommender, batch_of(dataset, [user]), no_limits(1))
        assert all(real(alone[n])[0] == real(together[n])[place] for n in together), user


def test_many_bans_of_one_query_do_not_shorten_anothers_list(
    recommender: Recommender, dataset: Dataset
) -> None:
    batch = batch_of(dataset, [0, 1])
    bans: list[IntArray] = [np.arange(50, dtype=np.int32), np.zeros(0, np.int32)]
    limits = Limits(banned_keys(batch, list(bans), [False, False], ITEMS), [None, None])
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
    banned = banned_keys(batch, [np.zeros(0, np.int32)] * 5, [True, False, True, True, True], ITEMS)
    groups = Limits(banned, allowed).groups
    assert [members.tolist() for _, members in groups] == [[0, 2, 3], [1], [4]]
    together = propose(recommender, batch, Limits(banned, allowed))
    for query in range(5):
        own = banned[banned // ITEMS == query] - query * ITEMS
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
    factors = make_factors(dataset).lend(text_neighbours(sketch(vectors), 30)) if lent else None
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
    assert new_rows_of(recommender.sources) == list(range(OLD, ITEMS)), "a viewed item is not new"
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
    banned = banned_keys(batch, [*bans, none], [False] * 4, ITEMS)
    found = propose(recommender, batch, Limits(banned, [None, even, few, few]))["new_items"]
    assert real(found) == [
        order[0][3:9],
        [row for row in order[1] if row % 2 == 0 and row != order[1][2]][:6],
        [45],
        [row for row in order[3] if row in (45, 50)],
    ]
    assert found[2].tolist() == [45] + [-1] * 5
    old = np.arange(ITEMS) < OLD
    assert real(propose(recommender, batch, Limits(banned, [old] * 4))["new_items"]) == [[]] * 4


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
        assert new_rows_of(recommender.sources) == []
        found = propose(recommender, batch_of(dataset, [0, None]), no_limits(2))["new_items"]
        assert found.tolist() == [[-1] * 20] * 2


def test_new_items_do_not_depend_on_the_batch(opening: Dataset) -> None:
    recommender = opened(opening)
    users: list[int | None] = [*range(12), None]
    even = np.arange(ITEMS) % 2 == 0
    allowed: list[BoolArray | None] = [even if n % 3 == 0 else None for n in range(13)]
    batch = batch_of(opening, users)
    exclude = [np.array([OLD + n, OLD + 2 * n % 20], np.int32) for n in range(13)]
    limits = Limits(banned_keys(batch, list(exclude), [False] * 13, ITEMS), allowed)
    together = propose(recommender, batch, limits)["new_items"]
    for place, user in enumerate(users):
        single = batch_of(opening, [user])
        own = Limits(banned_keys(single, [exclude[place]], [False], ITEMS), [allowed[place]])
        assert propose(recommender, single, own)["new_items"].tolist() == [together[place].tolist()]


def test_new_items_are_among_the_candidates_with_their_source(opening: Dataset) -> None:
    recommender = opened(opening)
    batch = batch_of(opening, [4])
    candidates, proposals, _ = recommender.retrieve(batch, no_limits(1), recommender.encode(batch))
    masks = dict(zip(candidates.rows[0].tolist(), candidates.sources[0].tolist(), strict=True))
    assert all(masks[row] >> SOURCES.index("new_items") & 1 for row in real(proposals["new_items"])[0])
    assert all(row >= OLD for row, mask in masks.items() if mask >> SOURCES.index("new_items") & 1)


def test_the_first_allowed_rows_are_found_however_far_down_they_are() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(1000).astype(np.int32)
    for share in (0.5, 0.01, 0.0, 1.0):
        mask = rng.random(1000) < share
        for count in (1, 5, 300):
            assert np.array_equal(first_allowed(order, mask, count), order[mask[order]][:count])
    assert np.array_equal(first_allowed(order, None, 7), order[:7])
