"""BatchRecommend: the lists of many users, streamed at background priority.

Memory is bounded: one page of user ids and one batch of lists. A batch begins when the last list of the batch
before has been handed to the transport, whose flow control gives backpressure: a slow reader slows the stream
down. The model makes these lists only while no other request is queued.
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
from serving.api.recommend import NO_SESSION, ListCalls, ResolvedOptions, degradation_level
from serving.api.surfaces import Surfaces
from serving.core.errors import ApiError, invalid
from serving.experiments.selection import Route, Visit
from serving.model.host import ModelHost
from serving.model.interfaces import RecommendJob
from serving.model.served import Served
from serving.scheduling.batcher import BACKGROUND_BATCH, QueueFullError
from serving.state.contracts.user_state import UserState
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

_LOG = logging.getLogger(__name__)
MAX_NAMED: Final = 10_000
"""Users in a request."""
_USERS_PER_PAGE: Final = 500
"""Stored users that are read at a time."""
_NOTHING_SHOWN: Final = page_tokens.decode_shown("", b"").shown


@dataclass(frozen=True)
class _User:
    """One user of a stream."""

    name: str
    """Id in the request, or in the state for all users."""
    stored_id: str
    """Id in the state."""
    cursor: str
    """For the resume token."""


class BatchListCalls:
    """Streams of lists; create it inside a running event loop."""

    def __init__(
        self, lists: ListCalls, host: ModelHost, state: UserState, config: ServeConfig, surfaces: Surfaces
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
        """End running streams after their current list."""
        self._ending = True

    async def stream(self, request: pb.BatchRecommendRequest) -> AsyncGenerator[pb.BatchRecommendResponse]:
        """Yield a list for every user of a request.

        Raises:
            ApiError: an invalid request, too many streams, or a server that is shutting down.
        """
        size = validation.page_size(request.list_size, self._config.max_page_size, "list_size")
        request_hash = tokens.fingerprint(request, ("resume_token", "max_users"))
        after = page_tokens.decode_cursor(page_tokens.USER_CURSOR, request.resume_token, request_hash)
        if request.max_users < 0:
            raise invalid("max_users", f"{request.max_users} is negative; use 0 for no limit")
        timed = request.HasField("request_time")
        before_us = validation.micros("request_time", request.request_time) if timed else None
        _check_users(request)
        seed = tokens.request_seed(request_hash)
        calls = _Preparation(self._lists, self._surfaces, request, size, seed)
        async with self._host.lease() as served:
            await calls.prepared(served, pb.SurfaceDefaults())  # an invalid request has no list at all
        if self._running >= self._config.max_streams:
            message = f"{self._running} streams are open; at most {self._config.max_streams} at once"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            raise ApiError(code, "TOO_MANY_STREAMS", message, retry_seconds=10.0)
        self._running += 1
        try:
            async with aclosing(self._users(request, after, request.max_users or None)) as batches:
                async for users in batches:
                    lists = [self._one(calls, user, request_hash, before_us) for user in users]
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
        """Yield the users after a cursor in batches, at most `left` in all."""
        if request.WhichOneof("users") == "user_list":
            names = request.user_list.user_ids
            first = int(after) + 1 if after.isdecimal() else 0
            last = len(names) if left is None else min(len(names), first + left)
            for start in range(first, last, BACKGROUND_BATCH):
                numbers = range(start, min(start + BACKGROUND_BATCH, last))
                yield [_User(names[n], self._lists.stored_id(names[n]), str(n)) for n in numbers]
            return
        while left is None or left > 0:
            limit = _USERS_PER_PAGE if left is None else min(left, _USERS_PER_PAGE)
            page = await self._state.users(after, limit, CALL.get().deadline)
            if not page:
                return
            for start in range(0, len(page), BACKGROUND_BATCH):
                yield [_User(name, name, name) for name in page[start : start + BACKGROUND_BATCH]]
            after = page[-1]
            left = None if left is None else left - len(page)

    async def _one(
        self, calls: _Preparation, user: _User, request_hash: bytes, before_us: int | None
    ) -> pb.BatchRecommendResponse:
        """Return one user's response; a failure becomes its error, so that the stream continues."""
        call = CALL.get()
        response = pb.BatchRecommendResponse(
            user_id=user.name,
            resume_token=page_tokens.encode_cursor(page_tokens.USER_CURSOR, request_hash, user.cursor),
            model_version=self._host.served.model.version,
            request_id=call.request_id,
        )
        try:
            validation.optional_id("user_id", user.name)
            if not user.name:
                raise invalid("user_id", "is empty")
            visit = Visit(user.stored_id, surface=calls.request.surface, forced=call.arms)

            async def make(route: Route) -> None:
                await self._fill(response, calls, route, user, request_hash, before_us)

            await self._lists.router.run(self._lists.router.select(visit), make, stream=True)
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
        calls: _Preparation,
        route: Route,
        user: _User,
        request_hash: bytes,
        before_us: int | None,
    ) -> None:
        now_us = time.time_ns() // 1000 if before_us is None else before_us
        while True:
            try:
                context = await self._lists.load_context(user.stored_id, before_us, True, route.host)
                break
            except QueueFullError as full:  # interactive calls go first
                await asyncio.sleep(full.retry_seconds)
        async with route.host.lease() as served:  # not held while a slow reader takes the lists
            prepared = await calls.prepared(served, route.lists)
            options = prepared.options
            shopper = self._lists.shopper(served, user.stored_id, NO_SESSION, now_us, context)
            if not shopper.state_available:
                message = "the stored history could not be read just now"
                raise ApiError(grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE", message)
            model_request = self._lists.request(prepared, shopper, now_us, _NOTHING_SHOWN)
            if model_request.rules is not None and not options.rules.exploration.HasField("seed"):
                model_request = model_request.explored_by(tokens.request_seed(request_hash, user.stored_id))
            job = RecommendJob(served.model, model_request)
            answer, _ = await self._lists.make(route.host, served, job, background=True)
            del response.items[:]  # of an arm whose process has ended meanwhile
            served.cards.recommended(response.items, answer, "", options.explain, options.fields, before=0)
            response.degradation = degradation_level(answer, shopper)
            response.model_version = served.model.version
            recorded = route.selection.recorded
            response.attribution_token = self._lists.token(
                served, options.surface, answer, experiments=recorded
            )
            response.experiments.extend(route.messages())


class _Preparation:
    """The options of a stream, resolved for each model and arm that make its lists."""

    def __init__(
        self, lists: ListCalls, surfaces: Surfaces, request: pb.BatchRecommendRequest, size: int, seed: int
    ) -> None:
        """Resolve nothing yet; see `serving.api.recommend.ListCalls.prepare`."""
        self.request = request
        self._lists = lists
        self._surfaces = surfaces
        self._size = size
        self._seed = seed
        self._known: dict[bytes, ResolvedOptions] = {}

    async def prepared(self, served: Served, lists: pb.SurfaceDefaults) -> ResolvedOptions:
        """Return the options for a state of a model and defaults of arms.

        Raises:
            ApiError: a filter or rule that is invalid for the model.
        """
        key = served.model.version.encode() + b"/" + lists.SerializeToString(deterministic=True)
        found = self._known.get(key)
        if found is None or found.served is not served:
            versions = {host.served.model.version for host in self._lists.router.hosts}
            self._known = {k: v for k, v in self._known.items() if v.served.model.version in versions}
            options = ListOptions.of(self.request, self._size, self._surfaces, lists)
            found = self._known[key] = await self._lists.prepare(served, options, self._seed)
        return found


def _check_users(request: pb.BatchRecommendRequest) -> None:
    """Check the users of a request; single ids are checked one by one, later."""
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
