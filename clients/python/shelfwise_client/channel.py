"""Options of the channel and metadata of the calls, for both clients."""

from __future__ import annotations

import json
from typing import Final, TypeVar

from shelfwise_client.v1 import recommendations_pb2 as pb

Request = TypeVar("Request")
Response = TypeVar("Response")

RETRIED: Final = ("UNAVAILABLE", "CANCELLED")
"""Codes of calls that are repeated.

A server that shuts down answers CANCELLED, from the core of gRPC, to calls that arrive before their client
has learnt of the shutdown; no handler has seen them. A call that the caller itself cancels is not repeated.
"""
# An address may stand for several servers (`dns:///shelfwise:50051`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`).
# Calls take turns, and a repeated one goes to another server; by default all of them go to the first.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": RETRIED,
                },
            }
        ],
    }
)
OPTIONS: Final = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    # A retry only helps when the channel reconnects between the attempts; by default it first waits a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


def call_metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of every call."""
    return () if api_key is None else (("authorization", f"Bearer {api_key}"),)
