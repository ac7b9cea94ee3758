from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.dataset import FloatArray, IntArray
from ranking.rerank.mmr import diversify
from ranking.rerank.rules import Boost, Cap, Pin, Rules, boosted, open_rows, pending
from ranking.rerank.slate import EXPLORATION, PINNED, Slate, fill_slate
from tests.synthetic import random_units

BRANDS = np.array([0, 0, 0, 1, 1, 2, -1, -1], dtype=np.int32)
"""Of rows 0 to 7; the last two have none."""


def scores_of(count: int) -> FloatArray:
    """Best first: row 0 has the highest."""
    return np.linspace(1.0, 0.0, count).astype(np.float32)


def put(rules: Rules, k: int = 8, count: int = 8, diversity: float = 0.0, **given: Any) -> Slate:
    rows = given.get("rows", np.arange(count, dtype=np.int32))
    scores = given.get("scores", scores_of(len(rows)))
    units = given.get("units", np.eye(len(rows), dtype=np.float32))
    events = given.get("events", np.zeros(len(rows), dtype=np.float32))
    return fill_slate(rows, scores, units, events, k, diversity, rules, given.get("final", False))


def candidates(slate: Slate) -> list[int]:
    return [item.candidate for item in slate.items]


def test_without_any_rule_the_order_is_that_of_the_scores() -> None:
    slate = put(Rules(), k=5)
    assert candidates(slate) == [0, 1, 2, 3, 4]
    assert {item.rule for item in slate.items} == {""}


def test_a_cap_counts_equal_values_and_lets_items_without_one_pass() -> None:
    slate = put(Rules(caps=(Cap(BRANDS, 1),)), k=5)
    assert candidates(slate) == [0, 3, 5, 6, 7]
    assert not slate.capped


def test_a_cap_that_leaves_the_list_short_says_so() -> None:
    slate = put(Rules(caps=(Cap(BRANDS, 1),)), k=6)
    assert candidates(slate) == [0, 3, 5, 6, 7]
    assert slate.capped


def test_several_caps_hold_together() -> None:
    colours = np.array([0, 1, 0, 0, 1, 1, 0, 1], dtype=np.int32)
    # Rows 0 and 1 fill brand 0 and are of either colour; 3 and 4 fill the colours.
    assert candidates(put(Rules(caps=(Cap(BRANDS, 2), Cap(colours, 2))))) == [0, 1, 3, 4]


def test_what_was_shown_on_pages_before_counts() -> None:
    rules = Rules(caps=(Cap(BRANDS, 2),), shown=np.array([0, 3, 4], dtype=np.int32), before=3)
    rest = np.array([1, 2, 5, 6, 7], dtype=np.int32)
    assert rest[candidates(put(rules, rows=rest))].tolist() == [1, 5, 6, 7]


def test_pins_stand_where_they_should_counted_over_all_pages() -> None:
    pins = (Pin(7, 1), Pin(6, 3))
    first = put(Rules(pins=pins), k=4)
    assert candidates(first) == [7, 0, 6, 1]
    assert [item.rule for item in first.items] == [PINNED, "", PINNED, ""]
    second = put(Rules(pins=(Pin(6, 6),), before=4), k=3)
    assert candidates(second) == [0, 6, 1]


def test_a_pin_beyond_the_end_of_the_list_stands_at_its_end() -> None:
    assert candidates(put(Rules(pins=(Pin(2, 50), Pin(1, 40))), count=4)) == [0, 3, 1, 2]


def test_a_pin_on_a_later_page_is_not_shown_before() -> None:
    assert candidates(put(Rules(pins=(Pin(0, 50),)), k=3)) == [1, 2, 3]


def test_pins_take_their_room_from_caps_and_stay_above_them() -> None:
    rules = Rules(caps=(Cap(BRANDS, 1),), pins=(Pin(2, 2), Pin(1, 3)))
    assert candidates(put(rules, k=5)) == [3, 2, 1, 5, 6]


