"""A client of Milvus by the settings, with errors of one line and without the token in any of them."""

from __future__ import annotations

import logging
from typing import Any, Final

from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from ranking.milvus.error_kinds import token_refused

_RECONNECT_MS: Final = 1000
"""Longest pause between two attempts of a channel to reconnect; gRPC's own grows to two minutes."""


class MilvusError(InputError):
    """Milvus failed what it was asked for, or a collection is not as it must be."""


class UnreachableError(MilvusError):
    """Milvus cannot be reached."""


def open_client(config: RetrievalConfig) -> Any:  # noqa: ANN401 - pymilvus has no types
    """Return a client of its own connection.

    Raises:
        UnreachableError: there is no Milvus at the address, or it did not answer in time.
        InputError: the client is not installed, or the token is refused.

    """
    try:
        import grpc
        import pymilvus
    except ImportError as error:
        raise InputError("retrieval=milvus needs pymilvus: pip install 'shelfwise[milvus]'") from error
    for name in ("pymilvus", "pymilvus.milvus_client"):
        # Every failed call would be logged with a traceback; what matters is logged here once.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    more: dict[str, Any] = {} if config.ca is None else {"server_pem_path": config.ca}
    try:
        return pymilvus.MilvusClient(
            uri=config.uri,
            token=config.token(),
            db_name=config.database or "",
            timeout=config.connect_seconds,
            dedicated=True,
            grpc_options={"grpc.max_reconnect_backoff_ms": _RECONNECT_MS},
            **more,
        )
    except InputError:
        raise
    except (pymilvus.MilvusException, grpc.RpcError, OSError, ValueError) as error:
        if token_refused(error):
            raise InputError(
                f"Milvus at {config.address} refuses the token; set {config.token_env} or "
                "retrieval.token_file=FILE"
            ) from error
        raise UnreachableError(
            f"Milvus at {config.address} cannot be reached ({reason(error)}); start it, or set "
            "retrieval.uri=http://HOST:19530"
        ) from error


def reason(error: BaseException) -> str:
    """Return an error's text as part of a line."""
    cause = error.__cause__
    for one in (cause, error):
        details = getattr(one, "details", None)
        if callable(details) and details():
            return _line(str(details()))
    return _line(str(getattr(error, "message", "") or error)) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
