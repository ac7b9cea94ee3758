"""Authentication and authorization of calls by API keys, before their messages are read.

Health checks need no key, because probes have none. Without a key file access to the port is access to the
service; then the RPCs that change the catalogue, delete users or list all of them are disabled unless the
configuration enables them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Final

import grpc

from serving.core.call_context import KEY_NAME
from serving.core.errors import ApiError, Context, refuse_with
from serving.transport.api_keys import ApiKey, KeyRing, Scope
from serving.transport.call_interceptor import ARMS_HEADER, Handler, request_id_of

_LOG = logging.getLogger(__name__)
_HEALTH: Final = "/grpc.health.v1.Health/"
_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_SCOPES: Final = {
    "Recommend": Scope.read,
    "SearchItems": Scope.read,
    "SimilarItems": Scope.read,
    "GetStatus": Scope.read,
    "GetItem": Scope.read,
    "ListItems": Scope.read,
    "BatchRecommend": Scope.batch,
    "RecordEvents": Scope.events,
    "UpsertItems": Scope.admin,
    "UpdateItem": Scope.admin,
    "BatchUpdateItems": Scope.admin,
    "DeclareAttributes": Scope.admin,
    "DeleteItems": Scope.admin,
    "DeleteUser": Scope.admin,
    "ExportUser": Scope.admin,
}


@cache
def scope_of(method: str) -> Scope:
    """Return the scope that a method requires; unknown methods require admin."""
    if method.startswith("/grpc.reflection."):
        return Scope.read
    return _SCOPES.get(method.rpartition("/")[2], Scope.admin)


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses unauthenticated and unauthorized calls; the first interceptor of the server."""

    def __init__(
        self, keys: KeyRing | None, admin: bool, refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        """Configure the checks.

        Args:
            keys: the valid keys; None accepts every call.
            admin: whether the RPCs of the admin scope are enabled.
            refused: called with the reason of every refusal.
        """
        self._refused = refused
        self._keys = keys
        self._admin = admin

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, or one that refuses it without reading its message."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        try:
            key = self._check(method, _bearer(handler_call_details))
            if any(name == ARMS_HEADER for name, _ in handler_call_details.invocation_metadata or ()):
                self._check_arms(key)
        except ApiError as problem:
            self._refused(problem.reason)
            return _refusal(handler, problem, method)
        KEY_NAME.set("" if key is None else key.name)
        return handler

    def _check(self, method: str, secret: str | None) -> ApiKey | None:
        """Return the key of a permitted call; raise ApiError for any other."""
        needed = scope_of(method)
        key = None
        if self._keys is not None:
            key = self._authenticated(secret, needed)
        closed = needed is Scope.admin or (needed is Scope.batch and self._keys is None)
        if closed and not self._admin:
            raise ApiError(
                grpc.StatusCode.PERMISSION_DENIED,
                "ADMIN_DISABLED",
                "this server takes no changes and lists no users; serve with admin=true, or with API keys",
            )
        return key

    def _check_arms(self, key: ApiKey | None) -> None:
        """Raise ApiError for a call that chooses arms of experiments without the scope admin."""
        if not self._admin:
            message = f"the metadata {ARMS_HEADER} needs a server with admin=true, or with API keys"
            raise ApiError(grpc.StatusCode.PERMISSION_DENIED, "ADMIN_DISABLED", message)
        if key is not None and Scope.admin not in key.scopes:
            message = f"the API key does not have the scope 'admin', which the metadata {ARMS_HEADER} needs"
            scope = {"scope": Scope.admin.value}
            raise ApiError(grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", message, metadata=scope)

    def _authenticated(self, secret: str | None, needed: Scope) -> ApiKey:
        assert self._keys is not None
        if not secret:
            message = "no API key; send the metadata `authorization: Bearer KEY`"
            raise ApiError(grpc.StatusCode.UNAUTHENTICATED, "KEY_MISSING", message)
        key = self._keys.find(secret)
        if key is None:
            raise ApiError(grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID", "the API key is not known")
        wait = self._keys.wait_seconds(key)
        if wait > 0:
            raise ApiError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "RATE_LIMITED",
                f"more than {key.requests_per_second:g} requests per second",
                retry_seconds=wait,
            )
        if needed not in key.scopes:
            raise ApiError(
                grpc.StatusCode.PERMISSION_DENIED,
                "SCOPE_MISSING",
                f"the API key does not have the scope '{needed.value}'",
                metadata={"scope": needed.value},
            )
        return key


def _bearer(details: grpc.HandlerCallDetails) -> str | None:
    """Return the key that a call carries."""
    for name, value in details.invocation_metadata or ():
        if name == _HEADER and isinstance(value, str) and value[: len(_SCHEME)].lower() == _SCHEME:
            return value[len(_SCHEME) :].strip()
    return None


def _refusal(handler: Handler, problem: ApiError, method: str) -> Handler:
    """Return a handler that refuses a call without waiting for its message."""

    async def refuse(_: Any, context: Context) -> None:  # noqa: ANN401 - unused
        request_id = request_id_of(context)
        fields = {"request_id": request_id, "method": method.rpartition("/")[2], "code": problem.code.name}
        _LOG.info("%s refused %s", method, problem.reason, extra=fields)
        refuse_with(context, problem, request_id)

    # A handler for request streams: gRPC leaves reading those to the handler.
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.stream_unary_rpc_method_handler(refuse)
