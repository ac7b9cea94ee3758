"""Connection of commands to a server, and messages for failed calls."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import grpc

from conf.clients import ClientTlsConfig, ConnectionConfig
from conf.errors import InputError
from shelfwise_client import Client, ServiceError


def connect(config: ConnectionConfig, timeout: float) -> Client:
    """Return a client of the server; nothing is sent yet.

    Args:
        config: address and credentials.
        timeout: deadline of single calls in seconds.

    Raises:
        InputError: a file of the TLS settings cannot be read.
    """
    key = os.environ.get(config.api_key_env) or None
    return Client(config.address, timeout=timeout, credentials=credentials_of(config.tls), api_key=key)


def failure_message(error: ServiceError, config: ConnectionConfig, setting: str = "address") -> str:
    """Return one line with the cause of a failed call and its remedy.

    Args:
        error: of the call.
        config: of the connection.
        setting: name of the command's setting that holds the address.
    """
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        tls = "" if config.tls.enabled else ", or tls.enabled=true where it speaks TLS"
        return (
            f"no server answers at {config.address}; start one with `shelfwise serve` "
            f"or set {setting}=HOST:PORT{tls}"
        )
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{config.address} refused: {error.message}; put a key into {config.api_key_env}"
    return f"{config.address} refused: {error.message}"


def parse_time(text: str | None) -> datetime | None:
    """Read the setting `request_time`; a time without zone is UTC.

    Raises:
        InputError: not an ISO time.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"request_time: '{text}' is not an ISO time, for example 2024-05-31T12:00:00"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def credentials_of(tls: ClientTlsConfig) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel; None for plain text.

    Raises:
        InputError: a file cannot be read.
    """
    if not tls.enabled:
        return None
    return grpc.ssl_channel_credentials(
        _content("tls.ca", tls.ca), _content("tls.key", tls.key), _content("tls.certificate", tls.certificate)
    )


def _content(setting: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{setting}: {path} cannot be read ({error.strerror})") from error
