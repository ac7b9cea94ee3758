"""What an error of a connection is: a refused token, or a Milvus that is away, whatever its address."""

from __future__ import annotations

from typing import Any

import grpc
import pymilvus
import pytest

from conf.errors import InputError
from ranking.milvus.connection import UnreachableError, open_client
from tests.ranking.milvus.lite import settings


class Status(grpc.RpcError):
    """The error of a call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


AWAY = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect")
UNAUTHENTICATED = Status(grpc.StatusCode.UNAUTHENTICATED, "unknown user")
EARLIER = Status(grpc.StatusCode.UNKNOWN, "auth check failure, please check")
FAILED = pymilvus.MilvusException(code=2, message="Fail connecting to milvus.auth.svc:19530, illegal")


def error_of(monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None = None) -> InputError:
    def client(**_: Any) -> None:
        raise error from cause

    monkeypatch.setattr(pymilvus, "MilvusClient", client)
    with pytest.raises(InputError) as caught:
        open_client(settings("http://milvus.auth.svc:19530"))
    return caught.value


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (FAILED, UNAUTHENTICATED),
        (FAILED, EARLIER),
        (UNAUTHENTICATED, None),
        (pymilvus.MilvusException(code=1400, message="not logged in"), None),
    ],
)
def test_a_refused_token_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Exception | None
) -> None:
    found = error_of(monkeypatch, error, cause)
    assert str(found) == (
        "Milvus at http://milvus.auth.svc:19530 refuses the token; set SHELFWISE_MILVUS_TOKEN or "
        "retrieval.token_file=FILE"
    )


@pytest.mark.parametrize("cause", [AWAY, None])
def test_a_milvus_that_is_away_is_no_refused_token_whatever_its_address(
    monkeypatch: pytest.MonkeyPatch, cause: Exception | None
) -> None:
    assert isinstance(error_of(monkeypatch, FAILED, cause), UnreachableError)
