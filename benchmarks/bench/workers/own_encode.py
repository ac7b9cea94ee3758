"""Encodes texts with this project, in one precision: `own_encode TEXTS PRECISION THREADS PROFILE OUTPUT`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench.workers.measured import timed, top_operations
from benchmarks.embedding import flops
from conf.encoders import Precision, TextEncoderConfig
from encoders.text.compiled_text_encoder import CompiledTextEncoder, FrozenTextEncoder
from encoders.text.int8_text_encoder import INT8, Int8TextEncoder, export_int8
from encoders.text.text_encoder import load_text_encoder
from encoders.text.tokens import TokenArray
from features.data.dataset import FloatArray

WARM = 256
MAX_TOKENS = 64


def main() -> None:
    """Encode, and write the times, the vectors and the arithmetic of the work."""
    source, precision, threads, profile, output = sys.argv[1:]
    torch.set_num_threads(int(threads))
    texts: list[str] = json.loads(Path(source).read_text())
    encoder = load_text_encoder(TextEncoderConfig(max_tokens=MAX_TOKENS)).eval()
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    made: dict[str, float] = {"seconds": 0.0}
    with tempfile.TemporaryDirectory() as temporary:
        frozen: FrozenTextEncoder
        if precision == INT8:
            _, made = timed(lambda: export_int8(encoder, tokens, Path(temporary), 0))
            frozen = Int8TextEncoder(encoder, Path(temporary))
        else:
            frozen = CompiledTextEncoder(encoder, Precision(precision))
        frozen.embed(texts[:WARM])

        def work() -> FloatArray:
            return frozen.embed(texts)

        vectors, figures = timed(work)
        np.save(Path(output).with_suffix(".npy"), vectors)
        result = {
            **figures, "texts": len(texts), "tokens": int(tokens.lengths.sum()),
            "flop": flops(encoder, tokens), "export_seconds": made["seconds"],
            "profile": top_operations(work) if int(profile) else [],
        }  # fmt: skip
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
