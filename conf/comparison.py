"""Typed configuration of publish and compare: a map of the items, what is compared, and guards.

A guard says how much worse than another system a system may be, by metric and slice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from conf.checks import at_least, check_device, require
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
    known = {own.name: own for own in fields(Guard)}
    for key in entry:
        require(key in known, f"{place}: unknown key '{key}'{closest(str(key), known)}")
    for name, own in known.items():
        require(name in entry or own.default is not MISSING, f"{place}: {name} is missing, e.g. {EXAMPLE}")
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


@dataclass(frozen=True)
class PublishConfig:
    """What a bundle holds for people who look at it, and the condition of its publication."""

    map: bool = True
    """Whether a bundle holds a two-dimensional map of its items, which the explorer shows; needs the extra
    `map`. Seconds for ten thousand items, minutes for a million."""
    gate: Any = None
    """Guards that a new bundle must hold against the current one, on the test window, before it becomes
    current: a list (`'publish.gate=[{metric: ndcg@10, loss: 2%}]'`) or a YAML file with one. Null publishes
    without a comparison."""

    def __post_init__(self) -> None:
        """Check guards that are written out; a file is read when it is needed."""
        if not isinstance(self.gate, str):
            read_guards(self.gate, "publish.gate")


@dataclass(frozen=True)
class CompareConfig:
    """Root of compare, which measures two systems on the same queries."""

    systems: list[str] = field(default_factory=list)
    """The two systems, the present one first; named without a key on the command line. Each is a store, a
    version of it (`STORE@VERSION`), the folder of a version, a work directory, or a file of predictions."""
    work_dir: str | None = None
    """Work directory with the dataset and the protocol; null is the one that the second system belongs to, or
    the first."""
    output: str = "comparison"
    """Folder of compare.json and compare.html."""
    guards: Any = None
    """Largest losses: a list such as `'guards=[{metric: ndcg@10, loss: 2%}]'`, or a YAML file with one. A
    broken guard ends the command with exit code 3."""
    metrics: list[str] = field(
        default_factory=lambda: ["recall@10", "ndcg@10", "hit@10", "mrr", "map@10", "recall@100"]
    )
    """Metrics of the table; their p-values are corrected together."""
    leakage: bool = False
    """Whether to compare even where a bundle has learned from the measured window."""
    shoppers: int = 20
    """Users shown whose lists differ most."""
    max_users: int = 0
    """Queries of a seeded sample; 0 takes those of the protocol."""
    bootstrap: int = 1000
    """Bootstrap samples behind each confidence interval."""
    seed: int = 0
    """Seed of the bootstrap, the permutations and the sample."""
    threads: int = 0
    """CPU threads of torch and FAISS; 0 takes every core."""
    device: str = "auto"
    """Where the arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU where there is one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "bootstrap")
        at_least(0, self, "", "shoppers", "max_users", "seed", "threads")
        require(len(self.metrics) > 0, "metrics must name at least one metric")
        check_device(self.device)
        if not isinstance(self.guards, str):
            read_guards(self.guards, "guards")
