"""Many users with a purchase each, and streams of their lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from serving.state.contracts.user_state import NewEvent
from shelfwise_client import ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness


def name_of(number: int) -> str:
    return f"user-{number:05d}"


def fill(server: Harness, count: int) -> None:
    """Store an event of each of many users: user n has bought item n mod 29, whose follower comes first."""
    state = server.running.service._state
    for start_at in range(0, count, 2000):
        numbers = range(start_at, min(start_at + 2000, count))
        server.call(
            state.record([NewEvent(name_of(n), f"i{n % 29}", "purchase", 1, f"client:{n}") for n in numbers])
        )


def stream(server: Harness, **fields: Any) -> Iterator[pb.BatchRecommendResponse]:
    if not fields.keys() & {"user_list", "all_users"}:
        fields["all_users"] = True
    responses: Iterator[pb.BatchRecommendResponse] = server.stub.BatchRecommend(
        pb.BatchRecommendRequest(**fields), timeout=60
    )
    return responses


def named(*user_ids: str) -> pb.UserList:
    return pb.UserList(user_ids=user_ids)


def refused(server: Harness, **fields: Any) -> ServiceError:
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(server, **fields))
    return ServiceError.of(caught.value)
