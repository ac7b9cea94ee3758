"""Embedding many texts: each distinct text once, in batches of similar length."""

from __future__ import annotations

from conf.encoders import Precision
from encoders.text.compiled_text_encoder import Advance, CompiledTextEncoder
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import FloatArray


def embed_texts(
    encoder: TextEncoder,
    texts: list[str],
    prefix: str = "",
    precision: Precision = Precision.fp32,
    advance: Advance | None = None,
) -> FloatArray:
    """Encode texts into unit vectors with the weights as they are now.

    Args:
        encoder: the text encoder, on the device where this is computed; not modified.
        texts: raw texts without prompt.
        prefix: prompt put before each text.
        precision: arithmetic of the encoder, bf16 or fp32.
        advance: called with the number of distinct texts encoded, for a progress bar.

    Returns:
        float32 [texts, dim], in the order given.

    """
    return CompiledTextEncoder(encoder, precision).embed(texts, prefix, advance)
