from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import Dataset, FloatArray, IntArray
from features.data.histories import histories_of
from features.data.splits import Queries
from ranking.evaluation.diagnostics import stability as module
from ranking.evaluation.diagnostics.stability import stability_summary, without
from ranking.evaluation.offline import ListsAfterEvent, offline_system, with_event
from ranking.recommender import Recommender
from tests.ranking.evaluated import split_of
from tests.ranking.evaluation.test_metrics import ask, rows
from tests.synthetic import make_recommender, random_towers


class Fixed:
    """Returns the same lists after any event."""

    event = "click"

    def __init__(self, lists: IntArray) -> None:
        self.lists = lists
        self.clicked: list[int] = []

    def __call__(self, queries: Queries, items: IntArray) -> IntArray:
        self.clicked += items.tolist()
        return self.lists[queries.user]


def test_an_item_is_taken_out_and_the_rest_moves_up() -> None:
    found = without(rows([4, 5, 6, -1], [1, 2, 3, 4]), np.array([5, 9], dtype=np.int32))
    assert found.tolist() == [[4, 6, -1, -1], [1, 2, 3, 4]]


def test_stability_by_hand() -> None:
    queries = ask([0], [0], [0])
    before = rows([1, -1], [1, 2], [-1, -1])
    # The first list holds the clicked item alone; whichever of the second is clicked, the other remains.
    after = Fixed(rows([7, -1], [2, 1], [5, 6]))
    summary = stability_summary(queries, before, after, 50, 0, 0.95)
    assert summary is not None
    assert summary["queries"] == 2  # nothing can be clicked in an empty list
    assert summary["event"] == "click"
    assert after.clicked[0] == 1
    # without the clicked item: nothing before and 7 after, then the same single item twice
    assert summary["overlap@10"]["mean"] == pytest.approx((0 + 1) / 2)
    assert summary["unchanged"] == pytest.approx(1 / 2)
    assert summary["overlap@10"]["low"] <= summary["overlap@10"]["mean"] <= summary["overlap@10"]["high"]
    assert stability_summary(queries.select(np.array([2])), before[2:], after, 50, 0, 0.95) is None


def test_a_sample_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = np.arange(200, dtype=np.int32).reshape(20, 10)
    monkeypatch.setattr(module, "SAMPLE", 5)
    queries = ask(*[[0]] * 20)
    summary = stability_summary(queries, lists, Fixed(lists), 50, 3, 0.95)
    assert summary is not None
    assert summary["queries"] == 5
    assert summary["rbo"]["mean"] == pytest.approx(1)
    assert summary["unchanged"] == 1
    assert stability_summary(queries, lists, Fixed(lists), 50, 3, 0.95) == summary


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    towers = random_towers(text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    return make_recommender(dataset, text_vectors, towers=towers)


def test_an_event_is_appended_to_its_own_history(dataset: Dataset) -> None:
    queries = split_of(dataset).test
    batch = histories_of(dataset.events, queries)
    clicked = np.arange(len(queries), dtype=np.int32) % 7
    longer = with_event(batch, clicked, 1)
    for query in range(len(queries)):
        old = slice(int(batch.offsets[query]), int(batch.offsets[query + 1]))
        new = slice(int(longer.offsets[query]), int(longer.offsets[query + 1]))
        assert longer.items[new].tolist() == [*batch.items[old].tolist(), query % 7]
        assert longer.kinds[new].tolist() == [*batch.kinds[old].tolist(), 1]
        assert longer.times[new].tolist() == [*batch.times[old].tolist(), int(queries.time[query])]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_click_changes_a_real_list_and_is_a_click(
    recommender: Recommender, dataset: Dataset, exclude_seen: bool
) -> None:
    queries = split_of(dataset).test
    lists = offline_system(recommender, dataset.events, exclude_seen)(queries).items
    after = ListsAfterEvent.of(recommender, dataset, exclude_seen, 0.0)
    assert after.event == "click"
    clicked = lists[:, 0]
    changed = after(queries, clicked)
    assert changed.shape == lists.shape
    if exclude_seen:
        assert not (changed == clicked[:, None]).any()
    assert (changed[:, :10] != lists[:, :10]).any()
    summary = stability_summary(queries, lists, after, 50, 0, 0.95)
    assert summary is not None
    assert 0 < summary["overlap@10"]["mean"] <= 1
    assert 0 < summary["rbo"]["mean"] < 1
