"""The port that a server listens on."""

from __future__ import annotations

import grpc

from conf.errors import InputError
from conf.serving import ServeConfig
from serving.transport.tls import server_credentials


def bind(server: grpc.aio.Server, config: ServeConfig) -> int:
    """Bind the port of a server, encrypted if the settings say so; return its number.

    Raises:
        InputError: the port is taken, or the host is not one of this machine.
    """
    host = f"[{config.host}]" if ":" in config.host else config.host
    taken = InputError(
        f"cannot listen on {host}:{config.port}: the port is taken or the host is not one of this machine; "
        "set port=0 for a free one, or host"
    )
    credentials = server_credentials(config.tls)
    try:
        address = f"{host}:{config.port}"
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise taken from error
    if port == 0:
        raise taken
    return port
