"""What counts as a word, and as the same word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.words import content_words, folded, singular, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème-Brûlée 2x", ["creme", "brulee", "2x"]),
        ("Müsli MÜSLI mu\u0308sli", ["musli", "musli", "musli"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("product_type 12/18&15pk", ["product", "type", "12", "18", "15pk"]),
        ("İstanbul ŞİŞLİ", ["istanbul", "sisli"]),
        ("ΟΔΟΣ οδός", ["οδοσ", "οδοσ"]),
        ("烤鸭 ラメン", ["烤", "鸭", "ラ", "メ", "ン"]),
        ("हिन्दी पानी", ["हिन्दी", "पानी"]),
        (". … ‽ ☂", []),
        ("", []),
    ],
)
def test_words_are_folded(text: str, expected: list[str]) -> None:
    assert folded(text) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("tomato", "tomatoes"), ("box", "boxes"), ("berry", "berries"), ("cookie", "cookies"),
        ("shoe", "shoes"), ("dish", "dishes"), ("glass", "glasses"), ("axe", "axes"), ("house", "houses"),
        ("movie", "movies"), ("kiwi", "kiwis"), ("pie", "pies"), ("watch", "watches"), ("toy", "toys"),
    ],
)  # fmt: skip
def test_singular_and_plural_are_one_word(one: str, many: str) -> None:
    assert words(one) == words(many)


def test_different_words_stay_different() -> None:
    kept = ["glass", "gas", "bus", "berry", "beer", "pan", "pants", "shoe", "shop", "ties", "tea"]
    assert len({singular(word) for word in kept}) == len(kept)
    assert singular("pans") == "pan"
    assert singular("pants") == "pant"


def test_little_words_are_left_out_where_others_are_left() -> None:
    assert content_words("for a rainy day with the Dog") == ["rainy", "day", "dog"]
    assert content_words("the") == ["the"]
    assert content_words("This is it") == ["thi", "is", "it"]
    assert content_words("milk Milk milks") == ["milk"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_text_has_the_words_of_its_parts(left: str, right: str) -> None:
    assert folded(f"{left} {right}") == folded(left) + folded(right)
    assert folded(left.upper()) == folded(left.upper().lower()) or "ß" in left or not left.isascii()
    assert all(word and word == word.casefold() for word in folded(left))
