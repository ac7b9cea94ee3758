"""Encodes texts with sentence-transformers: `TEXTS MODEL DTYPE THREADS OUTPUT`.

Imports nothing of shelfwise. Of two batch sizes it takes the one that is faster on a sample: the library's
default of 32, and 128.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

SAMPLE = 512
BATCHES = (32, 128)


def main() -> None:
    """Encode, and write the times and the vectors."""
    source, model, dtype, threads, output = sys.argv[1:]
    torch.set_num_threads(int(threads))
    texts = json.loads(Path(source).read_text())
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    encoder.max_seq_length = 64
    encoder.encode(texts[:SAMPLE], show_progress_bar=False)
    taken = {}
    for batch in BATCHES:
        began = time.perf_counter()
        encoder.encode(texts[:SAMPLE], batch_size=batch, show_progress_bar=False)
        taken[batch] = time.perf_counter() - began
    best = min(taken, key=lambda batch: taken[batch])
    began, cpu = time.perf_counter(), time.process_time()
    vectors = encoder.encode(texts, batch_size=best, normalize_embeddings=True, show_progress_bar=False)
    result = {
        "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "batch": best,
    }  # fmt: skip
    np.save(Path(output).with_suffix(".npy"), np.asarray(vectors, dtype=np.float32))
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
