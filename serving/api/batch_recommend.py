"""BatchRecommend: the lists of many users, one after another, without getting in anybody's way.

Memory is bounded by what is in work: one page of user ids and a handful of lists. The next handful is begun
when the last of this one has been handed to the transport, whose flow control stops where the reader does, so
a slow reader slows the server down and nothing piles up. The model makes these lists when it has nothing else
to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import grpc

from conf.serving import ServeConfig
from serving.api import page_tokens, tokens, validation
from serving.api.list_options import ListOptions
from serving.api.recommend import NO_SESSION, Lists, ResolvedOptions, degradation_level
from serving.api.surfaces import Surfaces
from serving.core.errors import ApiError, invalid
from serving.model.host import ModelHost
from serving.model.interfaces import RecommendJob
from serving.scheduling.batcher import BACKGROUND_BATCH, QueueFullError
from serving.state.contracts.user_state import UserState
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

_LOG = logging.getLogger(__name__)
MAX_NAMED: Final = 10_000
"""Users in a request."""
_LISTING: Final = 500
"""Stored users read together."""
_NOTHING_SHOWN: Final = page_tokens.decode_shown("", b"")


@dataclass(frozen=True)
class _User:
    """One user of a stream."""

    name: str
    """As named by the request, or as stored."""
    known_as: str
    """As the state knows them."""
    place: str
    """For the resume token."""


class BatchLists:
    """Streams of lists; create it inside a running event loop."""

    def __init__(
        self, lists: Lists, host: ModelHost, state: UserState, config: ServeConfig, surfaces: Surfaces
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._lists = lists
        self._host = host
        self._state = state
        self._config = config
        self._surfaces = surfaces
        self._running = 0
        self._ending = False

    def end(self) -> None:
        """Make running streams end after the list they are at."""
        self._ending = True

    async def stream(self, request: pb.BatchRecommendRequest) -> AsyncGenerator[pb.BatchRecommendResponse]:
        """Give a list for every user that a request names.

        Raises:
            ApiError: a request that cannot be answered, too many streams, or a server that is shutting down.
        """
        size = validation.page_size(request.list_size, self._config.max_page_size, "list_size")
        wish = ListOptions.of(request, size, self._surfaces)
        identity = tokens.fingerprint(request, ("resume_token", "max_users"))
        after = page_tokens.decode_place(page_tokens.USER_PLACE, request.resume_token, identity)
        if request.max_users < 0:
            raise invalid("max_users", f"{request.max_users} is negative; use 0 for no limit")
        asked = request.HasField("request_time")
        before_us = validation.micros("request_time", request.request_time) if asked else None
        _check_users(request)
        seed = tokens.request_seed(identity)
        async with self._host.lease() as served:
            prepared = await self._lists.prepare(served, wish, seed)
        if self._running >= self._config.max_streams:
            message = f"{self._running} streams are open; at most {self._config.max_streams} at once"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise ApiError(code, "TOO_MANY_STREAMS", message, retry_seconds=10.0)
        self._running += 1
        try:
            async with aclosing(self._users(request, after, request.max_users or None)) as handfuls:
                async for users in handfuls:
                    async with self._host.lease() as served:  # not while a slow reader takes the lists
                        if served is not prepared.served:
                            prepared = await self._lists.prepare(served, wish, seed)
                        lists = [self._one(prepared, user, identity, before_us) for user in users]
                        responses = await asyncio.gather(*lists, return_exceptions=True)
                    for response in responses:
                        if self._ending:
                            message = "the server is shutting down; go on with the last resume_token"
                            raise ApiError(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", message)
                        if isinstance(response, BaseException):
                            raise response
                        yield response
        finally:
            self._running -= 1

    async def _users(
        self, request: pb.BatchRecommendRequest, after: str, left: int | None
    ) -> AsyncGenerator[list[_User]]:
        """Give the users in handfuls, behind a place, at most so many."""
        if request.WhichOneof("users") == "user_list":
            names = request.user_list.user_ids
            first = int(after) + 1 if after.isdecimal() else 0
            last = len(names) if left is None else min(len(names), first + left)
            for start in range(first, last, BACKGROUND_BATCH):
                numbers = range(start, min(start + BACKGROUND_BATCH, last))
                yield [_User(names[n], self._lists.known_as(names[n]), str(n)) for n in numbers]
            return
        while left is None or left > 0:
            most = _LISTING if left is None else min(left, _LISTING)
            page = await self._state.users(after, most, CALL.get().deadline)
            if not page:
                return
            for start in range(0, len(page), BACKGROUND_BATCH):
                yield [_User(name, name, name) for name in page[start : start + BACKGROUND_BATCH]]
            after = page[-1]
            left = None if left is None else left - len(page)

    async def _one(
        self, prepared: ResolvedOptions, user: _User, identity: bytes, before_us: int | None
    ) -> pb.BatchRecommendResponse:
        """Make one user's message; what goes wrong with one must not end the others."""
        call = CALL.get()
        response = pb.BatchRecommendResponse(
            user_id=user.name,
            resume_token=page_tokens.encode_place(page_tokens.USER_PLACE, identity, user.place),
            model_version=prepared.served.model.version,
            request_id=call.request_id,
        )
        try:
            validation.optional_id("user_id", user.name)
            if not user.name:
                raise invalid("user_id", "is empty")
            await self._fill(response, prepared, user, identity, before_us)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except ApiError as problem:
            response.error.reason, response.error.message = problem.reason, problem.message
        except Exception as error:
            _LOG.error("BatchRecommend request_id=%s failed for a user", call.request_id, exc_info=error)
            response.error.reason, response.error.message = "INTERNAL", "the server's log has the request id"
        return response

    async def _fill(
        self,
        response: pb.BatchRecommendResponse,
        prepared: ResolvedOptions,
        user: _User,
        identity: bytes,
        before_us: int | None,
    ) -> None:
        served, wish = prepared.served, prepared.wish
        now_us = time.time_ns() // 1000 if before_us is None else before_us
        while True:
            try:
                recalled = await self._lists.recall(user.known_as, before_us, patient=True)
                break
            except QueueFullError as full:  # others have more right to the state
                await asyncio.sleep(full.retry_seconds)
        shopper = self._lists.shopper(served, user.known_as, NO_SESSION, now_us, recalled)
        if not shopper.available:
            message = "the stored history could not be read just now"
            raise ApiError(grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE", message)
        wanted = self._lists.request(prepared, shopper, now_us, _NOTHING_SHOWN)
        if wanted.rules is not None and not wish.rules.exploration.HasField("seed"):
            wanted = wanted.explored_by(tokens.request_seed(identity, user.known_as))
        job = RecommendJob(served.model, wanted)
        answer, _ = await self._lists.make(served, job, background=True)
        served.cards.recommended(response.items, answer, "", wish.explain, wish.fields, before=0)
        response.degradation = degradation_level(answer, shopper)
        response.attribution_token = self._lists.token(served, wish.surface)


def _check_users(request: pb.BatchRecommendRequest) -> None:
    """Check whom a request names; single ids are checked when it is their turn."""
    kind = request.WhichOneof("users")
    if kind is None:
        raise invalid("users", "set user_list, or all_users to true")
    if kind == "all_users":
        if not request.all_users:
            raise invalid("all_users", "is false; set it to true, or user_list")
        return
    named = len(request.user_list.user_ids)
    if not named:
        raise invalid("user_list.user_ids", "is empty; name at least one user")
    if named > MAX_NAMED:
        raise invalid("user_list.user_ids", f"{named:,} users; send at most {MAX_NAMED:,} per call")
