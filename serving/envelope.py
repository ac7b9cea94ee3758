"""What every call gets: a request id, its deadline, a log line, errors in the wire format, and to be counted.

A gRPC interceptor, so that the handlers contain nothing but their own work.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from serving.batching import QueueFull
from serving.problems import Problem, late, overloaded, to_status
from serving.user_state import StateUnavailable

_LOG = logging.getLogger(__name__)
_REQUEST_ID_KEY: Final = "x-request-id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True)
class Call:
    """The call that the current task answers."""

    request_id: str
    deadline: float | None
    """Event loop time after which the caller has given up; None when it waits for ever."""


CALL: Final[ContextVar[Call]] = ContextVar("call")


@dataclass(frozen=True)
class _Malformed:
    """Bytes that are not the request's message; answered like any other invalid request."""

    error: str


class Envelope(grpc.aio.ServerInterceptor):
    """Wraps the calls of one service."""

    def __init__(self, service_name: str) -> None:
        """Wrap calls of this fully qualified service and leave the others (health, reflection) alone."""
        self._prefix = f"/{service_name}/"
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

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
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        method = handler_call_details.method.removeprefix(self._prefix)
        deserialize = handler.request_deserializer
        unary: Any = handler.unary_unary
        streaming: Any = handler.unary_stream

        def read(data: bytes) -> Any:  # noqa: ANN401 - any of the service's requests
            try:
                return deserialize(data) if deserialize else data
            except DecodeError as error:
                return _Malformed(str(error))

        async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401 - any request and response
            async with self._around(method, context):
                return await unary(_whole(request), context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            async with (
                self._around(method, context),
                aclosing(streaming(_whole(request), context)) as responses,
            ):
                async for response in responses:
                    yield response

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, request_deserializer=read, response_serializer=handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=read, response_serializer=handler.response_serializer
        )

    @asynccontextmanager
    async def _around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Count a call, log it, and end it with a status where it fails."""
        call = _call(context)
        CALL.set(call)
        started = time.perf_counter()
        self._running += 1
        self._idle.clear()
        code = grpc.StatusCode.OK
        try:
            yield
            return
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            problem = _as_problem(error, method, call)
            code = problem.code
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()
            milliseconds = (time.perf_counter() - started) * 1000
            _LOG.info("%s %s request_id=%s %.1f ms", method, code.name, call.request_id, milliseconds)
        await context.abort_with_status(to_status(problem, call.request_id))


def _whole(request: Any) -> Any:  # noqa: ANN401 - any of the service's requests
    """Return a request that could be read."""
    if isinstance(request, _Malformed):
        raise Problem(
            grpc.StatusCode.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
            f"the request is not a message of the expected type ({request.error})",
        )
    return request


def request_id_of(context: Context) -> str:
    """Return the id that the caller chose for its request, if it is one, or else make one."""
    given = str(dict(context.invocation_metadata() or ()).get(_REQUEST_ID_KEY, ""))
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _call(context: Context) -> Call:
    remaining = context.time_remaining()
    deadline = None if remaining is None else asyncio.get_running_loop().time() + remaining
    return Call(request_id_of(context), deadline)


def _as_problem(error: Exception, method: str, call: Call) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFull):
        return overloaded("the service", error.retry_seconds)
    if isinstance(error, TimeoutError):
        return late()
    if isinstance(error, StateUnavailable):
        _LOG.error("%s request_id=%s: %s", method, call.request_id, error)
        message = "user state cannot be reached"
        return Problem(grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE", message, retry_seconds=1.0)
    _LOG.error("%s request_id=%s failed", method, call.request_id, exc_info=error)
    message = "internal error; the server's log has the request id"
    return Problem(grpc.StatusCode.INTERNAL, "INTERNAL", message)
