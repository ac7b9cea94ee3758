"""The clients' exception, with the google.rpc details that the server sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS: Final = "grpc-status-details-bin"
"""Trailing metadata of a failed call: a google.rpc.Status, https://grpc.io/docs/guides/error."""


@dataclass(frozen=True)
class FieldViolation:
    """A request field that the server refused."""

    field: str
    description: str


@dataclass(eq=False)
class ServiceError(Exception):
    """A call that failed, with the details that the server gave."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    """Stable name, for example `FILTER_INVALID`; empty when no server answered."""
    request_id: str = ""
    violations: tuple[FieldViolation, ...] = ()
    retry_seconds: float | None = None
    """Delay before a retry, in seconds, as the server demands; None where it names none."""

    def __str__(self) -> str:
        """One readable line."""
        return f"{self.code.name}: {self.message}"

    @classmethod
    def of(cls, error: grpc.RpcError) -> ServiceError:
        """Read the error of a synchronous or asynchronous call."""
        found = cls(error.code(), error.details() or "")
        for packed in _details(error):
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            request, retry = error_details_pb2.RequestInfo(), error_details_pb2.RetryInfo()
            if packed.Unpack(info):
                found.reason = info.reason
            elif packed.Unpack(bad):
                found.violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
            elif packed.Unpack(request):
                found.request_id = request.request_id
            elif packed.Unpack(retry):
                found.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
        return found


def _details(error: grpc.RpcError) -> Iterable[Any]:
    """Return the packed messages of the error's status; none where no server of this service answered."""
    trailing: Any = error.trailing_metadata()  # pairs; gRPC's own types of them differ between its two APIs
    for key, value in trailing or ():
        if key == _DETAILS:
            return list(status_pb2.Status.FromString(value).details)
    return ()
