"""Embedding gives what reading text by text gives, whatever is done to be quick about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.distilbert import DistilBertConfig
from transformers.models.electra import ElectraConfig
from transformers.models.modernbert import ModernBertConfig
from transformers.models.mpnet import MPNetConfig
from transformers.models.roberta import RobertaConfig

from conf.encoders import Pooling, Precision, TextEncoderConfig, TuningMode
from encoders.text.compiled_text_encoder import (
    CompiledTextEncoder,
    PackedLinear,
    batches,
    can_pack,
    native_bf16,
)
from encoders.text.text_encoder import Prompts, TextEncoder
from encoders.text.tokens import TokenArray
from encoders.text.trainable import choose_trainable
from features.data.dataset import FloatArray
from tests.second_device import no_host_copies, second_device

WORDS = "trail boots pan whisk rose soil guitar drum paper pen crib rattle".split()


def texts_of_every_length(most: int) -> list[str]:
    """Return texts of 0 to `most` words, several of some lengths, in no order."""
    rng = np.random.default_rng(0)
    sizes = rng.permutation(np.r_[np.arange(most + 1), rng.integers(0, most + 1, 60)])
    return [" ".join(rng.choice(WORDS, size)) for size in sizes]


def one_by_one(encoder: TextEncoder, texts: list[str], prefix: str = "") -> FloatArray:
    """Embed the plain way: a text at a time, nothing padded, nothing packed."""
    with torch.inference_mode():
        rows = [encoder(**encoder.tokenize([prefix + text])) for text in texts]
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("budget", [None, 1, 24, 100, 10_000])
def test_every_length_is_read_as_if_alone(encoder: TextEncoder, budget: int | None) -> None:
    texts = texts_of_every_length(30)  # the longest are cut
    frozen = CompiledTextEncoder(encoder, Precision.fp32)
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    done: list[int] = []
    vectors = frozen.embed_tokens(tokens, done.append, budget)
    np.testing.assert_allclose(vectors, one_by_one(encoder, texts), atol=1e-5)
    assert sum(done) == len(texts)
    assert vectors.dtype == np.float32


def test_equal_texts_are_read_once_and_the_prompt_is_read(encoder: TextEncoder) -> None:
    done: list[int] = []
    texts = ["rose", "pan", "rose", "", "pan"]
    vectors = CompiledTextEncoder(encoder, Precision.fp32).embed(texts, "trail ", done.append)
    assert sum(done) == 3
    np.testing.assert_allclose(vectors, one_by_one(encoder, texts, "trail "), atol=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], vectors[4])


def test_passes_by_hand() -> None:
    lengths = np.array([2, 2, 2, 2, 3, 3, 9, 40])
    # Four texts of two tokens fill a pass of 8; padding may take 8 / 16 of a token, so lengths never mix.
    assert list(batches(lengths, 8)) == [(0, 4), (4, 6), (6, 7), (7, 8)]
    # Of 64 tokens 4 may be padding: one for each of the four texts of two tokens.
    assert list(batches(lengths, 64)) == [(0, 6), (6, 7), (7, 8)]
    # A text longer than the budget has a pass of its own.
    assert list(batches(lengths, 1)) == [(k, k + 1) for k in range(8)]
    assert list(batches(np.zeros(0, dtype=np.int64), 8)) == []


def test_passes_keep_to_the_budget_and_to_little_padding() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(2, 64, 5_000))
    passes = list(batches(lengths, 1024))
    assert [start for start, _ in passes] == [0, *(end for _, end in passes[:-1])]
    assert passes[-1][1] == 5_000
    padded = [(end - start) * lengths[end - 1] for start, end in passes]
    assert max(padded) <= 1024
    assert (
        max(size - lengths[start:end].sum() for size, (start, end) in zip(padded, passes, strict=True)) <= 64
    )
    assert len(passes) < 1.15 * lengths.sum() / 1024 + 1


def test_linear_layers_are_packed_and_the_encoder_stays_as_it_is(encoder: TextEncoder) -> None:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()
    for precision in (Precision.fp32, Precision.bf16):
        frozen = CompiledTextEncoder(encoder, precision)
        packed = sum(isinstance(module, PackedLinear) for module in frozen.modules())
        linear = sum(type(module) is torch.nn.Linear for module in encoder.modules())
        assert linear == 13  # six in each of two layers, one in the pooler
        # oneDNN emulates bf16 only with AVX-512.
        packs = precision is Precision.fp32 or can_pack(torch.device("cpu"), torch.bfloat16)
        assert packed == (linear if packs else 0)
        assert not any(p.requires_grad for p in frozen.parameters())
        assert not frozen.training
        frozen.embed(["rose"])
    after = encoder.state_dict()
    assert encoder.training
    assert all(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())
    name = "backbone.embeddings.word_embeddings.weight"
    shared = CompiledTextEncoder(encoder, Precision.fp32).state_dict()[name]
    assert shared.data_ptr() == after[name].data_ptr(), "not copied"


def test_half_precision_stays_close(encoder: TextEncoder) -> None:
    texts = texts_of_every_length(22)
    half = CompiledTextEncoder(encoder, Precision.bf16).embed(texts)
    assert half.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1.0, atol=1e-5)
    assert (half * one_by_one(encoder, texts)).sum(1).min() > 0.999


@pytest.mark.parametrize(
    ("avx512", "amx", "native"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_native_bf16_is_an_instruction_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert native_bf16(torch.device("cpu")) is native


def test_adapters_that_still_learn_are_read_too(encoder: TextEncoder) -> None:
    torch.manual_seed(0)
    choose_trainable(encoder, TextEncoderConfig(mode=TuningMode.lora, lora_rank=4))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    encoder.eval()
    texts = texts_of_every_length(10)
    for precision, error in ((Precision.fp32, 1e-5), (Precision.bf16, 0.05)):
        vectors = CompiledTextEncoder(encoder, precision).embed(texts)
        np.testing.assert_allclose(vectors, one_by_one(encoder, texts), atol=error)


SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=32),
        RobertaConfig(**SMALL),
        MPNetConfig(**SMALL),
        ElectraConfig(**SMALL, embedding_size=16),
        ModernBertConfig(**SMALL),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("pooling", list(Pooling))
def test_other_families_are_read_as_if_alone(
    encoder: TextEncoder, config: PretrainedConfig, pooling: Pooling
) -> None:
    tokenizer: PreTrainedTokenizerBase = encoder.tokenizer
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    torch.manual_seed(0)
    backbone = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    other = TextEncoder(backbone, tokenizer, pooling, Prompts(), 24).eval()
    texts = texts_of_every_length(30)
    frozen = CompiledTextEncoder(other, Precision.fp32)
    assert any(isinstance(module, PackedLinear) for module in frozen.modules())
    tokens = TokenArray.tokenized(tokenizer, texts, 24)
    for budget in (40, 1_000):
        np.testing.assert_allclose(
            frozen.embed_tokens(tokens, budget=budget), one_by_one(other, texts), atol=1e-5
        )


def test_on_a_second_device_vectors_come_back_once_in_a_few_passes(
    encoder: TextEncoder,
) -> None:
    texts = texts_of_every_length(22)
    expected = one_by_one(encoder, texts)
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    with second_device() as device:
        encoder.to(device)
        frozen = CompiledTextEncoder(encoder, Precision.fp32)
        assert frozen.device == device
        assert not any(isinstance(module, PackedLinear) for module in frozen.modules())
        done: list[int] = []
        vectors = frozen.embed_tokens(tokens, done.append, 60)
        with no_host_copies():
            frozen(torch.ones(2, 3, dtype=torch.long, device=device))
    passes = len(list(batches(np.sort(tokens.lengths), 60)))
    assert len(done) == -(-passes // 8) < passes
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
