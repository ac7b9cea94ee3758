"""What every call gets: a request id, its deadline, a log line, errors in the wire format, and to be counted.

A gRPC interceptor, so that the handlers contain nothing but their own work.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from conf.serving import LimitsConfig
from serving.core.call_context import RECORD, CallRecord
from serving.core.errors import ApiError, Context, deadline_exceeded, overloaded, refuse_with
from serving.observability.metrics import Metrics
from serving.observability.tracing import CARRIER, Tracing
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import StateUnavailableError

_LOG = logging.getLogger(__name__)
_REQUEST_ID_KEY: Final = "x-request-id"
_FULL_RETRY_SECONDS: Final = 0.1
_REFUSAL_SECONDS: Final = 0.03
"""How long a refusal for want of room waits. Callers that ask again at once would otherwise be refused
thousands of times a second, and answering them would take the time in which lists could be made."""
_OK: Final = grpc.StatusCode.OK.name
_CANCELLED: Final = grpc.StatusCode.CANCELLED.name
"""How a call ends that neither answers nor fails."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True)
class Call:
    """The call that the current task answers."""

    request_id: str
    deadline: float | None
    """Event loop time after which the caller has given up, or the server's own where it set none."""


CALL: Final[ContextVar[Call]] = ContextVar("call")


@dataclass(frozen=True)
class _Malformed:
    """Bytes that are not the request's message; answered like any other invalid request."""

    error: str


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of one service."""

    def __init__(
        self,
        service_name: str,
        limits: LimitsConfig,
        metrics: Metrics,
        state_failed: Callable[[], None],
        tracing: Tracing | None = None,
    ) -> None:
        """Wrap calls of this fully qualified service and leave the others (health, reflection) alone.

        Args:
            service_name: the service.
            limits: how many calls at a time, and for how long.
            metrics: told of every call.
            state_failed: called when the state has failed a call.
            tracing: told of every call; None makes no traces.
        """
        self._prefix = f"/{service_name}/"
        self._limits = limits
        self._metrics = metrics
        self._state_failed = state_failed
        self._tracing = tracing
        metrics.in_flight.set_function(lambda: self._running)
        self._running = 0
        self._answering = 0
        """Of those running, the ones that are no streams."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._wrapped: dict[str, Handler] = {}
        """The server's own handlers by full name of the method. What differs from call to call, as who may
        make it, is decided by the interceptors in front of this one."""
        self._queued: frozenset[str] = frozenset()
        self._admit: Callable[[], None] = lambda: None

    def queue(self, methods: Iterable[str], admit: Callable[[], None]) -> None:
        """Refuse calls that wait in a queue before anything of them is read, while it has no room for them.

        Args:
            methods: names of the RPCs.
            admit: raises QueueFullError where a call would wait too long.
        """
        self._queued = frozenset(f"{self._prefix}{method}" for method in methods)
        self._admit = admit

    async def wait_idle(self) -> None:
        """Return when no call is running."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler that answers this call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefix):
            return handler
        if method in self._queued:
            try:
                self._admit()
            except QueueFullError as full:
                return self._refusal(method, full.reason, full.retry_seconds)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """Return the handler that answers the calls of a method."""
        deserialize = handler.request_deserializer

        def read(data: bytes) -> Any:  # noqa: ANN401 - any of the service's requests
            try:
                return deserialize(data) if deserialize else data
            except DecodeError as error:
                return _Malformed(str(error))

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler.unary_stream),
                request_deserializer=read,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._answer(method, handler.unary_unary),
            request_deserializer=read,
            response_serializer=handler.response_serializer,
        )

    def _refusal(self, method: str, reason: str, retry_seconds: float) -> Handler:
        """Return a handler that refuses a call; under load there are more of these than of all others.

        It is one for a stream of requests, of which gRPC leaves the reading to the handler: so nobody waits
        for a message that nobody reads.
        """

        async def refuse(_: Any, context: Context) -> None:  # noqa: ANN401 - it is not looked at
            record = self._begin(method, context, stream=False)
            try:
                problem = self._shed(reason, retry_seconds)
                record.code = problem.code.name
                await asyncio.sleep(_REFUSAL_SECONDS)
                refuse_with(context, problem, record.request_id)
            finally:
                self._end(record, stream=False)

        return grpc.stream_unary_rpc_method_handler(refuse)

    def _answer(self, method: str, unary: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap what answers with one message."""

        async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
            record = self._begin(method, context, stream=False)
            try:
                if self._answering > self._limits.max_concurrent:
                    raise QueueFullError(_FULL_RETRY_SECONDS, "max_concurrent")
                response = await unary(_whole(request), context)
                record.code = _OK
                return response
            except Exception as error:
                # Not kept by a name: its traceback holds this frame, and both would hold each other.
                refuse_with(context, await self._failed(error, record), record.request_id)
                return None
            finally:
                self._end(record, stream=False)

        return answer

    def _stream(self, method: str, streaming: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap what answers with many messages.

        A stream lasts as long as its reader takes: it has no deadline but the reader's, and it does not count
        among the calls that are answered at a time.
        """

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            record = self._begin(method, context, stream=True)
            try:
                async with aclosing(streaming(_whole(request), context)) as responses:
                    async for response in responses:
                        yield response
                record.code = _OK
            except Exception as error:
                refuse_with(context, await self._failed(error, record), record.request_id)
            finally:
                self._end(record, stream=True)

        return stream

    def _begin(self, method: str, context: Context, stream: bool) -> CallRecord:
        """Count a call and tell the current task about it."""
        metadata = _metadata(context)
        longest = None if stream else self._limits.default_deadline_seconds
        call = Call(_request_id(metadata), _deadline(context, longest))
        CALL.set(call)
        record = CallRecord(
            method.removeprefix(self._prefix),
            call.request_id,
            {n: metadata[n] for n in CARRIER if n in metadata},
            code=_CANCELLED,
        )
        RECORD.set(record)
        self._running += 1
        self._answering += not stream
        self._idle.clear()
        return record

    async def _failed(self, error: Exception, record: CallRecord) -> ApiError:
        """Return what a failed call is answered with, once it is time to."""
        problem = self._as_problem(error, record)
        record.code = problem.code.name
        if isinstance(error, QueueFullError) and error.reason != "max_concurrent":
            await asyncio.sleep(_REFUSAL_SECONDS)
        return problem

    def _end(self, record: CallRecord, stream: bool) -> None:
        """Count a call no longer and tell how it went."""
        self._running -= 1
        self._answering -= not stream
        if self._running == 0:
            self._idle.set()
        self._report(record)

    def _report(self, record: CallRecord) -> None:
        """Tell metrics, traces and the log how a call went."""
        record.ended = time.perf_counter()
        self._metrics.call(record)
        trace_id = "" if self._tracing is None else self._tracing.call(record)
        if _LOG.isEnabledFor(logging.INFO):
            fields = {
                "request_id": record.request_id,
                "method": record.method,
                "code": record.code,
                "duration_ms": round((record.ended - record.began) * 1000, 1),
                **record.notes,
                **({"trace_id": trace_id} if trace_id else {}),
            }
            _LOG.info("%s %s", record.method, record.code, extra=fields)

    def _shed(self, reason: str, retry_seconds: float) -> ApiError:
        """Count a call that there is no room for."""
        self._metrics.shed_count(reason).inc()
        return overloaded("the service", retry_seconds)

    def _as_problem(self, error: Exception, record: CallRecord) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, QueueFullError):
            return self._shed(error.reason, error.retry_seconds)
        if isinstance(error, TimeoutError):
            return deadline_exceeded()
        fields = {"request_id": record.request_id, "method": record.method}
        if isinstance(error, StateUnavailableError):
            self._metrics.state_errors.labels(record.method).inc()
            self._state_failed()
            _LOG.error("%s: %s", record.method, error, extra=fields)
            message = "user state cannot be reached"
            return ApiError(grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE", message, retry_seconds=1.0)
        _LOG.error("%s failed", record.method, exc_info=error, extra=fields)
        message = "internal error; the server's log has the request id"
        return ApiError(grpc.StatusCode.INTERNAL, "INTERNAL", message)


def _whole(request: Any) -> Any:  # noqa: ANN401 - any of the service's requests
    """Return a request that could be read."""
    if isinstance(request, _Malformed):
        raise ApiError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
            f"the request is not a message of the expected type ({request.error})",
        )
    return request


def request_id_of(context: Context) -> str:
    """Return the id that the caller chose for its request, if it is one, or else make one."""
    return _request_id(_metadata(context))


def _metadata(context: Context) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _request_id(metadata: dict[str, str]) -> str:
    given = metadata.get(_REQUEST_ID_KEY, "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _deadline(context: Context, usual_seconds: float | None) -> float | None:
    """Return the event loop time until which an answer is worth its work; None is for ever."""
    remaining = context.time_remaining()
    seconds = usual_seconds if remaining is None else remaining
    return None if seconds is None else asyncio.get_running_loop().time() + seconds
