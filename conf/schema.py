"""Typed configuration: one frozen dataclass per concern, range-checked when it is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import Final

from conf.checks import at_least, check_device, require
from conf.comparison import PublishConfig as PublishConfig
from conf.encoders import TextEncoderConfig, UserEncoderConfig
from conf.engines.milvus import RetrievalConfig
from conf.tables import Adapter as Adapter
from conf.tables import DataConfig as DataConfig
from conf.tables import Engine as Engine
from conf.tables import FilterConfig as FilterConfig
from conf.tables import SparkConfig as SparkConfig
from conf.tracking import TrackerConfig as TrackerConfig
from conf.warm import WarmConfig


class SplitKind(Enum):
    """Which evaluation protocol divides the events."""

    leave_one_out = "leave_one_out"
    global_time = "global_time"


class Refit(Enum):
    """Held-out events that published models are trained on after model selection."""

    never = "never"
    """None: the validated models are published."""
    before_test = "before_test"
    """global_time: the validation window too. leave_one_out: nothing, as in published tables."""
    everything = "everything"
    """All events; there is no test then."""


NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
"""Names of systems, which are folders, too."""
LIST_DEPTH = 100
"""Length of the lists in evaluation."""


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
    """The protocol: `global_time` cuts all events at two times, `leave_one_out` holds out each user's last
    events."""
    test_fraction: float = 0.1
    """global_time: the last share of events (by time) is the test window."""
    valid_fraction: float = 0.1
    """global_time: the share before it is the validation window."""
    ranker_fraction: float = 0.2
    """global_time: the share before that trains the ranking head, unseen by the towers."""
    ranker_lists: int = 10_000
    """leave_one_out: training lists of the ranking head. With fewer users, each holds out several events for
    it, at most a tenth of its training events."""
    test_start: str | None = None
    """global_time: ISO date or time at which the test window begins, instead of `test_fraction`; UTC without
    an offset."""
    valid_start: str | None = None
    """global_time: ISO date or time at which the validation window begins, instead of `valid_fraction`."""

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
    """A FAISS `index_factory` string. Null is exact search for catalogues of up to 10 million numbers (78,000
    items of width 128) and an inverted file above, which scans vectors of 2 bits a number and re-orders the
    best by the vectors themselves. On a GPU null is exact search of the whole catalogue by torch, filters
    inside, as far as memory goes (6 bytes a number); with a factory FAISS searches there without filters, and
    on the CPU with them, unless its build proves to obey them."""
    nprobe: int = 0
    """Lists of an inverted file that a search scans; 0 takes as many as hold 4 million numbers (31,000 items
    of width 128). Filters that allow less than a quarter of the items make it up to eight times as many."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "index.", "nprobe")


_QUOTA: Final = {"quota": True}
"""Marks a setting as the quota of a candidate source."""


