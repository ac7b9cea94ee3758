"""Interceptor of every call: request id, deadline, limits, wire format of errors, metrics, trace, log."""

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
from serving.core.call_context import KEY_NAME, RECORD, CallRecord
from serving.core.errors import ApiError, Context, deadline_exceeded, overloaded, refuse_with
from serving.observability.metrics import Metrics
from serving.observability.tracing import CARRIER, Tracing
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import StateUnavailableError
from serving.transport.audit import AUDITED, CallAudit

_LOG = logging.getLogger(__name__)
_REQUEST_ID_KEY: Final = "x-request-id"
ARMS_HEADER: Final = "x-shelfwise-arms"
"""Metadata with the arms that a tester chose, `experiment=arm` joined by `;`; needs the scope admin."""
_FULL_RETRY_SECONDS: Final = 0.1
_REFUSAL_SECONDS: Final = 0.03
"""Delay of an overload refusal. Clients that retry at once would otherwise be refused thousands of times a
second, which would take CPU time from lists."""
_OK: Final = grpc.StatusCode.OK.name
_CANCELLED: Final = grpc.StatusCode.CANCELLED.name
"""Status of a call that neither returns nor fails."""
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True)
class Call:
    """The current task's call."""

    request_id: str
    deadline: float | None
    """Event loop time; the caller's deadline, or the server's default."""
    arms: str = ""
    """Value of the metadata `ARMS_HEADER`."""


CALL: Final[ContextVar[Call]] = ContextVar("call")