def test_pins_wait_while_a_capped_list_may_go_on() -> None:
    rules = Rules(caps=(Cap(BRANDS, 1),), pins=(Pin(7, 50),))
    assert candidates(put(rules)) == [0, 3, 5, 6]
    assert candidates(put(rules, final=True)) == [0, 3, 5, 6, 7]


def test_boosts_by_hand() -> None:
    rows = np.arange(5, dtype=np.int32)
    matches = np.array([False, False, False, True, False])
    # Scores 1, .75, .5, .25, 0; half the distance (times 1.001) puts row 3 before row 1 by a hair.
    assert boosted(scores_of(5), rows, (Boost(matches, 0.5),))[3] == pytest.approx(0.7505)
    assert candidates(put(Rules(boosts=(Boost(matches, 0.5),)), count=5, k=5)) == [0, 3, 1, 2, 4]
    assert candidates(put(Rules(boosts=(Boost(matches, 1.0),)), count=5, k=5)) == [3, 0, 1, 2, 4]
    assert candidates(put(Rules(boosts=(Boost(matches, -1.0),)), count=5, k=5)) == [0, 1, 2, 4, 3]


def test_full_strength_passes_the_best_and_falls_behind_the_worst_even_among_equals() -> None:
    matches = np.array([False, True, False])
    same = np.ones(3, dtype=np.float32)
    for strength, expected in ((1.0, [1, 0, 2]), (-1.0, [0, 2, 1])):
        assert candidates(put(Rules(boosts=(Boost(matches, strength),)), scores=same, count=3)) == expected


def test_boosts_add_up_and_end_at_full_strength() -> None:
    some, all_of_them = np.array([False, True]), np.array([True, True])
    both = (Boost(some, 0.8), Boost(some, 0.8), Boost(all_of_them, -0.3))
    assert boosted(np.array([1.0, 0.0], np.float32), np.arange(2, dtype=np.int32), both) == pytest.approx(
        [1.0 - 0.3003, 0.0 + 1.001]
    )


def test_rows_that_came_after_the_masks_were_made_match_nothing() -> None:
    rows = np.array([0, 9], dtype=np.int32)
    rules = Rules(caps=(Cap(BRANDS, 1),), boosts=(Boost(np.array([True]), -1.0),))
    assert candidates(put(rules, rows=rows)) == [1, 0]


def test_diversity_under_rules_is_the_same_as_without() -> None:
    for seed in range(5):
        units, scores = random_units(40, 4, seed), scores_of(40)
        expected = diversify(scores, units, 0.6, 6).tolist()
        assert candidates(put(Rules(), k=6, count=40, diversity=0.6, units=units, scores=scores)) == expected


def test_where_caps_shut_out_the_pool_of_diversity_others_stand_in() -> None:
    brands = np.array([0] * 30 + [1] * 10, dtype=np.int32)
    slate = put(Rules(caps=(Cap(brands, 1),)), k=2, count=40, diversity=0.5)
    assert candidates(slate) == [0, 30]


def explored(slate: Slate) -> list[int]:
    return [item.candidate for item in slate.items if item.rule == EXPLORATION]


@pytest.mark.parametrize("seed", range(6))
def test_exploration_gets_its_share_of_every_page(seed: int) -> None:
    rows = np.arange(100, dtype=np.int32)
    shown: list[int] = []
    for _ in range(4):
        left = rows[~np.isin(rows, shown)]
        rules = Rules(exploration=0.2, seed=seed, shown=np.array(shown, dtype=np.int32), before=len(shown))
        page = put(rules, k=10, rows=left)
        assert len(explored(page)) == 2
        shown += left[candidates(page)].tolist()
    assert len(set(shown)) == 40


def test_exploration_is_the_same_whenever_it_is_asked_and_differs_by_seed() -> None:
    lists = {tuple(candidates(put(Rules(exploration=0.3, seed=s), k=10, count=100))) for s in (1, 1, 2, 3)}
    assert len(lists) == 3


