"""Tokens of whole and shortened texts are those of the tokenizer, whatever kind it is of."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from encoders.text.item_texts import ItemTexts
from encoders.text.text_encoder import Prompts, TextEncoder
from encoders.text.tokens import TokenArray
from features.text.item_text import join_parts

PARTS = [
    ["Trail boots (pair)", "Brand: Acme", "Colour: green!"],
    ["Oven pan no3"],
    ["Guitar strings...", "Brand: Ça va?"],
    ["Rose soil " * 12, "Brand: Cobalt"],
]
TEXTS = [join_parts(parts, 60) for parts in PARTS]


def byte_level() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on the texts, with a padding token."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 3, vocab_size=400, special_tokens=["<pad>"])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, pad_token="<pad>")  # type: ignore[no-untyped-call]


@pytest.fixture(params=["word_piece", "byte_level"])
def reader(request: pytest.FixtureRequest, encoder: TextEncoder) -> TextEncoder:
    """Return an encoder with a prompt and either tokenizer."""
    encoder.prompts = Prompts("", "passage: ")
    if request.param == "byte_level":
        encoder.tokenizer = byte_level()
    return encoder


def whole(reader: TextEncoder) -> TokenArray:
    return TokenArray.tokenized(reader.tokenizer, ["passage: " + text for text in TEXTS], reader.max_tokens)


def test_whole_texts_are_those_of_the_tokenizer(reader: TextEncoder) -> None:
    texts = ItemTexts(reader, whole(reader), pl.Series(PARTS), 60)
    assert len(texts) == 4
    drawn = texts.draw(np.array([3, 1], np.int32), 0.0, np.random.default_rng(0))
    prompted = ["passage: " + TEXTS[row] for row in (3, 1)]
    expected = reader.tokenizer(prompted, truncation=True, max_length=24)["input_ids"]
    assert [ids.tolist() for ids in np.split(drawn.flat, drawn.offsets[1:-1])] == expected


def test_shortened_texts_are_those_of_the_tokenizer(reader: TextEncoder) -> None:
    texts = ItemTexts(reader, whole(reader), pl.Series(PARTS), 60)
    rng, seen = np.random.default_rng(1), set()
    rows = np.array([0, 1, 2, 3], np.int32)
    for _ in range(60):
        lots = np.random.default_rng()
        lots.bit_generator.state = rng.bit_generator.state
        drawn = texts.draw(rows, 0.5, rng)
        for row, ids in zip(rows, np.split(drawn.flat, drawn.offsets[1:-1]), strict=True):
            parts = PARTS[row]
            kept = [p for p in parts if lots.random() >= 0.5] if len(parts) > 1 else parts
            text = "passage: " + join_parts(kept or parts, 60)
            seen.add((int(row), text))
            assert ids.tolist() == reader.tokenizer(text, truncation=True, max_length=24)["input_ids"]
    # Every choice of fields but none at all; the last item's title alone is as long as a text may be.
    assert len(seen) == 7 + 1 + 3 + 2


def test_a_shortened_text_is_tokenized_once(reader: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ItemTexts(reader, whole(reader), pl.Series(PARTS), 60)
    made: list[str] = []
    original = texts._tokenized

    def spy(some: list[str]) -> TokenArray:
        made.extend(some)
        return original(some)

    monkeypatch.setattr(texts, "_tokenized", spy)
    rng = np.random.default_rng(0)
    for _ in range(80):
        texts.draw(np.array([0, 2], np.int32), 0.5, rng)
    assert len(made) == len(set(made)) == 6 + 2


def test_the_draw_depends_on_nothing_but_the_generator(reader: TextEncoder) -> None:
    rows = np.array([0, 2, 3, 0], np.int32)
    fresh, used = (ItemTexts(reader, whole(reader), pl.Series(PARTS), 60) for _ in range(2))
    used.draw(rows, 0.5, np.random.default_rng(9))
    first = fresh.draw(rows, 0.5, np.random.default_rng(3))
    again = used.draw(rows, 0.5, np.random.default_rng(3))
    assert np.array_equal(first.flat, again.flat)
    assert np.array_equal(first.offsets, again.offsets)
