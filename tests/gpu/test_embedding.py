"""Embedding on a GPU; needs one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from conf.encoders import Precision, TextEncoderConfig
from encoders.text.compiled_text_encoder import CompiledTextEncoder
from encoders.text.embedding import embed_texts
from encoders.text.precision import EMBEDDING, TRAINING, Precisions, choose_precision
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from tests.encoders.text.test_embedding import one_by_one, texts_of_every_length

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("budget", [60, None])
def test_a_gpu_reads_what_the_cpu_reads(encoder: TextEncoder, budget: int | None) -> None:
    texts = texts_of_every_length(30)
    expected = one_by_one(encoder, texts)
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    encoder.to(CUDA)
    vectors = CompiledTextEncoder(encoder, Precision.fp32).embed_tokens(tokens, budget=budget)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        half = CompiledTextEncoder(encoder, Precision.bf16).embed_tokens(tokens, budget=budget)
        assert (half * expected).sum(1).min() > 0.99


def test_a_gpu_that_has_bf16_takes_it_unmeasured(encoder: TextEncoder, tmp_path: Path) -> None:
    chosen = choose_precision(
        Precision.auto, encoder.to(CUDA), tmp_path, Console(quiet=True), (EMBEDDING, TRAINING)
    )
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = Precision.bf16 if native else Precision.fp32
    assert chosen == Precisions(wanted, wanted)
    assert not list(tmp_path.iterdir())


def test_many_texts_take_little_memory() -> None:
    encoder = load_text_encoder(TextEncoderConfig()).to(CUDA).eval()
    texts = [f"garden chair number {n} in green" for n in range(30_000)]
    few = embed_texts(encoder, texts[:100], precision=Precision.fp32)
    torch.cuda.reset_peak_memory_stats()
    vectors = embed_texts(encoder, texts, precision=Precision.fp32)
    assert torch.cuda.max_memory_allocated() < 3 * 2**30, "passes, not the catalogue, are in memory"
    np.testing.assert_allclose(vectors[:100], few, atol=1e-4)
