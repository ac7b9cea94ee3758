"""API errors: a gRPC status with google.rpc details (https://google.aip.dev/193).

Handlers raise `ApiError`; one interceptor converts it to the wire format, so no handler touches status codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
DOMAIN: Final = "shelfwise"
"""`ErrorInfo.domain` of every error."""
MODEL_RESTARTING: Final = "MODEL_RESTARTING"
"""`ApiError.reason` of a request whose model process has ended."""
_TYPES: Final = "type.googleapis.com/"
_MESSAGE_BYTES: Final = 800
"""Longest message. It is sent three times, in headers, which clients limit to 8 KiB by default."""


@dataclass(eq=False)
class ApiError(Exception):
    """A failed request; not frozen, because Python writes tracebacks into exceptions."""

    code: grpc.StatusCode
    reason: str
    """Stable UPPER_CASE name for programs (`ErrorInfo.reason`)."""
    message: str
    path: str | None = None
    """The invalid request field; becomes a BadRequest violation."""
    metadata: dict[str, str] = field(default_factory=dict)
    """`ErrorInfo.metadata`."""
    retry_seconds: float | None = None
    """Delay before a retry; becomes a RetryInfo."""


def invalid(path: str, message: str, reason: str = "INVALID_FIELD") -> ApiError:
    """Return the error for an invalid request field."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, reason, f"{path}: {message}", path)


def overloaded(what: str, retry_seconds: float) -> ApiError:
    """Return the error for a full queue."""
    return ApiError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        f"{what} has too much work waiting; try again later",
        retry_seconds=retry_seconds,
    )


def not_ready() -> ApiError:
    """Return the error for a request before the model is ready."""
    return _not_ready("STARTING", "the server is starting; health turns to SERVING when it is ready")


def restarting() -> ApiError:
    """Return the error for a request whose model process has ended."""
    return _not_ready(
        MODEL_RESTARTING,
        "the process that makes lists has ended; health turns to SERVING when another is ready",
    )


def search_unavailable() -> ApiError:
    """Return the error for a request that only a vector search could answer, which is not answered now."""
    return _not_ready("SEARCH_UNAVAILABLE", "the engine that searches vectors does not answer")


def _not_ready(reason: str, message: str) -> ApiError:
    return ApiError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_seconds=1.0)


def deadline_exceeded() -> ApiError:
    """Return the error for a request whose deadline has passed."""
    return ApiError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "the deadline passed before the answer was ready",
    )


def refuse_with(context: Context, problem: ApiError, request_id: str) -> None:
    """Set the status that a call ends with once its handler returns.

    `abort` would end it at once, by an exception that becomes part of a reference cycle: some eighty objects
    per refused call, which under load accumulate faster than the garbage collector frees them.
    """
    status = to_status(problem, request_id)
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(status.trailing_metadata)


def to_status(problem: ApiError, request_id: str) -> grpc.Status:
    """Return the gRPC status of an error, with all details."""
    message = _shortened(problem.message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=problem.reason, domain=DOMAIN, metadata=problem.metadata),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if problem.path is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=problem.path, description=message, reason=problem.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if problem.retry_seconds is not None:
        fraction, whole = math.modf(problem.retry_seconds)
        delay = duration_pb2.Duration(seconds=int(whole), nanos=int(fraction * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=problem.code.value[0], message=message)
    for detail in details:  # as Any.Pack does, without a copy: refusals under load must be cheap
        status.details.add(type_url=_TYPES + detail.DESCRIPTOR.full_name, value=detail.SerializeToString())
    result: grpc.Status = rpc_status.to_status(status)
    return result


def _shortened(message: str) -> str:
    """Return a message truncated to `_MESSAGE_BYTES` and an ellipsis: it may quote long input."""
    data = message.encode("utf-8", "replace")
    if len(data) <= _MESSAGE_BYTES:
        return message
    return data[:_MESSAGE_BYTES].decode("utf-8", "ignore") + "…"
