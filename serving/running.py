"""A running server: bind, import histories, warm up, report SERVING; drain and release when it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from conf.errors import InputError
from conf.serving import ReloadWithoutRoom, ServeConfig
from features.files.audit_log import AuditLog
from features.files.modes import mend
from features.ingest.privacy import Pseudonyms, make_pseudonyms
from serving.api.service import QUEUED, SERVICE_NAME, RecommendationService
from serving.api.surfaces import Surfaces, check_defaults
from serving.core.poller import Poller
from serving.core.turns import Turn
from serving.experiments.router import ArmRouter
from serving.model.engine_health import EngineHealth
from serving.model.host import ModelHost
from serving.model.interfaces import LiveModel, Model
from serving.model.reload import BundleWatcher, FailedReload, Load, StopFirst
from serving.model.served import Served
from serving.observability.health import HEALTH_NAMES, LIST_HEALTH_NAMES, RELOAD_HEALTH, STATE_HEALTH, Health
from serving.observability.http import HttpPort, HttpServer, serve_http
from serving.observability.metrics import Metrics
from serving.observability.tracing import Tracing, make_tracing
from serving.state.contracts.user_state import StateUnavailableError, UserState
from serving.state.erasure import HistoriesCleaner
from serving.state.health import StateHealth
from serving.stores import Stores, open_stores
from serving.transport import channel_options
from serving.transport.api_keys import KeyRing
from serving.transport.audit import CallAudit
from serving.transport.auth import AuthInterceptor
from serving.transport.call_interceptor import CallInterceptor
from serving.transport.port import bind
from serving.transport.reflection import enable_reflection
from serving.workers import worker_number
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

_LOG = logging.getLogger(__name__)
HISTORIES_FILE: Final = "histories.parquet"
"""Training histories in the artifact store, imported into user state once per content."""
FirstModel = Callable[[], LiveModel]
"""Returns the first model, which the caller then owns."""
_PROCESS_POLL_SECONDS: Final = 2.0
"""Interval of checks whether the model's process still runs, where CURRENT is not followed."""
_HARD_LIMIT: Final = 4
"""Calls beyond this multiple of `limits.max_concurrent` are refused by gRPC itself, without details."""
_CLEAN_SECONDS: Final = 60.0
"""Interval of checks for users deleted through other servers, who may be in this one's histories file."""
_FOREVER: Final = 1e6
_MIN_DRAIN_SECONDS: Final = 0.05
"""Shortest drain time: gRPC needs it to stop accepting calls."""
_SETTLE_SECONDS: Final = 0.2
"""How long no call must have run before a draining server ends."""
_FLUSH_SECONDS: Final = 0.5
"""Time to flush the last responses after all calls have finished."""


