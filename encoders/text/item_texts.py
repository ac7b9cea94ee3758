"""Input of fine-tuning: the tokens of items' texts, whole or with fields dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray
from features.data.dataset import IntArray
from features.text.item_text import join_parts


class ItemTexts:
    """Tokens of the catalogue's texts; those of a shortened text are computed on first use and cached.

    Tokens of the parts cannot simply be joined: a byte-level tokenizer merges the end of one part with the
    full stop behind it, and how much fits into the limit depends on all of them.
    """

    def __init__(self, encoder: TextEncoder, whole: TokenArray, parts: pl.Series, max_chars: int) -> None:
        """Store the texts' parts.

        Args:
            encoder: its tokenizer, prompt and longest text.
            whole: tokens of each item's text, prompt included, [items].
            parts: the fields of each text, lists of strings, [items].
            max_chars: longest text before tokenizing.

        """
        self._tokenizer, self._max_tokens = encoder.tokenizer, encoder.max_tokens
        self._prompt = encoder.prompts.passage
        self.whole, self._parts, self._max_chars = whole, parts, max_chars
        self._counts = parts.list.len().to_numpy().astype(np.int64)
        self._indices: dict[tuple[int, bytes], int] = {}
        self._shortened: list[IntArray] = []

    def __len__(self) -> int:
        return len(self.whole)

    def _tokenized(self, texts: Sequence[str]) -> TokenArray:
        prompted = [self._prompt + text for text in texts]
        return TokenArray.tokenized(self._tokenizer, prompted, self._max_tokens)

    def draw(self, rows: IntArray, dropout: float, rng: np.random.Generator) -> TokenArray:
        """Return the tokens of items, each field dropped with a probability so that none is indispensable.

        Where all fields would be dropped, none is.

        Args:
            rows: catalogue rows.
            dropout: probability that a field is dropped.
            rng: generator; a draw depends on it and the rows alone.

        """
        several = np.flatnonzero(self._counts[rows] > 1)
        if dropout == 0 or len(several) == 0:
            return self.whole.select(rows)
        sizes = self._counts[rows[several]]
        starts = np.cumsum(sizes) - sizes
        kept = rng.random(int(sizes.sum())) >= dropout
        left = np.add.reduceat(kept, starts, dtype=np.int64)
        keys = {
            int(several[n]): (int(rows[several[n]]), kept[starts[n] : starts[n] + sizes[n]].tobytes())
            for n in np.flatnonzero((left > 0) & (left < sizes))
        }
        self._tokenize_missing(set(keys.values()) - self._indices.keys())
        whole = self.whole.select(rows)
        ids = np.split(whole.flat, whole.offsets[1:-1])
        for position, key in keys.items():
            ids[position] = self._shortened[self._indices[key]]
        return TokenArray.of(ids)

    def _tokenize_missing(self, missing: set[tuple[int, bytes]]) -> None:
        """Tokenize shortened texts, each given by its row and the mask of its fields."""
        if not missing:
            return
        texts = []
        for row, mask in missing:
            stays = np.frombuffer(mask, dtype=np.bool_)
            fields = [p for p, s in zip(self._parts[row].to_list(), stays, strict=True) if s]
            texts.append(join_parts(fields, self._max_chars))
        made = self._tokenized(texts)
        for number, key in enumerate(missing):
            self._indices[key] = len(self._shortened)
            self._shortened.append(made.flat[made.offsets[number] : made.offsets[number + 1]])
