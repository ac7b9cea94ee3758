"""Typed configuration: one frozen dataclass per concern, range-checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final

from conf.checks import at_least, check_device, require
from conf.encoders import TextEncoderConfig, UserEncoderConfig
from conf.tables import Adapter as Adapter
from conf.tables import DataConfig as DataConfig
from conf.tables import FilterConfig as FilterConfig


class SplitKind(Enum):
    """Which evaluation protocol divides the events."""

    leave_one_out = "leave_one_out"
    global_time = "global_time"


class Refit(Enum):
    """What the published models learn from beyond what they were chosen on."""

    never = "never"
    """Nothing: what validation has measured is what is published."""
    before_test = "before_test"
    """global_time: the validation window too. leave_one_out: nothing, as in published tables."""
    everything = "everything"
    """All events; test then measures nothing."""


LIST_DEPTH = 100
"""Length of the lists that evaluation asks for."""


@dataclass(frozen=True)
class PrivacyConfig:
    """Pseudonymisation of user ids."""

    hash_users: bool = False
    """Replace user ids by a keyed hash (HMAC-SHA256) before anything is written."""
    key_env: str = "SHELFWISE_USER_KEY"
    """Environment variable holding the key."""


@dataclass(frozen=True)
class SplitConfig:
    """The evaluation protocol."""

    kind: SplitKind = SplitKind.global_time
    test_fraction: float = 0.1
    """global_time: the last share of events (by time) is the test window."""
    valid_fraction: float = 0.1
    """global_time: the share before it is the validation window."""
    ranker_fraction: float = 0.2
    """global_time: the share before that trains the ranking head, unseen by the towers."""
    ranker_lists: int = 10_000
    """leave_one_out: lists that the ranking head shall learn from. Where users are fewer, each holds out
    several events for it, a tenth of what it trains on at most."""
    test_start: str | None = None
    """global_time: ISO date or time that overrides `test_fraction`."""
    valid_start: str | None = None
    """global_time: ISO date or time that overrides `valid_fraction`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        parts = (self.test_fraction, self.valid_fraction, self.ranker_fraction)
        require(all(0.0 < p < 1.0 for p in parts), "split fractions must lie between 0 and 1")
        require(
            sum(parts) < 0.9, "split fractions leave too little to train on (their sum must be below 0.9)"
        )
        at_least(1, self, "split.", "ranker_lists")


