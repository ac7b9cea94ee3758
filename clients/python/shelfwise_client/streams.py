"""Streams that go on where they broke off, for the Python clients.

Whatever breaks a stream (a server that restarts, a network), the next one begins behind the last message that
arrived, so its reader sees every user once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final, TypeAlias

import grpc

from shelfwise_client.errors import ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb

ATTEMPTS: Final = 8
"""Streams that may break one after another without a message."""
_FIRST_WAIT: Final = 0.2
_LONGEST_WAIT: Final = 5.0
_CLOSED: Final = "Channel closed"
"""In the details of a call whose client has been closed."""

Metadata = tuple[tuple[str, str], ...]
SyncMethod: TypeAlias = "grpc.UnaryStreamMultiCallable[pb.BatchRecommendRequest, pb.BatchRecommendResponse]"
AsyncMethod: TypeAlias = (
    "grpc.aio.UnaryStreamMultiCallable[pb.BatchRecommendRequest, pb.BatchRecommendResponse]"
)


class _Progress:
    """Where a stream has come to."""

    def __init__(self, request: pb.BatchRecommendRequest) -> None:
        self.request = pb.BatchRecommendRequest()
        self.request.CopyFrom(request)
        self._failures = 0

    def received(self, response: pb.BatchRecommendResponse) -> bool:
        """Take note of a message; tell whether more are wanted."""
        self._failures = 0
        self.request.resume_token = response.resume_token
        if self.request.max_users:
            self.request.max_users -= 1
            return self.request.max_users > 0
        return True

    def broken(self, error: grpc.RpcError) -> float:
        """Return how long to wait before the next stream.

        Raises:
            ServiceError: there is no point in another.
        """
        self._failures += 1
        # A server that stops ends streams whose readers are far behind with CANCELLED.
        closed = _CLOSED in (error.details() or "")
        by_server = error.code() is grpc.StatusCode.CANCELLED and not closed
        if self._failures >= ATTEMPTS or not (by_server or error.code() is grpc.StatusCode.UNAVAILABLE):
            raise ServiceError.of(error) from None
        return min(_FIRST_WAIT * 2.0 ** (self._failures - 1), _LONGEST_WAIT)


def resumed(
    method: SyncMethod, request: pb.BatchRecommendRequest, timeout: float | None, metadata: Metadata
) -> Iterator[pb.BatchRecommendResponse]:
    """Give the messages of a stream, and of those that go on with it."""
    progress = _Progress(request)
    while True:
        call = method(progress.request, timeout=timeout, metadata=metadata)
        try:
            for response in call:
                more = progress.received(response)
                yield response
                if not more:
                    return
            return
        except grpc.RpcError as error:
            wait = progress.broken(error)
        finally:
            call.cancel()
        time.sleep(wait)


async def resumed_async(
    method: AsyncMethod, request: pb.BatchRecommendRequest, timeout: float | None, metadata: Metadata
) -> AsyncIterator[pb.BatchRecommendResponse]:
    """Do the same for asyncio."""
    progress = _Progress(request)
    while True:
        call = method(progress.request, timeout=timeout, metadata=metadata)
        try:
            async for response in call:
                more = progress.received(response)
                yield response
                if not more:
                    return
            return
        except grpc.RpcError as error:
            wait = progress.broken(error)
        finally:
            call.cancel()
        await asyncio.sleep(wait)
