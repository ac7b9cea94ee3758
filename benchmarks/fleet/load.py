"""The load of a shop on a fleet: reads it as JSON from standard input, and prints every call.

Lists of real shoppers, what they do, and new items, with the options of the Python client: retries, and round
robin over all addresses.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import polars as pl

from benchmarks.serving.load import PAGE, paced
from features.data import schema
from shelfwise_client.channel import OPTIONS
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

TIMEOUT: Final = 5.0
"""Deadline of a call in seconds, retries included: the client's default."""
_USERS_AT_MOST: Final = 20_000


@dataclass(frozen=True)
class Load:
    """A load."""

    target: str
    """`ipv4:HOST:PORT,HOST:PORT` or one address."""
    store: str
    """An artifact store with the histories of the shoppers."""
    seconds: float
    kind: str = "mixed"
    """`list` or `event`: closed-loop callers of one kind; `mixed`: fixed rates of all three."""
    callers: int = 0
    lists: float = 0.0
    """Lists per second of a mixed load."""
    events: float = 0.0
    items: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Shop:
    """Who asks, and for what."""

    users: Sequence[str]
    items: Sequence[str]
    kind: str
    """Of the recorded events: the one that the shop has."""

    @classmethod
    def of(cls, store: Path) -> Shop:
        """Return the shoppers and items of the histories of a store."""
        events = pl.scan_parquet(store / "histories.parquet")
        users = (
            events.select(pl.col(schema.USER_ID).unique(maintain_order=True)).head(_USERS_AT_MOST).collect()
        )
        items = events.select(pl.col(schema.ITEM_ID).unique(maintain_order=True)).collect()
        kind = events.select(pl.col(schema.EVENT).first()).collect().item()
        return cls(users.to_series().to_list(), items.to_series().to_list(), str(kind))


class Caller:
    """Makes calls and keeps them: kind, wall time at the start, milliseconds, code, degradation."""

    def __init__(self, channel: grpc.aio.Channel, shop: Shop, seed: int) -> None:
        """Use a channel."""
        self._stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        self._shop = shop
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._seed = f"{seed}-{time.time_ns()}"
        self.calls: list[tuple[str, float, float, str, int]] = []
        self.bytes: list[int] = []

    async def list(self, _: int) -> None:
        """Ask for the list of a shopper."""
        request = pb.RecommendRequest(user_id=self._random.choice(self._shop.users), page_size=PAGE)
        answer = await self._timed("list", self._stub.Recommend(request, timeout=TIMEOUT))
        if answer is not None:
            self.bytes.append(answer.ByteSize())

    async def event(self, number: int) -> None:
        """Record what a shopper did."""
        event = pb.Event(
            user_id=self._random.choice(self._shop.users),
            item_id=self._random.choice(self._shop.items),
            event=self._shop.kind,
            event_id=f"{self._seed}-{number}",
        )
        request = pb.RecordEventsRequest(events=[event])
        await self._timed("event", self._stub.RecordEvents(request, timeout=TIMEOUT))

    async def item(self, number: int) -> None:
        """Add an item."""
        item = pb.Item(item_id=f"later-{self._seed}-{number}")
        item.attributes.update({"title": f"paper lantern no {number}", "price": 5.0})
        request = pb.UpsertItemsRequest(items=[item])
        await self._timed("item", self._stub.UpsertItems(request, timeout=TIMEOUT))

    async def _timed(self, kind: str, call: Awaitable[Any]) -> Any:  # noqa: ANN401 - the call's response
        at, began, answer, code = time.time(), time.perf_counter(), None, "OK"
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        spent = (time.perf_counter() - began) * 1000
        self.calls.append((kind, at, spent, code, int(getattr(answer, "degradation", 0))))
        return answer


async def run(load: Load) -> dict[str, Any]:
    """Run a load and return its calls; SIGTERM ends a mixed one early."""
    shop = Shop.of(Path(load.store))
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(load.target, options=options) as channel:
        caller = Caller(channel, shop, load.seed)
        began, cpu = time.perf_counter(), time.process_time()
        if load.kind == "mixed":
            rates = ((load.lists, caller.list), (load.events, caller.event), (load.items, caller.item))
            loads = [asyncio.ensure_future(paced(rate, load.seconds, act)) for rate, act in rates]
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGTERM, lambda: [one.cancel() for one in loads]
            )
            await asyncio.gather(*loads, return_exceptions=True)
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))  # calls on their way
        else:
            act: Callable[[int], Awaitable[None]] = getattr(caller, load.kind)

            async def again(number: int) -> None:
                while time.perf_counter() - began < load.seconds:
                    await act(number)
                    number += load.callers

            await asyncio.gather(*(again(number) for number in range(load.callers)))
        return {
            "calls": caller.calls,
            "bytes": sum(caller.bytes) / max(1, len(caller.bytes)),
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
        }


if __name__ == "__main__":
    json.dump(asyncio.run(run(Load(**json.load(sys.stdin)))), sys.stdout)
