"""Typed configuration of experiment-report."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.checks import at_least
from conf.errors import InputError, closest
from conf.serving import RedisConfig

METRICS = (
    "ctr", "clicks_per_unit", "carts_per_unit", "conversion", "purchases_per_unit", "value_per_unit",
    "list_purchases_per_unit", "list_value_per_unit",
)  # fmt: skip
"""Every metric of a report."""
DECISIONS = ("sequential", "fixed")
CORRECTIONS = ("holm", "bh")


@dataclass(frozen=True)
class EventKindsConfig:
    """Which recorded event kinds count as what; an event counts once, under the first group that has it."""

    purchase: list[str] = field(default_factory=lambda: ["purchase"])
    """Purchases."""
    cart: list[str] = field(default_factory=lambda: ["add_to_cart"])
    """Items put into a cart."""
    click: list[str] = field(default_factory=lambda: ["click", "view"])
    """Clicks; an item of a list counts once, however many of these events it has."""


@dataclass(frozen=True)
class ExperimentReportConfig:
    """Root of experiment-report: what the arms of an experiment did, and what follows from it."""

    artifacts: str = "work/artifacts"
    """The artifact store, for recorded events and for the prices of its bundles."""
    state: str | None = None
    """As in serve; null is `<artifacts>/state.sqlite`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    events: str | None = None
    """Events as `export events imported=true` writes them, instead of the state."""
    items: str | None = None
    """Table of `item_id` and `price`, instead of the catalogues of the store."""
    experiments: str | None = None
    """The file that `serve` has as `experiments`: shares, unit, start and end."""
    name: str | None = None
    """The experiment; null takes the only one that the events have."""
    control: str | None = None
    """The arm that others are compared with; null is `control`, or else the first of the file."""
    shares: dict[str, float] = field(default_factory=dict)
    """Planned share of each arm; `{}` takes those of the file. Without either the split is unchecked."""
    unit: str | None = None
    """`user` or `session`, what arms were drawn for; null is as in the file, or else `user`."""
    start: str | None = None
    """First time that counts (ISO, UTC without a zone); null is as in the experiments file."""
    end: str | None = None
    """Time from which nothing counts, and the fixed horizon; null is as in the experiments file."""
    primary: str = "ctr"
    """The metric that decides."""
    guards: list[str] = field(default_factory=lambda: ["conversion", "value_per_unit"])
    """Metrics that may not fall: a significant fall stops the experiment."""
    level: float = 0.95
    """Confidence level of the intervals."""
    decision: str = "sequential"
    """`sequential`: intervals that hold at every look; `fixed`: one look, at the horizon."""
    minimum_effect: float = 0.05
    """Smallest relative lift that is worth shipping; it sets the horizon, where intervals are tightest."""
    power: float = 0.8
    """Chance with which an effect of `minimum_effect` has to be found."""
    minimum_days: int = 7
    """Nothing is shipped on fewer days: weekdays differ."""
    minimum_units: int = 100
    """Fewest units per arm for any statement."""
    correction: str = "holm"
    """For the metrics other than `primary`: `holm` (any false finding) or `bh` (share of false findings)."""
    cuped_days: int = 28
    """Days before a unit's first exposure whose events reduce the variance (CUPED); 0 turns it off."""
    winsorise: float | None = None
    """Quantile of spending units, e.g. 0.99, at which a unit's value is cut off; null leaves values alone."""
    most_events_a_day: int = 1000
    """A unit with more events on one day is reported as an outlier."""
    exclude_outliers: bool = False
    """Whether such units are left out."""
    kinds: EventKindsConfig = field(default_factory=EventKindsConfig)
    output: str = "experiment-report"
    """Folder to write report.html and report.json to."""
    exit_code: bool = False
    """Whether the verdict is the exit code: 0 ship, 20 go on, 21 stop, 22 do not trust."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "cuped_days", "minimum_days")
        at_least(2, self, "", "minimum_units", "most_events_a_day")
        for name in (self.primary, *self.guards):
            if name not in METRICS:
                raise InputError(
                    f"no metric '{name}'{closest(name, METRICS)}; metrics are {', '.join(METRICS)}"
                )
        for key, value, known in (
            ("decision", self.decision, DECISIONS),
            ("correction", self.correction, CORRECTIONS),
            ("unit", self.unit or "user", ("user", "session")),
        ):
            if value not in known:
                raise InputError(f"{key}={value}: use {' or '.join(known)}")
        for key, share in (("level", self.level), ("power", self.power)):
            if not 0.5 <= share < 1:
                raise InputError(f"{key}={share}: must be at least 0.5 and below 1")
        if self.minimum_effect <= 0:
            raise InputError(f"minimum_effect={self.minimum_effect}: must be above 0, e.g. 0.05 for 5 %")
        if self.winsorise is not None and not 0.5 <= self.winsorise < 1:
            raise InputError(f"winsorise={self.winsorise}: must be at least 0.5 and below 1, e.g. 0.99")
