"""Calls of views to a running server, with readable pages where it cannot answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from explorer.context import ExplorerContext
from explorer.problems import PageError
from serving.cli.connection import connect, failure_message
from shelfwise_client import Client, ServiceError

SECONDS: Final = 10.0
"""Longest wait for an answer."""
_STATUS: Final = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


@contextmanager
def server_of(context: ExplorerContext) -> Iterator[Client]:
    """Yield a client of the explorer's server.

    Raises:
        PageError: there is no server, it does not answer, or it refuses.

    """
    if context.server is None:
        raise PageError(404, "This page needs a server", "Start the explorer with server=HOST:PORT.")
    try:
        with connect(context.server, SECONDS) as client:
            yield client
    except ServiceError as error:
        status = _STATUS.get(error.code, 502)
        title = "The server refused this" if status == 400 else "The server did not answer this"
        raise PageError(status, title, failure_message(error, context.server, "server")) from error
