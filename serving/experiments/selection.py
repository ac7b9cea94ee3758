"""The arms of one request: assigned, chosen by a tester, or those of the page before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from conf.errors import closest
from serving.core.errors import invalid
from serving.experiments.definitions import Arm, Experiment
from serving.model.host import ModelHost
from serving.transport.call_interceptor import ARMS_HEADER
from shelfwise_client.v1 import recommendations_pb2 as pb

_FORCED: Final = "!"
"""Marks an arm in a page token that a tester chose."""


@dataclass(frozen=True)
class Visit:
    """What the arms of a request depend on."""

    user: str = ""
    """Stored id; empty for an anonymous request."""
    session: str = ""
    """The shop's name for the visit; empty where it gives none."""
    surface: str = ""
    search: bool = False
    """Whether it is a search, for which defaults of lists do not apply."""
    forced: str = ""
    """Arms that a tester chose: the value of the call's metadata."""
    page: str | None = None
    """Arms of the page before; None for a first page."""


@dataclass(frozen=True)
class Membership:
    """A list's part in an experiment."""

    experiment: Experiment
    arm: Arm
    forced: bool = False
    """Whether a tester chose the arm."""

    @property
    def key(self) -> tuple[str, str]:
        """Names of experiment and arm."""
        return self.experiment.name, self.arm.name


@dataclass(frozen=True)
class Selection:
    """The arms of a request, in the order of the experiments' names."""

    memberships: tuple[Membership, ...] = ()

    @property
    def recorded(self) -> str:
        """The arms as attribution tokens have them: those that no tester chose."""
        return ";".join("=".join(m.key) for m in self.memberships if not m.forced)

    @property
    def continued(self) -> str:
        """The arms as page tokens have them; forced ones are marked by an exclamation mark."""
        return ";".join("=".join(m.key) + _FORCED * m.forced for m in self.memberships)


@dataclass(frozen=True)
class Route:
    """How one list is made."""

    host: ModelHost
    selection: Selection = field(default_factory=Selection)
    lists: pb.SurfaceDefaults = field(default_factory=pb.SurfaceDefaults)
    """Defaults of lists of the arms."""
    fallback: frozenset[str] = frozenset()
    """Experiments whose arm's model cannot be used."""
    own_model: bool = False
    """Whether the model is not the current one."""

    def messages(self) -> list[pb.ExperimentArm]:
        """Return the arms for a response."""
        return [
            pb.ExperimentArm(
                experiment=m.experiment.name,
                arm=m.arm.name,
                fallback=m.experiment.name in self.fallback,
                forced=m.forced,
            )
            for m in self.selection.memberships
        ]


def select(experiments: Sequence[Experiment], visit: Visit, now: float) -> Selection:
    """Return the arms of a request.

    Args:
        experiments: in force.
        visit: the request.
        now: Unix seconds.

    Raises:
        ApiError: arms that a tester chose and that cannot be.
    """
    forced = list(_forced(experiments, visit, now)) if visit.forced else []
    if not experiments:
        return Selection()
    here = [e for e in experiments if e.on(visit.surface) and (e.sets_model or not visit.search)]
    found = _of_page(here, visit.page, now) if visit.page is not None else _assigned(here, visit, now)
    chosen = [m for m in found if not any(_exclude(m.experiment, other.experiment) for other in forced)]
    chosen += [m for m in forced if m.experiment in here]
    return Selection(tuple(sorted(chosen, key=lambda m: m.experiment.name)))


def _assigned(experiments: Sequence[Experiment], visit: Visit, now: float) -> Iterator[Membership]:
    for experiment in experiments:
        unit = visit.session if experiment.by_session else visit.user
        if unit and experiment.runs(now) and visit.user not in experiment.excluded:
            arm = experiment.assign(unit)
            if arm is not None:
                yield Membership(experiment, arm)


def _of_page(experiments: Sequence[Experiment], page: str, now: float) -> Iterator[Membership]:
    """Yield the arms of a page token, as far as they are still there."""
    by_name = {experiment.name: experiment for experiment in experiments}
    for part in page.split(";"):
        name, _, arm_name = part.partition("=")
        experiment, forced = by_name.get(name), arm_name.endswith(_FORCED)
        if experiment is not None and (experiment.prepared(now) if forced else experiment.runs(now)):
            arm = experiment.arm(arm_name.removesuffix(_FORCED))
            if arm is not None:
                yield Membership(experiment, arm, forced)


def _forced(experiments: Sequence[Experiment], visit: Visit, now: float) -> Iterator[Membership]:
    """Yield the arms that a tester chose.

    Raises:
        ApiError: an unknown arm, one of an experiment that is over, or two arms that exclude each other.
    """
    by_name = {experiment.name: experiment for experiment in experiments}
    before: list[Experiment] = []
    for part in filter(None, (part.strip() for part in visit.forced.split(";"))):
        name, _, arm_name = part.partition("=")
        experiment = by_name.get(name)
        if experiment is None:
            message = f"no experiment '{name[:64]}'{closest(name[:64], by_name)}; write experiment=arm"
            raise invalid(ARMS_HEADER, message)
        arm = experiment.arm(arm_name)
        if arm is None:
            names = [arm.name for arm in experiment.arms]
            message = f"'{name}' has no arm '{arm_name[:64]}'{closest(arm_name[:64], names)}"
            raise invalid(ARMS_HEADER, f"{message}; arms: {', '.join(names)}")
        if not experiment.prepared(now):
            raise invalid(ARMS_HEADER, f"'{name}' is disabled or has ended")
        for other in before:
            if _exclude(experiment, other):
                raise invalid(ARMS_HEADER, f"'{name}' and '{other.name}' exclude each other")
        before.append(experiment)
        yield Membership(experiment, arm, forced=True)


def _exclude(one: Experiment, other: Experiment) -> bool:
    """Return whether no list can be part of both experiments, one of them by a tester's choice."""
    return one is other or bool(one.layer and one.layer == other.layer) or bool(one.fields & other.fields)
