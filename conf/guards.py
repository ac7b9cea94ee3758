"""Guards: how much worse than another system a system may be, by metric and slice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from conf.checks import require
from conf.errors import InputError, closest

EVERYONE = "all"
"""The slice of all queries."""
EXAMPLE = "{metric: ndcg@10, loss: 2%}"
_LOSS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)")


class Undecided(Enum):
    """What follows where there are too few queries to tell whether a loss is within the limit."""

    accept = "accept"
    reject = "reject"


@dataclass(frozen=True)
class Guard:
    """The largest loss of one metric, on all queries or on a slice of them."""

    metric: str
    """Name of a metric, e.g. `ndcg@10`."""
    loss: str
    """Largest loss: in units of the metric (`0.002`), or as a share of the other system's value (`2%`)."""
    slice: str = EVERYONE
    """Name of a slice, as in metrics.json; `all` for every query."""
    confidence: float = 0.95
    """One-sided confidence with which a loss above the limit breaks the guard, and one below it holds it."""
    undecided: str = Undecided.accept.value
    """`accept` or `reject`: what counts where the data decide neither."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            _LOSS.fullmatch(self.loss) is not None,
            f"loss: {self.loss} must be a number, or a share such as 2%",
        )
        require(0 <= self.relative < 1, f"loss: {self.loss} must be below 100%")
        require(0.5 <= self.confidence < 1, f"confidence: {self.confidence:g} must lie in 0.5..1, 1 excluded")
        known = [choice.value for choice in Undecided]
        require(self.undecided in known, f"undecided: '{self.undecided}' must be {' or '.join(known)}")

    @property
    def relative(self) -> float:
        """Largest loss as a share of the other system's value; 0 where it is absolute."""
        return self._size / 100 if self.loss.endswith("%") else 0.0

    @property
    def absolute(self) -> float:
        """Largest loss in units of the metric; 0 where it is relative."""
        return 0.0 if self.loss.endswith("%") else self._size

    @property
    def _size(self) -> float:
        return float(self.loss.rstrip("% "))

    def __str__(self) -> str:
        """Return the guard as read in messages."""
        where = "" if self.slice == EVERYONE else f" on {self.slice}"
        return f"{self.metric}{where} loses at most {self.loss}"


def _guard(entry: object, place: str) -> Guard:
    if not isinstance(entry, Mapping):
        raise InputError(f"{place}: expected a mapping such as {EXAMPLE}, not '{entry}'")
    known = {field.name: field for field in fields(Guard)}
    for key in entry:
        require(key in known, f"{place}: unknown key '{key}'{closest(str(key), known)}")
    for name, field in known.items():
        require(name in entry or field.default is not MISSING, f"{place}: {name} is missing, e.g. {EXAMPLE}")
    values: dict[str, Any] = {
        key: value if key == "confidence" else str(value) for key, value in entry.items()
    }
    if "confidence" in values and not isinstance(values["confidence"], int | float):
        raise InputError(f"{place}: confidence: '{values['confidence']}' is not a number")
    try:
        return Guard(**values)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def read_guards(value: object, setting: str) -> tuple[Guard, ...]:
    """Return the guards of a setting.

    Args:
        value: a list of guards, the path of a YAML file that holds one, or None for none.
        setting: its name in messages, e.g. `publish.gate`.

    Raises:
        InputError: no such file, or a guard that cannot be read, naming its place.
    """
    if value is None:
        return ()
    place = setting
    if isinstance(value, str):
        path = Path(value).expanduser()
        if not path.is_file():
            raise InputError(
                f"{setting}: no such file: {value}; name a YAML file with a list of guards, or write them: "
                f"'{setting}=[{EXAMPLE}]'"
            )
        place = f"{setting} ({value})"
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{place}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, list) or not value:
        raise InputError(f"{place}: expected a list of guards, e.g. '{setting}=[{EXAMPLE}]'")
    return tuple(_guard(entry, f"{place}, guard {number}") for number, entry in enumerate(value, 1))
