"""Token ids kept end to end are those of the tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import encoders.text.tokens as tokens_module
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray, pad


def test_texts_lie_end_to_end() -> None:
    tokens = TokenArray.of([[5, 6], [7], [], [8, 9, 10]])
    assert tokens.flat.tolist() == [5, 6, 7, 8, 9, 10]
    assert tokens.flat.dtype == np.int32
    assert tokens.offsets.tolist() == [0, 2, 3, 3, 6]
    assert len(tokens) == 4
    assert tokens.lengths.tolist() == [2, 1, 0, 3]
    chosen = tokens.select(np.array([3, 0, 0]))
    assert chosen.flat.tolist() == [8, 9, 10, 5, 6, 5, 6]
    assert chosen.offsets.tolist() == [0, 3, 5, 7]
    both = tokens.join(chosen)
    assert both.flat.tolist() == tokens.flat.tolist() + chosen.flat.tolist()
    assert both.offsets.tolist() == [0, 2, 3, 3, 6, 9, 11, 13]


def test_padding_by_hand() -> None:
    ids, mask = pad(torch.tensor([5, 6, 7, 8]), torch.tensor([0, 2, 3, 4]), 3, 99)
    assert ids.tolist() == [[5, 6, 99], [7, 99, 99], [8, 99, 99]]
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.int64


def test_padded_tokens_are_those_of_the_tokenizer(encoder: TextEncoder) -> None:
    texts = ["trail boots", "pan", "rose soil shovel hedge " * 20, ""]
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    expected = encoder.tokenize(texts)
    width = int(tokens.lengths.max())
    assert width == encoder.max_tokens, "the long text is cut"
    ids, mask = pad(
        torch.from_numpy(tokens.flat),
        torch.from_numpy(tokens.offsets),
        width,
        int(encoder.tokenizer.pad_token_id or 0),
    )
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(mask, expected["attention_mask"])
    assert len(TokenArray.tokenized(encoder.tokenizer, [], 8)) == 0


def test_texts_tokenized_in_threads_are_those_of_the_tokenizer(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "CHUNK", 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    texts = ["boots " * n + "\N{HIKING BOOT}\N{VARIATION SELECTOR-16} é 北" for n in range(40)] + ["", " "]
    texts = ["passage: " + text for text in texts]
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, 9)
    expected = encoder.tokenizer(texts, truncation=True, max_length=9)["input_ids"]
    assert [ids.tolist() for ids in np.split(tokens.flat, tokens.offsets[1:-1])] == expected
    assert tokens.lengths.max() == 9
    assert tokens.flat.dtype == np.int32
