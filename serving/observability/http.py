"""The HTTP port of a server: Prometheus metrics and probes of its health.

`/livez` answers whether the process works and `/readyz` whether it can make lists, each with 200 or 503 and a
JSON body; `/readyz/model`, `/readyz/state` and `/readyz/reload` answer for one check, as the probes of the
Kubernetes API server do. Only the model decides `/readyz`: without stored events lists are made all the same,
and a version that cannot be loaded leaves the former one serving, so neither is a reason to route calls away.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from conf.errors import InputError
from serving.observability.health import CHECKS, Health

_READ_SECONDS: Final = 10.0
"""A connection that sends no complete request for so long is closed."""
StartResponse = Callable[[str, list[tuple[str, str]]], object]
"""WSGI's function that takes status and headers."""
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass(frozen=True)
class HttpServer:
    """Answers scrapes and probes from threads of its own."""

    _server: WSGIServer
    _thread: Thread

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class HttpPort:
    """The WSGI application."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        """Answer from a registry of metrics and from the health of the server."""
        self._metrics: WsgiApp = make_wsgi_app(registry)
        self._health = health

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        body = self._answer(environ, start_response)
        return () if environ["REQUEST_METHOD"] == "HEAD" else body

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(start_response, "405 Method Not Allowed", {"error": "GET and HEAD only"})
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path == "/livez":
            alive = self._health.alive()
            return _answer(start_response, _status(alive), {"alive": alive})
        checks = self._health.checks()
        if path == "/readyz":
            failing = [name for name, fine in checks.items() if not fine]
            body = {"ready": checks["model"], "checks": checks, "failing": failing}
            return _answer(start_response, _status(checks["model"]), body)
        name = path.removeprefix("/readyz/")
        if name != path and name in checks:
            return _answer(start_response, _status(checks[name]), {"ready": checks[name]})
        known = ["/metrics", "/livez", "/readyz", *(f"/readyz/{check}" for check in CHECKS)]
        return _answer(start_response, "404 Not Found", {"error": "not found", "paths": known})


def serve_http(app: HttpPort, host: str, port: int, shared: bool = False) -> HttpServer:
    """Serve scrapes and probes.

    Args:
        app: answers them.
        host: address to listen on.
        port: of the host.
        shared: whether another process may listen on it, too: a worker's successor, until the worker ends.

    Raises:
        InputError: the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        kind = type("_Server", (ThreadingWSGIServer,), {"address_family": family, "allow_reuse_port": shared})
        server: WSGIServer = make_server(host, port, app, kind, handler_class=_Handler)
    except OSError as error:
        raise InputError(
            f"metrics.port: cannot listen on {host}:{port} ({error.strerror}); choose another, or 0"
        ) from error
    thread = Thread(target=server.serve_forever, name="http", daemon=True)
    thread.start()
    return HttpServer(server, thread)


class _Handler(WSGIRequestHandler):
    """Logs no requests, and drops connections that send nothing."""

    timeout = _READ_SECONDS

    def handle(self) -> None:
        """Answer a request; a caller that sends none, or goes away, is no error of the server."""
        with suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _status(fine: bool) -> str:
    return "200 OK" if fine else "503 Service Unavailable"


def _answer(start_response: StartResponse, status: str, body: dict[str, Any]) -> list[bytes]:
    content = json.dumps(body).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [content]
