"""Limits of connections, against clients that are slow, silent or gone.

Names as in https://grpc.github.io/grpc/core/group__grpc__arg__keys.html. Defaults stay for the size of a
call's headers (16 KiB), and for compressed messages, which `max_message_bytes` limits after decompression.
"""

from __future__ import annotations

from typing import Final

OPTIONS: Final[dict[str, int]] = {
    # Concurrent calls per connection; further ones wait in the client.
    "grpc.max_concurrent_streams": 1000,
    # Detects clients that are gone or read nothing, and cancels their calls.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,  # the effective one; a minute by default
    # Clients may ping, too, also between calls; by default two pings within five minutes end a connection.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
    # Closes connections without a handshake (by default after two minutes) and idle ones; clients reconnect.
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 900_000,
}
"""Server options by name."""
