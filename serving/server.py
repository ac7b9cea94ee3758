"""The server process: load, bind, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path
from typing import Final

from rich.console import Console

from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.store import current_version
from serving.core.event_loop import run_event_loop
from serving.core.interpreter import tune_interpreter
from serving.model.process.loader import Loader
from serving.model.reload import Load, StopFirst
from serving.observability.logs import start_logging
from serving.running import FirstModel, start
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
    load = Loader(config)
    with console.status("loading the model"):
        loaded = [load.first(current_version(store))]
        gc.freeze()  # modules and the first model's items
    serve_model(config, loaded.pop, console, load, load.stop_first)


def serve_model(
    config: ServeConfig,
    first: FirstModel,
    console: Console,
    load: Load | None = None,
    stop_first: StopFirst | None = None,
) -> None:
    """Serve a loaded model until SIGTERM or SIGINT; see `serve` and `start`."""
    start_logging(config.log_format, config.log_requests)
    tune_interpreter()
    run_event_loop(_serve_until_signal(config, first, console, load, stop_first))


async def _serve_until_signal(
    config: ServeConfig,
    first: FirstModel,
    console: Console,
    load: Load | None,
    stop_first: StopFirst | None,
) -> None:
    try:
        running = await start(config, first, console, load, stop_first)
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