def test_what_is_explored_does_not_depend_on_the_other_candidates() -> None:
    rules = Rules(exploration=0.5, seed=7)
    full = put(rules, k=4, count=40)
    chosen = explored(full)
    kept = np.array([r for r in range(40) if r < 10 or r % 2 or r in chosen], dtype=np.int32)
    assert kept[explored(put(rules, k=4, rows=kept))].tolist() == chosen


def test_items_of_which_little_is_known_are_explored_more() -> None:
    events = np.where(np.arange(100) < 55, 9999.0, 0.0).astype(np.float32)
    picks = [
        explored(put(Rules(exploration=0.1, seed=seed), k=10, count=100, events=events))[0]
        for seed in range(400)
    ]
    # 45 items of weight 1 / 100 and 45 of weight 1 lie outside the list: 1 of 101 draws is a known one.
    assert all(pick >= 10 for pick in picks)
    assert sum(pick < 55 for pick in picks) <= 15


def test_a_catalogue_with_nothing_to_explore_is_filled_by_score() -> None:
    assert candidates(put(Rules(exploration=0.5, seed=1), k=8)) == list(range(8))


def test_buried_items_are_not_explored_and_pins_keep_their_place() -> None:
    matches = np.arange(40) != 30
    rules = Rules(exploration=1.0, seed=3, boosts=(Boost(matches, -0.4),), pins=(Pin(5, 2),))
    slate = put(rules, k=4, count=40)
    assert slate.items[1].rule == PINNED
    assert set(explored(slate)) <= {30}


def test_pins_obey_filter_exclusion_and_deletion() -> None:
    pins = tuple(Pin(row, row + 1) for row in range(5))
    allowed = np.array([True, False, True, True, True])
    hidden = np.array([False, False, True, False, False])
    kept = pending(Rules(pins=pins, before=1), np.array([3], dtype=np.int32), allowed, hidden)
    assert kept == (Pin(4, 5),)  # 0 belongs to a page before, 1 is filtered, 2 deleted, 3 excluded


