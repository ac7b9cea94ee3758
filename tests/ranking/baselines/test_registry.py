from __future__ import annotations

import numpy as np
import pytest

from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import Dataset, Events, LongArray
from features.data.splits import Queries, make_split
from ranking.baselines import lists
from ranking.baselines.lists import list_from_order, popularity_floor, popularity_share, top_k
from ranking.baselines.registry import (
    BASELINES,
    Baseline,
    BaselineInputs,
    OwnRepeats,
    Popularity,
    fit_ends,
    make_baselines,
)
from tests.synthetic import random_towers

DAY = 86_400
NAMES = tuple(BASELINES)


def make_events(
    histories: list[list[int]], times: list[list[int]] | None = None, kinds: list[list[int]] | None = None
) -> Events:
    sizes = [len(h) for h in histories]
    zeros = [[0] * n for n in sizes]

    def flat(nested: list[list[int]]) -> list[int]:
        return [x for row in nested for x in row]

    return Events(
        user=np.repeat(np.arange(len(sizes)), sizes).astype(np.int32),
        item=np.array(flat(histories), dtype=np.int32),
        kind=np.array(flat(kinds or zeros), dtype=np.int8),
        time=np.array(flat(times or zeros), dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def ask(
    events: Events, users: list[int], end: list[int] | None = None, time: list[int] | None = None
) -> Queries:
    """Ask users with their whole history, or with the first `end` events of it."""
    user = np.array(users, dtype=np.int32)
    stop = events.offsets[user + 1] if end is None else events.offsets[user] + np.array(end)
    return Queries(
        user=user,
        end=stop.astype(np.int64),
        time=np.array(time or [0] * len(users), dtype=np.int64),
        target_offsets=np.arange(len(users) + 1, dtype=np.int64),
        targets=np.zeros(len(users), dtype=np.int32),
        target_kinds=np.zeros(len(users), dtype=np.int32),
    )


def everything(events: Events) -> LongArray:
    return events.offsets[1:]


def unsold(n_items: int, *rows: int) -> list[int]:
    """Return items without events in the order of every baseline."""
    drawn = np.random.default_rng(0).random(n_items, dtype=np.float32)
    return sorted(rows, key=lambda row: drawn[row])


def random_shop(users: int = 40, items: int = 30, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, items, size=rng.integers(0, 12)).tolist() for _ in range(users)]
    times = [np.sort(rng.integers(1, 90 * DAY, size=len(h))).tolist() for h in histories]
    return make_events(histories, times)


def fitted(name: str, events: Events, n_items: int, end: LongArray | None = None) -> Baseline:
    vectors = np.random.default_rng(1).normal(size=(n_items, 8)).astype(np.float32)
    inputs = BaselineInputs(text_vectors=vectors, train_ids=lambda _end: random_towers(1, n_items, 1))
    (baseline,) = make_baselines([name], inputs)
    now = int(events.time.max(initial=0))
    baseline.fit(events, everything(events) if end is None else end, now, n_items)
    return baseline


def test_top_k_breaks_ties_by_column_and_pads() -> None:
    scores = np.array([[1, 3, 3, 3, 0], [5, -np.inf, 4, -np.inf, -np.inf]], dtype=np.float32)
    columns, values = top_k(scores, 3)
    assert columns.tolist() == [[1, 2, 3], [0, 2, -1]]
    assert values.tolist() == [[3, 3, 3], [5, 4, -np.inf]]
    assert top_k(scores, 2)[0].tolist() == [[1, 2], [0, 2]]
    columns, values = top_k(scores, 7)
    assert columns[0].tolist() == [1, 2, 3, 0, 4, -1, -1]
    assert values[1, 2:].tolist() == [-np.inf] * 5
    assert columns.dtype == np.int32
    assert values.dtype == np.float32


def test_top_k_equals_a_full_stable_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 6, size=(50, 40)).astype(np.float32)
    columns, values = top_k(scores, 13)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :13]
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


