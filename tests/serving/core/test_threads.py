from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from serving.core.event_loop import run_event_loop
from serving.core.threads import (
    CHANGE_NICENESS,
    LIST_NICENESS,
    list_threads,
    prepare_thread,
    use_idle_cpus_only,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
@pytest.mark.parametrize("niceness", [LIST_NICENESS, CHANGE_NICENESS, 30])
def test_a_thread_gives_way_to_the_server_and_no_further_than_there_is(niceness: int) -> None:
    before = _niceness()
    with ThreadPoolExecutor(1, "test", prepare_thread, (1, niceness)) as executor:
        assert executor.submit(_niceness).result() == min(before + niceness, 19)
    assert _niceness() == before


def test_what_somebody_waits_for_goes_first() -> None:
    assert 0 < LIST_NICENESS < CHANGE_NICENESS < 19


@linux
@pytest.mark.parametrize("forbidden", [False, True])
def test_a_thread_may_leave_the_cpu_to_others(monkeypatch: pytest.MonkeyPatch, forbidden: bool) -> None:
    def policy() -> tuple[int, int]:
        return os.sched_getscheduler(0), _niceness()

    def refuse(*_: object) -> None:
        raise PermissionError

    if forbidden:
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
    before = policy()
    with ThreadPoolExecutor(1, "test", use_idle_cpus_only) as executor:
        assert executor.submit(policy).result() == (before[0] if forbidden else os.SCHED_IDLE, 19)
    assert policy() == before


def test_lists_are_shared_out_where_a_single_worker_has_two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [list_threads(0, 1), list_threads(0, 2), list_threads(3, 2), list_threads(1, 1)] == [2, 1, 3, 1]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert list_threads(0, 1) == 1


def test_arithmetic_of_a_thread_keeps_to_its_cpus() -> None:
    with ThreadPoolExecutor(1, "test", prepare_thread, (1, 0)) as executor:
        assert executor.submit(torch.get_num_threads).result() == 1


def test_servers_run_on_libuv_where_there_is_one() -> None:
    loops: list[str] = []

    async def note() -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    run_event_loop(note())
    assert loops == ["asyncio.windows_events" if sys.platform == "win32" else "uvloop"]
