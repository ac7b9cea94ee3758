"""Typed configuration of what keeps a served model good without a person: retrain."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from conf.checks import at_least, require
from conf.clients import ClientTlsConfig
from conf.comparison import read_guards
from conf.drift import ChecksConfig
from conf.schema import PipelineConfig, Refit, SplitKind
from conf.serving import RedisConfig


class Learns(Enum):
    """What the model that retrain publishes has learnt from."""

    before_window = "before_window"
    """The events before the measured window: the published model is the measured one."""
    everything = "everything"
    """All events: once the gate is passed, the models are trained once more with the window."""


def _guards(metrics: tuple[str, ...], loss: str) -> list[dict[str, str]]:
    return [{"metric": metric, "loss": loss} for metric in metrics]


@dataclass(frozen=True)
class WatchConfig:
    """Observation of the servers after a publication, and the limits that end it by a rollback."""

    seconds: float = 0.0
    """How long the servers are watched after a publication; 0 ends the run with it."""
    interval_seconds: float = 10.0
    """Time between two looks."""
    take_seconds: float = 180.0
    """Time within which every server has to serve the new version, and after a rollback the earlier one."""
    servers: list[str] = field(default_factory=list)
    """`host:port` of the servers, asked by GetStatus for the version that they serve."""
    metrics: list[str] = field(default_factory=list)
    """Addresses of the servers' metrics, e.g. `http://shop1:9464/metrics`."""
    api_key_env: str = "SHELFWISE_API_KEY"
    """Environment variable with the API key for GetStatus; where it is empty, none is sent."""
    tls: ClientTlsConfig = field(default_factory=ClientTlsConfig)
    min_calls: int = 200
    """Fewest calls in a period from which errors, latency and degradation are judged."""
    max_error_ratio: float = 0.01
    """Largest share of calls that end with a server's fault (INTERNAL, UNKNOWN, UNAVAILABLE, DATA_LOSS,
    DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED); where the share was larger before the publication, that one."""
    max_p99_ratio: float = 2.0
    """Largest 99th percentile of the time of a call, as a multiple of the one before the publication."""
    max_degraded: float = 0.1
    """Largest growth of the share of lists that are made without what is usual (`degradation`)."""
    min_impressions: int = 2000
    """Fewest reported impressions of each version from which the click-through rate is judged."""
    max_click_loss: float = 0.1
    """Largest relative loss of the click-through rate against the version before."""
    confidence: float = 0.95
    """One-sided confidence with which a loss of clicks above the limit breaks the guard."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "retrain.watch.", "seconds", "max_error_ratio", "max_degraded", "max_click_loss")
        at_least(1, self, "retrain.watch.", "max_p99_ratio", "min_calls", "min_impressions")
        for name in ("interval_seconds", "take_seconds"):
            require(getattr(self, name) > 0, f"retrain.watch.{name} must be positive")
        require(0.5 <= self.confidence < 1, "retrain.watch.confidence must lie in 0.5..1, 1 excluded")
        require(
            self.seconds > 0 or not (self.servers or self.metrics),
            "retrain.watch.servers and retrain.watch.metrics need retrain.watch.seconds=SECONDS",
        )
        for address in self.metrics:
            require(
                address.startswith(("http://", "https://")),
                f"retrain.watch.metrics: '{address}' must begin with http:// or https://",
            )


@dataclass(frozen=True)
class LoopConfig:
    """What a night is measured on, what it must hold, and what is kept of it."""

    min_new_events: int = 100
    """Fewest events since those that the served model was made with; with fewer the run ends with exit
    code 11."""
    window_days: float = 7.0
    """Length of the newest window, on which the new and the served model are measured; shorter where the
    served model has learnt from a part of it."""
    gate: Any = field(default_factory=lambda: _guards(("ndcg@10", "recall@10"), "5%"))
    """Guards that the new model must hold against the served one: a list or a YAML file, as in
    `publish.gate`; null is none."""
    floor: Any = field(default_factory=lambda: _guards(("ndcg@10",), "0"))
    """Guards that it must hold against the most popular items, so that a bad model does not pass because the
    served one is bad, too; null is none."""
    refit: Learns = Learns.before_window
    """`before_window` publishes the measured model; `everything` trains it once more with the window, after
    the gate, and publishes that."""
    cold_every: int = 7
    """One training in so many, whether published or not, begins with the pretrained text encoder instead of
    the weights of the served model; 1: every one does."""
    resume_hours: float = 12.0
    """An interrupted run is resumed within this time; later a new one begins."""
    keep_versions: int = 5
    """Versions that stay in the store; the current one and the one before it always do."""
    experiments: str | None = None
    """File of experiments of the servers, whose versions stay, too; null: there are none."""
    keep_runs: int = 3
    """Run folders that stay; the one that published the served version always does."""
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        """Check ranges, and guards that are written out; files are read when they are needed."""
        at_least(0, self, "retrain.", "min_new_events", "resume_hours")
        at_least(1, self, "retrain.", "cold_every", "keep_runs")
        at_least(2, self, "retrain.", "keep_versions")
        require(self.window_days > 0, "retrain.window_days must be positive")
        for name in ("gate", "floor"):
            if not isinstance(getattr(self, name), str):
                read_guards(getattr(self, name), f"retrain.{name}")


@dataclass(frozen=True)
class RetrainConfig(PipelineConfig):
    """Root of retrain: the settings of run, and these."""

    artifacts: str | None = None
    """The artifact store that servers load from; null is `<work_dir>/artifacts`."""
    state: str | None = None
    """As in serve: where the servers record events; null is `<artifacts>/state.sqlite`, if it is there."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    retrain: LoopConfig = field(default_factory=LoopConfig)
    checks: ChecksConfig = field(default_factory=ChecksConfig)
    dry_run: bool = False
    """Whether to end after the checks of the data: nothing is trained, published or kept."""

    def __post_init__(self) -> None:
        """Check the settings of a run, and those that a night decides itself."""
        super().__post_init__()
        require(
            self.split.kind is SplitKind.global_time,
            "retrain measures on the newest days, which split=leave_one_out does not hold back: "
            "set split=global_time; a shop without times of events cannot be retrained by itself",
        )
        require(
            self.split.test_start is None and self.split.valid_start is None,
            "split.test_start and split.valid_start: retrain sets them each night; "
            "set retrain.window_days instead",
        )
        require(
            self.publish.gate is None,
            "publish.gate: retrain has guards of its own; set retrain.gate instead",
        )
        require(
            self.refit is not Refit.everything,
            "refit=everything leaves nothing to measure on; set retrain.refit=everything instead, which "
            "trains on all events after the gate",
        )
        require(
            self.data.recorded is None,
            "data.recorded: retrain reads the recorded events itself, from state; leave it out",
        )
        require(self.evaluation.test, "evaluation.test=false leaves nothing to measure on; leave it out")
