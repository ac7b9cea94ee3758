from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.towers.sequences import (
    EventTensors,
    SequenceBatch,
    TrainingWindows,
    epoch_batches,
    epoch_windows,
    passes_per_epoch,
    recent,
    shuffle_ties,
    training_windows,
)
from encoders.towers.user_tower import GAP_BUCKETS, UserEncoder, gap_buckets
from features.data.dataset import Events, LongArray
from tests.synthetic import make_dataset


def events_of(lengths: list[int]) -> Events:
    """Events numbered through: item = position, time = 100 * position."""
    count = sum(lengths)
    return Events(
        user=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        item=np.arange(count, dtype=np.int32),
        kind=(np.arange(count) % 2).astype(np.int8),
        time=100 * np.arange(count, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def predicted(start: LongArray, stop: LongArray) -> list[int]:
    """Every position that windows predict: all of a window but its first."""
    return sorted(p for a, b in zip(start, stop, strict=True) for p in range(int(a) + 1, int(b)))


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=6),
    cut=st.integers(0, 3),
    max_length=st.integers(1, 7),
    seed=st.integers(0, 50),
)
def test_every_event_but_the_first_is_predicted_exactly_once(
    lengths: list[int], cut: int, max_length: int, seed: int
) -> None:
    events = events_of(lengths)
    end = np.maximum(events.offsets[1:] - cut, events.offsets[:-1])
    start, stop = training_windows(events, end, max_length, np.random.default_rng(seed))
    expected = [p for a, b in zip(events.offsets[:-1], end, strict=True) for p in range(int(a) + 1, int(b))]
    assert predicted(start, stop) == expected
    assert (stop - start <= max_length + 1).all()
    assert (stop - start >= 2).all()
    assert (events.user[start] == events.user[stop - 1]).all(), "a window never spans two users"


def test_cuts_of_a_long_history_move_from_epoch_to_epoch() -> None:
    events = events_of([50])
    cuts = {
        tuple(training_windows(events, events.offsets[1:], 10, np.random.default_rng(s))[0])
        for s in range(10)
    }
    assert len(cuts) > 3


def test_an_epoch_is_fixed_by_its_seed_and_covers_every_event_once() -> None:
    events = events_of([3, 9, 1, 20, 2])

    def epoch(seed: int) -> list[tuple[list[int], list[int]]]:
        rng = np.random.default_rng(seed)
        windows = epoch_windows(events, events.offsets[1:], 4, rng)
        return [(a.tolist(), b.tolist()) for a, b in epoch_batches(*windows, 2, rng)]

    assert epoch(1) == epoch(1) != epoch(2)
    assert all(len(a) <= 2 for a, _ in epoch(1))
    start = np.array([a for part, _ in epoch(1) for a in part])
    stop = np.array([b for _, part in epoch(1) for b in part])
    firsts = set(events.offsets[:-1].tolist())
    assert predicted(start, stop) == [p for p in range(35) if p not in firsts]


def test_an_epoch_may_draw_fewer_windows_anew_each_time() -> None:
    events = events_of([4] * 30)

    def drawn(seed: int, most: int) -> list[int]:
        rng = np.random.default_rng(seed)
        return sorted(epoch_windows(events, events.offsets[1:], 4, rng, most=most)[0].tolist())

    assert len(drawn(0, 12)) == 12 == len(set(drawn(0, 12)))
    assert drawn(0, 12) == drawn(0, 12) != drawn(1, 12)
    assert drawn(0, 99) == drawn(0, 0) == events.offsets[:-1].tolist()


