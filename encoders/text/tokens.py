"""Token ids of many texts, concatenated; computed once, as texts do not change in a run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from features.data.dataset import IntArray, LongArray
from features.data.splits import ragged_ranges

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 512
"""Texts that a thread tokenizes at a time."""


@dataclass(frozen=True)
class TokenArray:
    """Token ids of texts, concatenated."""

    flat: IntArray  # [tokens] int32
    offsets: LongArray  # [texts + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> LongArray:
        """Number of tokens of each text, [texts]."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, ids: Sequence[Sequence[int] | IntArray]) -> TokenArray:
        """Concatenate the ids of each text, as a tokenizer returns them."""
        offsets = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in ids], out=offsets[1:])
        return cls(np.fromiter(chain.from_iterable(ids), np.int32, count=int(offsets[-1])), offsets)

    @classmethod
    def tokenized(
        cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
    ) -> TokenArray:
        """Tokenize texts (prompt already in front), each cut to `max_tokens` with its special tokens.

        Runs on as many threads as PyTorch has; Hugging Face's tokenizers in Rust release the GIL.
        """
        if not texts:
            return cls(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))

        def tokenize(start: int) -> TokenArray:
            part = list(texts[start : start + CHUNK])
            ids = tokenizer(part, truncation=True, max_length=max_tokens, return_attention_mask=False)
            return cls.of(ids["input_ids"])

        # The first call sets the truncation of the tokenizer, so that the others only read it.
        parts = [tokenize(0)]
        if len(texts) > CHUNK:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                parts += pool.map(tokenize, range(CHUNK, len(texts), CHUNK))
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(np.concatenate([part.flat for part in parts]), offsets)

    def select(self, rows: IntArray | LongArray) -> TokenArray:
        """Return the texts at `rows`, in that order."""
        sizes = self.lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(sizes, out=offsets[1:])
        return TokenArray(self.flat[ragged_ranges(self.offsets[rows], sizes)], offsets)

    def join(self, other: TokenArray) -> TokenArray:
        """Return these texts followed by the others."""
        offsets = np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]])
        return TokenArray(np.concatenate([self.flat, other.flat]), offsets)


def pad(flat: Tensor, offsets: Tensor, width: int, fill: int) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask of texts, each int64 [texts, width], on the device of `flat`.

    Args:
        flat: token ids, concatenated, [tokens].
        offsets: where each text begins and the last one ends, [texts + 1].
        width: tokens of the longest text; given, because reading it from a device would synchronise with it.
        fill: id of the padding token.

    """
    places = offsets[:-1, None] + torch.arange(width, device=flat.device)  # [texts, width]
    inside = places < offsets[1:, None]
    ids = torch.where(inside, flat[places.clamp(max=len(flat) - 1)], fill)
    return ids.long(), inside.long()
