"""Detection of a hung model's process, counted in intervals, without a clock."""

from __future__ import annotations

import os
import threading
import time
from multiprocessing import Pipe

import pytest

from ranking.milvus.status import EngineStatus
from serving.model.process.heartbeat import BEATS, Beat, HangDetector, send_heartbeats, watch_heartbeats


def warm() -> HangDetector:
    detector = HangDetector()
    detector.warm = True
    return detector


def first_wrong(detector: HangDetector, looks: list[tuple[bool, int]]) -> tuple[int, str]:
    """Return the number of the first check that finds a fault, from 1, and the fault; 0 if none does."""
    for number, (beats, turn) in enumerate(looks, 1):
        if wrong := detector.check(beats, turn):
            return number, wrong
    return 0, ""


def test_a_process_is_taken_to_hang_at_the_last_silent_look() -> None:
    assert first_wrong(warm(), [(False, 0)] * 50) == (10, "has sent no sign of life")


def test_one_beat_in_time_is_enough_for_ever() -> None:
    assert first_wrong(warm(), ([(False, 0)] * (BEATS - 1) + [(True, 0)]) * 50) == (0, "")


def test_until_the_first_lists_everything_may_take_ten_times_longer() -> None:
    assert first_wrong(HangDetector(), [(False, 0)] * 500) == (100, "has sent no sign of life")
    assert first_wrong(HangDetector(), [(True, 7)] * 500) == (101, "has not finished a batch of lists")


def test_a_batch_that_outlasts_the_beats_is_stuck() -> None:
    # The first look finds the question; it must be the same at ten more.
    assert first_wrong(warm(), [(True, 7)] * 50) == (11, "has not finished a batch of lists")


def test_batches_that_end_are_not_stuck_however_many_follow_each_other() -> None:
    always_one = [(True, 2 * (look // BEATS) + 1) for look in range(500)]
    assert first_wrong(warm(), always_one) == (0, "")


def test_a_process_that_is_asked_nothing_is_not_stuck() -> None:
    assert first_wrong(warm(), [(True, 8)] * 500) == (0, "")


def test_silence_does_not_count_towards_a_stuck_batch() -> None:
    """On a suspended machine, or one without CPU time for either, no process is killed."""
    looks = [(True, 7)] * 6 + [(False, 7)] * (BEATS - 1) + [(True, 7)] * 4
    assert first_wrong(warm(), looks) == (0, "")


def test_beats_that_gathered_are_one() -> None:
    """As if the server was stopped before it read the answer to a request."""
    here, there = Pipe(duplex=False)
    detector = warm()
    with here:
        with there:
            for _ in range(BEATS * 3):
                there.send(Beat(4711))
        assert watch_heartbeats(here, 60.0, detector, lambda: 7) == ("", 4711)
    assert first_wrong(detector, [(True, 7)] * 50)[0] == 11  # none of the gathered beats has counted


def test_beats_come_with_the_id_until_nobody_listens() -> None:
    here, there = Pipe(duplex=False)
    states = iter([None, EngineStatus(True), EngineStatus(False, "away")])
    thread = threading.Thread(target=send_heartbeats, args=(there, 0.1, lambda: next(states, None)))
    thread.start()
    assert [here.recv(), here.recv(), here.recv()] == [
        Beat(os.getpid()),
        Beat(os.getpid(), EngineStatus(True)),
        Beat(os.getpid(), EngineStatus(False, "away")),
    ]
    here.close()
    thread.join(10)
    assert not thread.is_alive()


def test_without_a_timeout_heartbeats_are_received_and_nothing_is_a_hang() -> None:
    here, there = Pipe(duplex=False)
    received: list[Beat] = []

    def send() -> None:
        with there:
            for _ in range(4 * BEATS):  # during one long batch
                there.send(Beat(1, EngineStatus(True)))
                time.sleep(0.005)

    with here:
        threading.Thread(target=send).start()
        assert watch_heartbeats(here, 0.0, warm(), lambda: 1, received.append) == ("", 1)
    assert received == [Beat(1, EngineStatus(True))] * 4 * BEATS


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_the_end_of_a_process_is_no_hang(seconds: float) -> None:
    here, there = Pipe(duplex=False)
    there.close()
    with here:
        assert watch_heartbeats(here, seconds, warm(), lambda: 1) == ("", None)


def test_silence_is_found_without_a_single_beat() -> None:
    here, there = Pipe(duplex=False)
    with here, there:
        assert watch_heartbeats(here, 0.01, warm(), lambda: 0) == ("has sent no sign of life", None)
