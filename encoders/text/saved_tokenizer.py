"""The tokenizer of a saved encoder, by the library tokenizers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import tokenizers

TOKENIZER: Final = "tokenizer.json"
_SETTINGS: Final = "tokenizer_config.json"
_UNLIMITED: Final = 10**30
"""The longest text of a tokenizer that has no limit, as transformers writes it."""


class SavedTokenizer:
    """Texts to token ids; has what the encoders use of the interface of tokenizers in transformers."""

    def __init__(self, folder: Path) -> None:
        """Read a tokenizer.

        Args:
            folder: in Hugging Face's layout, with `tokenizer.json`.

        Raises:
            OSError, ValueError: a file cannot be read.
        """
        self._content = (folder / TOKENIZER).read_text()
        settings = folder / _SETTINGS
        found: dict[str, Any] = json.loads(settings.read_text()) if settings.is_file() else {}
        self._settings = found
        self._cutting = self._read()
        self._longest = -1
        self.model_max_length = int(found.get("model_max_length") or _UNLIMITED)
        """Most tokens of a text."""
        self.pad_token_id = self._id("pad_token")
        self.unk_token_id = self._id("unk_token")

    def __call__(
        self,
        texts: str | Sequence[str],
        truncation: bool = False,
        max_length: int = 0,
        return_attention_mask: bool = False,
        verbose: bool = False,
    ) -> dict[str, Any]:
        """Return `input_ids`: of one text, or a list of those of several.

        Args:
            texts: with their prompts.
            truncation: whether to cut texts to `max_length`; calls of several threads must agree on it, once
                one call is done.
            max_length: most tokens, special ones included.
            return_attention_mask: without effect, as nothing is padded.
            verbose: without effect, as there are no warnings.
        """
        if truncation and self._longest != max_length:
            direction = str(self._settings.get("truncation_side") or "right")
            self._cutting.enable_truncation(max_length, direction=direction)
            self._longest = max_length
        backend = self._cutting if truncation else self._whole
        if isinstance(texts, str):
            return {"input_ids": backend.encode(texts).ids}
        return {"input_ids": [found.ids for found in backend.encode_batch(list(texts))]}

    @cached_property
    def _whole(self) -> tokenizers.Tokenizer:
        """For texts that are not cut; apart, because cutting is a state of the library's object."""
        return self._read()

    def _read(self) -> tokenizers.Tokenizer:
        try:
            backend: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(self._content)
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{TOKENIZER}: {error}") from error
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = bool(self._settings.get("split_special_tokens"))
        return backend

    def _id(self, name: str) -> int | None:
        token = self._settings.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        found: int | None = None if content is None else self._cutting.token_to_id(str(content))
        return found
