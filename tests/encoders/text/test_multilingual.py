"""A multilingual encoder, XLM-RoBERTa's network and a Unigram tokenizer, from a local folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import SentencePieceUnigramTokenizer
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

from conf.encoders import Precision, TextEncoderConfig
from conf.schema import SplitKind
from encoders.text.embedding import embed_texts
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.training.train import train_encoder
from features.data.dataset import Dataset
from features.prepare import prepare
from ranking.bundle.bundle import load_bundle
from ranking.pipeline.publish import publish
from ranking.training.train import train_ranker
from tests.synthetic import World, pipeline_config

FOREIGN = ["Grüne Gummistiefel für Kinder", "Botas de agua para niños", "Резиновые сапоги", "長靴"]
MOST = 24
"""Tokens of the longest text; the table of positions has two more, as XLM-RoBERTa's."""


def tiny_xlm_roberta(folder: Path, texts: Sequence[str]) -> Path:
    """Save a random two-layer XLM-RoBERTa as the hub has them, without files of sentence-transformers."""
    trainer = SentencePieceUnigramTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer.train_from_iterator(
        iter(texts), vocab_size=400, special_tokens=[*special], unk_token="<unk>", show_progress=False
    )
    learnt = [piece for piece in trainer.get_vocab() if piece not in special]
    vocab = [(piece, 0.0) for piece in special]
    vocab += [(piece, -math.log(2 + place)) for place, piece in enumerate(sorted(learnt))]
    vocab.append(("<mask>", 0.0))
    tokenizer = XLMRobertaTokenizer(vocab=vocab, model_max_length=MOST)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=MOST + 2, type_vocab_size=1, initializer_range=0.3,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    texts = [*dataset.catalogue.texts, *FOREIGN]
    return tiny_xlm_roberta(tmp_path_factory.mktemp("multilingual") / "tiny-multilingual", texts)


@pytest.fixture(scope="module")
def multilingual(folder: Path) -> TextEncoder:
    return load_text_encoder(TextEncoderConfig(model=str(folder), max_tokens=64)).eval()


def test_letters_of_other_scripts_are_read(multilingual: TextEncoder) -> None:
    ids = multilingual.tokenize(FOREIGN)["input_ids"]
    unknown = multilingual.tokenizer.unk_token_id
    assert unknown is not None
    assert (ids == unknown).sum() == 0
    vectors = embed_texts(multilingual, FOREIGN, "", Precision.fp32)
    assert (vectors @ vectors.T)[~np.eye(len(FOREIGN), dtype=bool)].max() < 0.999


def test_a_text_is_read_alike_alone_and_padded(multilingual: TextEncoder) -> None:
    """Positions of these models begin behind the number of the padding token."""
    together = embed_texts(multilingual, FOREIGN, "", Precision.fp32)
    for text, vector in zip(FOREIGN, together, strict=True):
        alone = embed_texts(multilingual, [text], "", Precision.fp32)[0]
        np.testing.assert_allclose(alone, vector, atol=1e-5)


def test_texts_longer_than_the_table_of_positions_are_cut(multilingual: TextEncoder) -> None:
    assert multilingual.max_tokens == MOST
    long = " ".join(FOREIGN * 20)
    assert multilingual.tokenize([long])["input_ids"].shape == (1, MOST)
    assert np.isfinite(embed_texts(multilingual, [long], "", Precision.fp32)).all()


def test_it_is_trained_published_and_served_like_the_bundled_one(
    tmp_path: Path, world: World, folder: Path
) -> None:
    config = pipeline_config(world, folder, tmp_path, SplitKind.global_time)
    for step in (prepare, train_encoder, train_ranker, publish):
        step(config, Console(quiet=True))
    bundle = load_bundle(Path(config.work_dir) / "artifacts")
    texts = bundle.catalogue.texts
    vectors = bundle.encode_items(texts)
    nearest = [texts[row] for row in (vectors @ bundle.text_vectors.T).argmax(axis=1)]
    assert nearest == texts  # encoded again from the published folder, each is its own item's
