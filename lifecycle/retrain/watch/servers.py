"""Which version each server serves, by GetStatus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from conf.clients import ConnectionConfig
from conf.errors import InputError
from conf.lifecycle import WatchConfig
from serving.cli.connection import connect, failure_message
from shelfwise_client import ServiceError

TIMEOUT_SECONDS: Final = 5.0
"""Deadline of a call."""


@dataclass(frozen=True)
class Seen:
    """What a server answered."""

    address: str
    version: str | None
    """Version that it serves; None where it did not answer."""
    problem: str | None = None
    """Why it did not answer, or why it could not load the store's current version."""
    failed_version: str | None = None
    """Version that it could not load."""
    loading: str = ""
    """Version that it is loading."""

    def takes(self, version: str) -> bool:
        """Return whether it serves a version."""
        return self.version == version


def look_at(config: WatchConfig) -> list[Seen]:
    """Ask every server once.

    Raises:
        InputError: a file of the TLS settings cannot be read.
    """
    return [_ask(address, config) for address in config.servers]


def _ask(address: str, config: WatchConfig) -> Seen:
    connection = ConnectionConfig(address, config.api_key_env, config.tls)
    try:
        with connect(connection, TIMEOUT_SECONDS) as client:
            status = client.status()
    except ServiceError as error:
        return Seen(address, None, failure_message(error, connection, "retrain.watch.servers"))
    except InputError as error:
        raise InputError(f"retrain.watch.{error}") from error
    failed = status.failed_reload
    if failed is None:
        return Seen(address, status.model_version, loading=status.loading_version)
    return Seen(address, status.model_version, failed.reason, failed.model_version, status.loading_version)


def reachable(seen: Sequence[Seen]) -> list[str]:
    """Return the addresses of the servers that answered."""
    return [one.address for one in seen if one.version is not None]
