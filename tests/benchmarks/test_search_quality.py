"""Questions whose answers are known, and how answers are counted, by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.search_quality import (
    RARE,
    USUAL,
    Question,
    first_right,
    id_questions,
    known_users,
    share_right,
    title_questions,
    type_questions,
    word_questions,
)
from features.data.dataset import Catalogue
from ranking.bundle.bundle import HISTORIES


def shop() -> Catalogue:
    """Twelve mugs, four of which say where they are from, and three lamps."""
    titles = ["Mug"] * 8 + ["Mug from Lisbon"] * 3 + ["Mugs from Porto"] + ["Lamp", "Lamps", "Lamp 7"]
    return Catalogue(
        pl.DataFrame(
            {
                "item_id": [f"i{row}" for row in range(15)],
                "item_text": titles,
                "title": titles,
                "kind": ["mug"] * 12 + ["lamp"] * 2 + [None],
            }
        )
    )


def test_types_are_values_of_ten_items() -> None:
    assert type_questions(shop(), "kind", 5, 0) == [Question("mug", frozenset(f"i{n}" for n in range(12)))]


def test_every_item_of_a_title_answers_it() -> None:
    asked = {q.words: q.right for q in title_questions(shop(), "title", 100, 0)}
    assert asked.keys() == {"Mug", "Mug from Lisbon", "Mugs from Porto", "Lamp", "Lamps", "Lamp 7"}
    assert asked["Mug from Lisbon"] == {"i8", "i9", "i10"}
    assert len(title_questions(shop(), "title", 2, 0)) == 2


def test_words_are_asked_for_by_how_many_items_have_them_whatever_their_number() -> None:
    assert word_questions(shop(), USUAL, 100, 0) == []  # mug has three letters
    asked = {q.words: q.right for q in word_questions(shop(), RARE, 100, 0)}
    assert asked == {"lamp": {"i12", "i13", "i14"}, "lisbon": {"i8", "i9", "i10"}, "porto": {"i11"}}


def test_ids_ask_for_themselves() -> None:
    asked = id_questions(shop(), 4, 0)
    assert len({q.words for q in asked}) == 4
    assert all(q.right == {q.words} for q in asked)


def test_answers_are_counted() -> None:
    asked = [Question("a", frozenset("abcd")), Question("b", frozenset(str(n) for n in range(20)))]
    answers = {"a": ["a", "x", "b"], "b": ["x", *"012345678", "9"]}
    assert share_right(asked, lambda words, user: answers[words], "") == pytest.approx((2 / 4 + 9 / 10) / 2)
    assert first_right(asked, lambda words, user: answers[words], "") == 0.5
    assert first_right(asked, lambda words, user: [], "") == 0.0


def test_known_users_have_a_history(tmp_path: Path) -> None:
    users = ["a"] * 5 + ["b"] * 4 + ["c"] * 9
    pl.DataFrame({"user_id": users}).write_parquet(tmp_path / HISTORIES)
    assert sorted(known_users(tmp_path, 10, 0)) == ["a", "c"]
    assert len(known_users(tmp_path, 1, 0)) == 1
