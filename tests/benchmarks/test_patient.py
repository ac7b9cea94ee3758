from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from benchmarks.storefront.patient import ATTEMPTS, PatientClient
from shelfwise_client import Client, ServiceError

SHED = ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", retry_seconds=0.5)


def client_that_meets(
    monkeypatch: pytest.MonkeyPatch, errors: list[ServiceError]
) -> tuple[PatientClient, list[float]]:
    pauses: list[float] = []

    def call(self: Client, method: object, request: object, timeout: float | None) -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    monkeypatch.setattr(Client, "_call", call)
    monkeypatch.setattr(time, "sleep", pauses.append)
    return PatientClient("127.0.0.1:1"), pauses


def test_a_call_that_was_shed_is_made_again_when_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    unsaid = ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
    client, pauses = client_that_meets(monkeypatch, [SHED, unsaid])
    method: Any = None
    with client:
        assert client._call(method, None, None) == "answer"
    assert pauses == [0.5, 0.25]


def test_other_errors_and_endless_ones_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "no")
    method: Any = None
    client, pauses = client_that_meets(monkeypatch, [other])
    with client, pytest.raises(ServiceError, match="no"):
        client._call(method, None, None)
    assert pauses == []
    client, pauses = client_that_meets(monkeypatch, [SHED] * (ATTEMPTS + 1))
    with client, pytest.raises(ServiceError, match="too much"):
        client._call(method, None, None)
    assert pauses == [0.5] * (ATTEMPTS - 1)
