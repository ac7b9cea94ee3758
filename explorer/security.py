"""Who may read the pages, and what a browser may do with them.

The explorer shows a shop's data, so every request passes these checks first: the `Host` header has to be a
name of this machine (else a foreign page could read the explorer through a name that it makes point here, DNS
rebinding), and where other machines can connect a key is needed. Every response forbids what the pages do not
use: scripts and styles of other hosts, frames, referrers.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE: Final = "shelfwise_explorer"
PICTURES: Final = "shelfwise_pictures"
"""Cookie of a reader who has switched pictures on, which load from other hosts."""
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:{images}; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OPEN_PATHS: Final = ("/static/",)
"""Readable without a key: they hold nothing of the shop, and the page that asks for the key needs them."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shows_pictures(request: Request) -> bool:
    """Return whether the reader has switched the catalogue's pictures on."""
    return request.cookies.get(PICTURES) == "on"


@dataclass(frozen=True)
class Access:
    """Who may read the pages."""

    key: str = ""
    """Needed by every reader; empty needs none."""
    local: bool = True
    """Whether only this machine can connect."""
    hosts: Sequence[str] = ()
    """Further names by which browsers may ask."""

    def allows_host(self, header: str) -> bool:
        """Return whether a `Host` header is a name of this machine.

        An address in numbers is one where other machines can connect: no foreign name stands behind it.
        """
        name = (urlsplit(f"//{header}").hostname or "").lower()
        if name in {"localhost", *(host.lower() for host in self.hosts)}:
            return True
        try:
            number = ipaddress.ip_address(name)
        except ValueError:
            return not self.local and name == socket.gethostname().lower()
        return number.is_loopback or not self.local

    @property
    def cookie(self) -> str:
        """What the cookie of a reader holds: not the key itself."""
        return hashlib.sha256(f"shelfwise explorer {self.key}".encode()).hexdigest()

    def allows(self, request: Request) -> bool:
        """Return whether a request comes with the key, as cookie or as bearer token."""
        if not self.key:
            return True
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        cookie = request.cookies.get(COOKIE, "")
        return _same(bearer, self.key) or _same(cookie, self.cookie)


def _same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


class Guard:
    """ASGI middleware: checks of every request, headers of every response."""

    def __init__(
        self, app: ASGIApp, access: Access, refuse: Callable[[Request], Awaitable[Response]]
    ) -> None:
        """Guard an app.

        Args:
            app: answers the requests that pass.
            access: who may read.
            refuse: makes the page of a reader without the key.

        """
        self._app = app
        self._access = access
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        policy = _POLICY.format(images=" https: http:" if shows_pictures(request) else "")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", policy)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = await self._checked(request)
        await (self._app if answer is None else answer)(scope, receive, with_headers)

    async def _checked(self, request: Request) -> Response | None:
        """Return the answer to a request that does not pass; None for one that does."""
        access = self._access
        if not access.allows_host(request.headers.get("host", "")):
            return PlainTextResponse(
                "This name is not one of the explorer's. Use the address that it printed, or start it with "
                "hosts=[NAME] for a name of yours.\n",
                421,
            )
        if request.url.path.startswith(_OPEN_PATHS):
            return None
        given = request.query_params.get("key")
        if access.key and given is not None and _same(given, access.key):
            return self._admitted(request)
        return None if access.allows(request) else await self._refuse(request)

    def _admitted(self, request: Request) -> Response:
        """Give the reader a cookie, and the same page by an address without the key."""
        rest = [(name, value) for name, value in parse_qsl(request.url.query) if name != "key"]
        # One slash only: "//host/" would lead to another host.
        path = "/" + request.url.path.lstrip("/")
        response = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        response.set_cookie(COOKIE, self._access.cookie, max_age=30 * 86_400, httponly=True, samesite="lax")
        return response


def same_origin(request: Request) -> bool:
    """Return whether a form was sent from a page of the explorer, not from a foreign one."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")
