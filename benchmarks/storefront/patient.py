"""A client that retries when a server sheds load, because a benchmark shares its machine."""

from __future__ import annotations

import time
from typing import Final

import grpc

from shelfwise_client import Client, ServiceError
from shelfwise_client.channel import Request, Response

ATTEMPTS: Final = 40
_PAUSE: Final = 0.25


class PatientClient(Client):
    """A `Client` that retries shed calls after the delay that the server returns."""

    def _call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, timeout: float | None
    ) -> Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return super()._call(method, request, timeout)
            except ServiceError as error:
                if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or attempt == ATTEMPTS:
                    raise
                time.sleep(error.retry_seconds or _PAUSE)
        raise AssertionError("the last attempt returns or raises")