@dataclass(frozen=True)
class CandidateConfig:
    """Quotas of the candidate sources."""

    user_vector: int = field(default=200, metadata=_QUOTA)
    """Candidates nearest to the user vector. A source with 0 is off."""
    item_to_item: int = field(default=100, metadata=_QUOTA)
    """Candidates found near the recent items in other histories."""
    text_neighbours: int = field(default=50, metadata=_QUOTA)
    """Candidates whose texts are nearest to those of the recent items."""
    repeat: int = field(default=100, metadata=_QUOTA)
    """Candidates among the user's own items; none when seen items are excluded."""
    popular: int = field(default=100, metadata=_QUOTA)
    """Recently popular candidates; also the list of unknown visitors."""
    co_purchase: int = field(default=100, metadata=_QUOTA)
    """Candidates nearest to the user's co-purchase factors: what people with similar histories bought."""
    new_items: int = field(default=20, metadata=_QUOTA)
    """Candidates without any event, those that fit the history best; half of them are items added since the
    bundle was made."""
    recent_items: int = 20
    """Most recent distinct items of a history that item-to-item and text neighbours start from."""
    neighbours: int = 50
    """Neighbours stored per item."""
    window: int = 10
    """Events between which two items of a history count as near each other."""
    max_events: int = 10_000_000
    """Events that neighbours are counted from at most, which bounds memory: up to `window` pairs of items for
    each. Of a larger shop they are those of users drawn with the seed; 0 takes all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        quotas = [self.quota(name) for name in quota_names()]
        require(all(q >= 0 for q in quotas), "candidate quotas must be 0 or more")
        require(sum(quotas) > 0, "at least one candidate source needs a quota")
        at_least(1, self, "candidates.", "recent_items", "neighbours", "window")
        at_least(0, self, "candidates.", "max_events")

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
    """Co-purchase factors per item; 0 leaves them out."""
    confidence: float = 40.0
    """Weight of an observed event against an absent one."""
    regularisation: float = 0.1
    """L2 weight."""
    iterations: int = 15
    """Iterations of alternating least squares."""
    max_events: int = 20_000_000
    """Events that the factors are learned from at most, which bounds memory and time. Of a larger shop they
    are those of users drawn with the seed, of whom there are at most an eighth as many; 0 takes all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "factors.", "dim", "max_events")
        at_least(1, self, "factors.", "iterations", "confidence")
        require(self.regularisation > 0, "factors.regularisation must be positive")


