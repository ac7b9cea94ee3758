"""Overrides in Hydra's sweep syntax become the space that Optuna searches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import OverrideParseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from conf.errors import InputError


@dataclass(frozen=True)
class Space:
    """What a sweep varies and what it leaves alone."""

    searched: dict[str, BaseDistribution]
    """Config key -> its range; values of a categorical one are written as on the command line."""
    fixed: list[str]
    """Overrides that every trial gets, as the user wrote them."""


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return `hydra.sweeper.params` with dotted keys, whether they were written dotted or nested."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _interval(sweep: IntervalSweep) -> BaseDistribution:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):  # written int(interval(a, b))
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def whole_numbers(
    searched: Mapping[str, BaseDistribution], values: Mapping[str, Any]
) -> dict[str, BaseDistribution]:
    """Search whole numbers where a setting is one: Hydra reads the ends of every interval as fractions."""
    typed = dict(searched)
    for key, distribution in searched.items():
        value = values[key]
        counts = isinstance(value, int) and not isinstance(value, bool)
        if counts and isinstance(distribution, FloatDistribution) and distribution.step is None:
            low, high = math.ceil(distribution.low), math.floor(distribution.high)
            typed[key] = IntDistribution(low, high, log=distribution.log)
    return typed


def _range(override: Override) -> BaseDistribution:
    """Return the values of `range(start, stop, step)`; as in Python, stop is not one of them."""
    sweep = override.value()
    assert isinstance(sweep, RangeSweep)
    values = sorted(sweep.range())
    if not values:
        raise ValueError("the range is empty")
    step = abs(sweep.step)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(values[0]), int(values[-1]), step=int(step))
    return FloatDistribution(float(values[0]), float(values[-1]), step=float(step))


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        return _interval(sweep)
    if isinstance(sweep, RangeSweep):  # shuffled or not: the study has an order of its own
        return _range(override)
    return CategoricalDistribution([str(choice) for choice in override.sweep_string_iterator()])


def read_space(arguments: Sequence[str]) -> Space:
    """Divide overrides into ranges and fixed values; of two with the same key the last one counts.

    `interval(a, b)` is continuous, `int(interval(a, b))` of whole numbers; `tag(log, interval(a, b))`
    searches magnitudes; `range(a, b, step)`, `choice(a, b)` and `a,b` are what Hydra's own sweeps know.

    Raises:
        InputError: an override that cannot be read, or an empty range.

    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except OverrideParseException as error:
        raise InputError(f"cannot read {error.override}: {str(error).splitlines()[0]}") from error
    searched: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        searched.pop(key, None)
        fixed.pop(key, None)
        if not override.is_sweep_override():
            fixed[key] = str(override.input_line)
            continue
        try:
            searched[key] = _distribution(override)
        except ValueError as error:
            raise InputError(f"{override.input_line}: {error}") from error
    return Space(searched, list(fixed.values()))


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Write a trial's values as overrides."""
    return [f"{key}={value}" for key, value in params.items()]


def _parsed(text: str) -> object:
    value = OverridesParser.create().parse_override(f"key={text}").value()
    return value.text if isinstance(value, QuotedString) else value


def as_params(searched: Mapping[str, BaseDistribution], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the point of the space that stands for settings, or None where they lie outside.

    Args:
        searched: the ranges.
        values: config key -> value, as plain types or enums.
    """
    point: dict[str, Any] = {}
    for key, distribution in searched.items():
        value = values[key]
        value = value.name if isinstance(value, Enum) else value
        if isinstance(distribution, CategoricalDistribution):
            same = [choice for choice in distribution.choices if _parsed(str(choice)) == value]
            if not same:
                return None
            point[key] = same[0]
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        value = int(value) if isinstance(distribution, IntDistribution) else float(value)
        if not distribution._contains(value):
            return None
        point[key] = value
    return point
