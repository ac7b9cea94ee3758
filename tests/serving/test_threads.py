from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest
import torch

from serving.event_loop import run_event_loop
from serving.threads import CHANGES, LISTS, LOADING, OneThread, list_threads

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
@pytest.mark.parametrize("niceness", [LISTS, CHANGES, LOADING])
def test_a_thread_gives_way_to_the_event_loop_and_no_further_than_there_is(niceness: int) -> None:
    before = _niceness()
    with OneThread("test", 1, niceness) as executor:
        assert executor.submit(_niceness).result() == min(before + niceness, 19)
    assert _niceness() == before


def test_what_somebody_waits_for_goes_first() -> None:
    assert 0 < LISTS < CHANGES < LOADING


def test_lists_are_shared_out_where_a_single_worker_has_two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [list_threads(0, 1), list_threads(0, 2), list_threads(3, 2), list_threads(1, 1)] == [2, 1, 3, 1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert list_threads(0, 1) == 1


def test_arithmetic_of_a_thread_keeps_to_its_cpus() -> None:
    with OneThread("test", 1, 0) as executor:
        assert executor.submit(torch.get_num_threads).result() == 1


def test_a_thread_is_busy_until_all_is_done() -> None:
    gate = threading.Event()
    with OneThread("test", 1, 0) as executor:
        states = [executor.busy]
        waiting, failing = executor.submit(gate.wait, 10), executor.submit(int, "x")
        states.append(executor.busy)
        gate.set()
        assert waiting.result()
        assert isinstance(failing.exception(), ValueError)
    states.append(executor.busy)
    assert states == [False, True, False]


def test_servers_run_on_libuv_where_there_is_one() -> None:
    loops: list[str] = []

    async def note() -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    run_event_loop(note())
    assert loops == ["asyncio.windows_events" if sys.platform == "win32" else "uvloop"]
