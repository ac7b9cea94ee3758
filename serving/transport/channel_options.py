"""What a connection may cost: limits of the transport, against callers that are slow, silent or gone.

The names are those of https://grpc.github.io/grpc/core/group__grpc__arg__keys.html. Left as they are by
default: the headers of a call (16 KiB), and compressed messages, which may not be larger than
`max_message_bytes` once they are read.
"""

from __future__ import annotations

from typing import Final

OPTIONS: Final[dict[str, int]] = {
    # Calls of one connection at a time; further ones wait at the caller.
    "grpc.max_concurrent_streams": 1000,
    # A caller whose machine or network is gone, or that reads nothing, is found out, its calls are cancelled.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,  # the one that counts: it is a minute otherwise
    # Callers may do the same, between calls too; by default two pings within five minutes end a connection.
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
    # Who connects and says nothing (by default two minutes long), and who has been silent; clients reconnect.
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.max_connection_idle_ms": 900_000,
}
"""Server options by name."""
