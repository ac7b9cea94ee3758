"""One address that stands for several servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc

from shelfwise_client import AsyncClient, Client
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc


class Named(pb_grpc.RecommendationServiceServicer):
    """A server whose model has the server's name as its version."""

    def __init__(self, name: str) -> None:
        self._name = name

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:  # noqa: N802
        return pb.GetStatusResponse(model_version=self._name)


def started(name: str) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_RecommendationServiceServicer_to_server(Named(name), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def test_calls_take_turns_and_a_server_that_ends_fails_none() -> None:
    with ExitStack() as stack:
        servers: dict[str, grpc.Server] = {}
        addresses = []
        for name in ("one", "two", "three"):
            servers[name], port = started(name)
            stack.callback(servers[name].stop, None)
            addresses.append(f"127.0.0.1:{port}")
        target = f"ipv4:{','.join(addresses)}"
        client = stack.enter_context(Client(target, timeout=20))
        for _ in range(200):  # until all are connected
            if len({client.status().model_version for _ in range(3)}) == 3:
                break
        assert Counter(client.status().model_version for _ in range(30)) == {
            "one": 10,
            "two": 10,
            "three": 10,
        }
        servers["two"].stop(None).wait()
        found = Counter(client.status().model_version for _ in range(30))  # none fails
        assert set(found) == {"one", "three"}

        async def ask() -> set[str]:
            async with AsyncClient(target, timeout=20) as asking:
                return {(await asking.status()).model_version for _ in range(30)}

        assert asyncio.run(ask()) == {"one", "three"}
