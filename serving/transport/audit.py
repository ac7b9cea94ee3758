"""Audit of calls that change or hand out stored data: who called what, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc

from features.files.audit_log import AuditLog
from serving.core.call_context import KEY_NAME, RECORD, CallRecord
from serving.core.errors import ApiError, Context
from serving.observability.metrics import ITEM_OUTCOMES
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import StateUnavailableError

ERASURES: Final = frozenset({"DeleteUser"})
"""RPCs whose lines are on disk before they are answered."""
AUDITED: Final = ERASURES | {
    "UpsertItems", "UpdateItem", "BatchUpdateItems", "DeclareAttributes", "DeleteItems", "ExportUser",
}  # fmt: skip
"""RPCs that are audited, unless they validate only."""
_NAMES: Final = 20
"""Items and attributes that a line names at most."""


class CallAudit:
    """Writes a line per audited call."""

    def __init__(self, log: AuditLog) -> None:
        """Write into a log."""
        self._log = log

    def unary(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap a handler that returns one message."""

        async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
            outcome = grpc.StatusCode.CANCELLED.name
            try:
                response = await handler(request, context)
                outcome = "OK"
                return response
            except Exception as error:
                outcome = _outcome(error)
                raise
            finally:
                await self._write(method, outcome, request, context)

        return answer

    def stream(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - any request and response
        """Wrap a handler that returns many messages."""

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
            outcome = grpc.StatusCode.CANCELLED.name
            try:
                async for response in handler(request, context):
                    yield response
                outcome = "OK"
            except Exception as error:
                outcome = _outcome(error)
                raise
            finally:
                await self._write(method, outcome, request, context)

        return stream

    async def _write(self, method: str, outcome: str, request: Any, context: Context) -> None:  # noqa: ANN401
        record = RECORD.get()
        if record is None or getattr(request, "validate_only", False):
            return
        # Not cancelled with the call: the change has been made.
        writing = asyncio.to_thread(
            self._log.write, method, outcome, sync=method in ERASURES,
            **_caller(context), **_what(request, record),
        )  # fmt: skip
        await asyncio.shield(writing)


def _caller(context: Context) -> dict[str, Any]:
    """Return key, certificate and address of the caller."""
    certificate = next(iter(context.auth_context().get("x509_subject", ())), b"")
    return {
        "key": KEY_NAME.get() or None,
        "certificate": certificate.decode(errors="replace") or None,
        "peer": context.peer(),
    }


def _what(request: Any, record: CallRecord) -> dict[str, Any]:  # noqa: ANN401
    counts: dict[str, Any] = {name: record.notes[name] for name in ITEM_OUTCOMES if name in record.notes}
    items = _items(request)
    attributes = sorted(_attributes(request))
    return {
        "request_id": record.request_id,
        **counts,
        "items": items[:_NAMES] or None,
        "more_items": len(items) - _NAMES if len(items) > _NAMES else None,
        "attributes": attributes[:_NAMES] or None,
        **record.audit,
    }


def _items(request: Any) -> list[str]:  # noqa: ANN401
    """Return the items that a request names; those are no personal data."""
    if hasattr(request, "item_ids"):
        return list(request.item_ids)
    rows = _rows(request)
    return [row.item_id for row in rows]


def _attributes(request: Any) -> Iterable[str]:  # noqa: ANN401
    """Return the attributes that a request changes or declares."""
    declared = getattr(request, "attributes", None)
    if declared is not None:
        return {row.name for row in declared}
    return {name for row in _rows(request) for name in row.attributes}


def _rows(request: Any) -> list[Any]:  # noqa: ANN401
    if hasattr(request, "items"):
        return list(request.items)
    if hasattr(request, "requests"):
        return [row.item for row in request.requests]
    return [request.item] if hasattr(request, "item") else []


def _outcome(error: Exception) -> str:
    """Return the name of the status that an error becomes."""
    if isinstance(error, ApiError):
        return error.code.name
    if isinstance(error, QueueFullError):
        return grpc.StatusCode.RESOURCE_EXHAUSTED.name
    if isinstance(error, TimeoutError):
        return grpc.StatusCode.DEADLINE_EXCEEDED.name
    if isinstance(error, StateUnavailableError):
        return grpc.StatusCode.UNAVAILABLE.name
    return grpc.StatusCode.INTERNAL.name