def test_values_that_are_used_up_are_not_searched() -> None:
    rules = Rules(caps=(Cap(BRANDS, 2),), shown=np.array([0, 3], dtype=np.int32))
    mask = open_rows(rules, (Pin(1, 9),), None, 9)
    assert mask is not None
    assert mask.tolist() == [False, False, False, True, True, True, True, True, True]
    assert open_rows(Rules(), (), None, 9) is None


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    k=st.integers(1, 20),
    limit=st.integers(1, 4),
    share=st.floats(0, 1),
    diversity=st.sampled_from([0.0, 0.7]),
)
def test_rules_hold_whatever_comes_together(
    seed: int, count: int, k: int, limit: int, share: float, diversity: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.permutation(60)[:count].astype(np.int32)
    brands: IntArray = rng.integers(-1, 5, 60).astype(np.int32)
    pinned = rows[: int(rng.integers(0, min(count, 4) + 1))]
    places = rng.permutation(25)[: len(pinned)] + 1
    pins = tuple(Pin(int(r), int(p)) for r, p in zip(pinned, places, strict=True))
    rules = Rules(
        caps=(Cap(brands, limit),),
        pins=pins,
        boosts=(Boost(rng.random(60) < 0.3, float(rng.uniform(-1, 1))),),
        exploration=share,
        seed=seed,
    )
    slate = put(
        rules, k=k, rows=rows, scores=rng.normal(size=count).astype(np.float32), diversity=diversity,
        units=random_units(count, 4, seed), final=True,
    )  # fmt: skip
    listed = rows[candidates(slate)].tolist()
    assert len(listed) == len(set(listed)) <= k
    for pin in pins:
        if pin.position <= len(listed):
            assert listed[pin.position - 1] == pin.row or pin.row in listed[: pin.position]
    organic = [r for r in listed if r not in pinned and brands[r] >= 0]
    for brand in set(brands[organic].tolist()):
        others = sum(brands[pin.row] == brand for pin in pins)
        assert sum(brands[r] == brand for r in organic) + others <= max(limit, others)
    if len(listed) < k:
        assert set(pinned.tolist()) <= set(listed)


def test_propensities_without_exploration_are_one() -> None:
    slate = put(Rules(pins=(Pin(5, 2),), boosts=(Boost(np.arange(8) == 3, 0.4),)), k=6)
    assert {item.propensity for item in slate.items} == {1.0}
    nothing_left = put(Rules(exploration=0.5, seed=1), k=8)
    assert {item.propensity for item in nothing_left.items} == {1.0}


def frequencies(rules: Rules, k: int, seeds: int, events: FloatArray) -> dict[int, list[float]]:
    """Return the propensities of each candidate, one for every page that has it."""
    found: dict[int, list[float]] = {}
    for seed in range(seeds):
        for item in put(replace(rules, seed=seed), k=k, count=len(events), events=events).items:
            found.setdefault(item.candidate, []).append(item.propensity)
    return found


def test_propensities_of_a_short_list_by_hand() -> None:
    # Outside a list of 2 are rows 2 to 5 with weights 1, 1/2, 1/2 and 1/4, together 9/4. With a share of .3
    # one of the two positions is explored with a probability of .6; then there is no room for row 1.
    events = np.array([9.0, 9.0, 0.0, 3.0, 3.0, 15.0], dtype=np.float32)
    found = frequencies(Rules(exploration=0.3), 2, 4000, events)
    expected = {0: 1.0, 1: 0.4, 2: 0.6 * 4 / 9, 3: 0.6 * 2 / 9, 4: 0.6 * 2 / 9, 5: 0.6 / 9}
    assert found.keys() == expected.keys()
    for row, propensities in found.items():
        np.testing.assert_allclose(propensities, expected[row], rtol=1e-6)
        assert len(propensities) / 4000 == pytest.approx(expected[row], abs=0.025)


def test_propensities_are_frequencies_over_seeds() -> None:
    # Three or four draws of equal weights, and a pin at the third position.
    rules = Rules(exploration=0.6, pins=(Pin(1, 3),))
    found = frequencies(rules, 6, 3000, np.zeros(14, dtype=np.float32))
    assert found.pop(1) == [1.0] * 3000
    for row, propensities in found.items():
        assert np.ptp(propensities) < 1e-9, row
        assert len(propensities) / 3000 == pytest.approx(propensities[0], abs=0.03), row


def test_a_share_that_divides_the_page_explores_the_same_number_of_positions() -> None:
    slate = put(Rules(exploration=0.2, seed=4), k=10, count=60)
    assert [item.propensity for item in slate.items if item.rule == ""] == [1.0] * 8
    drawn = [item.propensity for item in slate.items if item.rule == EXPLORATION]
    assert drawn == pytest.approx([2 / 50] * 2)
    later = Rules(exploration=0.2, seed=4, before=10, shown=np.arange(60, 70, dtype=np.int32))
    assert [item.propensity for item in put(later, k=10, count=60).items].count(1.0) == 8


def test_an_item_that_a_cap_excludes_is_not_drawn() -> None:
    # Every position of three is explored: rows 3 to 7 are drawn, of brands 0, 1, 1, 2 and 2, one of each.
    brands = np.array([0, 0, 0, 0, 1, 1, 2, 2], dtype=np.int32)
    size = {0: 1, 1: 2, 2: 2}
    for seed in range(20):
        items = put(Rules(exploration=1.0, seed=seed, caps=(Cap(brands, 1),)), k=3, count=8).items
        first, second, third = (int(brands[item.candidate]) for item in items)
        assert sorted((first, second, third)) == [0, 1, 2]
        # Of three draws; what was drawn before could be drawn, the others of its brand could not.
        expected = [3 / 5, 3 / (6 - size[first]), 3 / (2 + size[third])]
        assert [item.propensity for item in items] == pytest.approx(np.minimum(expected, 1.0))
