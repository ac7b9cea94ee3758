"""Blocks of histories' prefixes, and packed positions, beside the same computed at once."""

from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import Events, LongArray
from features.data.prefixes import PackedPositions, drawn_users, item_counts, prefix_blocks, user_blocks


def events_of(lengths: list[int], items: int = 7, seed: int = 0) -> Events:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    count, rng = int(offsets[-1]), np.random.default_rng(seed)
    return Events(
        np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        rng.integers(0, items, count).astype(np.int32),
        np.zeros(count, np.int8),
        np.zeros(count, np.int64),
        offsets,
    )


def test_blocks_are_the_positions_before_the_ends() -> None:
    events = events_of([3, 0, 4, 2])
    end = np.array([2, 3, 7, 7])  # users 0 and 2 in part, 1 is empty, nothing of 3
    blocks = [block.tolist() for block in prefix_blocks(events, end, 4)]
    assert blocks == [[0, 1, 3], [4, 5, 6], []]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(4, [(0, 2), (2, 3), (3, 5)]), (1, [(0, 2), (2, 3), (3, 4), (4, 5)]), (100, [(0, 5)])],
)
def test_users_are_whole_in_a_block(size: int, expected: list[tuple[int, int]]) -> None:
    offsets = np.array([0, 0, 1, 7, 8, 11])  # histories of 0, 1, 6, 1 and 3 events
    assert list(user_blocks(offsets, size)) == expected


def test_no_user_is_no_block() -> None:
    assert list(user_blocks(np.zeros(1, np.int64), 4)) == []


def test_counts_by_hand() -> None:
    events = events_of([3, 3])
    events.item[:] = [0, 1, 1, 2, 1, 4]
    assert item_counts(events, np.array([3, 5]), 5, size=2).tolist() == [1, 3, 1, 0, 0]


@pytest.mark.parametrize("block", [512, 1024, 1 << 18])
def test_packed_positions_are_those_of_a_list(block: int) -> None:
    events = events_of([700, 1, 0, 1300, 47], seed=3)
    end = events.offsets[1:] - np.array([100, 0, 0, 1, 0])

    def chosen(positions: LongArray) -> np.ndarray:
        return np.asarray(events.item[positions] == 3)

    packed = PackedPositions.of(events, end, chosen, block)
    every = [p for p in range(len(events)) if p < end[events.user[p]] and events.item[p] == 3]
    assert len(packed) == len(every) > 100
    assert packed.at(np.arange(len(every))).tolist() == every
    assert packed.at(np.array([5, 0, 5])).tolist() == [every[5], every[0], every[5]]
    assert packed.bits.nbytes <= len(events) / 8 + 64


def test_nothing_is_chosen_where_nothing_can_be() -> None:
    events = events_of([5])
    assert len(PackedPositions.of(events, events.offsets[1:], lambda p: np.zeros(len(p), np.bool_))) == 0


def test_all_users_are_drawn_up_to_the_limit() -> None:
    events = np.array([3, 0, 5, 8])
    assert drawn_users(events, 0, 0).tolist() == [0, 1, 2, 3], "0 takes all"
    assert drawn_users(events, 32, 0, 8).tolist() == [0, 1, 2, 3]


def test_above_the_limit_users_are_drawn_whole() -> None:
    events = np.full(1000, 10)
    events[:100] = 0
    drawn = drawn_users(events, 500, 0)
    assert len(drawn) == 50
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert drawn.min() >= 100, "users without events are not drawn"
    assert drawn_users(events, 500, 1).tolist() != drawn.tolist()
    short = drawn_users(np.ones(1000, np.int64), 400, 0, 8)
    assert len(short) == 50, "users are limited, too"


@pytest.mark.parametrize("seed", range(8))
def test_a_user_with_most_of_the_events_does_not_end_the_sample(seed: int) -> None:
    """Such as a till or a robot, wherever the draw puts it."""
    events = np.full(1000, 10)
    events[500] = 6000
    drawn = drawn_users(events, 5000, seed)
    assert 250 <= len(drawn) <= 500
    assert 500 not in drawn
    events[500] = 3000  # fits only among the first
    total = int(events[drawn_users(events, 5000, seed)].sum())
    assert 2500 <= total <= 5000


def test_users_that_are_each_too_large_are_no_sample() -> None:
    assert drawn_users(np.array([60, 70]), 50, 0).tolist() == []
    assert drawn_users(np.array([60, 40, 70]), 50, 0).tolist() == [1]
