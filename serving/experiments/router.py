"""The arms of a request, and the model that answers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from conf.errors import InputError
from ranking.bundle.store import current_version
from serving.core.call_context import RECORD, annotate
from serving.core.errors import MODEL_RESTARTING, ApiError
from serving.core.list_defaults import overlaid
from serving.core.poller import Poller
from serving.core.turns import Turn
from serving.experiments.definitions import CURRENT_MODEL, PREVIOUS_MODEL, Arm, Experiment
from serving.experiments.followed import FollowedFile
from serving.experiments.models import ArmModels
from serving.experiments.reading import StoredId
from serving.experiments.selection import Route, Selection, Visit, select
from serving.experiments.versions import resolve_version
from serving.model.host import ModelHost
from serving.model.interfaces import LiveModel, Model
from serving.model.reload import Load
from serving.observability.metrics import Metrics
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

Result = TypeVar("Result")
_MODEL_SECONDS: Final = 0.5
"""Interval of checks of the arms' models."""
_NO_PREVIOUS: Final = "the store has no version before the current one"


class ArmRouter:
    """Chooses arms and models for requests; create and use it inside a running event loop."""

    def __init__(
        self,
        path: Path | None,
        store: Path,
        host: ModelHost,
        load: Load | None,
        new_host: Callable[[str], ModelHost],
        metrics: Metrics,
        stored_id: StoredId,
        model: Model,
        check_lists: Callable[[str, pb.SurfaceDefaults, Model], None],
        check_model: Callable[[LiveModel], Awaitable[None]],
        defaults: Callable[[], object],
        turn: Turn,
    ) -> None:
        """Read the file of experiments; `start` loads the models of arms.

        Args:
            path: the file; None for no experiments.
            store: the artifact store.
            host: of the current model.
            load: loads another version; None where models are never replaced.
            new_host: makes an empty host, given the name of its queue.
            metrics: of the server.
            stored_id: maps user ids to those of the state.
            model: the current model, until `start`.
            check_lists: raises InputError for defaults of lists that are invalid for a model; its first
                argument begins the message.
            check_model: raises InputError for a model that the server must not serve.
            defaults: returns an object that is replaced when `check_model` has to be repeated.
            turn: held while a version is loaded in the background.

        Raises:
            InputError: the file cannot be read, or is invalid.
        """
        self._path = path
        self._store = store
        self._host = host
        self._metrics = metrics
        self._check_lists = check_lists
        self._check_model = check_model
        self._defaults = defaults
        self._checked: tuple[object, ...] = ((), None, "", None)
        self._model: Callable[[], Model] = lambda: model
        self._previous: dict[str, str | None] = {}
        """The version before each version that was or becomes current."""
        self._next: str | None = None
        """The version that becomes current next, while that is prepared."""
        self._models = ArmModels(store, host, load, new_host, self._check, turn)
        self._file = FollowedFile(path, stored_id, self._check_experiments, self._changed)
        self._model_poller = Poller(self.update, _MODEL_SECONDS, "models of arms cannot be looked after")

    @property
    def hosts(self) -> list[ModelHost]:
        """The hosts of all models, the current one first."""
        return [self._host, *self._models.hosts]

    @property
    def failure(self) -> str:
        """Why the file's present content is not used; empty where it is."""
        return self._file.failure

    async def start(self) -> None:
        """Load the models of arms, then follow the file and the models; the current model must be served."""
        self._model = lambda: self._host.served.model
        await self.update(background=False)
        self._changed()
        self._file.start()
        self._model_poller.start()

    def reread(self) -> None:
        """Read the file of experiments at once instead of at the next poll."""
        self._file.poller.poll_now()

    async def stop(self) -> None:
        """Follow file and models no longer."""
        await self._file.poller.stop()
        await self._model_poller.stop()

    async def close(self) -> None:
        """Close the models of arms, after the calls that use them."""
        await self._models.close()

    def select(self, visit: Visit) -> Selection:
        """Return the arms of a request.

        Raises:
            ApiError: arms that a tester chose and that cannot be.
        """
        return select(self._file.experiments, visit, time.time())

    async def run(
        self, selection: Selection, make: Callable[[Route], Awaitable[Result]], stream: bool = False
    ) -> Result:
        """Make a list with the model of its arms; with the current one if that model's process has ended.

        Args:
            selection: the arms.
            make: makes the list; it may be called twice.
            stream: whether the call has lists of other arms, too, so that they are not annotated.

        Raises:
            QueueFullError: the list would wait too long.
        """
        record = RECORD.get()
        if selection.memberships and record is not None and not stream:
            record.arms = tuple(m.key for m in selection.memberships if not m.forced)
            annotate(experiments=selection.continued)
        with self._route(selection) as route:
            if route.own_model and not stream:  # lists of streams are not announced
                self._host.withdraw()
                route.host.admit(CALL.get().deadline)  # before the user's events are read
            try:
                result = await make(route)
            except ApiError as problem:
                if not route.own_model or problem.reason != MODEL_RESTARTING:
                    raise
                self._model_poller.poll_now()
            else:
                self._count(route)
                return result
        with self._route(selection, own_model=False) as route:
            result = await make(route)
            self._count(route)
            return result

    def check(self, model: Model) -> None:
        """Check the experiments against a model that becomes current.

        Raises:
            InputError: an arm sets defaults of lists that are invalid for it.
        """
        self._check_experiments(self._file.experiments, model)

    async def prepare_current(self, version: str) -> None:
        """Load what arms need once a version is current, before it is.

        The version that is current now may be an arm's, as `previous` or by its name: then its lists must not
        be made by the new one for as long as a process takes to load it.

        Raises:
            InputError: the version that is current now is an arm's, and cannot be loaded beside itself.
        """
        now = self._host.served.model.version
        self._next = version
        if not self._named():
            return
        await self.update()
        if now in self._wanted(version) and self._models.slot(now) is None:
            raise InputError(
                f"an arm of an experiment needs model {now} beside it: {self._models.failure(now)}"
            )

    async def update(self, background: bool = True) -> None:
        """Load and close models of arms as the experiments in force, and the current version, demand.

        Args:
            background: whether to load with idle CPU time only.
        """
        current = self._host.served.model.version
        wanted: set[str] = set()
        if self._named():
            wanted = await asyncio.to_thread(self._wanted, current)
            if self._next not in (None, current):
                if await asyncio.to_thread(self._pointed_at) == current:
                    self._next = None  # it was not served, and is not wanted any more
                else:
                    assert self._next is not None
                    wanted |= await asyncio.to_thread(self._wanted, self._next)
        checked = (self._file.experiments, self._defaults(), current, self._next)
        if any(new is not old for new, old in zip(checked, self._checked, strict=True)):
            self._checked = checked
            self._models.retry()
            await self._models.recheck()
        await self._models.update(wanted, background)
        self._report()

    def status(self) -> list[pb.ExperimentStatus]:
        """Return the experiments that run now."""
        now = time.time()
        return [
            pb.ExperimentStatus(
                experiment=experiment.name,
                unit=experiment.unit,
                arms=[
                    pb.ArmStatus(
                        arm=arm.name,
                        share=arm.share,
                        model_version=self._version(arm) or self._host.served.model.version,
                        failure=self._failure(arm),
                    )
                    for arm in experiment.arms
                ],
            )
            for experiment in self._file.experiments
            if experiment.runs(now)
        ]

    @contextmanager
    def _route(self, selection: Selection, own_model: bool = True) -> Iterator[Route]:
        """Yield how a list of some arms is made; the model is not closed meanwhile.

        Args:
            selection: the arms.
            own_model: whether other models than the current one may be used.
        """
        lists, fallback, slot = pb.SurfaceDefaults(), set(), None
        for membership in selection.memberships:
            version = self._version(membership.arm)
            if version is not None:
                found = self._models.slot(version) if own_model else None
                if found is None:
                    fallback.add(membership.experiment.name)
                    continue
                slot = found
            lists = overlaid(lists, membership.arm.lists)
        if slot is None:
            yield Route(self._host, selection, lists, frozenset(fallback))
            return
        with slot.used() as host:
            yield Route(host, selection, lists, frozenset(fallback), own_model=True)

    def _version(self, arm: Arm, current: str | None = None) -> str | None:
        """Return the version of an arm, empty where there is none; None for the current model.

        Args:
            arm: the arm.
            current: the version that is or becomes current; None: the one that is.
        """
        current = current or self._model().version
        if arm.version == PREVIOUS_MODEL:
            return self._previous.get(current) or ""
        named = arm.version is not None and arm.version not in (CURRENT_MODEL, current)
        return arm.version if named else None

    def _failure(self, arm: Arm) -> str:
        version = self._version(arm)
        if version is None:
            return ""
        return self._models.failure(version) if version else _NO_PREVIOUS

    def _named(self) -> bool:
        """Return whether any arm needs a model of its own."""
        now = time.time()
        return any(e.sets_model and e.prepared(now) for e in self._file.experiments)

    def _wanted(self, current: str) -> set[str]:
        """Return the versions that arms need while a version is current; reads the store."""
        self._previous[current] = resolve_version(self._store, PREVIOUS_MODEL, current)
        now = time.time()
        names = {a.version for e in self._file.experiments if e.prepared(now) for a in e.arms if a.version}
        found = {resolve_version(self._store, name, current) for name in names}
        return {version for version in found if version is not None and version != current}

    def _pointed_at(self) -> str:
        try:
            return current_version(self._store)
        except InputError:
            return ""

    async def _check(self, live: LiveModel) -> None:
        """Check a loaded model of arms, with the arms that it gets once the next version is current, too."""
        await self._check_model(live)
        version = live.current.version
        for experiment in self._file.experiments:
            for arm in experiment.arms:
                versions = (self._version(arm), self._version(arm, self._next))
                if experiment.enabled and version in versions:
                    self._check_lists(self._place(experiment, arm), arm.lists, live.current)

    def _check_experiments(self, experiments: Sequence[Experiment], model: Model | None = None) -> None:
        """Check the defaults of lists of arms that have no model of their own."""
        model = model or self._model()
        for experiment in experiments:
            for arm in experiment.arms:
                if experiment.enabled and arm.version in (None, CURRENT_MODEL, model.version):
                    self._check_lists(self._place(experiment, arm), arm.lists, model)

    def _place(self, experiment: Experiment, arm: Arm) -> str:
        return f"{self._path}: {experiment.name}.arms.{arm.name}.lists"

    def _changed(self) -> None:
        """Follow a change of the file."""
        self._metrics.experiments_failed.set(1 if self._file.failure else 0)
        self._metrics.keep_arms({(e.name, arm.name) for e in self._file.experiments for arm in e.arms})
        self._report()
        self._model_poller.poll_now()

    def _report(self) -> None:
        """Report which arms lack the model that they need; those of an experiment that is over need none."""
        now = time.time()
        for experiment in self._file.experiments:
            for arm in experiment.arms:
                works = 0 if experiment.prepared(now) and self._failure(arm) else 1
                self._metrics.arm_works.labels(experiment.name, arm.name).set(works)

    def _count(self, route: Route) -> None:
        """Count a list."""
        for membership in route.selection.memberships:
            if not membership.forced:
                self._metrics.arm_list(*membership.key, membership.experiment.name in route.fallback)
