"""Words and meaning together, by hand: which item fits what is asked for, and which may be said to match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conf.schema import IndexConfig
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray
from features.text.item_text import TextTemplate, render_text
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.searcher import VectorSearcher
from ranking.words.live_words import LiveWords
from ranking.words.text_match import MATCH_SHARE, WORDS_WEIGHT, ChanceSimilarity, TextMatch
from ranking.words.word_index import WordIndex

TITLES = ["Oat drink", "Milk", "Almond milk", "Banana", "Kiwi", None]
# Most tests ask for the first axis: the oat drink means it most, then milk; the silent item most of all.
VECTORS = np.array([[0.8, 0.6], [0.6, 0.8], [0.5, 0.75**0.5], [0, 1], [-0.6, 0.8], [1, 0]], dtype=np.float32)
ASKED = np.array([1, 0], dtype=np.float32)
NONE: IntArray = np.zeros(0, dtype=np.int32)


@pytest.fixture
def texts() -> TextMatch:
    template = TextTemplate(("title",))
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(6)], "title": TITLES})
    catalogue = Catalogue(frame.with_columns(render_text(frame, template)))
    words = LiveWords(WordIndex.build(catalogue, template))
    index = VectorIndex.build(VECTORS, IndexConfig())
    return TextMatch(
        VECTORS, index, words, np.zeros(6, np.float32), None, ChanceSimilarity(VECTORS[:5], 0.55)
    )


def best(
    texts: TextMatch, said: str, k: int = 6, exclude: IntArray = NONE, allowed: BoolArray | None = None
) -> list[int]:
    rows: list[int] = texts.best(texts.query(ASKED, said), k, exclude, allowed)[0].tolist()
    return rows


def shares(texts: TextMatch, said: str) -> FloatArray:
    heard = texts.query(ASKED, said).matches
    assert heard is not None
    found = np.zeros(6, dtype=np.float32)
    found[heard.rows] = heard.shares
    return found


def test_fit_is_cosine_and_share_of_the_words(texts: TextMatch) -> None:
    rows = np.arange(5, dtype=np.int32)
    fit = texts.fit(texts.query(ASKED, "oat milk"), rows)
    expected = VECTORS[:5, 0] + WORDS_WEIGHT * shares(texts, "oat milk")[:5]
    assert fit.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    # Oat is rarer than milk, and means more of what is asked for.
    assert best(texts, "oat milk") == [0, 1, 2, 3, 4]


def test_without_words_meaning_decides(texts: TextMatch) -> None:
    assert best(texts, "") == best(replace(texts, words=texts.words), "qqq") == [0, 1, 2, 3, 4]
    assert best(replace(texts, words=None), "banana") == [5, 0, 1, 2, 3, 4]


def test_a_word_outweighs_a_likeness_and_a_name_everything(texts: TextMatch) -> None:
    assert best(texts, "almond")[0] == 2
    assert best(texts, "kiwi")[0] == 4
    assert best(texts, "I4")[0] == 4
    assert texts.fit(texts.query(ASKED, "kiwi"), np.array([4], np.int32))[0] > 2 - 0.6
    assert texts.fit(texts.query(ASKED, "i4"), np.array([4], np.int32)).tolist() == pytest.approx([6 - 0.6])


def test_who_says_nothing_is_found_by_its_id_alone(texts: TextMatch) -> None:
    assert 5 not in best(texts, "item")
    assert 5 not in best(texts, "milk")
    assert best(texts, "i5")[0] == 5
    assert not texts.matches(texts.query(ASKED, "item"), np.array([5], np.int32))[0]


@pytest.mark.parametrize("said", ["milk", "banana", "kiwi", "i1", "oat drink", ""])
def test_what_must_not_appear_does_not_and_the_others_fill_the_list(texts: TextMatch, said: str) -> None:
    allowed = np.array([True, False, True, True, True, False])
    assert set(best(texts, said, allowed=allowed)) == {0, 2, 3, 4}
    assert set(best(texts, said, exclude=np.array([1, 5], np.int32))) == {0, 2, 3, 4}
    hidden = replace(texts, hidden=~allowed, index=_Without(texts.index, allowed))
    assert set(best(hidden, said)) == {0, 2, 3, 4}
    assert len(best(texts, said, k=2, allowed=allowed)) == 2


class _Without(VectorSearcher):
    """An index that leaves hidden rows out, as that of a catalogue that changes does."""

    def __init__(self, index: VectorSearcher, shown: BoolArray) -> None:
        self.index, self.shown = index, shown

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        return self.index.search(queries, k, self.shown if allowed is None else self.shown & allowed)


def test_of_equal_items_the_popular_ones_are_proposed() -> None:
    """More items have the word than are looked at: nobody is left out for the number of its row."""
    count = 1500
    template = TextTemplate(("title",))
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(count)], "title": ["Milk"] * count})
    catalogue = Catalogue(frame.with_columns(render_text(frame, template)))
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (count, 1))
    popularity = np.zeros(count, dtype=np.float32)
    popularity[[1499, 700]] = [2.0, 1.0]
    index = VectorIndex.build(vectors, IndexConfig())
    texts = TextMatch(vectors, index, LiveWords(WordIndex.build(catalogue, template)), popularity)
    assert texts.best(texts.query(ASKED, "milk bottle"), 3, NONE)[0].tolist() == [1499, 700, 0]


def test_it_matches_by_its_words_by_its_name_or_by_unusual_likeness(texts: TextMatch) -> None:
    rows = np.arange(6, dtype=np.int32)
    threshold = texts.chance_similarity.threshold(ASKED)
    assert threshold == pytest.approx(float(np.quantile(VECTORS[:5, 0], 0.99)))
    assert 0.6 < threshold < 0.8
    for said, expected in [("qqq", [0]), ("milk", [0, 1, 2]), ("i5", [0, 5])]:
        assert np.flatnonzero(texts.matches(texts.query(ASKED, said), rows)).tolist() == expected
    apart = replace(
        texts, cached_chance=ChanceSimilarity(VECTORS[:5], 0.9)
    )  # texts that are all rather alike
    assert not apart.matches(apart.query(ASKED, "qqq"), rows).any()
    long = "milk " + " ".join(f"zz{n}" for n in range(9))
    assert 0 < shares(texts, long)[1] < MATCH_SHARE
    assert not apart.matches(apart.query(ASKED, long), rows).any()


def test_usual_likeness_is_that_of_pairs_of_items() -> None:
    usual = ChanceSimilarity.of(VECTORS)
    pairs = (VECTORS @ VECTORS.T)[np.triu_indices(6, 1)]
    assert usual.floor == pytest.approx(float(np.quantile(pairs, 0.99)))
    assert ChanceSimilarity.of(VECTORS[:1]).floor == 1.0
    assert ChanceSimilarity(VECTORS, 0.99).threshold(np.array([0, -1], np.float32)) == 0.99
