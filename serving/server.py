"""The server process: load, bind, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.host_memory import bytes_needed, check_memory, room
from ranking.bundle.store import VERSIONS, current_version, verify
from serving.core.event_loop import run_event_loop
from serving.core.interpreter import tune_interpreter
from serving.core.threads import list_threads
from serving.model.interfaces import LiveModel
from serving.model.process.client import RemoteModel
from serving.model.process.worker import LoadRequest
from serving.observability.logs import start_logging
from serving.running import FirstModel, Load, start
from serving.state.contracts.user_state import StateUnavailableError

_CURRENT: Final = "CURRENT"


def serve(config: ServeConfig, console: Console) -> None:
    """Serve the current model of an artifact store until SIGTERM or SIGINT.

    Raises:
        InputError: no published model, a damaged one, an unusable state file, or a port that is taken.
    """
    start_logging(config.log_format, config.log_requests)
    store = Path(config.artifacts)
    try:
        published = (store / _CURRENT).is_file()
    except OSError as error:
        raise InputError(f"{store}: cannot be read ({error.strerror})") from error
    if not published:
        raise InputError(
            f"{store}: no {_CURRENT} here, so no model to serve; run `shelfwise run` (or `publish`) first, "
            "or set artifacts=FOLDER"
        )
    with console.status("loading the model"):
        threads = list_threads(config.list_threads, config.workers)

        def load(version: str, background: bool, manifest: dict[str, Any] | None = None) -> LiveModel:
            if config.memory_check:
                # The first version comes with its manifest; after it the libraries are in memory.
                _check_memory(store, version, background, libraries=manifest is not None)
            return RemoteModel(
                LoadRequest(
                    str(store), version, manifest, config.max_live_items, config.threads, threads, background,
                    config.device, config.model_timeout_seconds, config.log_format, config.log_requests,
                )
            )  # fmt: skip

        first = current_version(store)
        # Verified here, so that a damaged bundle is reported before any process is started.
        loaded = [load(first, False, verify(store / VERSIONS / first))]
        gc.freeze()  # modules and the first model's items
    serve_model(config, loaded.pop, console, load)


def _check_memory(store: Path, version: str, beside: bool, libraries: bool) -> None:
    """Raise InputError for a version that does not fit into memory, beside the served one or alone."""
    advice = (
        "the former model goes on; a restart changes over with one model at a time, or give more memory"
        if beside
        else "give more memory, or serve fewer workers or a smaller model"
    )
    what = f"model {version}{' beside the one that serves' * beside}"
    check_memory(bytes_needed(store / VERSIONS / version, libraries), what, room(), advice)


def serve_model(config: ServeConfig, first: FirstModel, console: Console, load: Load | None = None) -> None:
    """Serve a loaded model until SIGTERM or SIGINT; see `serve` and `start`."""
    start_logging(config.log_format, config.log_requests)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    tune_interpreter()
    run_event_loop(_serve_until_signal(config, first, console, load))


async def _serve_until_signal(
    config: ServeConfig, first: FirstModel, console: Console, load: Load | None
) -> None:
    try:
        running = await start(config, first, console, load)
    except StateUnavailableError as error:
        raise InputError(f"{error}; make room or restore a backup, or set state to another file") from error
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, running.reread)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    line = f"listening on {config.host}:{running.port} model {running.version}"
    console.print(line, soft_wrap=True, markup=False, highlight=False)
    await stop.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)  # a second signal ends the process at once
    await running.stop(config.drain_seconds)
