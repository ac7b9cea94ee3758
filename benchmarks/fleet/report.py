"""Results as a Markdown page, and the arithmetic from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

_HEADER: Final = ("what", "call", "calls", "per second", "p50 ms", "p99 ms", "failed", "without history")
_PHASES: Final = {
    "steady": "mixed load",
    "swap": "a version goes through the fleet",
    "kill": "a server is killed and started again",
    "redis": "Redis is stopped and started",
}
_PROXIES: Final = ("nginx",)


@dataclass(frozen=True)
class Fleet:
    """What a load needs."""

    cores: int
    """Of all servers, with headroom."""
    redis_cores: float
    """Of the one thread of Redis, without headroom."""
    redis_commands: float
    """Scripts per second."""
    redis_mbit: float
    """Out of Redis, in megabits per second."""
    answers_mbit: float
    """Out of the servers to their callers."""


def fleet_for(results: dict[str, Any], lists: float, events: float, utilisation: float) -> Fleet:
    """Return what a load needs by the measured cost of calls.

    Args:
        results: of a run.
        lists: per second.
        events: calls that record one event, per second.
        utilisation: share of a core that is planned to be used; the rest is for bursts and swaps.
    """
    per_list, per_event = results["lists"], results["events"]
    cpu = lists * per_list["server_cpu_ms"] + events * per_event["server_cpu_ms"]
    of_redis = [(lists, per_list["redis"]), (events, per_event["redis"])]
    return Fleet(
        cores=math.ceil(cpu / 1000 / utilisation),
        redis_cores=sum(rate * spent["cpu_seconds"] for rate, spent in of_redis),
        redis_commands=sum(rate * spent["scripts"] for rate, spent in of_redis),
        redis_mbit=sum(rate * spent["bytes_out"] for rate, spent in of_redis) * 8 / 1e6,
        answers_mbit=lists * per_list["response_bytes"] * 8 / 1e6,
    )


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the table."""
    found = [
        _row(f"{results['servers']} servers, closed loop", kind, results[f"{kind}s"])
        for kind in ("list", "event")
        if f"{kind}s" in results
    ]
    for name, what in _PHASES.items():
        for phase, calls in results.get(name, {}).items():
            if phase in ("all", "during"):
                found += [_row(f"{what}, {phase}", kind, cell) for kind, cell in calls.items()]
    for name in _PROXIES:
        if name in results:
            found.append(_row(f"{name}, closed loop", "list", results[name]["lists"]))
            for phase in ("all", "during"):
                found += [
                    _row(f"{name}, a server is killed, {phase}", kind, cell)
                    for kind, cell in results[name]["kill"][phase].items()
                ]
    return found


def _row(what: str, kind: str, cell: dict[str, Any]) -> tuple[str, ...]:
    codes = ", ".join(f"{code} {count}" for code, count in cell["codes"].items())
    times = (f"{cell['per_second']:.1f}", f"{cell['p50_ms']:.1f}", f"{cell['p99_ms']:.1f}")
    failed = f"{cell['failed']}{f' ({codes})' if codes else ''}"
    return what, kind, f"{cell['calls']:,}", *times, failed, str(cell["without_history"])


def facts(results: dict[str, Any]) -> list[str]:
    """Return the results beside the table, a sentence each."""
    found = [_cost(kind, results[f"{kind}s"]) for kind in ("list", "event") if f"{kind}s" in results]
    if idle := results.get("idle"):
        of_redis = idle["redis"]
        found.append(
            f"Idle: {idle['server_cpu_ms']:.0f} ms of all servers' CPU a second, "
            f"{of_redis['commands']:.0f} commands and {1000 * of_redis['cpu_seconds']:.1f} ms of Redis."
        )
    if memory := results.get("redis_memory"):
        users, events = f"{memory['users']:,} users", f"{memory['events']:,} events"
        found.append(
            f"Redis: {memory['bytes'] / 2**20:.0f} MiB for {users} with {events}: "
            f"{memory['bytes_per_user']:,.0f} bytes a user, {memory['bytes_per_event']:.0f} an event."
        )
    if fresh := results.get("freshness"):
        event, item = fresh["event"], fresh["item"]
        found.append(
            f"An event at one server is in the next one's first list {event['in_first_list']} of "
            f"{event['probes']} times (the same list {event['equal']} times; p50 {event['p50_ms']:.0f} ms, "
            f"the list's own time). An item added at one is found at the next after "
            f"{item['p50_ms']:.0f} ms (p50), {item['p99_ms']:.0f} ms (p99)."
        )
    if swap := results.get("swap_alone"):
        found.append(
            f"A swap of {swap['version_bytes'] / 1e6:.0f} MB to the same content under another name: "
            f"{swap['fetch_cpu_seconds_per_server']:.1f} s of CPU of each fetch and "
            f"{swap['server_cpu_seconds_per_server']:.1f} s of each server, which loads it; "
            f"memory of a server {swap['memory_mib_before']:.0f} MiB before, "
            f"{swap['memory_mib_peak']:.0f} at most; "
            f"the last server after {swap['last_seconds']:.0f} s."
        )
    found += [
        f"{name}: {results[name]['lists']['proxy_cpu_ms']:.2f} ms of its CPU a list."
        for name in _PROXIES
        if name in results
    ]
    return found


def _cost(kind: str, cell: dict[str, Any]) -> str:
    spent = cell["redis"]
    return (
        f"One {kind}: {cell['server_cpu_ms']:.2f} ms of a server's CPU and "
        f"{1000 * spent['cpu_seconds']:.3f} ms of Redis's, {spent['scripts']:.2f} scripts, "
        f"{spent['commands']:.1f} commands, {spent['bytes_in']:.0f} bytes to and {spent['bytes_out']:.0f} "
        f"from Redis; the caller spends {cell['client_cpu_ms']:.2f} ms."
    )


def page(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    machine = f"{results['servers']} servers and everything else on {results['cpus']} CPUs"
    lines = [
        "# A fleet",
        "",
        f"{machine}, {results['seconds']:g} s per measurement, load average {results['load_average']:.1f}",
        "",
        "| " + " | ".join(_HEADER) + " |",
        "|" + " --- |" * len(_HEADER),
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts(results)), ""])
