"""The events of drawn windows, beside windows of all events."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.towers import drawn_events
from encoders.towers.drawn_events import DrawnEvents
from encoders.towers.sequences import EventTensors, epoch_windows, shuffle_ties
from features.data.dataset import Events, LongArray


def shop(seed: int, seconds: int) -> tuple[Events, LongArray]:
    """Histories in which many events share a second, and the end of training in the middle of some."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 60, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    times = [np.sort(rng.integers(0, seconds, n)) for n in lengths]
    count = int(offsets[-1])
    events = Events(
        np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        np.arange(count, dtype=np.int32),  # an item of its own: an exchange of any two is seen
        rng.integers(0, 3, count).astype(np.int8),
        np.concatenate(times).astype(np.int64),
        offsets,
    )
    return events, np.maximum(offsets[1:] - rng.integers(0, 5, len(lengths)), offsets[:-1])


def content(tensors: EventTensors, start: LongArray, stop: LongArray) -> list[list[list[int]]]:
    found = []
    for begin, end in zip(start, stop, strict=True):
        part = slice(int(begin), int(end))
        found.append([tensors.item[part].tolist(), tensors.kind[part].tolist(), tensors.time[part].tolist()])
    return found


@pytest.mark.parametrize("seconds", [1, 3, 20, 10_000])
@pytest.mark.parametrize("ties", [None, 11])
def test_drawn_windows_read_what_windows_of_all_events_read(
    seconds: int, ties: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, end = shop(seconds, seconds)
    monkeypatch.setattr(drawn_events, "_LOTS", 64)
    start, stop = epoch_windows(events, end, 7, np.random.default_rng(2), passes=2, most=50)
    assert len(start) == 50
    drawn = DrawnEvents.of(events, end, start, stop, ties)
    whole = events if ties is None else shuffle_ties(events, end, np.random.default_rng(ties))
    assert content(drawn.tensors, drawn.start, drawn.stop) == content(EventTensors.of(whole), start, stop)


def test_only_the_windows_are_copied() -> None:
    events, end = shop(0, 10_000)
    start, stop = np.array([40, 3, 42]), np.array([45, 5, 47])  # the first and the last overlap
    drawn = DrawnEvents.of(events, np.full(40, len(events)), start, stop)
    assert drawn.tensors.item.tolist() == [3, 4, *range(40, 47)]
    assert drawn.start.tolist() == [2, 0, 4]
    assert drawn.stop.tolist() == [7, 2, 9]
    assert torch.equal(drawn.tensors.time, torch.from_numpy(events.time[drawn.tensors.item.numpy()]))
    assert end.shape == (40,)


def test_no_windows_are_no_events() -> None:
    events, end = shop(0, 10)
    none = np.zeros(0, np.int64)
    assert len(DrawnEvents.of(events, end, none, none, 3).tensors.item) == 0
