"""What is found near what, counted on from a bundle: by hand, and against counting everything again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from features.data.statistics import Neighbours, co_occurrence, nearest_items
from ranking.live.neighbours import CoOccurrences, LiveNeighbours
from tests.synthetic import everything, make_dataset


def empty(items: int, k: int) -> Neighbours:
    return Neighbours(np.full((items, k), -1, np.int32), np.zeros((items, k), np.float32))


def near(*pairs: tuple[int, int, float]) -> CoOccurrences:
    first, second, weight = zip(*pairs, strict=True)
    return CoOccurrences(np.array(first, np.int32), np.array(second, np.int32), np.array(weight, np.float32))


def listed(lists: Neighbours, row: int) -> dict[int, float]:
    there = lists.ids[row] >= 0
    return dict(zip(lists.ids[row][there].tolist(), lists.weights[row][there].tolist(), strict=True))


def test_a_pair_enters_both_lists_and_one_list_of_followers() -> None:
    live = LiveNeighbours(np.zeros(3, np.float32), 2, 3)
    follow, together = empty(3, 2), empty(3, 2)
    live.add(near((0, 1, 1.0), (0, 2, 0.5), (1, 2, 1.0)), follow, together)
    # 0 is followed by 1.5; 1 is followed by 1 and follows 1; 2 follows 1.5
    assert listed(follow, 0) == pytest.approx({1: 1 / np.sqrt(1.5 * 1), 2: 0.5 / np.sqrt(1.5 * 1.5)})
    assert listed(follow, 1) == pytest.approx({2: 1 / np.sqrt(1 * 1.5)})
    assert listed(follow, 2) == {}
    zero, one = {1: 1 / np.sqrt(1.5 * 2), 2: 0.5 / 1.5}, {0: 1 / np.sqrt(1.5 * 2), 2: 1 / np.sqrt(2 * 1.5)}
    assert listed(together, 0) == pytest.approx(zero)
    assert listed(together, 1) == pytest.approx(one)
    assert listed(together, 2) == pytest.approx({0: zero[2], 1: one[2]})


def test_a_chance_neighbour_does_not_stay_close_to_an_item_that_thousands_buy() -> None:
    live = LiveNeighbours(np.array([10, 1000, 0], np.float32), 1, 3)
    follow, together = empty(3, 3), empty(3, 3)
    live.add(near((0, 2, 1.0)), follow, together)
    assert listed(together, 0)[2] == pytest.approx(1 / np.sqrt(21 * 1), rel=1e-5)
    live.add(near(*[(1, 2, 1.0)] * 500), follow, together)
    assert listed(together, 0)[2] == pytest.approx(1 / np.sqrt(21 * 501), rel=0.06)
    assert listed(follow, 0)[2] == pytest.approx(1 / np.sqrt(11 * 501), rel=0.06)
    assert listed(together, 1)[2] == pytest.approx(500 / np.sqrt(2500 * 501), rel=1e-4)


def test_an_item_is_no_neighbour_of_itself() -> None:
    live = LiveNeighbours(np.zeros(2, np.float32), 2, 2)
    follow, together = empty(2, 2), empty(2, 2)
    live.add(near((0, 0, 1.0), (1, 0, 0.5)), follow, together)
    assert (listed(together, 0), listed(together, 1)) == ({1: 1.0}, {0: 1.0})


def test_what_the_bundle_counted_is_estimated_from_its_cosines() -> None:
    # 100 and 25 events with a full window of one: sums of 200 and 50, so a cosine of .2 is a count of 20
    live = LiveNeighbours(np.array([100, 25, 0], np.float32), 1, 3)
    follow, together = empty(3, 2), empty(3, 2)
    for one, other in ((0, 1), (1, 0)):
        together.ids[one, 0], together.weights[one, 0] = other, 0.2
    live.add(near((0, 1, 1.0)), follow, together)
    assert listed(together, 0) == pytest.approx({1: 21 / np.sqrt(201 * 51)}, rel=1e-5)
    assert listed(together, 1) == pytest.approx({0: 21 / np.sqrt(201 * 51)}, rel=1e-5)
    live.add(near(*[(0, 2, 1.0)] * 40), follow, together)
    # scaled, as the item occurs more often; and a new neighbour that comes with it every time
    assert listed(together, 0) == pytest.approx(
        {2: 40 / np.sqrt(241 * 40), 1: 21 / np.sqrt(201 * 51) * np.sqrt(201 / 241)}, rel=1e-5
    )
    assert together.ids[0].tolist() == [2, 1]


def test_the_weakest_neighbour_makes_room_and_a_weaker_one_is_not_entered() -> None:
    live = LiveNeighbours(np.zeros(4, np.float32), 1, 4)
    follow, together = empty(4, 2), empty(4, 2)
    live.add(near((0, 1, 4.0), (0, 2, 1.0), (0, 3, 2.0)), follow, together)
    assert follow.ids[0].tolist() == [1, 3]
    live.add(near((0, 2, 0.1)), follow, together)
    assert follow.ids[0].tolist() == [1, 3]
    live.add(near((0, 2, 9.0)), follow, together)
    assert follow.ids[0, 0] == 2
    assert 3 not in follow.ids[0]


def test_pairs_that_were_not_met_for_long_are_dropped_and_memory_stays_bounded() -> None:
    live = LiveNeighbours(np.zeros(600, np.float32), 1, 600, slots=64)
    follow, together = empty(600, 4), empty(600, 4)
    live.add(near((0, 1, 5.0)), follow, together)
    for start in range(0, 560, 28):
        live.add(
            near(*[(n, n + 1, 1.0) for n in range(start + 2, start + 30)], (0, 1, 1.0)), follow, together
        )
        assert 2 * int(live._follow.used[0]) <= 64
    # met again and again, it is never dropped: 5 and 20 times 1
    assert listed(follow, 0) == pytest.approx({1: 1.0})
    assert listed(together, 0)[1] == pytest.approx(25 / np.sqrt(25 * 25), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_counting_everything_again(seed: int) -> None:
    """Up to what the sums have grown since a list was last set right, or its item fell out of the other's."""
    rng = np.random.default_rng(seed)
    items, window, k = 30, 3, 8
    groups = rng.integers(0, 5, items)
    histories = []
    for _ in range(200):
        inside = np.flatnonzero(groups == rng.integers(5))
        histories.append(rng.choice(inside if len(inside) else items, size=6).tolist())
    rows = [
        (f"u{u}", f"i{item}", "purchase", n)
        for u, past in enumerate(histories)
        for n, item in enumerate(past)
    ]
    data = make_dataset(rows, [f"i{n}" for n in range(items)])
    counted = co_occurrence(data.events, everything(data), items, window)
    both = (counted + counted.T).tocsr()
    exact = {"follow": nearest_items(lambda rows: counted[rows], counted.indptr, k)}
    exact["together"] = nearest_items(lambda rows: both[rows], both.indptr, k)

    live = LiveNeighbours(np.zeros(items, np.float32), window, items)
    follow, together = empty(items, k), empty(items, k)
    pairs = [
        (past[at - distance], past[at], 1.0 / distance)
        for past in histories
        for at, distance in itertools.product(range(len(past)), range(1, window + 1))
        if at >= distance
    ]
    for start in range(0, len(pairs), 50):
        live.add(near(*pairs[start : start + 50]), follow, together)
    for name, lists in (("follow", follow), ("together", together)):
        errors = []
        for row in range(items):
            mine, theirs = listed(lists, row), listed(exact[name], row)
            assert (np.diff(lists.weights[row]) <= 0).all()
            assert len(mine) == len(theirs) == (lists.ids[row] >= 0).sum()
            assert set([*theirs][:3]) <= set(mine)
            errors += [abs(mine[other] / theirs[other] - 1) for other in mine.keys() & theirs.keys()]
        assert np.median(errors) < 0.03
        assert max(errors) < 0.4
