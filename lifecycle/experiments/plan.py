"""What a report is about: the experiment, its arms and shares, its units and its time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from conf.errors import InputError, closest
from conf.experiment_report import ExperimentReportConfig

_FIRST_US: Final = -(2**62)
_LAST_US: Final = 2**62


@dataclass(frozen=True)
class Declared:
    """What an experiments file says of an experiment."""

    shares: Mapping[str, float]
    """Of each arm, in the file's order."""
    unit: str = "user"
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Plan:
    """An experiment as it is analysed."""

    name: str
    control: str
    arms: list[str]
    """All arms but control."""
    shares: Mapping[str, float]
    """Of the arms, where they are known; empty where they are not."""
    unit: str = "user"
    start_us: int = _FIRST_US
    end_us: int = _LAST_US
    ends: bool = False
    """Whether an end was set."""

    @property
    def every(self) -> list[str]:
        """Return all arms, control first."""
        return [self.control, *self.arms]

    def compared(self, seen: Collection[str]) -> Plan:
        """Return the plan without the arms that had lists at other times only.

        Args:
            seen: arms that have units between start and end.

        Raises:
            InputError: no arm is left to compare with control.
        """
        arms = [arm for arm in self.arms if arm in self.shares or arm in seen]
        if not arms:
            raise InputError(
                f"name={self.name}: between start and end all events are of lists of '{self.control}', so "
                "there is nothing to compare; check that the tokens of other arms' lists come back"
            )
        return replace(self, arms=arms)


def plan_of(
    config: ExperimentReportConfig, found: Mapping[str, Collection[str]], declared: Mapping[str, Declared]
) -> Plan:
    """Return the plan.

    Args:
        config: the settings, which come before the file.
        found: arms of each experiment that the events have.
        declared: experiments of the file; empty without one.

    Raises:
        InputError: no experiment, several, or an unknown name of an experiment or arm; a wrong time.
    """
    name = _name(config.name, found, declared)
    said = declared.get(name, Declared({}))
    shares = {arm: float(share) for arm, share in (config.shares or said.shares).items()}
    if any(share < 0 for share in shares.values()) or (shares and sum(shares.values()) == 0):
        raise InputError(
            f"shares={shares}: a share is 0 or more, and one is above 0, e.g. shares={{a: 0.5, b: 0.5}}"
        )
    used = [arm for arm, share in shares.items() if share > 0]
    arms = list(dict.fromkeys((*used, *sorted(found.get(name, ())))))
    control = config.control
    if control is None:
        control = "control" if "control" in arms else next(iter(used), None)
        if control is None:
            raise InputError(
                f"control: which arm of '{name}' is compared with? It has {', '.join(arms)}; "
                f"add control={arms[0]}"
            )
    elif control not in arms:
        raise InputError(
            f"control={control}: '{name}' has no such arm{closest(control, arms)}; it has {', '.join(arms)}"
        )
    start = _moment("start", config.start) or said.start
    end = _moment("end", config.end) or said.end
    if start and end and start >= end:
        raise InputError(f"start={start.isoformat()} is not before end={end.isoformat()}")
    return Plan(
        name, control, [arm for arm in arms if arm != control],
        {arm: share for arm, share in shares.items() if share > 0}, config.unit or said.unit,
        _FIRST_US if start is None else _micros(start), _LAST_US if end is None else _micros(end),
        end is not None,
    )  # fmt: skip


def _name(name: str | None, found: Mapping[str, Collection[str]], declared: Mapping[str, Declared]) -> str:
    known = sorted({*found, *declared})
    if name is not None:
        if name not in known:
            have = f"there are {', '.join(known)}" if known else "the events have no experiment"
            raise InputError(f"name={name}: no such experiment{closest(name, known)}; {have}")
        if name not in found:
            raise InputError(
                f"name={name}: no recorded event came from a list of this experiment; "
                "send the attribution token of a list with the impressions and clicks that it leads to"
            )
        return name
    if not found:
        raise InputError(
            "no recorded event came from a list of an experiment; serve with experiments=FILE, and send the "
            "attribution token of a list with the impressions and clicks that it leads to"
        )
    if len(found) > 1:
        raise InputError(
            f"name: which experiment? The events have {', '.join(sorted(found))}; add name={min(found)}"
        )
    return next(iter(found))


def _moment(key: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{key}={text}: not a time; write it as 2024-05-31 or 2024-05-31T12:00:00+02:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
