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


class Export(Enum):
    """What computes the vectors of the finished text encoder."""

    none = "none"
    openvino = "openvino"


@dataclass(frozen=True)
class TextEncoderConfig:
    """Stage one: the text encoder and its fine-tuning on consecutive items of histories."""

    model: str = "bundled"
    """`bundled` (all-MiniLM-L6-v2 from its Python package, which reads English), a local folder, or a name on
    the Hugging Face hub."""
    pooling: Pooling | None = None
    """How token states become one vector; null takes the model's own sentence-transformers setting, else
    `mean`."""
    max_tokens: int = 64
    """Longer texts are cut to this many tokens; half of it nearly halves the time of training and
    embedding."""
    query_prefix: str | None = None
    """Prompt before free text; null takes the model family's own (E5: `query: `; BGE), `''` is none."""
    passage_prefix: str | None = None
    """Prompt before item texts; null takes the model family's own (E5: `passage: `), `''` is none."""
    precision: Precision = Precision.auto
    """Arithmetic of embedding and fine-tuning; `auto` takes whichever measures faster on this machine."""
    export: Export = Export.none
    """`openvino` exports the finished encoder to OpenVINO with weights and activations in eight bits (extra
    `openvino`): several times as fast on CPUs, for the vectors of the catalogue and for a server's texts;
    `none` leaves both to PyTorch in `precision`."""
    mode: TuningMode = TuningMode.full
    """`full` fine-tunes every weight, `lora` adapters that are folded into the weights at the end, `frozen`
    nothing."""
    frozen_layers: int = 0
    """Lowest transformer layers that stay as they are, the embeddings with them; saves time and
    reduces forgetting."""
    lora_rank: int = 16
    """Rank of the LoRA adapters."""
    max_steps: int = 200
    """Optimiser steps; 0 leaves the encoder as it is."""
    validate_every: int = 100
    """Steps between validations and checkpoints."""
    patience: int = 3
    """Validations without improvement before training stops."""
    projection: int | None = None
    """Width of the linear head on top of the vectors in fine-tuning; it is initialised with the whitening of
    the catalogue. Null is the encoder's own width, 0 no head."""
    head_learning_rate: float = 5e-4
    """Learning rate of the linear head."""
    affinity_steps: int = 200
    """Steps of the affinity map, a matrix learnt on the finished text vectors (of a frozen encoder, too); 0
    leaves it out."""
    batch_size: int = 64
    """Pieces of histories per forward pass, divided among `devices`; more pieces are more negatives."""
    piece: int = 8
    """Most events of one history in a pass; each but the first is predicted from those before it."""
    accumulate: int = 1
    """Forward passes per optimiser step; adds pieces, not negatives."""
    recompute: bool | None = None
    """Keep only the vectors of a forward pass and recompute its activations, a few texts at a time, for the
    backward pass (gradient checkpointing): with 64 pieces 0.8 GB less memory and 23 % fewer texts a second on
    a CPU. Null does so where the activations would take more than a quarter of the free memory."""
    learning_rate: float = 1e-4
    """Learning rate after the warm-up; it falls linearly to 0."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    warmup_fraction: float = 0.1
    """Share of the steps in which the learning rate rises."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    temperature: float = 0.07
    """Divisor of the cosines in the softmax; lower values weigh the nearest negatives more."""
    window: int = 5
    """An event is predicted from the mean of at most this many items before it."""
    logq: bool = True
    """Whether the in-batch softmax is corrected for how often an item is drawn (logQ correction)."""
    mask_false_negatives: bool = True
    """Whether items that the same user also chose, or whose text is identical, are left out of the
    negatives."""
    hard_negatives: int = 0
    """Nearest texts that join the negatives, per item of a step; mined anew at every validation, which embeds
    the whole catalogue each time."""
    dropout: float = 0.0
    """Rate of the model's dropout layers in fine-tuning. BERT was pretrained with 0.1; in the few steps of a
    fine-tuning it has found no more (`benchmarks/experiments.md`), and leaving out fields does a similar
    thing."""
    field_dropout: float = 0.1
    """Probability that a text field is left out, so that none becomes indispensable."""
    token_dropout: float = 0.0
    """Probability that a token is hidden."""
    adversarial_epsilon: float = 0.0
    """Norm of the adversarial shift of the word embeddings (FGM), which doubles the time of a step; 0 is
    off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.max_tokens >= 4, "text_encoder.max_tokens must be 4 or more")
        require(self.batch_size >= 1, "text_encoder.batch_size must be 1 or more")
        require(self.accumulate >= 1, "text_encoder.accumulate must be 1 or more")
        require(self.temperature > 0, "text_encoder.temperature must be positive")
        require(self.max_steps >= 0, "text_encoder.max_steps must be 0 or more")
        require(self.validate_every >= 1, "text_encoder.validate_every must be 1 or more")
        for name in ("dropout", "field_dropout", "token_dropout", "warmup_fraction"):
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
    """Width of item and user vectors; a multiple of `heads`."""
    layers: int = 1
    """Transformer blocks."""
    heads: int = 2
    """Attention heads."""
    max_length: int = 50
    """Most recent events that the user tower reads."""
    dropout: float = 0.5
    """Dropout; small shops need much, large ones less."""
    hybrid: bool = True
    """Whether items that training events mention add a learned id residual to their text vector; false is
    text alone."""
    text: bool = True
    """Whether items are known by their texts; false knows them by ids alone: the baseline `sasrec_ids` and an
    ablation, useless for new items."""
    id_dropout: float = 0.2
    """Share of the items of a step that are represented by text alone, so that new items are at no
    disadvantage."""
    negatives: int = 1024
    """Negatives drawn once per step and shared by every position; 0 is full softmax."""
    negative_power: float = 0.0
    """Items are drawn as negatives in proportion to their event count to this power, with logQ correction; 0
    is uniform."""
    windows_per_epoch: int = 200_000
    """Training windows per epoch at most, drawn anew each time, which bounds the time and the memory of an
    epoch; 0 takes all."""
    min_windows_per_epoch: int = 12_000
    """With few users an epoch has several passes over them, up to about this many windows: epochs, patience
    and running average are tuned for epochs of that size."""
    temperature: float = 1.0
    """Divisor of the scores in the softmax."""
    epochs: int = 30
    """Most epochs."""
    patience: int = 3
    """Epochs without improvement before training stops."""
    batch_size: int = 128
    """Windows per step, divided among `devices`."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    average: float = 2.0
    """Time constant, in epochs, of the running average of weights, which is published; 0 is off."""

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
