"""`shelfwise explore`: checks what it is given, listens, and serves the pages until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import secrets
import signal
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rich.console import Console

from conf.clients import ConnectionConfig
from conf.errors import InputError
from conf.explorer import ExploreConfig

if TYPE_CHECKING:
    from explorer.context import ExplorerContext
    from explorer.security import Access

_LIBRARIES: Final = ("starlette", "uvicorn")
SERVER_SECONDS: Final = 5.0
"""Longest wait for the answer of a server when the explorer starts."""


def explore(config: ExploreConfig, console: Console) -> None:
    """Serve the pages.

    Raises:
        InputError: a library is missing, no bundle, no server at the address, or an address that is taken.

    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the explorer needs {missing[0]}: pip install 'shelfwise[explorer]'")
    context = make_context(config)
    if config.connection is not None:
        check_server(config.connection)
    access, made = make_access(config)
    with listening(config.host, config.port) as listener:
        port = int(listener.getsockname()[1])
        address = f"http://{shown_host(config.host)}:{port}/"
        print_address(config, address, access, made, console)
        if config.open:
            key = f"?key={quote(access.key)}" if access.key else ""
            webbrowser.open(address + key)
        _run(context, access, listener)


def make_context(config: ExploreConfig) -> ExplorerContext:
    """Return what the views use; the bundle itself is loaded later.

    Raises:
        InputError: the store has no published bundle, or there is no evaluation where one was named.

    """
    from explorer.context import ExplorerContext
    from explorer.loading import store_loader
    from ranking.bundle.store import current_version

    if config.store is None:
        return ExplorerContext(server=config.connection, write=config.write, privacy=config.privacy)
    store = Path(config.store).resolve()
    current_version(Path(config.store))
    evaluation = store.parent / "evaluation"
    if config.evaluation is not None:
        evaluation = Path(config.evaluation)
        if not evaluation.is_dir():
            raise InputError(f"evaluation: no such folder: {config.evaluation}")
    loader = store_loader(store, config.device, config.threads)
    return ExplorerContext(store, evaluation, config.connection, loader, config.write, config.privacy)


def check_server(connection: ConnectionConfig) -> None:
    """Ask a server for its state once.

    Raises:
        InputError: none answers, or it refuses.

    """
    from serving.cli.connection import connect, failure_message
    from shelfwise_client import ServiceError

    try:
        with connect(connection, SERVER_SECONDS) as client:
            client.status()
    except ServiceError as error:
        raise InputError(failure_message(error, connection, "server")) from error


def make_access(config: ExploreConfig) -> tuple[Access, bool]:
    """Return who may read the pages, and whether the key was made just now."""
    from explorer.security import Access, is_loopback

    local = is_loopback(config.host)
    key = os.environ.get(config.key_env, "")
    made = not key and not local
    return Access(
        key=secrets.token_urlsafe(24) if made else key, local=local, hosts=tuple(config.hosts)
    ), made


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the port is taken, or the address is not one of this machine.

    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host: '{host}' is not an address of this machine ({error.strerror})") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise InputError(f"port {port} needs rights that you lack; set port=0 for a free one") from error
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} at {host} is taken; set port=0 for a free one") from error
        raise InputError(f"host: '{host}' is not an address of this machine ({error.strerror})") from error
    return listener


def shown_host(host: str) -> str:
    """Return the host of an address that a browser can open."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def print_address(config: ExploreConfig, address: str, access: Access, made: bool, console: Console) -> None:
    """Print where the pages are, and what to do with them."""
    shown = f"{address}?key={access.key}" if made else address
    console.print(f"exploring at {shown}", markup=False, highlight=False, soft_wrap=True)
    if made:
        console.print(
            f"the key is in the address; set {config.key_env} for one that stays",
            markup=False,
            highlight=False,
        )
    elif access.key:
        console.print(f"readers need the key in {config.key_env}", markup=False, highlight=False)
    console.print("Ctrl-C ends it", markup=False, highlight=False)


def _run(context: ExplorerContext, access: Access, listener: socket.socket) -> None:
    import uvicorn

    from explorer.app import create_app

    settings = uvicorn.Config(
        create_app(context, access),
        log_config=None,
        access_log=False,  # addresses hold ids of shoppers
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once it has shut down
    if context.loader is not None:
        context.loader.start()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run([listener])