@dataclass(frozen=True)
class IndexConfig:
    """The index over item vectors; on a GPU it is the vectors, unless a factory is given."""

    factory: str | None = None
    """`index_factory` string; null is Flat for small catalogues and IVF with coarse vectors for others."""
    nprobe: int = 0
    """Lists that an inverted file looks into; 0 takes as many as hold 4 million numbers."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "index.", "nprobe")


_QUOTA: Final = {"quota": True}
"""Marks a setting as the quota of a candidate source."""


@dataclass(frozen=True)
class CandidateConfig:
    """How many candidates each source may bring."""

    user_vector: int = field(default=200, metadata=_QUOTA)
    item_to_item: int = field(default=100, metadata=_QUOTA)
    text_neighbours: int = field(default=50, metadata=_QUOTA)
    repeat: int = field(default=100, metadata=_QUOTA)
    popular: int = field(default=100, metadata=_QUOTA)
    co_purchase: int = field(default=100, metadata=_QUOTA)
    new_items: int = field(default=20, metadata=_QUOTA)
    """Places kept for items without any event."""
    recent_items: int = 20
    """Most recent distinct items of a history that item-to-item and text neighbours start from."""
    neighbours: int = 50
    """Neighbours kept per item."""
    window: int = 10
    """Events between which two items of a history count as near each other."""

    def __post_init__(self) -> None:
        """Check ranges."""
        quotas = [self.quota(name) for name in quota_names()]
        require(all(q >= 0 for q in quotas), "candidate quotas must be 0 or more")
        require(sum(quotas) > 0, "at least one candidate source needs a quota")
        at_least(1, self, "candidates.", "recent_items", "neighbours", "window")

    def quota(self, name: str) -> int:
        """Return the quota of that name, one of `quota_names`."""
        return int(getattr(self, name))


def quota_names() -> list[str]:
    """Names of the settings that are quotas of candidate sources."""
    return [setting.name for setting in fields(CandidateConfig) if setting.metadata.get("quota")]


@dataclass(frozen=True)
class FactorConfig:
    """Co-purchase factors (implicit ALS), a source of candidates and a feature of the ranking head."""

    dim: int = 256
    """Factors per item; 0 leaves them out."""
    confidence: float = 40.0
    """Weight of an observed event against an absent one."""
    regularisation: float = 0.1
    iterations: int = 15

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "factors.", "dim")
        at_least(1, self, "factors.", "iterations", "confidence")
        require(self.regularisation > 0, "factors.regularisation must be positive")


@dataclass(frozen=True)
class RankerConfig:
    """The ranking head."""

    enabled: bool = True
    hidden: list[int] = field(default_factory=lambda: [64, 32])
    dropout: float = 0.1
    epochs: int = 30
    patience: int = 4
    batch_size: int = 32
    """Queries per step."""
    max_rows: int = 4_000_000
    """Candidates of all training lists together: each list keeps what was chosen and then as many others,
    drawn, as there is room for. 0 keeps all."""
    cuts: int = 4
    """global_time: moments in the ranker's window at which each user is asked: more lists to learn from."""
    max_queries: int = 25000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    average: float = 1.0
    """Epochs that the running average of the weights reaches back; it is validated and kept. 0 is off."""
    pointwise_weight: float = 0.3
    """Weight of the calibrated click/purchase log loss beside the listwise loss."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "ranker.", "epochs", "batch_size", "max_queries")
        at_least(0, self, "ranker.", "patience", "max_rows", "weight_decay", "pointwise_weight", "average")
        require(all(units >= 1 for units in self.hidden), "ranker.hidden must list layers of 1 unit or more")
        require(0 <= self.dropout < 1, "ranker.dropout must lie in 0..1")
        require(self.learning_rate > 0, "ranker.learning_rate must be positive")


@dataclass(frozen=True)
class RerankConfig:
    """Defaults of the last step; every one can be set per request."""

    diversity: float = 0.0
    """MMR trade-off: 0 keeps the ranker's order, 1 only avoids likeness."""
    novelty: float = 0.003
    """Share of the expected choices among the first ten that may be given up to show items without any event;
    0 leaves these where the ranking head puts them."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.diversity <= 1, "rerank.diversity must lie in 0..1")
        require(0 <= self.novelty <= 1, "rerank.novelty must lie in 0..1")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured and how."""

    exclude_seen: bool | None = None
    """Whether a user's own past items are left out; null decides by how often validation repeats them."""
    ks: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50, 100])
    target_events: list[str] = field(default_factory=list)
    """Event kinds that count as relevant; empty: every kind with a weight above 0."""
    baselines: list[str] = field(
        default_factory=lambda: ["popularity", "recent_popularity", "own_repeats", "item_knn", "frozen_text"]
    )
    test: bool = True
    """False measures on validation alone, and `run` publishes nothing: what sweeps and ablations do. Only
    `refit=everything` publishes nevertheless."""
    bootstrap: int = 1000
    max_users: int = 0
    """Evaluate a seeded sample of this many queries; 0 takes all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(len(self.ks) > 0, "evaluation.ks needs a list length")
        for k in self.ks:
            require(1 <= k <= LIST_DEPTH, f"evaluation.ks: {k} is outside 1..{LIST_DEPTH}")
        at_least(1, self, "evaluation.", "bootstrap")
        at_least(0, self, "evaluation.", "max_users")


@dataclass(frozen=True)
class PipelineConfig:
    """Root of prepare, train-encoder, train-ranker, refit, publish, evaluate and run."""

    work_dir: str = "work"
    seed: int = 0
    threads: int = 0
    """CPU threads of torch and FAISS; 0 takes every core."""
    device: str = "auto"
    """Where the arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU where there is one."""
    devices: int = 1
    """GPUs (on a CPU, processes) that train the text encoder and the towers together, sharing every batch; 0
    takes every GPU."""
    reuse: list[str] = field(default_factory=list)
    """Work directories, or patterns of them, whose steps are taken over where made from the same inputs."""
    data: DataConfig = field(default_factory=DataConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    refit: Refit = Refit.before_test
    """Which held-back events the published models learn from once validation has decided."""
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    user_encoder: UserEncoderConfig = field(default_factory=UserEncoderConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    factors: FactorConfig = field(default_factory=FactorConfig)
    ranker: RankerConfig = field(default_factory=RankerConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "seed", "threads", "devices")
        check_device(self.device)
        require(
            self.devices == 1 or ":" not in self.device,
            f"devices={self.devices}: device={self.device} names a single GPU; set device=cuda or devices=1",
        )
        require(
            self.refit is not Refit.everything or not self.evaluation.test,
            "refit=everything learns from the test window, which can then measure nothing: "
            "set evaluation.test=false",
        )
