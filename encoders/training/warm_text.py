"""Warm start of the text encoder and of what is made from it: text vectors and the affinity map."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from conf.encoders import Precision, TextEncoderConfig
from conf.schema import PipelineConfig
from conf.warm import WarmConfig
from encoders.text.catalogue_vectors import CatalogueVectors, read_vectors
from encoders.text.int8_text_encoder import float_precision
from encoders.text.text_encoder import TextEncoder, reads_as_saved
from encoders.training.warm import TEXT_ENCODER, TEXT_VECTORS, WarmSource, cold


def keeps_affinity(settings: WarmConfig) -> bool:
    """Return whether the affinity map is kept where the text encoder begins with earlier weights."""
    return settings.text_steps == 0 and settings.affinity_steps == 0


def affinity_settings(config: PipelineConfig, warm: bool) -> TextEncoderConfig:
    """Return the settings of an affinity map that is fitted.

    Args:
        config: of the run.
        warm: whether the text encoder began with earlier weights.
    """
    own = config.text_encoder
    return replace(own, affinity_steps=config.warm.affinity_steps or own.affinity_steps) if warm else own


def text_source(
    source: WarmSource | None, settings: TextEncoderConfig, console: Console
) -> WarmSource | None:
    """Return the source if its text encoder can be taken over; otherwise say why not and return None."""
    if source is None or (source.text_model == settings.model and (source.encoder / TEXT_ENCODER).is_dir()):
        return source
    reason = f"text_encoder.model is '{settings.model}', there '{source.text_model}'"
    cold("text encoder and towers are", reason, console)
    return None


def warm_text(config: PipelineConfig, source: WarmSource) -> PipelineConfig:
    """Return the settings with which the text encoder is trained further, or kept."""
    own, warm = config.text_encoder, config.warm
    precision = own.precision
    if warm.text_steps == 0 and precision is Precision.auto:
        precision = float_precision(source.precision)  # that of the vectors that are taken over
    text = replace(
        own, model=str(source.encoder / TEXT_ENCODER), max_steps=warm.text_steps, precision=precision,
        validate_every=max(min(own.validate_every, warm.text_steps), 1),
        learning_rate=own.learning_rate * warm.learning_rate,
    )  # fmt: skip
    return replace(config, text_encoder=text)


def take_vectors(
    source: WarmSource,
    encoder: TextEncoder,
    precision: Precision,
    vectors: CatalogueVectors,
    texts: list[str],
) -> int:
    """Take over the vectors of texts that the source has embedded in the same way.

    Args:
        source: whose text encoder `encoder` is.
        encoder: before it is trained further.
        precision: of its vectors.
        vectors: get what is known.
        texts: each item's, in the order of `vectors`.

    Returns:
        The number of items whose vectors were taken over.
    """
    if precision.value != source.precision or not reads_as_saved(encoder, source.encoder / TEXT_ENCODER):
        return 0
    return vectors.take_over(read_vectors(source.encoder / TEXT_VECTORS), source.text_rows(texts))