def test_a_shared_order_skips_exactly_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    events = make_events([[0, 2, 2], [], [4]])
    queries = ask(events, [0, 1, 2])
    order = np.array([2, 0, 4, 1, 3], dtype=np.int32)
    value = np.array([4, 2, 5, 1, 3], dtype=np.float32)
    items, scores = list_from_order(order, value, events, queries, 3, exclude_seen=True)
    assert items.tolist() == [[4, 1, 3], [2, 0, 4], [2, 0, 1]]
    assert scores.tolist() == [[3, 2, 1], [5, 4, 3], [5, 4, 2]]
    monkeypatch.setattr(lists, "BLOCK_CELLS", 1)  # one query at a time
    np.testing.assert_array_equal(list_from_order(order, value, events, queries, 3, True)[0], items)
    assert list_from_order(order, value, events, queries, 3, False)[0].tolist() == [[2, 0, 4]] * 3
    assert list_from_order(order, value, events, queries, 5, True)[0].tolist()[0] == [4, 1, 3, -1, -1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_every_baseline_keeps_the_contract(name: str, exclude_seen: bool) -> None:
    events, n_items = random_shop(), 30
    queries = ask(events, list(range(40)), end=(events.lengths() // 2).tolist(), time=[90 * DAY] * 40)
    baseline = fitted(name, events, n_items)
    assert baseline.name == name
    assert baseline.describe()
    items, scores = baseline.recommend(events, queries, 35, exclude_seen)
    assert items.shape == scores.shape == (40, 35)
    assert items.dtype == np.int32
    assert scores.dtype == np.float32
    for row, (listed, score) in enumerate(zip(items, scores, strict=True)):
        begin = events.offsets[row]
        history = set(events.item[begin : queries.end[row]].tolist())
        real = listed[listed >= 0].tolist()
        assert len(set(real)) == len(real), "an item twice"
        # The whole catalogue is ranked: exactly the history is missing, never an item of the future.
        assert set(real) == set(range(n_items)) - (history if exclude_seen else set())
        assert (listed[len(real) :] == -1).all()
        assert np.isneginf(score[len(real) :]).all()
        assert np.isfinite(score[: len(real)]).all()
        assert (np.diff(score[: len(real)]) <= 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_some_items_alone_keep_their_order(name: str, exclude_seen: bool) -> None:
    events, n_items = random_shop(), 30
    queries = ask(events, list(range(40)), time=[90 * DAY] * 40)
    allowed = np.arange(n_items) % 3 == 0
    baseline = fitted(name, events, n_items)
    whole, _ = baseline.recommend(events, queries, n_items, exclude_seen)
    items, scores = baseline.recommend(events, queries, n_items, exclude_seen, allowed)
    for full, part, score in zip(whole, items, scores, strict=True):
        assert part[part >= 0].tolist() == [i for i in full if i >= 0 and allowed[i]]
        assert np.isfinite(score[part >= 0]).all()
        assert np.isneginf(score[part < 0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_baseline_looks_behind_its_prefix(name: str) -> None:
    events, n_items = random_shop(), 30
    end = events.offsets[:-1] + events.lengths() // 2
    queries = ask(events, list(range(40)), end=(events.lengths() // 2).tolist(), time=[50 * DAY] * 40)
    future = np.arange(len(events)) >= np.repeat(end, events.lengths())
    changed = Events(
        events.user,
        np.where(future, 7, events.item).astype(np.int32),
        events.kind,
        np.where(future, 89 * DAY, events.time),
        events.offsets,
    )
    lists = []
    for shop in (events, changed):
        vectors = np.eye(n_items, dtype=np.float32)
        inputs = BaselineInputs(text_vectors=vectors, train_ids=lambda _end: random_towers(1, n_items, 1))
        (baseline,) = make_baselines([name], inputs)
        baseline.fit(shop, end, 50 * DAY, n_items)
        lists.append(baseline.recommend(shop, queries, 20, False))
    np.testing.assert_array_equal(lists[0][0], lists[1][0])
    np.testing.assert_array_equal(lists[0][1], lists[1][1])


@pytest.mark.parametrize("name", NAMES)
def test_repeating_a_run_repeats_its_lists_and_blocks_do_not_matter(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = random_shop()
    queries = ask(events, list(range(40)), time=[90 * DAY] * 40)
    items, scores = fitted(name, events, 30).recommend(events, queries, 10, True)
    again = fitted(name, events, 30).recommend(events, queries, 10, True)
    np.testing.assert_array_equal(items, again[0])
    np.testing.assert_array_equal(scores, again[1])
    monkeypatch.setattr(lists, "BLOCK_CELLS", 90)
    blocked = fitted(name, events, 30).recommend(events, queries, 10, True)
    np.testing.assert_allclose(blocked[1], scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_events_no_queries_and_tiny_catalogues_work(name: str) -> None:
    nothing = make_events([[], []])
    items, _ = fitted(name, nothing, 3).recommend(nothing, ask(nothing, [0, 1]), 5, True)
    assert items.tolist() == [[*unsold(3, 0, 1, 2), -1, -1]] * 2
    events = make_events([[0]])
    assert fitted(name, events, 1).recommend(events, ask(events, []), 5, True)[0].shape == (0, 5)
    assert fitted(name, events, 1).recommend(events, ask(events, [0]), 2, True)[0].tolist() == [[-1, -1]]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "recent_popularity"])
def test_users_without_history_get_popular_items(name: str) -> None:
    events = make_events([[2, 2, 1], [2, 1, 0], []])
    items, _ = fitted(name, events, 5).recommend(events, ask(events, [2]), 5, True)
    assert items.tolist() == [[2, 1, 0, *unsold(5, 3, 4)]]


def test_unsold_items_stand_in_no_order_of_rows() -> None:
    share = popularity_share(np.array([2.0, *np.zeros(999), 1.0]))
    assert share[[0, -1]].tolist() == [1.0, 0.5]
    order = np.argsort(-share, kind="stable")
    assert order[:2].tolist() == [0, 1000]
    assert share[order[2]] < 0.5
    assert abs(np.corrcoef(order[2:], np.arange(999))[0, 1]) < 0.1
    np.testing.assert_array_equal(popularity_share(np.array([2.0, *np.zeros(999), 1.0])), share)
    # Behind what a method has an opinion on, too, but for draws that differ by less than rounding.
    floor = popularity_floor(np.zeros((1, 1001), np.float32), share, np.zeros((1, 1001), np.bool_))[0]
    assert np.argsort(-floor, kind="stable")[:2].tolist() == [0, 1000]
    assert (np.diff(floor[order]) <= 1e-6).all()
    assert len(np.unique(floor)) > 800


@pytest.mark.parametrize("name", ["popularity", "item_knn", "ease", "als"])
def test_who_learns_from_events_says_nothing_about_items_without(name: str) -> None:
    events = random_shop(items=20)  # the last ten of thirty items were never bought
    baseline = fitted(name, events, 30)
    items, _ = baseline.recommend(events, ask(events, list(range(40)), time=[90 * DAY] * 40), 30, False)
    sold = np.unique(events.item)
    for row in items:
        assert set(row[: len(sold)].tolist()) == set(sold.tolist())
        assert row[len(sold) :].tolist() == unsold(30, *(set(range(30)) - set(sold.tolist())))


def test_popularity_counts_kinds_by_their_weight() -> None:
    events = make_events([[0, 0, 0, 1]], kinds=[[1, 1, 1, 0]])
    plain, weighted = Popularity(), Popularity(np.array([1.0, 0.2], dtype=np.float32))
    for baseline in (plain, weighted):
        baseline.fit(events, everything(events), 0, 3)
    queries = ask(events, [0])
    assert plain.recommend(events, queries, 3, False)[0].tolist() == [[0, 1, 2]]
    items, scores = weighted.recommend(events, queries, 3, False)
    assert items.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[1.0, 0.6, 0.0]], rtol=1e-6, atol=1e-3)


def test_own_repeats_by_count_then_recency_then_popularity() -> None:
    events = make_events([[3, 1, 1, 3, 2], [4, 4, 4]])
    baseline = OwnRepeats()
    baseline.fit(events, everything(events), 0, 6)
    items, scores = baseline.recommend(events, ask(events, [0, 1]), 5, False)
    last = unsold(6, 0, 5)
    assert items.tolist() == [[3, 1, 2, 4, last[0]], [4, 1, 3, 2, last[0]]]
    np.testing.assert_allclose(scores[0], [2, 2, 1, 0, -1], atol=1e-3)
    assert baseline.recommend(events, ask(events, [0]), 2, False)[0].tolist() == [[3, 1]]
    # where history is excluded it is popularity
    assert baseline.recommend(events, ask(events, [0]), 3, True)[0].tolist() == [[4, *last]]


def test_own_repeats_halve_with_age() -> None:
    events = make_events([[0, 0, 1]], [[1 * DAY, 1 * DAY, 241 * DAY]])
    baseline = OwnRepeats(half_life_days=120)
    baseline.fit(events, everything(events), 241 * DAY, 2)
    items, scores = baseline.recommend(events, ask(events, [0], time=[241 * DAY]), 2, False)
    assert items.tolist() == [[1, 0]]
    np.testing.assert_allclose(scores[0], [1.0, 2 * 0.25], rtol=1e-6)


def test_unknown_baselines_are_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no baseline 'item_kn'; did you mean 'item_knn'"):
        make_baselines(["item_kn"], BaselineInputs())
    names = [b.name for b in make_baselines(["item_knn", "popularity", "item_knn"], BaselineInputs())]
    assert names == ["item_knn", "popularity"]


def test_the_configured_defaults_exist() -> None:
    assert set(EvaluationConfig().baselines) <= set(BASELINES)


def test_test_lists_may_know_the_validation_window(dataset: Dataset) -> None:
    split = make_split(dataset, SplitConfig(), [])
    wanted = {"valid": (split.train_end, split.train_time), "test": (split.state_end, split.state_time)}
    for window, (end, time) in wanted.items():
        np.testing.assert_array_equal(fit_ends(split, window)[0], end)
        assert fit_ends(split, window)[1] == time
    assert (split.state_end > split.train_end).any()
    apart = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    np.testing.assert_array_equal(fit_ends(apart, "valid")[0], fit_ends(apart, "test")[0])