@dataclass(frozen=True)
class _Malformed:
    """A request that cannot be parsed; refused like any other invalid request."""

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
        audit: CallAudit | None = None,
    ) -> None:
        """Wrap the calls of one service; calls of others (health, reflection) pass through.

        Args:
            service_name: fully qualified name of the service.
            limits: concurrency limit and default deadline.
            metrics: records every call.
            state_failed: called when the state has failed a call.
            tracing: records every call; None records no traces.
            audit: records changes, erasures and exports of users; None records none.
        """
        self._prefix = f"/{service_name}/"
        self._limits = limits
        self._metrics = metrics
        self._state_failed = state_failed
        self._tracing = tracing
        self._audit = audit
        metrics.in_flight.set_function(lambda: self._running)
        self._running = 0
        self._unary = 0
        """Running calls that are not streams."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._wrapped: dict[str, Handler] = {}
        """Wrapped handlers by full method name, cached: they do not depend on the call."""
        self._queued: frozenset[str] = frozenset()
        self._admit: Callable[[], None] = lambda: None

    def queue(self, methods: Iterable[str], admit: Callable[[], None]) -> None:
        """Apply admission control to queued RPCs, before their messages are read.

        Args:
            methods: names of the RPCs.
            admit: raises QueueFullError for a call that would wait too long.
        """
        self._queued = frozenset(f"{self._prefix}{method}" for method in methods)
        self._admit = admit

    @property
    def idle(self) -> bool:
        """Whether no call is running."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Wait until no call is running."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of a call, or one that refuses it."""
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
        """Return the wrapped handler of a method."""
        deserialize = handler.request_deserializer

        def read(data: bytes) -> Any:  # noqa: ANN401 - any of the service's requests
            try:
                return deserialize(data) if deserialize else data
            except DecodeError as error:
                return _Malformed(str(error))

        name = method.removeprefix(self._prefix)
        audit = self._audit if name in AUDITED else None
        if handler.response_streaming:
            streaming = handler.unary_stream if audit is None else audit.stream(name, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(
                self._wrap_stream(method, streaming),
                request_deserializer=read,
                response_serializer=handler.response_serializer,
            )
        unary = handler.unary_unary if audit is None else audit.unary(name, handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(
            self._wrap_unary(method, unary),
            request_deserializer=read,
            response_serializer=handler.response_serializer,
        )

    def _refusal(self, method: str, reason: str, retry_seconds: float) -> Handler:
        """Return a handler that refuses a call for overload, without reading its message.

        It is a handler for request streams: gRPC leaves reading those to the handler.
        """

        async def refuse(_: Any, context: Context) -> None:  # noqa: ANN401 - unused
            record = self._begin(method, context, stream=False)
            try:
                problem = self._shed(reason, retry_seconds)
                record.code = problem.code.name
                await asyncio.sleep(_REFUSAL_SECONDS)
                refuse_with(context, problem, record.request_id)
            finally:
                self._end(record, stream=False)

        return grpc.stream_unary_rpc_method_handler(refuse)

    def _wrap_unary(self, method: str, unary: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap a handler that returns one message."""

        async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
            record = self._begin(method, context, stream=False)
            try:
                if self._unary > self._limits.max_concurrent:
                    raise QueueFullError(_FULL_RETRY_SECONDS, "max_concurrent")
                response = await unary(_well_formed(request), context)
                record.code = _OK
                return response
            except Exception as error:
                # Not bound to a name: its traceback refers to this frame, which would make a cycle.
                refuse_with(context, await self._failed(error, record), record.request_id)
                return None
            finally:
                self._end(record, stream=False)

        return answer

    def _wrap_stream(self, method: str, streaming: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap a handler that returns many messages.

        A stream lasts as long as its reader needs: it has no default deadline, and does not count towards the
        concurrency limit.
        """

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            record = self._begin(method, context, stream=True)
            try:
                async with aclosing(streaming(_well_formed(request), context)) as responses:
                    async for response in responses:
                        yield response
                record.code = _OK
            except Exception as error:
                refuse_with(context, await self._failed(error, record), record.request_id)
            finally:
                self._end(record, stream=True)

        return stream

    def _begin(self, method: str, context: Context, stream: bool) -> CallRecord:
        """Count a call and set the current task's `CALL` and `RECORD`."""
        metadata = _metadata(context)
        default = None if stream else self._limits.default_deadline_seconds
        call = Call(_request_id(metadata), _deadline(context, default), metadata.get(ARMS_HEADER, ""))
        CALL.set(call)
        record = CallRecord(
            method.removeprefix(self._prefix),
            call.request_id,
            {n: metadata[n] for n in CARRIER if n in metadata},
            code=_CANCELLED,
        )
        RECORD.set(record)
        self._running += 1
        self._unary += not stream
        self._idle.clear()
        return record

    async def _failed(self, error: Exception, record: CallRecord) -> ApiError:
        """Return the error of a failed call; an overload refusal is delayed."""
        problem = self._as_problem(error, record)
        record.code = problem.code.name
        if isinstance(error, QueueFullError) and error.reason != "max_concurrent":
            await asyncio.sleep(_REFUSAL_SECONDS)
        return problem

    def _end(self, record: CallRecord, stream: bool) -> None:
        """Stop counting a call, and report it."""
        self._running -= 1
        self._unary -= not stream
        if self._running == 0:
            self._idle.set()
        self._report(record)

    def _report(self, record: CallRecord) -> None:
        """Report a finished call to metrics, trace and log."""
        record.ended = time.perf_counter()
        self._metrics.call(record)
        trace_id = "" if self._tracing is None else self._tracing.call(record)
        if _LOG.isEnabledFor(logging.INFO):
            fields = {
                "request_id": record.request_id,
                "method": record.method,
                "code": record.code,
                "duration_ms": round((record.ended - record.began) * 1000, 1),
                **({"key": key} if (key := KEY_NAME.get()) else {}),
                **record.notes,
                **({"trace_id": trace_id} if trace_id else {}),
            }
            _LOG.info("%s %s", record.method, record.code, extra=fields)

    def _shed(self, reason: str, retry_seconds: float) -> ApiError:
        """Count a shed call and return its error."""
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


def _well_formed(request: Any) -> Any:  # noqa: ANN401 - any of the service's requests
    """Return a request, or raise ApiError if it could not be parsed."""
    if isinstance(request, _Malformed):
        raise ApiError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
            f"the request is not a message of the expected type ({request.error})",
        )
    return request


def request_id_of(context: Context) -> str:
    """Return the request id of the metadata if it is valid, else a new one."""
    return _request_id(_metadata(context))


def _metadata(context: Context) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def _request_id(metadata: dict[str, str]) -> str:
    given = metadata.get(_REQUEST_ID_KEY, "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _deadline(context: Context, default_seconds: float | None) -> float | None:
    """Return a call's deadline as event loop time; None for none."""
    remaining = context.time_remaining()
    seconds = default_seconds if remaining is None else remaining
    return None if seconds is None else asyncio.get_running_loop().time() + seconds
