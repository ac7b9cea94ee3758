"""A view whose module is imported when it is first opened."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

_LOG = logging.getLogger(__name__)
PATIENCE: Final = 0.3
"""Seconds that a page waits for its module before it says that it is being loaded."""


class LazyView:
    """ASGI app of a view: its router, once it is there, and a page that waits for it until then."""

    def __init__(
        self, make: Callable[[], Router], loading_page: Callable[[Request], Awaitable[Response]]
    ) -> None:
        """Prepare; nothing is imported yet.

        Args:
            make: imports the module and returns its routes.
            loading_page: the page that is shown in the meantime.

        """
        self._make = make
        self._loading_page = loading_page
        self._router: Router | None = None
        self._thread: threading.Thread | None = None

    @property
    def loading(self) -> bool:
        """Whether the module is being imported."""
        return self._thread is not None and self._thread.is_alive()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._router is None:
            if not self.loading:  # the first request, or the import failed and is tried again
                self._thread = threading.Thread(target=self._load_in_background, name="view", daemon=True)
                self._thread.start()
            assert self._thread is not None
            await anyio.to_thread.run_sync(self._thread.join, PATIENCE)
        if self._router is not None:
            await self._router(scope, receive, send)
            return
        response: Response = PlainTextResponse(
            "This view cannot be loaded; the explorer's log says why.\n", 500
        )
        if self.loading:
            response = await self._loading_page(Request(scope, receive))
        await response(scope, receive, send)

    def load(self) -> None:
        """Import the module now."""
        self._router = self._make()

    def _load_in_background(self) -> None:
        try:
            self.load()
        except Exception:
            _LOG.exception("a view cannot be imported")
