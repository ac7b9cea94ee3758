"""Numbers of calls, and the arithmetic of a fleet."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.fleet.calls import Call, summary
from benchmarks.fleet.report import fleet_for, page
from benchmarks.fleet.usage import own_cpu_seconds, swap_cpu_seconds
from shelfwise_client.v1 import recommendations_pb2 as pb

CALLS: list[Call] = [
    ("list", 100.0, 10.0, "OK", pb.DEGRADATION_NONE),
    ("list", 101.0, 20.0, "OK", pb.DEGRADATION_HISTORY_UNAVAILABLE),
    ("list", 102.0, 30.0, "OK", pb.DEGRADATION_NONE),
    ("list", 103.0, 5.0, "UNAVAILABLE", 0),
    ("event", 101.5, 4.0, "OK", 0),
]


def test_calls_are_counted_by_kind_and_window() -> None:
    found = summary(CALLS, 4.0)
    names = ("calls", "failed", "codes", "without_history", "per_second")
    assert {name: found["list"][name] for name in names} == {
        "calls": 4, "failed": 1, "codes": {"UNAVAILABLE": 1}, "without_history": 1, "per_second": 0.75,
    }  # fmt: skip
    assert (found["list"]["p50_ms"], found["list"]["max_ms"]) == (20.0, 30.0)
    assert found["event"]["calls"] == 1
    part = summary(CALLS, 4.0, (101.0, 103.0))
    assert (part["list"]["calls"], part["list"]["per_second"]) == (2, 1.0)


def spent(scripts: float, cpu: float, out: float) -> dict[str, float]:
    return {"scripts": scripts, "commands": 5.0, "bytes_in": 300.0, "bytes_out": out, "cpu_seconds": cpu}


def results() -> dict[str, Any]:
    numbers = summary(CALLS, 4.0)
    return {
        "servers": 4, "cpus": 2, "seconds": 4.0, "load_average": 1.0,
        "lists": numbers["list"] | {
            "server_cpu_ms": 2.0, "client_cpu_ms": 0.5, "response_bytes": 2500.0,
            "redis": spent(1.0, 0.0001, 5000.0),
        },
        "events": numbers["event"] | {
            "server_cpu_ms": 1.0, "client_cpu_ms": 0.4, "response_bytes": 0.0,
            "redis": spent(2.0, 0.0002, 100.0),
        },
    }  # fmt: skip


def test_the_arithmetic_of_a_fleet() -> None:
    fleet = fleet_for(results(), lists=10_000, events=2_000, utilisation=0.5)
    assert fleet.cores == 44  # (10,000 x 2 ms + 2,000 x 1 ms) / 0.5
    assert fleet.redis_cores == pytest.approx(10_000 * 0.0001 + 2_000 * 0.0002)
    assert fleet.redis_commands == 14_000
    assert fleet.redis_mbit == pytest.approx((10_000 * 5_000 + 2_000 * 100) * 8 / 1e6)
    assert fleet.answers_mbit == pytest.approx(200.0)


def test_a_run_that_ended_early_has_a_page_too() -> None:
    text = page(results())
    assert "| 4 servers, closed loop | list | 4 | 0.8 | 20.0 | 29.8 | 1 (UNAVAILABLE 1) | 1 |" in text
    assert "- One list: 2.00 ms of a server's CPU and 0.100 ms of Redis's, 1.00 scripts" in text


def test_the_time_of_a_child_is_its_own() -> None:
    program = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        found = own_cpu_seconds([os.getpid()])
        assert 0.29 <= found[child.pid] < 2.0
        parent = found[os.getpid()]
        child.communicate("")
    assert child.pid not in own_cpu_seconds([os.getpid()])
    assert own_cpu_seconds([os.getpid()])[os.getpid()] - parent < 0.25  # the child's time is not added to it


def test_a_swap_costs_what_the_same_time_without_one_does_not() -> None:
    assert swap_cpu_seconds(spent=14.0, seconds=60.0, idle_ms=50.0) == pytest.approx(11.0)
    assert swap_cpu_seconds(spent=2.9, seconds=60.0, idle_ms=50.0) == 0.0
    found = results() | {
        "swap_alone": {
            "version_bytes": 117e6, "fetch_cpu_seconds_per_server": 0.1,
            "server_cpu_seconds_per_server": 2.75,
            "memory_mib_before": 500.0, "memory_mib_peak": 900.0, "last_seconds": 20.0,
        }
    }  # fmt: skip
    assert "0.1 s of CPU of each fetch and 2.8 s of each server, which loads it" in page(found)