@dataclass(frozen=True)
class RankerConfig:
    """The ranking head."""

    enabled: bool = True
    """Whether there is a ranking head; false keeps the fused order of the sources."""
    hidden: list[int] = field(default_factory=lambda: [64, 32])
    """Widths of the hidden layers."""
    dropout: float = 0.1
    """Dropout between the layers."""
    epochs: int = 30
    """Most epochs."""
    patience: int = 4
    """Epochs without improvement before training stops."""
    batch_size: int = 32
    """Queries per step."""
    max_rows: int = 4_000_000
    """Candidates of all training lists together: each list has the chosen items and a sample of the others. 0
    keeps all."""
    cuts: int = 4
    """global_time: moments in the ranker's window at which each user has a training list. More moments are
    more lists; a refit has at most twice as many, leave_one_out one."""
    max_queries: int = 25000
    """Most training queries, drawn with the seed."""
    learning_rate: float = 2e-3
    """Learning rate of AdamW."""
    weight_decay: float = 1e-5
    """Weight decay of AdamW."""
    average: float = 1.0
    """Time constant, in epochs, of the running average of weights, which is published; 0 is off."""
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
    """Trade-off of maximal marginal relevance: 0 keeps the ranking head's order, 1 only avoids similarity.
    The default of requests that set none."""
    novelty: float = 0.003
    """Share of the expected choices among the first ten that may be traded for items without any event; 0
    ranks these by the ranking head alone. The default of requests that set none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.diversity <= 1, "rerank.diversity must lie in 0..1")
        require(0 <= self.novelty <= 1, "rerank.novelty must lie in 0..1")


@dataclass(frozen=True)
class EvaluationConfig:
    """Metrics and protocol of evaluation."""

    exclude_seen: bool | None = None
    """Whether a user's own past items are left out; null decides by how often validation repeats them."""
    ks: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50, 100])
    """List lengths k at which recall and ndcg are reported."""
    target_events: list[str] = field(default_factory=list)
    """Event kinds that count as relevant; empty: every kind with a weight above 0."""
    baselines: list[str] = field(
        default_factory=lambda: ["popularity", "recent_popularity", "own_repeats", "item_knn", "frozen_text"]
    )
    """Baselines to fit and evaluate, by name."""
    test: bool = True
    """False measures on validation alone, and `run` publishes nothing: what sweeps and ablations do. Only
    `refit=everything` publishes nevertheless."""
    bootstrap: int = 1000
    """Bootstrap samples behind each confidence interval."""
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
    """Folder of all outputs."""
    seed: int = 0
    """Seed of every random choice."""
    threads: int = 0
    """CPU threads of torch and FAISS; 0 takes every core."""
    device: str = "auto"
    """Where the arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU where there is one."""
    devices: int = 1
    """GPUs (on a CPU, processes) that train the text encoder, the towers and the ranking head together,
    sharing every batch; 0 takes every GPU."""
    shard_items: bool = False
    """Whether these divide the item tower's table and the text vectors among their memories, instead of
    keeping a copy each; the training is the same, a step takes longer."""
    reuse: list[str] = field(default_factory=list)
    """Work directories, or patterns of them, whose steps are reused if their inputs are the same."""
    warm_start: str | None = None
    """Where training begins: a finished run's work directory, a store (its current version), or the folder of
    a version; null begins with the pretrained text encoder and random weights."""
    warm: WarmConfig = field(default_factory=WarmConfig)
    engine: Engine = Engine.polars
    """What computes `prepare`: `polars` on this machine, or `spark`; the dataset is the same."""
    spark: SparkConfig = field(default_factory=SparkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    refit: Refit = Refit.before_test
    """Held-out events that published models are trained on after model selection: `never` none,
    `before_test` the validation window (nothing under leave_one_out), `everything` all events."""
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    user_encoder: UserEncoderConfig = field(default_factory=UserEncoderConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """With Milvus, `publish` loads the bundle's vectors into it before the bundle becomes current."""
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    factors: FactorConfig = field(default_factory=FactorConfig)
    ranker: RankerConfig = field(default_factory=RankerConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "seed", "threads", "devices")
        check_device(self.device)
        require(
            self.devices == 1 or ":" not in self.device,
            f"devices={self.devices}: device={self.device} names a single GPU; set device=cuda or devices=1",
        )
        require(
            self.warm_start is None or self.split.kind is SplitKind.global_time,
            "warm_start: earlier weights know events up to a time, and split=leave_one_out holds out each "
            "user's last events whenever they were: set split=global_time, or warm_start=null",
        )
        require(
            self.refit is not Refit.everything or not self.evaluation.test,
            "refit=everything learns from the test window, which can then measure nothing: "
            "set evaluation.test=false",
        )
        require(
            self.publish.gate is None or self.refit is not Refit.everything,
            "publish.gate measures on the test window, from which refit=everything learns: "
            "set refit=before_test, or publish.gate=null",
        )


@dataclass(frozen=True)
class EvaluateConfig(PipelineConfig):
    """Root of evaluate."""

    predictions: str | None = None
    """File with the lists of any system, to be measured as the run itself was: columns `user_id`, `rank`
    (from 1), `item_id`, and `score` if there is one. Null measures the run's bundle and the baselines."""
    system: str | None = None
    """Name of that system, and of its folder in `evaluation/`; null takes the file's."""

    def __post_init__(self) -> None:
        """Check the settings of a run, and the name."""
        super().__post_init__()
        require(
            self.system is None or (self.predictions is not None and NAME.fullmatch(self.system) is not None),
            "system names the lists of predictions=FILE: 1 to 64 of A-Z a-z 0-9 _ . -, the first no dot",
        )


class Severity(IntEnum):
    """How much a finding says against an evaluation, ascending."""

    note = 0
    """A property of the data to state beside a result."""
    warning = 1
    """It may inflate or distort results; look at it."""
    serious = 2
    """Results on these data are not what they seem."""


class FailOn(Enum):
    """Findings that end lint-data with exit code 3."""

    serious = "serious"
    warning = "warning"
    never = "never"


@dataclass(frozen=True)
class LintConfig(PipelineConfig):
    """Root of lint-data: the settings of run, and these."""

    fail_on: FailOn = FailOn.serious
    """Least severity of a finding that ends the command with exit code 3; `never` always exits with 0."""
    lint_queries: int = 4000
    """Test queries, drawn with the seed, on which the worth of findings is measured; 0 takes all."""
    measure: bool = True
    """Whether the worth of findings is measured in recall."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least(0, self, "", "lint_queries")
