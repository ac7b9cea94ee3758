"""Words of a text, normalised for comparison: without case, accents and plural endings.

The same function is applied to catalogues, changed items and queries.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_MARKS: Final = re.compile("[\u0300-\u036f]")
"""Combining accents of Latin, Greek and Cyrillic letters; those of other scripts are significant."""
_WORD: Final = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"  # scripts without spaces: sign by sign
    "|(?:[^\\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    "|(?<=\\w)[\u0900-\u0dff\u0e31-\u0e4e])+"  # vowel signs of Indic scripts and Thai
)
_CACHED_CHUNKS: Final = 1 << 14


def folded(text: str) -> list[str]:
    """Return the words of a text, in order, without case and accents: `Crème-Brûlée 2x` is creme, brulee, 2x.

    Umlauts become their plain letters (`Müsli`: musli) and `ß` becomes ss, in texts and queries alike.
    """
    return [word for chunk in text.split() for word in _folded_chunk(chunk)]


@lru_cache(_CACHED_CHUNKS)
def _folded_chunk(chunk: str) -> tuple[str, ...]:
    """Return the words of a text without spaces."""
    plain = _MARKS.sub("", unicodedata.normalize("NFKD", chunk).casefold())
    return tuple(_WORD.findall(plain))


def words(text: str) -> list[str]:
    """Return the words of a text as they are looked up: folded, without a plural ending."""
    return [singular(word) for word in folded(text)]


def singular(word: str) -> str:
    """Return an English word without its plural ending (after Harman, JASIS 1991): boxes, box.

    Ambiguous endings are cut from both forms (shoes and shoe become sho, cookies and cookie cooky). Other
    words that end in s lose it too, in texts and queries alike, so that they match.
    """
    if len(word) > 3 and word[-1] == "s" and word[-2] != "s":
        word = word[:-2] if word.endswith("sses") else word[:-1]
    if len(word) > 3 and word.endswith("ie"):
        return word[:-2] + "y"
    return word[:-1] if len(word) > 3 and word.endswith(("oe", "xe", "che", "she")) else word


def content_words(text: str) -> list[str]:
    """Return the distinct content words of a text, or all its words if it has only stop words."""
    every = list(dict.fromkeys(words(text)))
    return [word for word in every if word not in _STOP_WORDS] or every


_STOP_WORDS: Final = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these"
    " they thi to was wa will with".split()
)
"""English stop words (Lucene's list, after `singular`); they are rare in short texts, so that BM25 would
weigh them like names."""
