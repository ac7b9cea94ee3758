"""Encodes texts with sentence-transformers: `TEXTS MODEL DTYPE THREADS OUTPUT`.

Imports nothing of shelfwise.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

WARM = 256


def main() -> None:
    """Encode with the library's defaults, and write the times and the vectors."""
    source, model, dtype, threads, output = sys.argv[1:]
    torch.set_num_threads(int(threads))
    texts = json.loads(Path(source).read_text())
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    encoder.max_seq_length = 64
    encoder.encode(texts[:WARM], show_progress_bar=False)
    began, cpu = time.perf_counter(), time.process_time()
    vectors = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    result = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    np.save(Path(output).with_suffix(".npy"), np.asarray(vectors, dtype=np.float32))
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
