"""Ten thousand random requests to a real server: no INTERNAL, no crash, memory stays flat.

SHELFWISE_FUZZ=100000 makes as many of them, SHELFWISE_FUZZ_SEED other ones.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from serving.api.service import SERVICE_NAME
from shelfwise_client import Client, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.faults.conftest import Processes
from tests.faults.random_messages import Messages
from tests.serving.conftest import in_loop

REQUESTS = int(os.environ.get("SHELFWISE_FUZZ", "10000"))
SEED = int(os.environ.get("SHELFWISE_FUZZ_SEED", "1"))
CALLERS = 8
WARM = 0.3
"""Share of the requests after which memory is first measured: caches are full then."""
GROWTH_BYTES = 48 * 2**20
METHODS: list[MethodDescriptor] = list(pb.DESCRIPTOR.services_by_name["RecommendationService"].methods)
EXPECTED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
}
"""Permitted statuses of random requests; none of them is the server's fault."""


class Storm:
    """Sends random requests and counts how they end."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._messages = Messages(SEED)
        self.ends: Counter[tuple[str, str]] = Counter()
        self.unexpected: list[str] = []

    async def blow(self, count: int) -> None:
        """Send so many requests, a few at a time."""
        numbers = iter(range(count))
        async with grpc.aio.insecure_channel(self._address) as channel:
            await asyncio.gather(*(self._call_all(channel, numbers) for _ in range(CALLERS)))

    async def _call_all(self, channel: grpc.aio.Channel, numbers: object) -> None:
        for number in numbers:  # type: ignore[attr-defined]
            method = METHODS[number % len(METHODS)]
            request = self._messages.wire(method.input_type)
            code, said = await self._call(channel, method, request)
            self.ends[method.name, code] += 1
            if code not in EXPECTED:
                self.unexpected.append(f"{method.name} {code} {said} {request[:2000]!r}")

    async def _call(
        self, channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes
    ) -> tuple[str, str]:
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        call: Any = kind(f"/{SERVICE_NAME}/{method.name}")
        try:
            if method.server_streaming:
                async for answer in call(request, timeout=60):
                    self._learn(method, answer)
            else:
                self._learn(method, await call(request, timeout=60))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and not ServiceError.of(error).reason:
                self.unexpected.append(f"{method.name} refuses without a reason: {error}")
            return error.code().name, str(error.details())
        return "OK", ""

    def _learn(self, method: MethodDescriptor, answer: bytes) -> None:
        """Check that the answer is of its type, and remember page tokens."""
        token = getattr(
            message_factory.GetMessageClass(method.output_type).FromString(answer), "next_page_token", ""
        )
        if token:
            self._messages.tokens = [*self._messages.tokens[-20:], token]


def test_ten_thousand_random_requests_do_no_harm(processes: Processes, trained_store: Path) -> None:
    server = processes.start(store=trained_store, real=True, max_live_items=50, log_requests=True)
    storm = Storm(server.address)
    in_loop(storm.blow(int(REQUESTS * WARM)), 300)
    before, files = server.resident_bytes(), server.open_files()
    in_loop(storm.blow(REQUESTS - int(REQUESTS * WARM)), 600)
    assert storm.unexpected == []
    assert server.process.poll() is None
    assert server.resident_bytes() - before < GROWTH_BYTES
    assert server.open_files() <= files + 5
    for method in METHODS:  # it was not all refused, and not all taken
        ends = {code: count for (name, code), count in storm.ends.items() if name == method.name}
        assert ends.get("OK", 0) > 0, (method.name, ends)
        assert ends.get("INVALID_ARGUMENT", 0) > 0, (method.name, ends)
    with Client(server.address) as client:
        started = time.monotonic()
        page = client.recommend(RecommendQuery(user_id="u1", intent="boots"))
        assert time.monotonic() - started < 5
        assert page.degradation in ("none", "text_only")
    assert server.stop() == 0
    errors = server.err.read_text()
    assert "Traceback" not in errors
    assert " ERROR " not in errors
