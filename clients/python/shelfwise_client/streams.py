"""BatchRecommend streams that resume after a failure, for both clients.

When a stream breaks (a server restarts, a connection is lost), the next one starts after the last message
received, so the caller gets every user once.
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
"""Consecutive failures without a message after which the client gives up."""
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
    """Position of a stream and its consecutive failures."""

    def __init__(self, request: pb.BatchRecommendRequest) -> None:
        self.request = pb.BatchRecommendRequest()
        self.request.CopyFrom(request)
        self._failures = 0

    def received(self, response: pb.BatchRecommendResponse) -> bool:
        """Record a message; return whether more are wanted."""
        self._failures = 0
        self.request.resume_token = response.resume_token
        if self.request.max_users:
            self.request.max_users -= 1
            return self.request.max_users > 0
        return True

    def broken(self, error: grpc.RpcError) -> float:
        """Return how long to wait before the next stream.

        Raises:
            ServiceError: the failure is not transient, or too many followed each other.
        """
        self._failures += 1
        # A server that stops ends streams whose readers are far behind with CANCELLED.
        closed = _CLOSED in (error.details() or "")
        by_server = error.code() is grpc.StatusCode.CANCELLED and not closed
        if self._failures >= ATTEMPTS or not (by_server or error.code() is grpc.StatusCode.UNAVAILABLE):
            raise ServiceError.of(error) from None
        return min(_FIRST_WAIT * 2.0 ** (self._failures - 1), _LONGEST_WAIT)


def resume(
    method: SyncMethod, request: pb.BatchRecommendRequest, timeout: float | None, metadata: Metadata
) -> Iterator[pb.BatchRecommendResponse]:
    """Yield the messages of a stream and of those that resume it."""
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


async def resume_async(
    method: AsyncMethod, request: pb.BatchRecommendRequest, timeout: float | None, metadata: Metadata
) -> AsyncIterator[pb.BatchRecommendResponse]:
    """Yield the messages of a stream and of those that resume it, for asyncio."""
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
