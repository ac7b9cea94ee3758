"""Experiments as the shop defines them, independent of the file's syntax and of what is served."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from serving.experiments.assignment import Ranges, arm_at, arm_ranges, position
from shelfwise_client.v1 import recommendations_pb2 as pb

CURRENT_MODEL: Final = "current"
"""Version of an arm: the model that CURRENT names."""
PREVIOUS_MODEL: Final = "previous"
"""Version of an arm: the newest one in the store that is older than the current one."""
MAX_LAYERS: Final = 8
"""Most experiments that a list may be part of, which bounds attribution tokens."""


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment."""

    name: str
    share: float
    version: str | None = None
    """A version of the store, `previous` or `current`; None where the experiment does not name one."""
    lists: pb.SurfaceDefaults = field(default_factory=pb.SurfaceDefaults)
    """Defaults of lists, which replace those of the surface field by field."""


@dataclass(frozen=True)
class Experiment:
    """A named experiment."""

    name: str
    arms: tuple[Arm, ...]
    salt: str
    by_session: bool = False
    """Whether sessions are assigned to arms, instead of users."""
    surfaces: frozenset[str] = frozenset()
    """Where it runs; empty: everywhere."""
    excluded: frozenset[str] = frozenset()
    """Users that are in no arm, by their stored ids."""
    excluded_file: Path | None = None
    """Where `excluded` was read from, if not from the file of experiments itself."""
    enabled: bool = True
    start: float | None = None
    """Unix seconds; None: no limit."""
    end: float | None = None
    """Unix seconds, exclusive; None: no limit."""
    layer: str = ""
    """Experiments of one layer exclude each other by their slices; empty: a layer of its own."""
    slice: tuple[float, float] = (0.0, 1.0)
    """The part of the layer's units that it has."""

    @cached_property
    def ranges(self) -> list[Ranges]:
        """Ranges of positions of each arm; see `assignment.arm_ranges`."""
        return arm_ranges([arm.share for arm in self.arms])

    @property
    def unit(self) -> str:
        """What is assigned to arms: `user` or `session`."""
        return "session" if self.by_session else "user"

    @property
    def sets_model(self) -> bool:
        """Whether the arms differ by their models, so that searches are part of the experiment."""
        return any(arm.version is not None for arm in self.arms)

    @property
    def fields(self) -> frozenset[str]:
        """What its arms set: `version`, and fields of list defaults."""
        set_fields = {name.name for arm in self.arms for name, _ in arm.lists.ListFields()}
        return frozenset(set_fields | ({"version"} if self.sets_model else set()))

    def arm(self, name: str) -> Arm | None:
        """Return the arm of a name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def prepared(self, now: float) -> bool:
        """Return whether the models of its arms have to be loaded: it runs, or will start."""
        return self.enabled and (self.end is None or now < self.end)

    def runs(self, now: float) -> bool:
        """Return whether it assigns units at a time, Unix seconds."""
        return self.prepared(now) and (self.start is None or now >= self.start)

    def on(self, surface: str) -> bool:
        """Return whether it runs on a surface."""
        return not self.surfaces or surface in self.surfaces

    def assign(self, unit: str) -> Arm | None:
        """Return the arm of a unit; None where it is in none."""
        if self.layer:
            begin, end = self.slice
            # No salt has a slash: the position in a layer is independent of that in any experiment.
            if not begin <= position(f"layer/{self.layer}", unit) < end:
                return None
        number = arm_at(self.ranges, position(self.salt, unit))
        return None if number is None else self.arms[number]


def apart(one: Experiment, other: Experiment) -> bool:
    """Return whether two experiments never run at the same time on the same surface."""
    if one.surfaces and other.surfaces and one.surfaces.isdisjoint(other.surfaces):
        return True
    ends = [(one.end, other.start), (other.end, one.start)]
    return any(end is not None and start is not None and end <= start for end, start in ends)


def exclusive(one: Experiment, other: Experiment) -> bool:
    """Return whether no list can be part of both experiments."""
    return apart(one, other) or bool(one.layer and one.layer == other.layer)
