"""Embedding many texts: each distinct text once, in order of length so that little is padded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from conf.encoders import Precision
from encoders.text_encoder import TextEncoder, resolve_precision
from features.dataset import FloatArray


@torch.inference_mode()
def embed_texts(
    encoder: TextEncoder,
    texts: list[str],
    prefix: str = "",
    precision: Precision = Precision.auto,
    batch_size: int = 128,
    advance: Callable[[int], None] | None = None,
) -> FloatArray:
    """Encode texts into unit vectors.

    Args:
        encoder: the text encoder; it is left in the mode (train or eval) it was in.
        texts: raw texts without prompt.
        prefix: prompt put before each text.
        precision: arithmetic of the encoder.
        batch_size: texts per forward pass.
        advance: called with the number of distinct texts done, for a progress bar.

    Returns:
        float32 [texts, dim], in the order given.

    """
    if not texts:
        return np.zeros((0, encoder.dim), dtype=np.float32)
    distinct, inverse = np.unique(np.array(texts, dtype=object), return_inverse=True)
    order = np.argsort([len(t) for t in distinct], kind="stable")
    device = next(encoder.parameters()).device
    bf16 = resolve_precision(precision, device) is Precision.bf16
    vectors = np.empty((len(distinct), encoder.dim), dtype=np.float32)
    was_training = encoder.training
    if was_training:  # going through all modules takes as long as a layer of a small encoder
        encoder.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        tokens = encoder.tokenize([prefix + str(distinct[i]) for i in chosen])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            encoded = encoder(**{name: t.to(device) for name, t in tokens.items()})
        vectors[chosen] = encoded.float().cpu().numpy()
        if advance is not None:
            advance(len(chosen))
    if was_training:
        encoder.train()
    return vectors[inverse]