def test_few_users_are_gone_through_several_times_an_epoch_cut_anew() -> None:
    events = events_of([50])
    once = len(training_windows(events, events.offsets[1:], 10, np.random.default_rng(0))[0])

    def epoch(least: int, most: int = 0) -> tuple[LongArray, LongArray]:
        passes = passes_per_epoch(events, events.offsets[1:], 10, least)
        return epoch_windows(events, events.offsets[1:], 10, np.random.default_rng(0), passes, most)

    start, stop = epoch(7 * once)
    assert abs(len(start) - 7 * once) <= 7, "seven passes, of one window more or less each"
    assert len(set(start.tolist())) > once, "each cut anew"
    times_predicted = np.bincount(predicted(start, stop), minlength=50)
    assert times_predicted.tolist() == [0] + [7] * 49
    assert len(epoch(once // 2)[0]) == once == len(epoch(0)[0]), "one pass at least"
    assert len(epoch(7 * once, most=4)[0]) == 4
    nobody = events_of([1, 1])
    assert passes_per_epoch(nobody, nobody.offsets[1:], 10, 100) == 1
    assert len(epoch_windows(nobody, nobody.offsets[1:], 10, np.random.default_rng(0))[0]) == 0


def test_only_training_events_of_one_moment_change_places() -> None:
    events = events_of([6, 4])
    # Positions 1 to 4 of the first user share a moment; position 4 is held out. All of the second user's do.
    time = np.array([0, 5, 5, 5, 5, 9, 7, 7, 7, 7])
    events = Events(events.user, events.item, events.kind, time, events.offsets)
    orders = set()
    for seed in range(60):
        shuffled = shuffle_ties(events, np.array([4, 10]), np.random.default_rng(seed))
        found = shuffled.item.tolist()
        assert found[0] == 0, "what is held out, or alone in its moment, stays"
        assert found[4:6] == [4, 5], "what is held out, or alone in its moment, stays"
        assert sorted(found[1:4]) == [1, 2, 3]
        assert sorted(found[6:]) == [6, 7, 8, 9]
        assert shuffled.kind.tolist() == [i % 2 for i in found], "a kind moves with its item"
        assert np.array_equal(shuffled.time, time)
        assert np.array_equal(shuffled.user, events.user)
        orders.add(tuple(found[1:4]))
    assert len(orders) == 6


def windows_of(events: Events, start: list[int], stop: list[int], length: int) -> SequenceBatch:
    return EventTensors.of(events).windows(torch.tensor(start), torch.tensor(stop), length)


def test_windows_are_aligned_right_and_padded_with_the_first_time() -> None:
    events = events_of([2, 4])
    batch = windows_of(events, [0, 3], [2, 6], 3)
    assert batch.rows.tolist() == [[0, 0, 1], [3, 4, 5]]
    assert batch.kinds.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert batch.times.tolist() == [[0, 0, 100], [300, 400, 500]]
    assert batch.valid.tolist() == [[False, True, True], [True, True, True]]
    late = windows_of(events, [1, 2], [2, 5], 3)
    assert late.times.tolist() == [[100, 100, 100], [200, 300, 400]]


def test_windows_of_empty_slices_and_of_no_events() -> None:
    batch = windows_of(events_of([2]), [2], [2], 1)
    assert batch.valid.tolist() == [[False]]
    assert batch.times.tolist() == [[100]]
    none = windows_of(make_dataset([], ["a"]).events, [0], [0], 1)
    assert none.rows.tolist() == none.times.tolist() == [[0]]
    assert none.valid.tolist() == [[False]]


def test_predictions_are_where_an_event_is_followed_by_another() -> None:
    tensors = EventTensors.of(events_of([2, 4, 3]))
    start, stop = torch.tensor([0, 2, 7]), torch.tensor([2, 6, 9])
    batch = TrainingWindows.cut(tensors, start, stop, length=4, positions=5)
    assert batch.predicts.tolist() == [2, 3, 4, 5, 8]
    assert torch.equal(batch.predicts, batch.events.valid[:, :-1].flatten().nonzero()[:, 0])
    assert batch.events.rows[:, 1:].flatten()[batch.predicts].tolist() == [1, 3, 4, 5, 8]


def test_recent_keeps_the_newest_events_of_the_right_user() -> None:
    events = events_of([4, 5])
    batch = recent(events, np.array([0, 1], np.int32), np.array([2, 9]), 3)
    assert batch.rows.tolist() == [[0, 0, 1], [6, 7, 8]]
    assert batch.valid.tolist() == [[False, True, True], [True, True, True]]


def test_gap_buckets_by_hand() -> None:
    minutes = [0, 0, 1, 2, 3, 4, 7, 8, 16_383, 16_384, 10**6]
    times = torch.from_numpy(np.cumsum(minutes) * 60)[None]
    # Bucket b holds gaps of up to 2^b - 1 minutes; the last one holds the rest.
    assert gap_buckets(times).tolist() == [[0, 0, 1, 2, 2, 3, 3, 4, 14, 15, 15]]
    assert GAP_BUCKETS == 16


def test_a_gap_never_reads_as_negative() -> None:
    assert gap_buckets(torch.tensor([[500, 100, 100]])).tolist() == [[0, 0, 0]]


@pytest.fixture
def tower() -> UserEncoder:
    torch.manual_seed(0)
    return UserEncoder(dim=16, layers=2, heads=2, max_length=8, kinds=2, dropout=0.5).eval()


def sequence(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(1, length, 16, generator=generator)
    kinds = torch.randint(2, (1, length), generator=generator)
    times = torch.randint(0, 90_000, (1, length), generator=generator).cumsum(1)
    return items, kinds, times, torch.ones(1, length, dtype=torch.bool)


@pytest.mark.parametrize("changed", range(6))
def test_a_later_event_does_not_change_an_earlier_state(tower: UserEncoder, changed: int) -> None:
    items, kinds, times, valid = sequence(6)
    before = tower(items, kinds, times, valid)
    items, kinds, times = items.clone(), kinds.clone(), times.clone()
    items[0, changed] += 1.0
    kinds[0, changed] = 1 - kinds[0, changed]
    times[0, changed:] += 5000
    after = tower(items, kinds, times, valid)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed])


@pytest.mark.parametrize("padding", [1, 4])
def test_padding_does_not_change_a_state_whatever_it_holds(tower: UserEncoder, padding: int) -> None:
    items, kinds, times, valid = sequence(4)
    alone = tower(items, kinds, times, valid)
    junk, junk_kinds, _, _ = sequence(padding, seed=9)
    padded = tower(
        torch.cat([100 * junk, items], 1),
        torch.cat([junk_kinds, kinds], 1),
        torch.cat([times[:, :1].expand(1, padding), times], 1),
        torch.cat([torch.zeros(1, padding, dtype=torch.bool), valid], 1),
    )
    torch.testing.assert_close(padded[:, padding:], alone, rtol=1e-5, atol=1e-5)


def test_kinds_times_and_order_all_matter(tower: UserEncoder) -> None:
    items, kinds, times, valid = sequence(5)
    state = tower(items, kinds, times, valid)[:, -1]
    others = [
        tower(items, 1 - kinds, times, valid),
        tower(items, kinds, times * 50, valid),
        tower(items[:, [1, 0, 2, 3, 4]], kinds, times, valid),
    ]
    assert all(not torch.allclose(state, other[:, -1], atol=1e-4) for other in others)


def test_a_row_of_padding_only_is_finite(tower: UserEncoder) -> None:
    items, kinds, times, valid = sequence(3)
    assert torch.isfinite(tower(items, kinds, times, torch.zeros_like(valid))).all()