@dataclass(frozen=True)
class RunningServer:
    """A running server; call `stop` in the event loop that started it."""

    port: int
    service: RecommendationService
    metrics: Metrics
    _server: grpc.aio.Server
    _health: Health
    _calls: CallInterceptor
    _host: ModelHost
    _router: ArmRouter
    _pollers: tuple[Poller, ...]
    _stores: Stores
    _http: HttpServer | None
    _tracing: Tracing | None
    _audit: AuditLog | None

    @property
    def version(self) -> str:
        """Version of the served model."""
        return self._host.served.model.version

    def reread(self) -> None:
        """Read all watched files at once instead of at their next poll, a version that failed included."""
        if self.service.watcher is not None:
            self.service.watcher.retry_now()
        for poller in self._pollers:
            poller.poll_now()
        self._router.reread()
        _LOG.warning(
            "files are read again: CURRENT, surfaces, experiments, keys; certificates are at every "
            "connection. Settings are read at a start only"
        )

    async def _settled(self) -> None:
        """Wait until no call has run for a moment: clients call until they learn of the drain."""
        while True:
            await self._calls.wait_idle()
            await asyncio.sleep(_SETTLE_SECONDS)
            if self._calls.idle:
                return

    async def stop(self, drain_seconds: float) -> None:
        """Report NOT_SERVING, drain running calls, and release all resources.

        Args:
            drain_seconds: drain time, after which running calls are cancelled.
        """
        for poller in self._pollers:
            await poller.stop()
        await self._router.stop()
        await self._health.drain()
        self.service.end_streams()
        # One stop at a time: of two, the first to end frees what the other still uses, which is a crash.
        draining = asyncio.create_task(self._server.stop(_FOREVER))
        idle = asyncio.create_task(self._settled())
        longest = max(drain_seconds, _MIN_DRAIN_SECONDS)
        await asyncio.wait({draining, idle}, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, draining):
            task.cancel()
        await asyncio.gather(idle, draining, return_exceptions=True)
        # Health watch streams never end by themselves; they must not use up the drain time.
        await self._server.stop(min(drain_seconds, _FLUSH_SECONDS))
        await self.service.close()
        await self._router.close()
        await self._host.close()
        await self._stores.close()
        await self._health.poller.stop()
        if self._http is not None:
            await asyncio.to_thread(self._http.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._audit is not None:
            self._audit.close()


async def start(
    config: ServeConfig,
    first: FirstModel,
    console: Console,
    load: Load | None = None,
    stop_first: StopFirst | None = None,
) -> RunningServer:
    """Bind the port, import histories, warm up the model, and report SERVING.

    Args:
        config: the settings.
        first: called once for the first model, which is closed if the server cannot start.
        console: for messages to the operator.
        load: loads another version when CURRENT changes; None keeps the first model.
        stop_first: see `BundleWatcher`; used if the settings say so.

    Raises:
        InputError: the port is taken, or state or histories cannot be used.
    """
    model = first()
    try:
        return await _start(config, model, console, load, stop_first)
    except BaseException:
        model.close()
        raise


async def _start(
    config: ServeConfig,
    model: LiveModel,
    console: Console,
    load: Load | None,
    stop_first: StopFirst | None,
) -> RunningServer:
    """Start with a model; see `start`."""
    _check_privacy(config, model.current)
    pseudonyms = make_pseudonyms(config.privacy)
    worker = worker_number()
    metrics, tracing = Metrics(), make_tracing(config.tracing, SERVICE_NAME)
    health = Health()
    state_health = StateHealth(partial(_report_state_health, health, metrics))
    audit = None if config.audit is None else AuditLog(config.audit)
    call_audit = None if audit is None else CallAudit(audit)
    calls = CallInterceptor(
        SERVICE_NAME, config.limits, metrics, state_health.call_failed, tracing, call_audit
    )
    server = grpc.aio.server(
        interceptors=[_auth_interceptor(config, console, metrics), calls],
        maximum_concurrent_rpcs=_HARD_LIMIT * config.limits.max_concurrent,
        options=[
            # Without workers a second server on the port is a mistake, not load balancing.
            ("grpc.so_reuseport", 0 if worker is None else 1),
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            *channel_options.OPTIONS.items(),
        ],
    )
    # A worker must not get connections before it is warm: others could serve them.
    port = bind(server, config) if worker is None else 0
    store = Path(config.artifacts)
    stores = await open_stores(config.state, store, config.redis)
    state, changes = stores.users, stores.items
    if stores.warning:
        console.print(stores.warning, soft_wrap=True, markup=False, highlight=False)
    try:
        path = None if config.surfaces is None else Path(config.surfaces)
        surfaces = Surfaces(path, model.current, await changes.declared())
        await asyncio.to_thread(mend, store / HISTORIES_FILE)
        host = ModelHost(changes, state, config, metrics)
        turn = Turn.of_worker()
        router = _router(config, host, stores, surfaces, model.current, load, metrics, pseudonyms, turn)
        cleaner = HistoriesCleaner(state, store / HISTORIES_FILE, _CLEAN_SECONDS)
        await cleaner.clean()
        await _import_histories(state, store / HISTORIES_FILE, console)
        derived = await asyncio.to_thread(Served.of, model.current)
        http = None
        if config.metrics.port:
            app, number = HttpPort(metrics.registry, health), worker or 0
            shared = worker is not None
            http = serve_http(app, config.metrics.host, config.metrics.port + number, shared)
    except StateUnavailableError as error:
        await stores.close()
        raise InputError(f"state: {error}") from error
    except BaseException:
        await stores.close()
        raise
    watcher = None
    if load is not None:
        watcher = _bundle_watcher(
            config, host, stores, surfaces, router, cleaner, health, console, load, stop_first, metrics, turn
        )
    service = RecommendationService(
        host, state, changes, config, store / HISTORIES_FILE, surfaces, router, watcher, pseudonyms
    )
    calls.queue(QUEUED, host.announce)
    pb_grpc.add_RecommendationServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    await health.set(False, *HEALTH_NAMES)
    if config.reflection:
        enable_reflection((SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server)
    if worker is None:
        await server.start()
    health.poller.start()
    engine_health = EngineHealth(lambda: host.engine, health)
    pollers = [cleaner.poller, state_health.poller, surfaces.poller, engine_health.poller]
    if watcher is not None:
        pollers.insert(0, watcher.poller)
    running = RunningServer(
        port, service, metrics, server, health, calls, host, router, tuple(pollers), stores, http,
        tracing, audit,
    )  # fmt: skip
    try:
        await host.load(model, derived)
        await router.start()
        if worker is not None:
            running = replace(running, port=bind(server, config))
            await server.start()
    except BaseException:
        await running.stop(0.0)
        raise
    await health.set(True, *HEALTH_NAMES)
    state_health.start(state)
    engine_health.poller.start()
    surfaces.start(lambda: host.served.model)
    cleaner.poller.start()
    if watcher is not None:
        watcher.poller.start()
    return running


async def _report_state_health(health: Health, metrics: Metrics, works: bool) -> None:
    metrics.state_works.set(works)
    await health.set(works, STATE_HEALTH)


def _bundle_watcher(
    config: ServeConfig,
    host: ModelHost,
    stores: Stores,
    surfaces: Surfaces,
    router: ArmRouter,
    cleaner: HistoriesCleaner,
    health: Health,
    console: Console,
    load: Load,
    stop_first: StopFirst | None,
    metrics: Metrics,
    turn: Turn,
) -> BundleWatcher:
    """Return a watcher that reports reloads to health, metrics and the operator."""
    store = Path(config.artifacts)

    async def prepare(model: LiveModel) -> None:
        _check_privacy(config, model.current)
        surfaces.check(model.current, await stores.items.declared())
        router.check(model.current)
        await router.prepare_current(model.current.version)
        if (store / HISTORIES_FILE).is_file():
            await cleaner.clean(another_file=True)
            await stores.users.import_histories(store / HISTORIES_FILE)

    async def changed(failed: FailedReload | None) -> None:
        metrics.reload_failed.set(0 if failed is None else 1)
        if failed is not None:
            metrics.reload_failures.inc()
        await health.set(failed is None, RELOAD_HEALTH)
        await health.set(host.works, *LIST_HEALTH_NAMES)
        if failed is None:
            console.print(
                f"serving model {host.served.model.version}", soft_wrap=True, markup=False, highlight=False
            )

    async def down(crashed: bool) -> None:
        metrics.model_deaths.inc(crashed)
        await health.set(False, *LIST_HEALTH_NAMES)

    follow = config.reload_seconds > 0
    seconds = config.reload_seconds if follow else _PROCESS_POLL_SECONDS
    if config.reload_without_room is not ReloadWithoutRoom.stop_first:
        stop_first = None
    return BundleWatcher(store, host, load, stop_first, prepare, changed, down, seconds, follow, turn)


def _router(
    config: ServeConfig,
    host: ModelHost,
    stores: Stores,
    surfaces: Surfaces,
    model: Model,
    load: Load | None,
    metrics: Metrics,
    pseudonyms: Pseudonyms | None,
    turn: Turn,
) -> ArmRouter:
    """Return what chooses the arms of experiments and their models.

    Raises:
        InputError: the file of experiments cannot be used.
    """

    async def check_model(live: LiveModel) -> None:
        _check_privacy(config, live.current)
        surfaces.check(live.current, await stores.items.declared())

    return ArmRouter(
        None if config.experiments is None else Path(config.experiments),
        Path(config.artifacts),
        host,
        load,
        lambda name: ModelHost(stores.items, stores.users, config, metrics, name),
        metrics,
        lambda user: pseudonyms.of(user) if pseudonyms else user,
        model,
        lambda where, lists, model: check_defaults(where, lists, model, {}),
        check_model,
        lambda: surfaces.defaults,
        turn,
    )


def _check_privacy(config: ServeConfig, model: Model) -> None:
    """Raise InputError for a model whose user ids are not hashed as this server hashes them."""
    hashed = model.manifest.get("hash_users")
    if hashed is not None and bool(hashed) != config.privacy.hash_users:
        raise InputError(
            f"model {model.version} was made with privacy.hash_users={str(bool(hashed)).lower()}; "
            f"serve it with the same setting, or its users will not be found"
        )


def _auth_interceptor(config: ServeConfig, console: Console, metrics: Metrics) -> AuthInterceptor:
    """Return the interceptor that checks API keys; warn about unauthenticated access from other machines."""
    keys = KeyRing(Path(config.keys)) if config.keys else None
    admin = keys is not None if config.admin is None else config.admin
    local = config.host in ("localhost", "::1") or config.host.startswith("127.")
    if not local and keys is None and config.tls.client_ca is None:
        console.print(
            f"warning: everybody who reaches {config.host} can use this server; set keys or tls.client_ca",
            soft_wrap=True,
            highlight=False,
        )
    return AuthInterceptor(keys, admin, lambda reason: metrics.refused.labels(reason).inc())


async def _import_histories(state: UserState, path: Path, console: Console) -> None:
    if await asyncio.to_thread(path.is_file):
        with console.status(f"reading {path.name} into user state (once)"):
            result = await state.import_histories(path)
        if not result.already_imported:
            console.print(f"user state: {result.new:,} new events from {path.name}", highlight=False)
