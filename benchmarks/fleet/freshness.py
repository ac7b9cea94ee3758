"""Freshness across servers: what one server acknowledges, another one uses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from benchmarks.fleet.processes import Member
from shelfwise_client import Client, Event, Item, RecommendQuery, SearchQuery

_LONGEST: Final = 60.0
_PAGE: Final = 20


def event_to_list(members: Sequence[Member], probes: int) -> dict[str, Any]:
    """Record an event of a new shopper at one server, and ask the next one for the list at once.

    Returns:
        How many first lists had the history, their delay after the acknowledgement, and how many equal the
        list that the recording server makes.
    """
    delays, first, equal = [], 0, 0
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(member.address, timeout=_LONGEST)) for member in members]
        cold = [item.item_id for item in clients[0].recommend(RecommendQuery(page_size=_PAGE)).items]
        for number in range(probes):
            user, item = f"fresh-{uuid.uuid4().hex}", cold[number % len(cold)]
            here, there = clients[number % len(clients)], clients[(number + 1) % len(clients)]
            here.record_events([Event(user, item, "purchase")])
            began, attempts = time.perf_counter(), 0
            while time.perf_counter() - began < _LONGEST:
                attempts += 1
                found = [one.item_id for one in there.recommend(RecommendQuery(user, page_size=_PAGE)).items]
                if found != cold:
                    break
            delays.append((time.perf_counter() - began) * 1000)
            first += attempts == 1
            equal += found == [
                one.item_id for one in here.recommend(RecommendQuery(user, page_size=_PAGE)).items
            ]
    return {"probes": probes, "in_first_list": first, "equal": equal, **_percentiles(delays)}


def upsert_to_search(members: Sequence[Member], probes: int) -> dict[str, Any]:
    """Add an item at one server, and search for it at the next one until it is found."""
    delays = []
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(member.address, timeout=_LONGEST)) for member in members]
        for number in range(probes):
            item = f"fresh-{uuid.uuid4().hex}"
            title = f"{uuid.uuid4().hex[:12]} lantern"
            here, there = clients[number % len(clients)], clients[(number + 1) % len(clients)]
            here.upsert_items([Item(item, {"title": title, "price": 5.0})])
            began = time.perf_counter()
            while time.perf_counter() - began < _LONGEST:
                found = there.search_items(SearchQuery(title, page_size=_PAGE)).items
                if item in {one.item_id for one in found}:
                    break
            delays.append((time.perf_counter() - began) * 1000)
    return {"probes": probes, **_percentiles(delays)}


def _percentiles(delays: Sequence[float]) -> dict[str, float]:
    p50, p99 = (float(value) for value in np.percentile(np.array(delays), [50, 99]))
    return {"p50_ms": p50, "p99_ms": p99}
