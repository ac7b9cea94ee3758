"""The load generator: reads a load as JSON from standard input, and prints its measurements.

Requests are built before the measurement and responses are not decoded, so that this process takes little of
the machine that it shares with the server; its own limit is measured against the echo service.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import grpc
import numpy as np

from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

RECOMMEND: Final = "/shelfwise.v1.RecommendationService/Recommend"
PAGE: Final = 20
FILTERS: Final = (
    "in_stock",
    "in_stock AND price < 50",
    'category = "Category 7"',
    'brand = "Brand 3" OR price < 10',
)
_PREPARED: Final = 3000
_TIMEOUT: Final = 10.0
_CONNECTIONS: Final = 8
"""The kernel gives each connection to one worker of a server."""
Ask: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"


@dataclass
class Load:
    """A load."""

    address: str
    scenario: str
    """`closed`: closed-loop callers; `open`: a fixed rate; `freshness`."""
    seconds: float
    items: int
    users: int
    callers: int = 1
    rate: float = 0.0
    """Calls per second of an open load."""
    events_per_second: float = 0.0
    upserts_per_second: float = 0.0
    seed: int = 0


@dataclass
class Measured:
    """Latencies of successful calls in milliseconds, and the status of every call."""

    latencies: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        values = np.array(self.latencies or [float("nan")])
        p50, p95, p99 = (float(v) for v in np.percentile(values, [50, 95, 99]))
        answered = len(self.latencies)
        failed = sum(self.codes.values()) - answered
        return {
            "calls": answered + failed, "answered": answered, "failed": failed, "codes": dict(self.codes),
            "per_second": answered / max(self.seconds, 1e-9), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
            "max_ms": float(values.max()),
        }  # fmt: skip


def prepared_requests(items: int, users: int, seed: int) -> list[bytes]:
    """Return random requests: known users, every second with a session, every third with a filter."""
    rng = np.random.default_rng(seed)
    requests = []
    for number in range(_PREPARED):
        request = pb.RecommendRequest(user_id=f"user-{rng.integers(users)}", page_size=PAGE, surface="home")
        if number % 2:
            for row in rng.integers(items, size=3):
                request.session.events.add(item_id=f"item-{row}", event="click")
        if number % 3 == 0:
            request.filter = FILTERS[int(rng.integers(len(FILTERS)))]
        requests.append(request.SerializeToString())
    return requests


async def timed(measured: Measured, call: Awaitable[Any]) -> None:
    """Await a call and record its latency and status."""
    began = time.perf_counter()
    try:
        await call
    except grpc.aio.AioRpcError as error:
        measured.codes[error.code().name] += 1
    else:
        measured.latencies.append((time.perf_counter() - began) * 1000)
        measured.codes["OK"] += 1


async def closed(load: Load, channels: Sequence[grpc.aio.Channel]) -> Measured:
    """Run closed-loop callers."""
    requests, measured = requests_of(load), Measured()
    asks: list[Ask] = [channel.unary_unary(RECOMMEND) for channel in channels]
    began = time.perf_counter()

    async def caller(number: int) -> None:
        place = number * 97
        while time.perf_counter() - began < load.seconds:
            ask = asks[number % len(asks)]
            await timed(measured, ask(requests[place % len(requests)], timeout=_TIMEOUT))
            place += 1

    await asyncio.gather(*(caller(number) for number in range(load.callers)))
    measured.seconds = time.perf_counter() - began
    return measured


async def paced(rate: float, seconds: float, act: Callable[[int], Awaitable[None]]) -> None:
    """Start tasks at a fixed rate, whether or not earlier ones have finished."""
    began, running = time.perf_counter(), set()
    for number in range(int(rate * seconds)):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(act(number))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)


async def opened(load: Load, channels: Sequence[grpc.aio.Channel]) -> dict[str, Any]:
    """Run an open load at a fixed rate, then measure the recovery time of single calls."""
    requests, measured = requests_of(load), Measured()
    asks: list[Ask] = [channel.unary_unary(RECOMMEND) for channel in channels]

    async def act(number: int) -> None:
        ask = asks[number % len(asks)]
        await timed(measured, ask(requests[number % len(requests)], timeout=_TIMEOUT))

    began = time.perf_counter()
    await paced(load.rate, load.seconds, act)
    measured.seconds = time.perf_counter() - began
    ended, probes = time.perf_counter(), []
    for number in range(60):
        probe = Measured()
        at = time.perf_counter() - ended
        await timed(probe, asks[number % len(asks)](requests[number], timeout=_TIMEOUT))
        probes.append((at, probe.latencies[0] if probe.latencies else None))
        await asyncio.sleep(0.05)
    usual = 2 * float(np.median([ms for _, ms in probes[-20:] if ms is not None] or [np.inf]))
    late = [at for at, ms in probes if ms is None or ms > max(usual, 50.0)]
    return {**measured.summary(), "recovered_after_seconds": max(late, default=0.0)}


async def freshness(load: Load, channel: grpc.aio.Channel) -> dict[str, Any]:
    """Measure the delays from an event to a list that reflects it and from an upsert to its retrieval."""
    stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
    events, upserts, began, number = [], [], time.perf_counter(), 0
    while time.perf_counter() - began < load.seconds:
        number += 1
        user, item = f"fresh-{load.seed}-{began}-{number}", f"fresh-{load.seed}-{number}"
        start = time.perf_counter()
        event = pb.Event(user_id=user, item_id=f"item-{number}", event="purchase")
        await stub.RecordEvents(pb.RecordEventsRequest(events=[event]))
        request = pb.RecommendRequest(user_id=user, page_size=PAGE)
        while (await stub.Recommend(request)).degradation != pb.DEGRADATION_NONE:
            pass
        events.append((time.perf_counter() - start) * 1000)
        title = f"{' '.join(chr(97 + int(d)) * 4 for d in str(number))} novelty"
        start = time.perf_counter()
        new = pb.Item(item_id=item)
        new.attributes.update({"title": title, "brand": "Brand 1", "price": 10.0, "in_stock": True})
        await stub.UpsertItems(pb.UpsertItemsRequest(items=[new]))
        search = pb.SearchItemsRequest(query=f"{title}. Brand: Brand 1", page_size=100)
        while item not in {found.item_id for found in (await stub.SearchItems(search)).items}:
            if time.perf_counter() - start > _TIMEOUT:
                raise RuntimeError(f"{item} does not appear")
        upserts.append((time.perf_counter() - start) * 1000)
    return {
        name: {"count": len(v), "p50_ms": float(np.percentile(v, 50)), "p99_ms": float(np.percentile(v, 99))}
        for name, v in (("event_to_list", events), ("upsert_to_found", upserts))
    }


async def upkeep(load: Load, channel: grpc.aio.Channel) -> dict[str, Any]:
    """Send events and changed items at fixed rates, concurrently with the callers."""
    stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
    rng = np.random.default_rng(load.seed)
    recorded, upserted = Measured(), Measured()

    async def record(number: int) -> None:
        event = pb.Event(
            user_id=f"user-{rng.integers(load.users)}",
            item_id=f"item-{rng.integers(load.items)}",
            event="click",
            event_id=f"{load.seed}-{time.time_ns()}-{number}",
        )
        await timed(recorded, stub.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=_TIMEOUT))

    async def upsert(number: int) -> None:
        item = pb.Item(item_id=f"later-{load.seed}-{number}")
        item.attributes.update({"title": f"later item {number}", "brand": "Brand 2", "price": 5.0})
        await timed(upserted, stub.UpsertItems(pb.UpsertItemsRequest(items=[item]), timeout=_TIMEOUT))

    began = time.perf_counter()
    await asyncio.gather(
        paced(load.events_per_second, load.seconds, record),
        paced(load.upserts_per_second, load.seconds, upsert),
    )
    recorded.seconds = upserted.seconds = time.perf_counter() - began
    return {"events": recorded.summary(), "upserts": upserted.summary()}


def requests_of(load: Load) -> list[bytes]:
    """Return the requests of a load."""
    return prepared_requests(load.items, load.users, load.seed)


async def run(load: Load) -> dict[str, Any]:
    """Run a load and return its measurements."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(load.address, options=options))
            for _ in range(_CONNECTIONS)
        ]
        if load.scenario == "open":
            return await opened(load, channels)
        if load.scenario == "freshness":
            return await freshness(load, channels[0])
        if not load.events_per_second and not load.upserts_per_second:
            return (await closed(load, channels)).summary()
        measured, beside = await asyncio.gather(closed(load, channels), upkeep(load, channels[0]))
        return {**measured.summary(), **beside}


if __name__ == "__main__":
    json.dump(asyncio.run(run(Load(**json.load(sys.stdin)))), sys.stdout)
