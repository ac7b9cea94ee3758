"""Conversion of overrides in Hydra's sweep syntax to Optuna's search space."""

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
    """The varied and the fixed settings of a sweep."""

    searched: dict[str, BaseDistribution]
    """Config key -> its distribution; categorical values are in the syntax of the command line."""
    fixed: list[str]
    """Overrides of all trials, as typed by the user."""


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return `hydra.sweeper.params` with dotted keys, whether they were dotted or nested."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": str(value)}
    return flat


def whole_numbers(
    searched: Mapping[str, BaseDistribution], values: Mapping[str, Any]
) -> dict[str, BaseDistribution]:
    """Use integer distributions for integer settings: Hydra parses the ends of intervals as floats."""
    return {
        key: IntDistribution(math.ceil(found.low), math.floor(found.high), log=found.log)
        if type(values[key]) is int and isinstance(found, FloatDistribution) and found.step is None
        else found
        for key, found in searched.items()
    }


def _distribution(override: Override) -> BaseDistribution:
    """Return the distribution of a sweep; `range(start, stop, step)` excludes stop, as in Python."""
    sweep = override.value()
    kind: type[IntDistribution] | type[FloatDistribution]
    if isinstance(sweep, IntervalSweep):
        kind = IntDistribution if isinstance(sweep.start, int) else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)  # type: ignore[arg-type]
    if isinstance(sweep, RangeSweep):  # `shuffle` is ignored: the sampler has its own order
        values = sorted(sweep.range())
        if not values:
            raise ValueError("the range is empty")
        kind = IntDistribution if all(isinstance(value, int) for value in values) else FloatDistribution
        return kind(values[0], values[-1], step=abs(sweep.step))  # type: ignore[arg-type]
    return CategoricalDistribution([str(choice) for choice in override.sweep_string_iterator()])


def read_space(arguments: Sequence[str]) -> Space:
    """Separate overrides into ranges and fixed values; the last one of a key wins.

    `interval(a, b)` is continuous, `int(interval(a, b))` of whole numbers; `tag(log, interval(a, b))`
    searches magnitudes; `range(a, b, step)`, `choice(a, b)` and `a,b` are what Hydra's own sweeps know.

    Raises:
        InputError: an override that cannot be parsed, or an empty range.

    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(arguments))
    except OverrideParseException as error:
        raise InputError(f"cannot read {error.override}: {str(error).splitlines()[0]}") from error
    last = {override.get_key_element(): override for override in overrides}
    searched: dict[str, BaseDistribution] = {}
    for key, override in last.items():
        if override.is_sweep_override():
            try:
                searched[key] = _distribution(override)
            except ValueError as error:
                raise InputError(f"{override.input_line}: {error}") from error
    return Space(searched, [str(o.input_line) for key, o in last.items() if key not in searched])


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Return a trial's values as overrides."""
    return [f"{key}={value}" for key, value in params.items()]


def _parsed(text: object) -> object:
    value = OverridesParser.create().parse_override(f"key={text}").value()
    return value.text if isinstance(value, QuotedString) else value


def as_params(searched: Mapping[str, BaseDistribution], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the point of the space for some settings, or None if they are outside.

    Args:
        searched: the ranges.
        values: config key -> value, as plain types or enums.
    """
    point: dict[str, Any] = {}
    for key, distribution in searched.items():
        value = values[key].name if isinstance(values[key], Enum) else values[key]
        if isinstance(distribution, CategoricalDistribution):
            found = [choice for choice in distribution.choices if _parsed(choice) == value]
        else:
            number = type(value) in (int, float)
            found = [value] if number and distribution._contains(value) else []
        if not found:
            return None
        point[key] = found[0]
    return point
